"""PgBouncer in transaction mode between a test and PostgreSQL, from Debian's package where it is installed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from tests import children

_PORT = 54321  # Only a part of the socket's name: nothing listens on it.
_PATH = f"{os.defpath}:/usr/sbin:/usr/local/sbin"


@contextlib.contextmanager
def running(url: sa.URL, *, ignored: str = "", servers: int = 2) -> Iterator[sa.URL]:
    """Yield the URL of the database at ``url`` through PgBouncer; skip the test where it is not installed.

    Args:
        url: of PostgreSQL.
        ignored: startup parameters that PgBouncer ignores; it refuses all others that it does not know.
        servers: connections to PostgreSQL, which all clients share.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if program is None:
        pytest.skip("PgBouncer is not installed (Debian: pgbouncer)")
    folder = children.short_folder()
    user = _unprivileged() if os.geteuid() == 0 else None
    host, port = url.query.get("host", url.host), url.query.get("port", url.port or 5432)
    (folder / "users").write_text(f'"{url.username}" "{url.password or ""}"\n')
    (folder / "ini").write_text(
        "[databases]\n"
        f"* = host={host} port={port}\n"
        "[pgbouncer]\n"
        f"unix_socket_dir = {folder}\nlisten_port = {_PORT}\nlisten_addr =\n"
        f"auth_type = trust\nauth_file = {folder / 'users'}\n"
        f"pool_mode = transaction\ndefault_pool_size = {servers}\nmax_client_conn = 100\n"
        f"ignore_startup_parameters = {ignored}\n"
    )
    if user is not None:
        for path in (folder, folder / "users", folder / "ini"):
            shutil.chown(path, user)
    process = children.spawn([program, folder / "ini"], folder=folder, user=user)
    through = url.set(host=None, port=None, query={"host": str(folder), "port": str(_PORT)})
    try:
        children.wait_until(lambda: _answers(through), process, log=folder / "log")
        yield through
    finally:
        children.stop(process, signal.SIGINT)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: sa.URL) -> bool:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(plain, autocommit=True, prepare_threshold=None) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def _unprivileged() -> str:
    """Return the user instead of root: PgBouncer does not run as root."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
