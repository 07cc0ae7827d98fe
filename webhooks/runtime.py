"""The parts of a delivery process: built at its start, drained at SIGTERM, stopped at its end."""

import os
import random
import secrets
import socket
import threading
from datetime import timedelta

import structlog

from core import process
from core.database import Database
from core.exporter import Exporter
from core.metrics import new_registry
from core.settings import Settings
from core.vault import Vault
from jobs.operation_runner import OperationRunner
from jobs.queue import RedisWakeup
from jobs.store.purge import Periods
from jobs.store.storage import Quota
from net.client import GuardedClient
from webhooks import policy, purge
from webhooks import secrets as webhook_secrets
from webhooks.dispatcher import Dispatcher
from webhooks.metrics import DeliveryMetrics
from webhooks.sender import Sender
from webhooks.signer import SecretSigner

_log = structlog.get_logger(__name__)

#: What a lease has besides the timeout of an attempt: time to reach a thread, and to write the result.
_SPARE_SECONDS = 30.0


class DeliveryRuntime:
    """All parts of a delivery process, wired. A wakeup calls :meth:`wake`.

    Args:
        settings: of the process.
        egress: sends requests; closed at the end.
        vault: opens the secrets that sign; by default that of the installation.
    """

    def __init__(
        self, settings: Settings, *, egress: GuardedClient, vault: Vault | None = None
    ) -> None:
        rng = random.Random()  # noqa: S311 - jitter, not secrets
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.database = Database(settings.database, pool_size=policy.SLOTS // 4)
        self.database.public_url = settings.public_url
        registry = new_registry(revision=settings.revision)
        DeliveryMetrics(self.database, registry=registry)
        self._exporter = Exporter(registry, host=settings.metrics_host, port=settings.metrics_port)
        self._stopping = threading.Event()
        self._egress = egress
        signer = SecretSigner(
            self.database,
            vault=vault or webhook_secrets.installation_vault(settings, self.database),
        )
        quota = Quota(self.database, default_mb=settings.storage_mb_per_account)
        sender = Sender(
            self.database,
            signer=signer,
            egress=egress,
            seconds=settings.webhook_seconds,
            rng=rng,
            give_up=self._stopping,
            keeps=quota.has_room,
        )
        self._jobs_wakeup = RedisWakeup(settings)
        self._operations = OperationRunner(
            self.database,
            settings,
            owner=self.owner,
            wakeup=self._jobs_wakeup,
            remove_copies=purge.reduce_jobs,
            remove_account=purge.remove_account,
        )
        self.dispatcher = Dispatcher(
            self.database,
            owner=self.owner,
            lease=timedelta(seconds=settings.webhook_seconds + _SPARE_SECONDS),
            send=sender.send,
            periods=Periods.of(settings),
        )

    def start(self) -> None:
        """Start the threads; the process lives no longer than each of them."""
        process.exit_on_thread_death()
        self._exporter.start()
        self.dispatcher.start()
        self._operations.start()
        _log.info("delivery_started", worker=self.owner)

    def wake(self) -> None:
        """Handle a wakeup: check at once whether something is due."""
        self.dispatcher.wake()

    def drain(self) -> None:
        """Start to drain: claim nothing more. Safe in a signal handler."""
        self.dispatcher.request_stop()
        self._operations.request_stop()

    def stop(self) -> None:
        """Stop everything, after the last attempt has ended, each within its timeout."""
        self._stopping.set()
        self._operations.stop()
        self.dispatcher.stop()
        self._jobs_wakeup.close()
        self._egress.close()
        self._exporter.stop()
        self.database.close()
        _log.info("delivery_stopped", worker=self.owner)
