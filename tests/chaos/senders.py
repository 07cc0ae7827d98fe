"""A webhook sender that a test kills: the service's code without Celery."""

from __future__ import annotations

import signal
import threading

from core.vault import Vault
from net.client import GuardedClient
from tests.chaos import victims
from webhooks.runtime import DeliveryRuntime
from webhooks.signer import SecretSigner


def sender(environment: victims.Environment) -> None:
    """Deliver until SIGTERM."""
    settings = victims.begin(environment, "delivery")
    vault = Vault.of(settings)
    runtime = DeliveryRuntime(
        settings,
        signer=lambda database: SecretSigner(database, vault=vault),
        egress=GuardedClient(settings.webhook_allow),
    )
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    runtime.start()
    leaving.wait()
    runtime.stop()
