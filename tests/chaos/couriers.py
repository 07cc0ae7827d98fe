"""A delivery process that a test kills: the service's own parts without Celery around them."""

from __future__ import annotations

import signal
import threading

from jobs.egress import Egress
from jobs.vault import Vault
from tests.chaos import victims
from worker.delivery_runtime import DeliveryRuntime
from worker.signing import Signing


def courier(environment: victims.Environment) -> None:
    """Deliver until SIGTERM."""
    settings = victims.begin(environment, "delivery")
    vault = Vault.of(settings)
    runtime = DeliveryRuntime(
        settings,
        signer=lambda database: Signing(database, vault=vault),
        egress=Egress(settings.webhook_allow),
    )
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    runtime.start()
    leaving.wait()
    runtime.stop()
