"""The Celery app that tells receivers: ``celery -A webhooks.app worker``. Its import builds something, too.

A bell only wakes the dispatcher, which has threads of its own: two slots of Celery's are plenty.
"""

from __future__ import annotations

from core import celery_process
from core.settings import Settings
from core.vault import Vault
from jobs import queue
from net.client import Egress
from webhooks.runtime import DeliveryRuntime
from webhooks.signer import Signing

settings = Settings.read()


def _build() -> DeliveryRuntime:
    vault = Vault.of(settings)
    return DeliveryRuntime(
        settings,
        signer=lambda database: Signing(database, vault=vault),
        egress=Egress(settings.webhook_allow),
    )


app = queue.make_celery(settings, hears=queue.DELIVER, slots=2)
celery_process.house(app, settings, task=queue.DELIVER, service="delivery", build=_build)
