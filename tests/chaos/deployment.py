"""The whole service as real processes that can be hurt: each has a place, and comes back to it when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.database import Database
from jobs.store import accounts
from tests import children, databases, postgres, webhooks
from tests.chaos.proxy import Proxy
from tests.e2e.stack import Stack, eventually, free_port
from tests.receivers import Receiver, receiving
from tests.redis_servers import RedisServer
from webhooks import policy

ROOT = Path(__file__).resolve().parents[2]
LEASE_SECONDS = 3.0
DRAIN_SECONDS = 1.0
CRASH_LIMIT = 3
WORKERS = ("worker-1", "worker-2", "worker-3")
DELIVERIES = ("delivery-1", "delivery-2")
#: Fewer than the slots of all workers, so that the engine refuses some streams for lack of room.
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
    # It is the storm that kills engines, not the pictures.
    "LONGLOOK_QUARANTINE_CRASHES": "1000",
    "LONGLOOK_WATCH_SECONDS": "0.3",
    "LONGLOOK_FLUSH_SECONDS": "0.3",
    "LONGLOOK_WORKER_SLOTS": "6",
    # All clients share one key, and look often.
    "LONGLOOK_REQUESTS_PER_MINUTE": "1000000",
    "LONGLOOK_API_THREADS": "16",
    # Short, for a lease is half a minute longer, and what a killed sender left waits for its end.
    "LONGLOOK_WEBHOOK_SECONDS": "2",
    "LONGLOOK_ENGINE_CONNECT_SECONDS": "2",
    "LONGLOOK_ENGINE_FIRST_TOKEN_SECONDS": "6",
    "LONGLOOK_ENGINE_TOKEN_SECONDS": "3",
    "PYTHONPATH": str(ROOT),
}


@dataclass
class Place:
    """Where a process runs that is started again whenever it ends.

    Attributes:
        start: starts it.
        process: the one that runs, or ran last.
        woken: how long the place's log was before that one.
        stopped: whether it has been told to stand still.
        down: whether it is kept from coming back.
        leaving: since when it has been asked to end by itself (monotonic), or None.
    """

    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    woken: int = 0
    stopped: bool = False
    down: bool = False
    leaving: float | None = None

    @property
    def well(self) -> bool:
        """Whether it runs and nothing has been done to it."""
        return (
            self.process.poll() is None and not (self.stopped or self.down) and self.leaving is None
        )


@dataclass(frozen=True)
class Departure:
    """How a process ended: its place, its exit status, and whether it had been asked to."""

    place: str
    status: int
    requested: bool


class Deployment:
    """Everything that runs. :meth:`tend` starts again what has ended.

    Args:
        folder: for sockets, logs and data; its path is short.
        database: ``sqlite`` or ``postgresql``.
        fenced: False lets workers write what is no longer theirs: the control.
    """

    def __init__(self, folder: Path, *, database: str, fenced: bool = True) -> None:
        self.folder = folder
        self.fenced = fenced
        self.places: dict[str, Place] = {}
        self.departures: list[Departure] = []
        self._exits = contextlib.ExitStack()
        self.redis = RedisServer(self._folder("redis"))
        self._postgres_folder = self._folder("postgres")
        self.postgres: postgres.Server | None = None
        self._engine_port, self._api_port = free_port(), free_port()
        self.redis_proxy = Proxy(lambda: asyncio.open_unix_connection(self.redis.socket))
        self.engine_proxy = Proxy(lambda: asyncio.open_connection("127.0.0.1", self._engine_port))
        self._database = database

    @property
    def engine_url(self) -> str:
        """The engine itself, not through its proxy."""
        return f"http://127.0.0.1:{self._engine_port}"

    @property
    def api_url(self) -> str:
        """The API."""
        return f"http://127.0.0.1:{self._api_port}"

    @property
    def deliveries(self) -> dict[str, Place]:
        """The places of those who tell receivers."""
        return {name: self.places[name] for name in DELIVERIES}

    @property
    def workers(self) -> dict[str, Place]:
        """The places of the workers."""
        return {name: self.places[name] for name in WORKERS}

    def start(self) -> None:
        """Start everything and wait until it answers."""
        self.redis.start()
        self._exits.callback(self.redis.stop)
        self._exits.enter_context(self.redis_proxy)
        self._exits.enter_context(self.engine_proxy)
        self.stack = Stack(
            self.folder,
            self._start_database(),
            f"redis://{self.redis_proxy.address}/0",
            self.engine_url,
            variables=_VARIABLES,
        )
        self._exits.callback(self._stop_processes)
        self.receiver: Receiver = self._exits.enter_context(receiving())
        self._listen()
        self._place("engine", self._start_engine)
        self._place("api", lambda: self.stack.spawn_api(self._api_port))
        for name in WORKERS:
            self._place(name, self._worker(name))
        for name in DELIVERIES:
            self._place(name, functools.partial(self.stack.start_delivery, name))
        self.stack.url = self.api_url
        if not eventually(self.stack.ready):
            raise RuntimeError(f"the API did not come up:\n{self.stack.log('api')}")

    def close(self) -> None:
        """Kill everything."""
        self._exits.close()

    def tend(self) -> None:
        """Start again what has ended, and note how it ended."""
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
        """Whether a worker has come up: before, SIGTERM ends it like any program."""
        return " ready." in self.stack.log(name)[self.places[name].woken :]

    def kill(self, name: str) -> None:
        """Kill what runs at a place, its children first."""
        self.kill_children(name)
        self.places[name].leaving = None
        process = self.places[name].process
        process.kill()
        process.wait()

    def kill_children(self, name: str) -> None:
        """Kill what the process at a place has started."""
        for pid in children.of(self.places[name].process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def ask_to_leave(self, name: str) -> None:
        """Send SIGTERM."""
        place = self.places[name]
        place.leaving = time.monotonic()
        place.process.send_signal(signal.SIGTERM)

    def freeze(self, name: str) -> None:
        """Let a process stand still until :meth:`thaw`."""
        self.places[name].stopped = True
        self.places[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a process go on."""
        self.places[name].stopped = False
        self.places[name].process.send_signal(signal.SIGCONT)

    def restart_database(self) -> None:
        """Stop PostgreSQL without a last word and start it again."""
        if self.postgres is not None:
            self.postgres.restart(log=self._postgres_folder / "log")

    def logged(self, *names: str) -> Iterator[str]:
        """Yield the lines that processes have logged."""
        for name in names:
            yield from self.stack.log(name).splitlines()

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _listen(self) -> None:
        """Register the receiver for all that happens."""
        with contextlib.closing(Database(self.stack.database_url)) as database:
            account_id = accounts.account_id(database, "default")
            webhooks.make_endpoint(
                database, account_id, url=self.receiver.url, event_types=[*policy.EventType]
            )

    def _start_database(self) -> str:
        if self._database == "sqlite":
            folder = children.memory_folder()
            self._exits.callback(shutil.rmtree, folder, ignore_errors=True)
            url = f"sqlite:///{folder / 'longlook.db'}"
        else:
            # The one who owns the cluster must reach its socket.
            self.folder.chmod(0o755)
            self.postgres = postgres.start(self._postgres_folder)
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
        # One of them has no proxy before it: a dead engine refuses it, and hangs up on the others.
        through = self.engine_url if name == WORKERS[-1] else f"http://{self.engine_proxy.address}"
        app = _FENCED if self.fenced else _UNFENCED
        flags = "--without-gossip --without-mingle --without-heartbeat"
        command = f"celery -A {app} worker {flags}".split()
        return lambda: self.stack.spawn(name, command, LONGLOOK_ENGINE_URLS=through)

    def _place(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.places[name] = Place(start=start, process=start())

    def _stop_processes(self) -> None:
        for name in self.places:
            self.kill(name)
