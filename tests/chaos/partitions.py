"""Partitions of the network: workers on hosts of their own, which lose what they send or what is sent to them."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from core.database import Database
from jobs.lifecycle import Outcome
from jobs.records.attempts import Attempt
from tests import postgres
from tests.chaos.deployment import Deployment
from tests.chaos.storm import Fault
from tests.e2e.stack import running
from tests.namespaces import Host, Namespace
from tests.redis_servers import RedisServer

_NETWORK = "10.99.0.0/24"
REDIS, SQL, ENGINE = "10.99.0.1", "10.99.0.2", "10.99.0.3"
_REDIS_PORT, _ENGINE_PORT = 6379, 30000
#: A worker next to the servers, and three with a host of their own.
NEAR = "near"
FAR = ("far-1", "far-2", "far-3")
#: Room for all slots, and slow enough that a worker has a job most of the time.
_ENGINE_OPTIONS = (
    "tokens_per_second=80",
    "prefill_tokens_per_second=0",
    "window=16",
    "markers=true",
    "disconnect_seconds=1",
)
_NEAR_SLOTS, _FAR_SLOTS = 2, 4
_TICK_SECONDS = 0.1
#: Leases, timeouts of connections, and the growing pauses of TCP after a partition add up to less.
_WAIT_SECONDS = 120

_AttemptKey = tuple[uuid.UUID, int]


class PartitionedDeployment(Deployment):
    """PostgreSQL, Redis, the engine, and a worker in a hub, and workers on other hosts.

    API and webhook senders reach the servers over Unix sockets, which no partition affects.

    Args:
        folder: for sockets, logs and data; its path is short.

    Raises:
        tests.namespaces.Missing: there can be no hosts here.
    """

    worker_names = (NEAR, *FAR)
    in_namespaces = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, database="postgresql")
        self._hub = Namespace()
        self._exits.callback(self._hub.close)
        self.hosts: dict[str, Host] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            for address in (REDIS, SQL, ENGINE):
                self._hub.ip("addr", "add", f"{address}/32", "dev", "lo")
            for number, name in enumerate(FAR, 1):
                self.hosts[name] = Host(self._hub, number, network=_NETWORK)
                self._exits.callback(self.hosts[name].close)
            undo.pop_all()
        self.redis = RedisServer(
            folder / "redis",
            *("--port", str(_REDIS_PORT), "--bind", REDIS, "--protected-mode", "no"),
        )

    @property
    def engine_url(self) -> str:
        """The engine's URL within the network."""
        return f"http://{ENGINE}:{_ENGINE_PORT}"

    def generations(self) -> int:
        """Return the number of generations that the engine currently runs."""
        with self._hub.entered():
            return running(self.engine_url)

    def _start_redis(self) -> None:
        with self._hub.entered():
            self.redis.start()

    def _start_postgres(self) -> postgres.Server:
        allowed = self.postgres_folder / "allowed"
        allowed.write_text("local all all trust\nhost all all 10.0.0.0/8 trust\n")
        # The server runs as another user.
        allowed.chmod(0o644)
        with self._hub.entered():
            server = postgres.start(
                self.postgres_folder, f"listen_addresses={SQL}", f"hba_file={allowed}"
            )
        if not server.ours:
            raise postgres.Missing("the server that the environment names is on no host of a test")
        return server

    def _start_engine(self) -> subprocess.Popen[bytes]:
        command = ["longlook", "engine", "--scripted", "--host", ENGINE, "--port", _ENGINE_PORT]
        with self._hub.entered():
            return self.stack.spawn("engine", [*map(str, command), "--", *_ENGINE_OPTIONS])

    def _worker(self, name: str) -> Callable[[], subprocess.Popen[bytes]]:
        home = self.hosts[name].namespace if name in self.hosts else self._hub
        return functools.partial(self._start_worker, name, home)

    def _start_worker(self, name: str, home: Namespace) -> subprocess.Popen[bytes]:
        url = sa.make_url(self.stack.database_url).set(query={})
        with home.entered():
            return self.stack.start_worker(
                name,
                LONGLOOK_DATABASE_URL=url.set(host=SQL, port=int(postgres.PORT)).render_as_string(
                    hide_password=False
                ),
                LONGLOOK_REDIS_URL=f"redis://{REDIS}:{_REDIS_PORT}/0",
                LONGLOOK_WORKER_SLOTS=str(_NEAR_SLOTS if name == NEAR else _FAR_SLOTS),
            )


