"""``longlook db backup``, ``restore``, ``copy`` and ``downgrade`` on real databases."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from core import errors, peppers
from core.database import Database
from core.redis_prefix import installation
from core.settings import Settings
from jobs.lifecycle import Role
from jobs.store import accounts
from migrations import schema
from tests import factories
from tests.cli.commands import local
from tests.databases import ROOT, PostgresSource
from webhooks import secrets

#: The command, which after its first note waits to be killed.
_LONGLOOK = """
import sys
from cli import main, output
note = output.note
def note_and_wait(text):
    note(text)
    sys.stdin.read()
output.note = note_and_wait
main.run()
"""
NO_PEPPER = {"LONGLOOK_PEPPER": ""}


def fill(home: Path, url: str) -> str:
    """Make an installation with a key, a job and a secret; return the key."""
    settings = Settings.read({"LONGLOOK_DATABASE_URL": url}, home=home)
    key = accounts.new_key()
    with contextlib.closing(Database(url)) as database:
        accounts.create_key(
            database,
            key,
            pepper=peppers.ensure(settings)[0],
            account="web",
            role=Role.SUBMIT,
            name="first",
        )
        vault = secrets.installation_vault(settings, database)
        secrets.signing_key(database, make=lambda: secrets.new_pair(vault))
        factories.make_job(database, accounts.account_id(database, "web"))
    return key


def installation_of(url: str) -> str:
    with contextlib.closing(Database(url)) as database:
        return installation(database)


def test_an_archive_restores_an_installation_with_its_secrets(
    tmp_path: Path, database_url: str
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "all.tar"
    old.mkdir()
    key = fill(old, database_url)
    given = {"LONGLOOK_DATABASE_URL": database_url, **NO_PEPPER}

    assert local(old, "db", "backup", str(file), **given)[0] == 0
    assert local(new, "db", "restore", str(file), **NO_PEPPER)[0] == 0

    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        assert set(archive.getnames()) == {"longlook.db", "pepper", "vault"}
    settings = Settings.read({}, home=new)
    assert local(tmp_path / "newer", "db", "restore", str(file), **NO_PEPPER)[0] == 0
    newer = Settings.read({}, home=tmp_path / "newer")
    # Each of the three has a prefix of its own in a Redis that they may share.
    assert (
        len({installation_of(url) for url in (database_url, settings.database, newer.database)})
        == 3
    )
    with contextlib.closing(Database(settings.database)) as restored:
        pepper = accounts.pepper(settings)
        assert accounts.authenticate(restored, key, peppers=[pepper]) is not None
        secrets.check_vault(secrets.installation_vault(settings, restored), restored)
        assert factories.claim(restored).question == "How many circles are there?"
    for path in (new / "longlook.db", new / "pepper", new / "vault"):
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(errors.LaunchError, match="exists already"):
        local(new, "db", "restore", str(file), **NO_PEPPER)
    with pytest.raises(errors.LaunchError, match="exists already"):
        local(old, "db", "backup", str(file), **given)


def test_an_archive_is_restored_to_postgresql_and_a_restore_that_is_killed_continues(
    tmp_path: Path, postgres_source: PostgresSource
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "all.tar"
    old.mkdir()
    key = fill(old, f"sqlite:///{migrated(old)}")
    local(old, "db", "backup", str(file), **NO_PEPPER)
    server = postgres_source.server
    name = server.create()
    given = {"LONGLOOK_DATABASE_URL": server.url(name), **NO_PEPPER}

    command = [sys.executable, "-c", _LONGLOOK, "db", "restore", str(file)]
    environment = {**os.environ, **given, "LONGLOOK_HOME": str(new)}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "accounts: 1 rows\n"
        child.send_signal(signal.SIGKILL)
    code, _ = local(new, "db", "restore", str(file), **given)

    settings = Settings.read(given, home=new)
    ids = {installation_of(url) for url in (settings.database, f"sqlite:///{old / 'longlook.db'}")}
    with contextlib.closing(Database(settings.database)) as restored:
        pepper = accounts.pepper(settings)
        principal = accounts.authenticate(restored, key, peppers=[pepper])
    server.disconnect(name)
    server.drop(name)
    assert (code, principal is not None, len(ids)) == (0, True, 2)


def migrated(home: Path) -> Path:
    local(home, "db", "upgrade")
    return home / "longlook.db"


@pytest.mark.parametrize("lost", ["pepper", "vault"])
def test_a_restore_without_a_secret_names_it(tmp_path: Path, database_url: str, lost: str) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "all.tar"
    old.mkdir()
    fill(old, database_url)
    local(old, "db", "backup", str(file), LONGLOOK_DATABASE_URL=database_url, **NO_PEPPER)
    part = tmp_path / "part.tar"
    with tarfile.open(file) as whole, tarfile.open(part, "w") as archive:
        for member in whole.getmembers():
            if member.name != lost:
                archive.addfile(member, whole.extractfile(member))

    with pytest.raises(errors.LaunchError, match=f"put {lost} in"):
        local(new, "db", "restore", str(part), **NO_PEPPER)

    assert not (new / "longlook.db").exists()
    assert not (new / lost).exists()
    assert local(new, "db", "restore", str(file), **NO_PEPPER)[0] == 0


def test_a_backup_during_a_rotation_has_both_peppers(tmp_path: Path, database_url: str) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "all.tar"
    old.mkdir()
    key = fill(old, database_url)
    given = {"LONGLOOK_DATABASE_URL": database_url, **NO_PEPPER}
    assert local(old, "keys", "rotate-pepper", **given)[0] == 0

    local(old, "db", "backup", str(file), **given)
    assert local(new, "db", "restore", str(file), **NO_PEPPER)[0] == 0

    known = peppers.read(Settings.read({}, home=new))
    assert known == peppers.read(Settings.read({}, home=old))
    with contextlib.closing(Database(f"sqlite:///{new / 'longlook.db'}")) as restored:
        assert accounts.authenticate(restored, key, peppers=known) is not None
        assert accounts.authenticate(restored, key, peppers=known[:1]) is None


def test_another_pepper_is_named_by_a_backup_and_a_restore(
    tmp_path: Path, database_url: str
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "all.tar"
    old.mkdir()
    fill(old, database_url)
    given = {"LONGLOOK_DATABASE_URL": database_url}
    with pytest.raises(errors.LaunchError, match="another one than that of 1 live keys"):
        local(old, "db", "backup", str(file), LONGLOOK_PEPPER="another", **given)

    local(old, "db", "backup", str(file), **given, **NO_PEPPER)
    with pytest.raises(errors.LaunchError, match="another one than that of 1 live keys"):
        local(new, "db", "restore", str(file), LONGLOOK_PEPPER="another")
    assert not (new / "longlook.db").exists()


def test_a_backup_without_the_vault_names_it(tmp_path: Path, database_url: str) -> None:
    fill(tmp_path, database_url)
    (tmp_path / "vault").unlink()
    given = {"LONGLOOK_DATABASE_URL": database_url, **NO_PEPPER}

    with pytest.raises(errors.LaunchError, match="put vault in"):
        local(tmp_path, "db", "backup", str(tmp_path / "all.tar"), **given)

    assert not (tmp_path / "all.tar").exists()


def test_a_copy_and_a_downgrade_on_the_command_line(tmp_path: Path, database_url: str) -> None:
    fill(tmp_path, database_url)
    target = f"sqlite:///{tmp_path / 'copy.db'}"

    code, printed = local(tmp_path, "db", "copy", "--from", database_url, "--to", target)
    assert (code, "rows are copied and compared" in printed) == (0, True)
    given = {"LONGLOOK_DATABASE_URL": target}
    with pytest.raises(errors.LaunchError, match="--confirm 0100"):
        local(tmp_path, "db", "downgrade", "0100", **given)
    code, printed = local(tmp_path, "db", "downgrade", "0100", "--confirm", "0100", **given)
    assert (code, printed.endswith("back to 0100\n")) == (0, True)
    with contextlib.closing(Database(target)) as database:
        assert schema.current(database) == "0100"
        assert not schema.fits("0100")
    assert local(tmp_path, "db", "upgrade", **given)[0] == 0


def tar(file: Path, *members: tuple[str, bytes, str, bytes]) -> Path:
    """Write a tar file of members: name, type, target of a link, content."""
    with tarfile.open(file, "w") as archive:
        for name, kind, target, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


@pytest.mark.parametrize(
    "kind",
    ["absent", "itself", "pepper", "empty", "no database", "no tables", "cut", "gzip", "outside"],
)
def test_a_file_that_is_no_archive_of_longlook_restores_nothing(tmp_path: Path, kind: str) -> None:
    file, home = tmp_path / "bad.tar", tmp_path / "home"
    link = tarfile.SYMTYPE
    plain = ("longlook.db", tarfile.REGTYPE, "", b"")
    tar(file, plain)
    match kind:
        case "absent":
            tar(file, ("longlook.db", link, "/etc/hostname", b""))
        case "itself":
            tar(file, ("longlook.db", link, "longlook.db", b""))
        case "pepper":
            tar(file, plain, ("pepper", tarfile.DIRTYPE, "", b""))
        case "no database":
            tar(file, ("longlook.db", tarfile.REGTYPE, "", b"hello" * 500))
        case "no tables":
            with contextlib.closing(sqlite3.connect(tmp_path / "some.db")) as some:
                some.execute("CREATE TABLE other (name TEXT)")
            stored = (tmp_path / "some.db").read_bytes()
            tar(file, ("longlook.db", tarfile.REGTYPE, "", stored))
        case "cut":
            file.write_bytes(file.read_bytes()[:600])
        case "gzip":
            file.write_bytes(gzip.compress(file.read_bytes())[:60])
        case "outside":
            tar(file, plain, ("../outside", tarfile.REGTYPE, "", b"x"))

    with pytest.raises(errors.LaunchError):
        local(home, "db", "restore", str(file), **NO_PEPPER)

    assert not (home / "longlook.db").exists()
    assert not (tmp_path / "outside").exists()
    assert not list(home.glob(".longlook-*"))
