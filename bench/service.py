"""The service as the real processes of ``longlook up``, for benchmarks: API, worker, Redis, a scripted engine.

    with service.ground(options) as ground, service.running(ground, url) as running: ...

The engine is a separate process with an HTTP API; the database is new, SQLite or PostgreSQL.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from bench import postgres
from cli.launch import redis
from cli.launch.process import Process, Program
from cli.up import programs
from core import profiles
from core.database import Database
from core.settings import PREFIX, Settings
from jobs.lifecycle import Role
from jobs.store import accounts
from migrations import schema

#: QVQ's limits: a photograph exceeds tiny-qvq's context.
MODEL: Final = profiles.QVQ
ROOT: Final = programs.ROOT
#: A small image, for benchmarks in which the image does not matter.
SAMPLE: Final = ROOT / "models" / "tiny-qvq" / "samples" / "s07.png"

_START_SECONDS: Final = 60
_PEPPER: Final = "the pepper of the benchmarks"
_ENGINE: Final = """
import sys
from core import profiles
from scripted import ScriptedOptions, server
options = ScriptedOptions.parse(sys.argv[2])
server.serve("127.0.0.1", int(sys.argv[1]), options=options, profile=profiles.QVQ)
"""


@dataclass
class Ground:
    """The base of the service and its peers: a folder, Redis, an engine. Its processes end with it."""

    folder: Path
    stack: contextlib.ExitStack
    redis_url: str = ""
    engine_url: str = ""
    #: Processes by name.
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this process without settings of the service."""
        return programs.without_settings(os.environ)

    def start(self, program: Program) -> Process:
        """Start ``program``; an earlier one of the same name must have ended."""
        log = self.folder / f"{program.name}.log"
        process = Process(program, folder=ROOT, log=log)
        self.processes[program.name] = process
        self.stack.callback(stop, process)
        return process


@contextlib.contextmanager
def ground(options: str) -> Iterator[Ground]:
    """Yield a ground with Redis and a scripted engine.

    Args:
        options: of the engine, as :class:`scripted.ScriptedOptions` parses them.
    """
    folder = Path(tempfile.mkdtemp(prefix="ll-bench-"))
    # PostgreSQL runs as another user, in a folder below this one.
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Ground(folder, stack)
        path = folder / "redis.sock"
        made.redis_url = redis.url(path)
        server = redis.command(redis.binary(), path=path)
        wakeup = made.start(programs.redis(server, environ=os.environ))
        wait(lambda: redis.answers(path), wakeup)
        with listening() as free:
            port: int = free.getsockname()[1]
        made.engine_url = _local(port)
        command = (sys.executable, "-c", _ENGINE, str(port), options)
        engine = made.start(
            Program(name="engine", command=command, environment=made.environment, stop_seconds=5)
        )
        wait(lambda: Caller(made.engine_url).alive("/health"), engine)
        yield made


@dataclass
class Service:
    """A running API, and a worker once it is started."""

    ground: Ground
    wiring: programs.ProgramContext
    environ: Mapping[str, str]
    database: Database
    key: str
    api: Process

    def start_worker(self) -> Process:
        """Start the worker process, which claims jobs at once."""
        return self.ground.start(programs.worker(self.wiring, number=1, environ=self.environ))

    def caller(self) -> Caller:
        """Return a client with its own connection."""
        return Caller(_local(self.wiring.port), key=self.key)

    def upload(self) -> str:
        """Upload :data:`SAMPLE` and return its id."""
        image = SAMPLE.read_bytes()
        return str(self.caller().post("/v1/images", image, kind="image/png")["id"])


@contextlib.contextmanager
def running(ground: Ground, database_url: str, **settings: str) -> Iterator[Service]:
    """Yield the service on a new database; no worker runs yet.

    Args:
        ground: the base.
        database_url: a database without a schema.
        settings: further settings, by their names in lower case.
    """
    schema.upgrade(database_url)
    database = Database(database_url)
    key = accounts.new_key()
    accounts.create_key(
        database,
        key,
        pepper=_PEPPER.encode(),
        account=accounts.DEFAULT_ACCOUNT,
        role=Role.SUBMIT,
        name="bench",
    )
    unlimited = {"disk_floor_mb": "0", "requests_per_minute": "100000000"}
    reported = {"pepper": _PEPPER, **unlimited, **settings}
    environ = ground.environment | {f"{PREFIX}{name.upper()}": reported[name] for name in reported}
    with contextlib.closing(database), listening() as listener:
        wiring = programs.ProgramContext(
            settings=Settings.read(environ, home=ground.folder, database_url=database_url),
            redis_url=ground.redis_url,
            engine_urls=(ground.engine_url,),
            model=MODEL.name,
            port=listener.getsockname()[1],
        )
        api = ground.start(programs.api(wiring, listener=listener.fileno(), environ=environ))
        try:
            wait(lambda: Caller(_local(wiring.port)).alive("/readyz"), api)
            yield Service(ground, wiring, environ, database, key, api)
        finally:
            for name in ("worker-1", "api"):
                if name in ground.processes:
                    stop(ground.processes.pop(name))


@contextlib.contextmanager
def databases(ground: Ground, wanted: str) -> Iterator[dict[str, Callable[[], str]]]:
    """Yield, by the name of each requested and installed kind, a function that creates a database and returns its URL.

    Args:
        ground: the base, whose folder contains them.
        wanted: ``sqlite``, ``postgresql`` or ``both``.
    """
    makers: dict[str, Callable[[], str]] = {}
    if wanted != "postgresql":
        makers["SQLite"] = lambda: f"sqlite:///{ground.folder / uuid.uuid4().hex}.db"
    if wanted == "sqlite":
        yield makers
        return
    with postgres.running(ground.folder / "pg") as server:
        if server is None:
            print("PostgreSQL is not installed: its rows are left out.")
        else:
            ground.processes["postgres"] = server.process
            makers["PostgreSQL"] = server.create
        yield makers


class Caller:
    """A client with one open connection: a minimal ``http.client``."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def post(self, path: str, body: bytes, *, kind: str = "application/json") -> dict[str, Any]:
        """Return the JSON response to ``body``; an error ends the benchmark."""
        headers = {**self._headers, "Content-Type": kind}
        self._connection.request("POST", path, body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise SystemExit(f"POST {path} got status {response.status}: {answer[:500]!r}")
        reply: dict[str, Any] = orjson.loads(answer)
        return reply

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON at ``path``; an error ends the benchmark."""
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise SystemExit(f"GET {path} got status {response.status}: {answer[:500]!r}")
        reply: dict[str, Any] = orjson.loads(answer)
        return reply

    def alive(self, path: str) -> bool:
        """Whether ``path`` returns status 200 now."""
        try:
            self._connection.request("GET", path, headers=self._headers)
            return self._connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            self._connection.close()


def wait(ready: Callable[[], bool], process: Process) -> None:
    """Wait until ``ready``; a process that does not start ends the benchmark and shows its last log lines."""
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.ended() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.program.name} did not start:\n{process.last_lines()}")
        time.sleep(0.05)


def stop(process: Process) -> None:
    """End a process by SIGTERM, and by SIGKILL after its time limit. Idempotent."""
    process.terminate()
    deadline = time.monotonic() + min(process.program.stop_seconds, 10)
    while process.ended() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()


def listening() -> socket.socket:
    """Return a socket that listens on a free port of the loopback interface."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def _local(port: int) -> str:
    return f"http://127.0.0.1:{port}"