class Partitions:
    """Injects partitions; each lasts until its effect is seen in the database.

    Use it in the thread that created it, whose children the processes are.
    """

    def __init__(self, deployment: PartitionedDeployment, database: Database) -> None:
        self.faults: list[Fault] = []
        self._deployment = deployment
        self._database = database

    def inject(self) -> None:
        """Separate three hosts from one server each; then lose all that one host sends, and all that one is sent."""
        first, second, third = (self._deployment.hosts[name] for name in FAR)
        self._wait_for_successes(NEAR, *FAR)
        self._partition(
            {
                FAR[0]: ("no Redis", functools.partial(first.lose_to, REDIS)),
                FAR[1]: ("no SQL", functools.partial(second.lose_to, SQL)),
                FAR[2]: ("no engine", functools.partial(third.lose_to, ENGINE)),
            },
            working=[NEAR, FAR[0]],
            lost=[FAR[1]],
        )
        self._partition(
            {
                FAR[1]: ("nothing is sent", functools.partial(second.lose_to, REDIS, SQL, ENGINE)),
                FAR[2]: ("nothing is received", third.lose_from_hub),
            },
            working=[NEAR, FAR[0]],
            lost=[FAR[1], FAR[2]],
        )

    def calm(self, seconds: float) -> None:
        """Restart dead processes for some seconds."""
        until = time.monotonic() + seconds
        pause = threading.Event()
        while time.monotonic() < until:
            self._deployment.tend()
            pause.wait(_TICK_SECONDS)

    def end(self) -> None:
        """Heal all hosts."""
        for host in self._deployment.hosts.values():
            host.heal()

    def _partition(
        self,
        cuts: dict[str, tuple[str, Callable[[], None]]],
        *,
        working: Sequence[str],
        lost: Sequence[str],
    ) -> None:
        """Inject the cuts of workers, and heal them once they have had their effect.

        Args:
            cuts: by worker, the kind of the fault and what injects it. All but those of ``working`` stop to work.
            working: the workers that must work nevertheless.
            lost: the workers whose attempts must end as lost.
        """
        held = {}
        for name, (kind, cut) in cuts.items():
            attempts, at = self._cut(name, cut)
            self.faults.append(Fault(kind, at, self._deployment.places[name].process.pid))
            held[name] = attempts if name not in working else set()
        self._wait_for_successes(*working)
        self._wait(
            lambda: all(self._ended(keys) for keys in held.values()), f"{[*held]} hold no old job"
        )
        for name in lost:
            assert Outcome.LOST in self._outcomes(held[name]), name
        self.end()
        self._wait_for_successes(NEAR, *FAR)

    def _cut(self, name: str, cut: Callable[[], None]) -> tuple[set[_AttemptKey], datetime]:
        """Cut a worker off while it runs attempts; return these, and when that was."""
        while True:
            self._wait(functools.partial(self._is_busy, name), f"{name} has jobs")
            at = self._now()
            cut()
            if attempts := self._open(name):
                return attempts, at
            # All of them ended before the cut.
            self._deployment.hosts[name].heal()

    def _wait_for_successes(self, *names: str) -> None:
        """Wait until each of the workers has finished a job that it claims from now on."""
        since = self._now()
        self._wait(lambda: all(self._succeeded(name, since) for name in names), f"{names} work")

    def _wait(self, what: Callable[[], bool], goal: str) -> None:
        until = time.monotonic() + _WAIT_SECONDS
        while not what():
            assert time.monotonic() < until, f"not within {_WAIT_SECONDS} s: {goal}"
            self.calm(_TICK_SECONDS)

    def _now(self) -> datetime:
        with self._database.reading() as transaction:
            return transaction.scalar(sa.select(transaction.now()))

    def _open(self, name: str) -> set[_AttemptKey]:
        """Return the attempts that a worker runs."""
        statement = sa.select(Attempt.job_id, Attempt.number).where(
            Attempt.outcome.is_(None), self._of(name)
        )
        with self._database.reading() as transaction:
            return {(row.job_id, row.number) for row in transaction.execute(statement)}

    def _is_busy(self, name: str) -> bool:
        """Whether a worker runs more than one attempt, which may end just before a cut."""
        return len(self._open(name)) > 1

    def _succeeded(self, name: str, since: datetime) -> bool:
        statement = sa.select(Attempt.job_id).where(
            Attempt.outcome == Outcome.SUCCEEDED, Attempt.claimed_at > since, self._of(name)
        )
        with self._database.reading() as transaction:
            return transaction.execute(statement.limit(1)).first() is not None

    def _ended(self, keys: Iterable[_AttemptKey]) -> bool:
        return None not in self._outcomes(keys)

    def _outcomes(self, keys: Iterable[_AttemptKey]) -> set[Outcome | None]:
        chosen = sa.tuple_(Attempt.job_id, Attempt.number).in_([*keys])
        with self._database.reading() as transaction:
            return {*transaction.session.scalars(sa.select(Attempt.outcome).where(chosen))}

    def _of(self, name: str) -> sa.ColumnElement[bool]:
        """Return the condition of an attempt of a worker's process; see :attr:`worker.runtime.WorkerRuntime.owner`."""
        return Attempt.worker.contains(f":{self._deployment.places[name].process.pid}:")
