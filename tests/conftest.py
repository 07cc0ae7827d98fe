"""Fixtures of the whole suite: databases of both kinds, freshly migrated, and a real Redis."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from core.database import Database
from tests import children, compilations, databases, postgres, redis_servers
from tests.real_engine import Missing, RealEngine

# A busy machine is slow, not wrong: no example has a deadline of its own. In CI a change is judged by the same examples
# as the one before it; all other runs look for new ones.
hypothesis.settings.register_profile(
    "longlook", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("longlook")
compilations.share()

_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking through all modules and all tests again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def shared_process() -> Iterator[None]:
    """Fail a test that changes the process for the tests after it."""
    before = process_state()
    yield
    after = process_state()
    os.umask(before["umask"])
    assert after == before


def process_state() -> dict[str, Any]:
    """Return what a test may leave to the next one in its process."""
    umask = os.umask(0o022)
    os.umask(umask)
    environment = {**os.environ}
    environment.pop("PYTEST_CURRENT_TEST", None)
    return {
        "umask": umask,
        "folder": Path.cwd(),
        "environment": environment,
        "signals": {number: signal.getsignal(number) for number in _SIGNALS},
        "socket timeout": socket.getdefaulttimeout(),
    }


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Return a folder for sockets, whose path is short."""
    folder = children.short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """Return the PostgreSQL server of this run; without one the test is skipped, but fails in CI."""
    folder = children.short_folder()
    try:
        server = postgres.start(folder)
    except postgres.Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_source(postgres_server: postgres.Server) -> Iterator[databases.PostgresSource]:
    """Return where PostgreSQL databases come from."""
    source = databases.PostgresSource(postgres_server)
    yield source
    source.close()


@pytest.fixture(scope="session")
def sqlite_source() -> Iterator[databases.SqliteSource]:
    """Return where SQLite databases come from."""
    folder = children.memory_folder()
    yield databases.SqliteSource(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Return the kind of database a test runs on: both, one after the other. A folder may override it."""
    kind: str = request.param
    return kind


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a fresh, migrated database, for tests that start processes."""
    name = "sqlite_source" if dialect == "sqlite" else "postgres_source"
    source: databases.Source = request.getfixturevalue(name)
    url = source.create()
    yield url
    source.drop(url)


@pytest.fixture
def clock() -> databases.Clock:
    """Return the clock of a SQLite database; see ``age``, which serves both kinds."""
    return databases.Clock()


@pytest.fixture
def database(database_url: str, clock: databases.Clock) -> Iterator[Database]:
    """Return a fresh, migrated database."""
    database = Database(database_url, clock=clock)
    yield database
    database.close()


@pytest.fixture
def age(database: Database, clock: databases.Clock) -> databases.Age:
    """Return what lets time pass in ``database``: ``age(61)`` makes a lease of a minute dead."""
    if database.dialect == "sqlite":
        return clock.advance
    return lambda seconds: databases.age_rows(database, seconds)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[redis_servers.RedisServer]:
    """Return the Redis of this run. A test that stops one starts its own."""
    folder = children.short_folder()
    server = redis_servers.RedisServer(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_url(redis_server: redis_servers.RedisServer) -> str:
    """Return the URL of an empty Redis."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def real_engine() -> Iterator[RealEngine]:
    """Return the real SGLang of this run; without its environment a test is skipped, but fails in CI."""
    with contextlib.ExitStack() as running:
        try:
            engine = running.enter_context(RealEngine())
        except Missing as missing:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(missing))
        yield engine
