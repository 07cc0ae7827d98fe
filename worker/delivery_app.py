"""The Celery app that tells receivers: ``celery -A worker.delivery_app worker``. Its import builds something, too.

A bell only wakes the dispatcher, which has threads of its own: two slots of Celery's are plenty.
"""

from __future__ import annotations

from jobs import queue
from jobs.egress import Egress
from jobs.settings import Settings
from jobs.vault import Vault
from worker import tasks
from worker.delivery_runtime import DeliveryRuntime
from worker.signing import Signing

settings = Settings.read()


def _build() -> DeliveryRuntime:
    vault = Vault.of(settings)
    return DeliveryRuntime(
        settings,
        signer=lambda database: Signing(database, vault=vault),
        egress=Egress(settings.webhook_allow),
    )


app = queue.make_celery(settings, hears=queue.DELIVER, slots=2)
tasks.house(app, settings, task=queue.DELIVER, service="delivery", build=_build)
