"""Wakeups through Celery and Redis. A wakeup says that there may be work, without content; the work is in SQL.

Redis loses and duplicates messages, so nothing depends on one: the sweeper replaces a lost wakeup, and a duplicate
finds nothing to claim. A request never waits until a wakeup is sent.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery
from kombu import Queue
from kombu.exceptions import KombuError

from core import errors, failpoints, redis_check
from core.background import BackgroundLoop
from core.outage import Outage
from core.redis_prefix import RedisPrefix
from core.redis_url import RedisURL
from core.settings import Settings

REASON = "reason"
DELIVER = "deliver"
#: The most wakeups in Redis. A slot works until nothing is left to claim, so further wakeups would only fill Redis and
#: wake slots in vain.
_MOST_WAITING = 1_000
#: Seconds between two wakeups of the delivery process by one sender. Each job causes two.
_DELIVER_GAP = 0.1

#: Socket options that matter in practice: without the timeouts a half-open connection never ends.
_TRANSPORT: dict[str, Any] = {
    "visibility_timeout": 7200,
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": False,
    "max_connections": 64,
}


def make_celery(
    settings: Settings,
    *,
    wakes: str,
    slots: int = 1,
    publisher: bool = False,
    prefix: str | None = None,
) -> Celery:
    """Return the Celery app of a process that receives the wakeups ``wakes``, or of one that only sends them.

    The settings follow crash tests of Celery 5.7 on Redis: early acknowledgement (with the late one, a job runs
    twice after every reset), no prefetch, no ETA, no result backend, no remote control. A sender has short time-outs.

    Args:
        settings: of the process.
        wakes: the queue, and the task that a message of it starts.
        slots: how many tasks run at once.
        publisher: whether the app only sends.
        prefix: of all keys; None: :mod:`core.celery_process` sets it before the app connects.
    """
    address = RedisURL.parse(settings.redis_url)
    app = Celery("longlook", broker=address.broker)
    transport = (
        _TRANSPORT
        | ({"socket_timeout": 1, "socket_connect_timeout": 1} if publisher else {})
        | address.transport(seconds=1 if publisher else 3)
        | ({} if prefix is None else {"global_keyprefix": prefix})
    )
    app.conf.update(
        broker_use_ssl=address.tls or False,
        task_default_queue=wakes,
        task_queues=[Queue(wakes)],
        task_ignore_result=True,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_publish_retry=False,
        task_serializer="json",
        accept_content=["json"],
        worker_pool="threads",
        worker_concurrency=slots,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_soft_shutdown_timeout=0,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options=transport,
    )
    return app


class RedisWakeup:
    """Sends wakeups from its own thread, so that a caller never waits for Redis. Drops those that it cannot send.

    Args:
        settings: have the URL of Redis.
        task: the Celery task: :data:`REASON` for workers, :data:`DELIVER` for webhook senders.
        prefix: returns the prefix of all keys; None: that of the settings or of their database.
    """

    def __init__(
        self, settings: Settings, *, task: str = REASON, prefix: Callable[[], str] | None = None
    ) -> None:
        self._settings = settings
        self._task = task
        self._prefix = prefix or RedisPrefix(settings)
        # A delivery process handles all that is due at once: one wakeup is enough, and several in a row become one.
        self._most_waiting, self._gap = (
            (1, _DELIVER_GAP) if task == DELIVER else (_MOST_WAITING, 0.0)
        )
        self._celery: Celery | None = None
        self._redis = RedisURL.parse(settings.redis_url).client(seconds=1)
        self._lock = threading.Lock()
        self._wanted = 0
        self._outage = Outage("redis", use=f"wakeup:{task}")
        self._loop = BackgroundLoop(
            "wakeup", self._publish_wanted, after=self._publish_wanted, join_seconds=3
        )

    def notify(self, times: int = 1) -> None:
        """Send ``times`` wakeups soon; return at once."""
        with self._lock:
            if self._loop.stopping or times <= 0:
                return
            self._wanted += times
        # The thread starts at the first wakeup, in the process that sends it: threads do not survive a fork.
        self._loop.start()
        self._loop.wake()

    def waiting(self) -> int | None:
        """Return the number of wakeups in Redis, or None when it does not answer."""
        try:
            return self._length()
        except (errors.Unavailable, redis.RedisError):
            return None

    def problem(self) -> str | None:
        """Return why Redis does not take what work needs, as one sentence; None: it does."""
        return redis_check.problem(self._redis, self._prefix)

    def close(self) -> None:
        """Send the last wakeups, stop the thread, and close the connections."""
        self._loop.stop()
        with contextlib.suppress(redis.RedisError):
            self._redis.close()
        if self._celery is not None:
            self._celery.close()

    def _publish_wanted(self) -> None:
        with self._lock:
            times, self._wanted = self._wanted, 0
        if times:
            self._loop.pause(self._publish(times))

    def _publish(self, times: int) -> float:
        """Send wakeups; return the seconds until the next ones."""
        try:
            self._send(times)
        except errors.Unavailable:
            return self._outage.lost(redis_check.UNKNOWN_PREFIX)
        except (KombuError, redis.RedisError, OSError, failpoints.FailpointFault) as error:
            return self._outage.lost(redis_check.meaning(error))
        self._outage.back()
        return self._gap

    def _send(self, times: int) -> None:
        waiting = self._length()
        if self._celery is None:
            self._celery = make_celery(
                self._settings, wakes=self._task, publisher=True, prefix=self._prefix()
            )
        for _ in range(min(times, self._most_waiting - waiting)):
            failpoints.hit("wakeup", "publish")
            self._celery.send_task(self._task, queue=self._task, ignore_result=True, retry=False)
            failpoints.hit("wakeup", "published")

    def _length(self) -> int:
        return int(str(self._redis.llen(self._prefix() + self._task)))
