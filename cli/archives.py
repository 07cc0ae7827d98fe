"""Archives of an installation: a tar file with the database, the pepper and the vault.

The database in it is a SQLite file, whatever the installation uses, so an archive can be restored to either kind.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cli import output, scratch
from cli.launch import home
from core import errors, failpoints, peppers, redis_prefix, secret_files
from core.database import Database, utcnow
from core.settings import Settings
from core.vault import VAULT_FILE
from jobs.store import accounts
from migrations import copying, schema
from webhooks import secrets

_DATABASE: Final = "longlook.db"
#: The first bytes of a SQLite file.
_SQLITE: Final = b"SQLite format 3\0"


@secret_files.owner_only()
def write(settings: Settings, file: Path) -> int:
    """Write an archive that only its owner can read, from one moment of a running installation; return its bytes.

    Raises:
        core.errors.LaunchError: the file exists or cannot be written, or the pepper or the vault is missing.
        core.database_faults.DatabaseUnavailable: the database does not answer.
    """
    if file.exists():
        raise errors.LaunchError(f"{file} exists already; choose another name.")
    with _scratch(file.absolute().parent) as folder, schema.opened(settings) as database:
        saved = folder / _DATABASE
        _save(database, saved)
        failpoints.hit("backup", "saved")
        members = {_DATABASE: saved}
        with contextlib.closing(Database(f"sqlite:///{saved}")) as copied:
            # The secrets after the database: whatever it has, they open.
            for name, text in _secrets(settings, copied).items():
                secret_files.write(folder / name, text, replace=True)
                members[name] = folder / name
        draft = folder / "archive.tar"
        with tarfile.open(draft, "w") as archive:
            for name, path in members.items():
                archive.add(path, name)
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.rename(file)
    return file.stat().st_size


@secret_files.owner_only()
def restore(settings: Settings, file: Path) -> None:
    """Restore an archive to an installation without a database. An interrupted restore can be repeated.

    Raises:
        core.errors.LaunchError: the archive is incomplete, the installation has a database or other secrets, or a
            process uses it. The message names what is missing.
    """
    where = home.prepare(settings.home)
    with home.locked(where), _scratch(where) as folder:
        _extract(file, folder)
        saved = folder / _DATABASE
        with saved.open("rb") as content:
            if content.read(len(_SQLITE)) != _SQLITE:
                raise errors.LaunchError(f"{file} has no database of Longlook.")
            content.seek(0)
            name = (
                f"an archive with the SHA-256 {hashlib.file_digest(content, 'sha256').hexdigest()}"
            )
        url = f"sqlite:///{saved}"
        with contextlib.closing(Database(url)) as database:
            if schema.current(database) is None:
                raise errors.LaunchError(f"{file} has no database of Longlook.")
        schema.upgrade(url)
        _restore_secret(settings, folder, peppers.PEPPER_FILE)
        _restore_secret(settings, folder, VAULT_FILE)
        with contextlib.closing(Database(url)) as database:
            _require_secrets(settings, database)
            # The original may still run, with the same Redis.
            redis_prefix.renew_installation(database)
            if not settings.database.startswith("sqlite"):
                _copy(database, settings.database, name=name)
                return
            database.checkpoint()
        _place(saved, settings)


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    try:
        with scratch.folder(parent) as folder:
            yield folder
    except OSError as error:
        raise errors.LaunchError(f"{parent} cannot be used: {error.strerror or error}") from error


def _save(database: Database, saved: Path) -> None:
    """Write one moment of the database to a new SQLite file."""
    if database.dialect == "sqlite":
        with (
            contextlib.closing(sqlite3.connect(str(database.url.database))) as source,
            contextlib.closing(sqlite3.connect(saved)) as target,
        ):
            source.backup(target)
        return
    with (
        database.reading(snapshot=True) as transaction,
        contextlib.closing(Database(f"sqlite:///{saved}")) as copied,
    ):
        copying.copy(database, copied, reading=lambda: contextlib.nullcontext(transaction))
        copied.checkpoint()


def _secrets(settings: Settings, database: Database) -> dict[str, str]:
    """Return the texts of the pepper and the vault, of which the database needs those that exist.

    Raises:
        core.errors.LaunchError: one that the database needs is missing, or it is another one.
    """
    _require_secrets(settings, database)
    texts = {}
    if accounts.keys(database):
        texts[peppers.PEPPER_FILE] = "".join(
            f"{pepper.decode()}\n" for pepper in peppers.read(settings)
        )
    vault = settings.home / VAULT_FILE
    if settings.vault_key is not None:
        texts[VAULT_FILE] = "\n".join(settings.vault_key.get_secret_value().split(",")) + "\n"
    elif vault.exists():
        texts[VAULT_FILE] = vault.read_text(encoding="utf-8")
    return texts


def _require_secrets(settings: Settings, database: Database) -> None:
    rows = accounts.keys(database)
    if rows:
        remedy = f"put {peppers.PEPPER_FILE} in {settings.home}, or set LONGLOOK_PEPPER"
        try:
            known = peppers.read(settings)
        except errors.SettingsError as error:
            raise errors.LaunchError(f"The pepper of the keys is missing: {remedy}.") from error
        live = [row for row in rows if row.is_live(utcnow())]
        if lost := accounts.without_pepper(live, known):
            raise errors.LaunchError(
                f"The pepper is another one than that of {len(lost)} live keys: {remedy}."
            )
    try:
        secrets.check_vault(secrets.installation_vault(settings, database), database)
    except errors.VaultError as error:
        raise errors.LaunchError(
            f"The vault of the webhook secrets is missing or another one: put {VAULT_FILE} in {settings.home}, or set "
            f"LONGLOOK_VAULT_KEY. {error}"
        ) from error


def _extract(file: Path, folder: Path) -> None:
    """Write the known members of the archive to ``folder``; others are refused."""
    known = {_DATABASE, peppers.PEPPER_FILE, VAULT_FILE}
    try:
        # Without compression, as :func:`write` writes it.
        with tarfile.open(file, "r:") as archive:
            members = {member.name: member for member in archive.getmembers()}
            plain = all(member.isreg() for member in members.values())
            if _DATABASE not in members or members.keys() - known or not plain:
                raise errors.LaunchError(f"{file} is not an archive of `longlook db backup`.")
            for name, member in members.items():
                content = archive.extractfile(member)
                if content is None:
                    raise errors.LaunchError(f"{file} is not an archive of `longlook db backup`.")
                with content, (folder / name).open("wb") as target:
                    shutil.copyfileobj(content, target)
    except (OSError, tarfile.TarError) as error:
        raise errors.LaunchError(f"{file} cannot be read as an archive: {error}") from error


def _restore_secret(settings: Settings, folder: Path, name: str) -> None:
    """Write a secret of the archive to the home directory, unless the settings or an equal file have it."""
    given = settings.pepper if name == peppers.PEPPER_FILE else settings.vault_key
    archived, path = folder / name, settings.home / name
    if given is not None or not archived.exists():
        return
    try:
        text = archived.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise errors.LaunchError(f"{name} of the archive is damaged.") from error
    if path.exists() and path.read_text(encoding="utf-8").split() != text.split():
        raise errors.LaunchError(
            f"{path} is another one than that of the archive. Move it away, and repeat the command."
        )
    secret_files.write(path, text, replace=False)


def _copy(database: Database, url: str, *, name: str) -> None:
    with contextlib.closing(Database(url)) as target:
        copying.copy(
            database,
            target,
            reading=database.reading,
            name=name,
            progress=lambda table, count: output.note(f"{table}: {count} rows"),
        )


def _place(saved: Path, settings: Settings) -> None:
    path = Path(settings.database.removeprefix("sqlite:///"))
    others = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
    if any(other.exists() for other in others):
        raise errors.LaunchError(f"{path} exists already. Move it away, and repeat the command.")
    with saved.open("rb") as written:
        os.fsync(written.fileno())
    shutil.move(saved, path)
