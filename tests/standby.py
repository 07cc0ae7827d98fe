"""A hot standby of the tests' PostgreSQL, which streams from it and takes connections that only read."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests import children, postgres

_PORT = "54322"  # Only a part of the socket's name: nothing listens on it.


def socket_of(url: sa.URL) -> str:
    """Return the file of the unix socket of a server of the tests."""
    return f"{url.query['host']}/.s.PGSQL.{url.query['port']}"


@contextlib.contextmanager
def following(url: sa.URL) -> Iterator[sa.URL]:
    """Yield the URL of the same database on a standby; skip the test where its programs are not installed."""
    try:
        programs = postgres.programs()
    except postgres.Missing as missing:
        pytest.skip(str(missing))
    if not os.access(programs / "pg_basebackup", os.X_OK) or url.query.get("host") is None:
        pytest.skip("pg_basebackup is not installed, or the server is not the tests' own")
    folder = children.short_folder()
    user = postgres.other_user() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    subprocess.run(
        [
            *(
                programs / "pg_basebackup",
                "-D",
                folder / "data",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
            ),
            *("-h", str(url.query["host"]), "-p", str(url.query["port"]), "-U", url.username or ""),
        ],
        check=True,
        cwd=folder,
        user=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        timeout=120,
    )
    process = children.spawn(
        _command(programs, folder), folder=folder, user=user, at_death=signal.SIGQUIT
    )
    standby = url.set(query={"host": str(folder), "port": _PORT})
    try:
        children.wait_until(lambda: _answers(standby), process, log=folder / "log")
        yield standby
    finally:
        children.stop(process, signal.SIGINT)
        shutil.rmtree(folder, ignore_errors=True)


def _command(programs: Path, folder: Path) -> list[str | Path]:
    settings = ("listen_addresses=", "hot_standby=on", "max_connections=120", "shared_buffers=64MB")
    options = [part for setting in settings for part in ("-c", setting)]
    return [programs / "postgres", "-D", folder / "data", "-k", folder, "-p", _PORT, *options]


def _answers(url: sa.URL) -> bool:
    try:
        with psycopg.connect(
            url.set(drivername="postgresql").render_as_string(hide_password=False),
            autocommit=True,
            connect_timeout=5,
        ) as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None and bool(row[0])
