"""What must exist before the first process starts: the schema, the pepper, the first account and its key."""

import contextlib
from dataclasses import dataclass

from cli import client, erasing, output
from core import errors, peppers, secret_files
from core.database import Database, utcnow
from core.settings import Settings
from jobs.lifecycle import Role
from jobs.store import accounts, search
from migrations import schema
from webhooks import secrets

_RELATIVE = "sqlite:///"
_ABSOLUTE = "sqlite:////"


@dataclass(frozen=True)
class FirstKey:
    """The admin key of the first start; ``generated`` is False if a setting contains it."""

    key: str
    generated: bool


def prepare(settings: Settings) -> FirstKey | None:
    """Upgrade the database; at the first start, create the account, the pepper and the admin key.

    Returns:
        The admin key at the first start, or None later.

    Raises:
        core.errors.SettingsError: the bootstrap key is malformed, or the database's path is relative.
        core.errors.LaunchError: the database cannot be used, or the pepper of its keys or the vault of its secrets is
            missing.
    """
    bootstrap = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key else None
    if bootstrap is not None and not accounts.well_formed(bootstrap):
        raise errors.SettingsError(
            "LONGLOOK_BOOTSTRAP_KEY: must be `ll_` and 43 letters, digits, `-` or `_`"
        )
    url = settings.database
    if url.startswith(_RELATIVE) and not url.startswith(_ABSOLUTE):
        raise errors.SettingsError(
            "LONGLOOK_DATABASE_URL: the path of the SQLite file must be absolute"
        )
    _report(schema.upgrade(url))
    with contextlib.closing(Database(url)) as database:
        if search.reindex_due(database):
            output.event("database", output.REINDEX_DUE)
        _refuse_lost_vault(settings, database)
        if accounts.keys(database):
            _refuse_lost_pepper(settings, database)
            return None
        pepper = peppers.ensure(settings)[0]
        key = bootstrap or accounts.new_key()
        # Write the file first: the database has only the key's hash, so a key that is nowhere else is lost.
        secret_files.write(settings.home / client.KEY_FILE, key + "\n", replace=True)
        accounts.create_key(
            database,
            key,
            pepper=pepper,
            account=accounts.DEFAULT_ACCOUNT,
            role=Role.ADMIN,
            name="first",
            actor=erasing.actor(),
        )
        return FirstKey(key, generated=bootstrap is None)


def _report(upgraded: schema.Upgraded) -> None:
    """Print that the schema has changed, or that a later version has changed it."""
    if upgraded.is_later:
        output.event("database", f"a later version upgraded the schema to {upgraded.after}")
    elif upgraded.before not in (None, upgraded.after):
        output.event("database", f"schema upgraded from {upgraded.before} to {upgraded.after}")


def _refuse_lost_pepper(settings: Settings, database: Database) -> None:
    """Refuse to start without the pepper of the existing keys: a new pepper would invalidate all of them."""
    remedy = (
        f"restore {peppers.PEPPER_FILE} in {settings.home}, or set LONGLOOK_PEPPER. With another pepper, none of the "
        "keys is valid."
    )
    try:
        known = peppers.read(settings)
    except errors.SettingsError as error:
        raise errors.LaunchError(
            f"The pepper of this database's keys is missing: {remedy}"
        ) from error
    live = [row for row in accounts.keys(database) if row.is_live(utcnow())]
    if live and len(accounts.without_pepper(live, known)) == len(live):
        raise errors.LaunchError(f"The pepper is another one than that of this database: {remedy}")


def _refuse_lost_vault(settings: Settings, database: Database) -> None:
    """Refuse to start without the key of the existing secrets: with a new one, no webhook could be signed."""
    try:
        secrets.check_vault(secrets.installation_vault(settings, database), database)
    except errors.VaultError as error:
        raise errors.LaunchError(
            f"The webhook secrets of this database cannot be read. {error} Without it, no webhook can be sent."
        ) from error
