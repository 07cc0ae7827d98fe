"""What has to be there before the first process: the schema, the pepper, the first account and its key."""

from __future__ import annotations

from dataclasses import dataclass

from cli import client
from cli.launch import home
from core import errors
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Role
from jobs.store import accounts
from migrations import schema

_RELATIVE = "sqlite:///"
_ABSOLUTE = "sqlite:////"


@dataclass(frozen=True)
class FirstKey:
    """The admin key of a first start; ``made`` tells whether it was made here or given."""

    key: str
    made: bool


def prepare(settings: Settings) -> FirstKey | None:
    """Bring the database up to date; at the first start make the account, the pepper and the admin key.

    Returns:
        The admin key at the first start, None later.

    Raises:
        core.errors.SettingsError: the bootstrap key is no key, or the database's path is relative.
        core.errors.LaunchError: the database cannot be used, or the pepper of its keys is gone.
    """
    given = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key else None
    if given is not None and not accounts.well_formed(given):
        raise errors.SettingsError(
            "LONGLOOK_BOOTSTRAP_KEY: not a key; one is `ll_` and 43 letters, digits, `-` or `_`"
        )
    url = settings.database
    if url.startswith(_RELATIVE) and not url.startswith(_ABSOLUTE):
        raise errors.SettingsError("LONGLOOK_DATABASE_URL: give the full path of the SQLite file")
    schema.upgrade(url)
    database = Database(url)
    try:
        if accounts.keys(database):
            _refuse_lost_pepper(settings)
            return None
        pepper = accounts.ensure_pepper(settings)
        key = given or accounts.new_key()
        # The file first: a key that is in the database and nowhere else could never be used.
        home.write_secret(settings.home / client.KEY_FILE, key)
        accounts.create_key(
            database,
            key,
            pepper=pepper,
            account=accounts.DEFAULT_ACCOUNT,
            role=Role.ADMIN,
            name="first",
        )
        return FirstKey(key, made=given is None)
    finally:
        database.close()


def _refuse_lost_pepper(settings: Settings) -> None:
    """Refuse to serve keys without the pepper of their hashes: a new one would let none of them in."""
    try:
        accounts.pepper(settings)
    except errors.SettingsError as error:
        raise errors.LaunchError(
            f"The keys of this database were made with a pepper that is gone: put {accounts.PEPPER_FILE} "
            f"back into {settings.home}, or set LONGLOOK_PEPPER. With another one none of them works."
        ) from error
