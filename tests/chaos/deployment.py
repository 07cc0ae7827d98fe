"""The whole service as real processes for fault injection: a process that dies restarts in its place."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.database import Database
from jobs.store import accounts
from tests import children, databases, postgres, webhooks
from tests.chaos.proxy import Proxy
from tests.e2e.stack import Stack, eventually, free_port, running
from tests.receivers import Receiver, receiving
from tests.redis_servers import RedisServer
from webhooks import policy

ROOT = Path(__file__).resolve().parents[2]
LEASE_SECONDS = 3.0
DRAIN_SECONDS = 1.0
CRASH_LIMIT = 3
WORKERS = ("worker-1", "worker-2", "worker-3")
DELIVERIES = ("delivery-1", "delivery-2")
#: Fewer than the slots of all workers, so that the engine refuses some generations because it is full.
ENGINE_OPTIONS = (
    "tokens_per_second=160",
    "prefill_tokens_per_second=0",
    "window=8",
    "max_queued=1",
    "markers=true",
    "disconnect_seconds=1",
)
_FENCED = "worker.app"
_UNFENCED = "tests.chaos.unfenced_worker"
_VARIABLES = {
    "LONGLOOK_LEASE_SECONDS": str(LEASE_SECONDS),
    "LONGLOOK_DRAIN_SECONDS": str(DRAIN_SECONDS),
    "LONGLOOK_CRASH_LIMIT": str(CRASH_LIMIT),
    # The faults kill engines, not the images.
    "LONGLOOK_QUARANTINE_CRASHES": "1000",
    "LONGLOOK_WATCH_SECONDS": "0.3",
    "LONGLOOK_FLUSH_SECONDS": "0.3",
    "LONGLOOK_WORKER_SLOTS": "6",
    # All clients share one key and send many requests.
    "LONGLOOK_REQUESTS_PER_MINUTE": "1000000",
    "LONGLOOK_API_THREADS": "16",
    # Short, because a lease is half a minute longer, and the attempts of a killed sender wait for its end.
    "LONGLOOK_WEBHOOK_SECONDS": "2",
    "LONGLOOK_ENGINE_CONNECT_SECONDS": "2",
    "LONGLOOK_ENGINE_FIRST_TOKEN_SECONDS": "6",
    "LONGLOOK_ENGINE_TOKEN_SECONDS": "3",
    "PYTHONPATH": str(ROOT),
}


@dataclass
class Place:
    """A place for a process that restarts whenever it ends.

    Attributes:
        start: starts the process.
        process: the current or last process.
        woken: length of the place's log before this process started.
        stopped: whether the process is frozen.
        down: whether it must not restart.
        leaving: when it was asked to exit (monotonic), or None.
    """

    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    woken: int = 0
    stopped: bool = False
    down: bool = False
    leaving: float | None = None

    @property
    def well(self) -> bool:
        """Whether it runs without an injected fault."""
        return (
            self.process.poll() is None and not (self.stopped or self.down) and self.leaving is None
        )


@dataclass(frozen=True)
class Departure:
    """The exit of a process: its place, its status, and whether it was requested."""

    place: str
    status: int
    requested: bool


class Deployment:
    """All processes. :meth:`tend` restarts the ones that have ended.

    Args:
        folder: for sockets, logs and data; its path is short.
        database: ``sqlite`` or ``postgresql``.
        fenced: False lets workers write to jobs that they have lost, for the control.
    """

    worker_names: Sequence[str] = WORKERS
    in_namespaces = False

    def __init__(self, folder: Path, *, database: str, fenced: bool = True) -> None:
        self.folder = folder
        self.fenced = fenced
        self.places: dict[str, Place] = {}
        self.departures: list[Departure] = []
        self._exits = contextlib.ExitStack()
        self.redis = RedisServer(self._folder("redis"))
        self.postgres_folder = self._folder("postgres")
        self.postgres: postgres.Server | None = None
        self._engine_port, self._api_port = free_port(), free_port()
        self.redis_proxy = Proxy(lambda: asyncio.open_unix_connection(self.redis.socket))
        self.engine_proxy = Proxy(lambda: asyncio.open_connection("127.0.0.1", self._engine_port))
        self._database = database

    @property
    def engine_url(self) -> str:
        """The engine's URL without its proxy."""
        return f"http://127.0.0.1:{self._engine_port}"

    def generations(self) -> int:
        """Return the number of generations that the engine currently runs."""
        return running(self.engine_url)

    @property
    def api_url(self) -> str:
        """The URL of the API."""
        return f"http://127.0.0.1:{self._api_port}"

    @property
    def deliveries(self) -> dict[str, Place]:
        """The places of the webhook senders."""
        return {name: self.places[name] for name in DELIVERIES}

    @property
    def workers(self) -> dict[str, Place]:
        """The places of the workers."""
        return {name: self.places[name] for name in self.worker_names}

    def start(self) -> None:
        """Start all processes and wait until they answer."""
        self._start_redis()
        self._exits.callback(self.redis.stop)
        self._exits.enter_context(self.redis_proxy)
        self._exits.enter_context(self.engine_proxy)
        self.stack = Stack(
            self.folder,
            self._start_database(),
            f"redis://{self.redis_proxy.address}/0",
            self.engine_url,
            variables=_VARIABLES,
            in_namespaces=self.in_namespaces,
        )
        self._exits.callback(self._stop_processes)
        self.receiver: Receiver = self._exits.enter_context(receiving())
        self._listen()
        self.place("engine", self._start_engine)
        self.place("api", lambda: self.stack.spawn_api(self._api_port))
        for name in self.worker_names:
            self.place(name, self._worker(name))
        for name in DELIVERIES:
            self.place(name, functools.partial(self.stack.start_delivery, name))
        self.stack.url = self.api_url
        if not eventually(self.stack.ready):
            raise RuntimeError(f"the API did not come up:\n{self.stack.log('api')}")

    def close(self) -> None:
        """Kill everything."""
        self._exits.close()

    def tend(self) -> None:
        """Restart processes that have ended, and record how they ended."""
        for name, place in self.places.items():
            status = place.process.poll()
            if status is None or place.down:
                continue
            requested = place.leaving is not None
            self.departures.append(Departure(place=name, status=status, requested=requested))
            place.stopped, place.leaving = False, None
            place.woken = len(self.stack.log(name))
            place.process = place.start()

    def up(self, name: str) -> bool:
        """Whether a worker is up; before that, SIGTERM ends it like any program."""
        return " ready." in self.stack.log(name)[self.places[name].woken :]

    def kill(self, name: str) -> None:
        """Kill the process of a place, its children first."""
        self.kill_children(name)
        self.places[name].leaving = None
        process = self.places[name].process
        process.kill()
        process.wait()

    def kill_children(self, name: str) -> None:
        """Kill the children of a place's process."""
        for pid in children.of(self.places[name].process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def ask_to_leave(self, name: str) -> None:
        """Send SIGTERM."""
        place = self.places[name]
        place.leaving = time.monotonic()
        place.process.send_signal(signal.SIGTERM)

    def freeze(self, name: str) -> None:
        """Suspend a process until :meth:`thaw`; return when it has stopped."""
        self.places[name].stopped = True
        children.freeze(self.places[name].process.pid)

    def thaw(self, name: str) -> None:
        """Resume a process."""
        self.places[name].stopped = False
        self.places[name].process.send_signal(signal.SIGCONT)

    def restart_database(self) -> None:
        """Kill PostgreSQL and start it again."""
        if self.postgres is not None:
            self.postgres.restart(log=self.postgres_folder / "log")

    def logged(self, *names: str) -> Iterator[str]:
        """Yield the log lines of processes."""
        for name in names:
            yield from self.stack.log(name).splitlines()

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _listen(self) -> None:
        """Register the receiver for all notifications."""
        with contextlib.closing(Database(self.stack.database_url)) as database:
            account_id = accounts.account_id(database, "default")
            webhooks.make_endpoint(
                database, account_id, url=self.receiver.url, event_types=[*policy.EventType]
            )

    def _start_redis(self) -> None:
        self.redis.start()

    def _start_postgres(self) -> postgres.Server:
        return postgres.start(self.postgres_folder)

    def _start_database(self) -> str:
        if self._database == "sqlite":
            folder = children.memory_folder()
            self._exits.callback(shutil.rmtree, folder, ignore_errors=True)
            url = f"sqlite:///{folder / 'longlook.db'}"
        else:
            # The owner of the cluster must be able to reach its socket.
            self.folder.chmod(0o755)
            self.postgres = self._start_postgres()
            self._exits.callback(self.postgres.stop)
            name = self.postgres.create()
            self._exits.callback(self.postgres.drop, name)
            url = self.postgres.url(name)
        databases.migrate(url)
        return url

    def _start_engine(self) -> subprocess.Popen[bytes]:
        port = str(self._engine_port)
        command = ["longlook", "engine", "--scripted", "--port", port, "--", *ENGINE_OPTIONS]
        return self.stack.spawn("engine", command)

    def _worker(self, name: str) -> Callable[[], subprocess.Popen[bytes]]:
        # One worker has no proxy: a dead engine refuses its connections and closes those of the others.
        through = self.engine_url if name == WORKERS[-1] else f"http://{self.engine_proxy.address}"
        app = _FENCED if self.fenced else _UNFENCED
        flags = "--without-gossip --without-mingle --without-heartbeat"
        command = f"celery -A {app} worker {flags}".split()
        return lambda: self.stack.spawn(name, command, LONGLOOK_ENGINE_URLS=through)

    def place(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        """Start a process that restarts whenever it ends."""
        self.places[name] = Place(start=start, process=start())

    def _stop_processes(self) -> None:
        for name in self.places:
            self.kill(name)
