"""A webhook sender that a test kills: the service's code without Celery."""

from __future__ import annotations

import signal
import threading

from core.vault import Vault
from net.client import GuardedClient
from tests.chaos import victims
from webhooks.runtime import DeliveryRuntime


def sender(environment: victims.Environment) -> None:
    """Deliver until SIGTERM."""
    settings = victims.begin(environment, "delivery")
    runtime = DeliveryRuntime(
        settings, vault=Vault.of(settings), egress=GuardedClient(settings.webhook_allow)
    )
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    runtime.start()
    leaving.wait()
    runtime.stop()
