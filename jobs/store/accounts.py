"""Accounts and API keys. A key is shown once; the database stores its HMAC-SHA256 with the pepper."""

import hashlib
import hmac
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from core import errors, ids, secret_files
from core.database import Database, Now, Transaction
from core.settings import Settings
from jobs.lifecycle import Priority, Role
from jobs.records import Account, ApiKey, table

DEFAULT_ACCOUNT = "default"
#: The file in the home directory with the pepper that was generated there.
PEPPER_FILE = "pepper"

#: The live keys are read again after this time at the earliest, and after this many times the duration of a read.
_READ_SECONDS = 1.0
_READ_SHARE = 20

#: Neither None nor a time that a key has.
_UNKNOWN = datetime.min.replace(tzinfo=UTC)

_KEY_SHAPE = re.compile(r"ll_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Principal:
    """The owner of a key: its account and role, and the key's own limits, if any."""

    key_id: uuid.UUID
    account_id: uuid.UUID
    role: Role
    requests_per_minute: int | None = None
    max_body_mb: int | None = None
    max_priority: Priority | None = None

    @property
    def highest_priority(self) -> Priority:
        """The highest priority that this key may request."""
        return self.max_priority or self.role.highest_priority

    @property
    def actor(self) -> str:
        """The name of this key in the timeline."""
        return f"key:{ids.show('key', self.key_id)}"


@dataclass(frozen=True, kw_only=True)
class KeyRow(Principal):
    """A key in a list, without the key itself."""

    account: str
    name: str
    redacted_key: str
    created_at: datetime
    revoked_at: datetime | None
    expires_at: datetime | None


def new_key() -> str:
    """Return a new key: ``ll_`` and 43 URL-safe characters (256 bits)."""
    return f"ll_{secrets.token_urlsafe(32)}"


def well_formed(key: str) -> bool:
    """Return whether ``key`` has the format of a key."""
    return _KEY_SHAPE.fullmatch(key) is not None


def digest(key: str, *, pepper: bytes) -> bytes:
    """Return the keyed hash of ``key``, 32 bytes. A key has 256 random bits, so no slow hash is needed."""
    return hmac.new(pepper, key.encode(), hashlib.sha256).digest()


def pepper(settings: Settings) -> bytes:
    """Return the secret that keys are hashed with: from the settings, else from the home directory.

    Raises:
        core.errors.SettingsError: neither has one, or the file is empty.
    """
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    path = settings.home / PEPPER_FILE
    try:
        stored = path.read_bytes().strip()
    except OSError as error:
        raise errors.SettingsError(
            f"LONGLOOK_PEPPER: not set, and {path} cannot be read; `longlook up` creates it"
        ) from error
    if not stored:
        raise errors.SettingsError(f"LONGLOOK_PEPPER: not set, and {path} is empty")
    return stored


def ensure_pepper(settings: Settings) -> bytes:
    """Return :func:`pepper`; if it is missing, first generate one in the home directory, readable by its owner only."""
    path = settings.home / PEPPER_FILE
    if settings.pepper is None and not path.exists():
        secret_files.write(path, secrets.token_hex(32) + "\n", replace=False)
    return pepper(settings)


_KEY = table(ApiKey).c
_PRINCIPALS = sa.select(
    _KEY.id.label("key_id"),
    _KEY.account_id,
    _KEY.role,
    _KEY.requests_per_minute,
    _KEY.max_body_mb,
    _KEY.max_priority,
)
_IS_LIVE = sa.and_(
    _KEY.revoked_at.is_(None), sa.or_(_KEY.expires_at.is_(None), _KEY.expires_at > Now(None))
)
_LIVE = _PRINCIPALS.where(_IS_LIVE)
_ACCOUNT = table(Account).c
_LISTED = (
    _PRINCIPALS.add_columns(
        _ACCOUNT.name.label("account"),
        _KEY.name,
        _KEY.redacted_key,
        _KEY.created_at,
        _KEY.revoked_at,
        _KEY.expires_at,
    )
    .join(table(Account), _ACCOUNT.id == _KEY.account_id)
    .order_by(_KEY.id)
)
_DIGESTS = sa.select(
    _KEY.digest, sa.case((_KEY.expires_at <= Now(None), _KEY.expires_at)).label("expired_at")
).where(_KEY.revoked_at.is_(None))
_BY_DIGEST = _LIVE.where(_KEY.digest == sa.bindparam("digest"))
_BY_ID = _LIVE.where(_KEY.id == sa.bindparam("key_id"))


def authenticate(database: Database, key: str, *, pepper: bytes) -> Principal | None:
    """Return the principal of ``key``, or None when the key is unknown, revoked or expired."""
    if not well_formed(key):
        return None
    with database.reading() as transaction:
        return _principal(transaction, _BY_DIGEST, digest=digest(key, pepper=pepper))


class LiveKeys:
    """The digests of live and expired keys, read about once a second while requests come in: a filter, not a proof.

    Args:
        database: where keys are stored.
        pepper: the secret that they are hashed with.
        timer: returns seconds, by a clock that never goes back.
    """

    def __init__(
        self,
        database: Database,
        *,
        pepper: bytes,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._timer = timer
        self._lock = threading.Lock()
        #: Digest -> when the key expired, None while it is live.
        self._expired_at: dict[bytes, datetime | None] = {}
        self._until: float | None = None

    def may_hold(self, key: str) -> bool:
        """Return whether ``key`` was live a moment ago. Raises :class:`core.database.DatabaseUnavailable`."""
        return self._known().get(digest(key, pepper=self._pepper), _UNKNOWN) is None

    def expired_at(self, key: str) -> datetime | None:
        """Return when ``key`` expired; None if it was unknown, revoked or live a moment ago. Raises the same."""
        return self._known().get(digest(key, pepper=self._pepper))

    def _known(self) -> dict[bytes, datetime | None]:
        with self._lock:
            if self._until is None or self._timer() >= self._until:
                self._read()
            return self._expired_at

    def _read(self) -> None:
        started = self._timer()
        with self._database.reading() as transaction:
            rows = transaction.execute(_DIGESTS)
            self._expired_at = {row.digest: row.expired_at for row in rows}
        ended = self._timer()
        self._until = ended + max(_READ_SECONDS, _READ_SHARE * (ended - started))


def principal(database: Database, key_id: uuid.UUID) -> Principal | None:
    """Return the principal of the key ``key_id``, or None when the key is unknown, revoked or expired."""
    with database.reading() as transaction:
        return _principal(transaction, _BY_ID, key_id=key_id)


def _principal(
    transaction: Transaction, statement: sa.Executable, **bound: bytes | uuid.UUID
) -> Principal | None:
    row = transaction.execute(statement, bound).mappings().one_or_none()
    return None if row is None else Principal(**row)


def live_keys(database: Database, key_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of ``key_ids`` that are neither revoked nor expired, in one query."""
    with database.reading() as transaction:
        rows = transaction.execute(sa.select(_KEY.id).where(_KEY.id.in_(key_ids), _IS_LIVE))
        return set(rows.scalars())


def create_key(
    database: Database,
    key: str,
    *,
    pepper: bytes,
    account: str,
    role: Role,
    name: str,
    requests_per_minute: int | None = None,
    max_body_mb: int | None = None,
    max_priority: Priority | None = None,
    expires_at: datetime | None = None,
) -> uuid.UUID:
    """Store ``key`` for ``account``, which is created if it is new; leave a key that is stored already unchanged.

    Args:
        database: where keys are stored.
        key: as :func:`new_key` returns it.
        pepper: the secret that it is hashed with.
        account: the account's name.
        role: the key's role.
        name: a name to distinguish keys.
        requests_per_minute: the key's own limit; None: the settings' limit.
        max_body_mb: the largest request body in MiB; the settings' limit applies as well.
        max_priority: the highest priority of its jobs; None: that of its role.
        expires_at: the key is refused from this time on; None: it does not expire.

    Returns:
        The key's id.
    """
    with database.transaction() as transaction:
        transaction.execute(
            transaction.insert(ApiKey)
            .values(
                id=ids.new(),
                account_id=_account(transaction, account),
                role=role,
                name=name,
                digest=digest(key, pepper=pepper),
                redacted_key=f"{key[:5]}…{key[-4:]}",
                created_at=transaction.now(),
                requests_per_minute=requests_per_minute,
                max_body_mb=max_body_mb,
                max_priority=max_priority,
                expires_at=expires_at,
            )
            .on_conflict_do_nothing(index_elements=["digest"])
        )
        return transaction.scalar(
            sa.select(ApiKey.id).where(ApiKey.digest == digest(key, pepper=pepper))
        )


def keys(database: Database) -> list[KeyRow]:
    """Return all keys, oldest first."""
    with database.reading() as transaction:
        rows = transaction.execute(_LISTED).mappings()
        return [KeyRow(**row) for row in rows]


def limit_key(
    database: Database,
    key_id: uuid.UUID,
    *,
    requests_per_minute: int | None,
    max_body_mb: int | None,
    max_priority: Priority | None = None,
) -> bool:
    """Set the limits of a key, from its next request on; return False when there is no such live key.

    None resets a limit: to the settings' limit, and to the highest priority of the key's role.
    """
    with database.transaction() as transaction:
        return _change_live(
            transaction,
            key_id,
            requests_per_minute=requests_per_minute,
            max_body_mb=max_body_mb,
            max_priority=max_priority,
        )


def revoke_key(database: Database, key_id: uuid.UUID) -> bool:
    """Revoke a key at once; return False when there is no such live key."""
    with database.transaction() as transaction:
        return _change_live(transaction, key_id, revoked_at=transaction.now())


def _change_live(transaction: Transaction, key_id: uuid.UUID, **values: Any) -> bool:  # noqa: ANN401 - columns
    changed = transaction.execute(
        sa.update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(values)
        .returning(ApiKey.id)
    )
    return changed.first() is not None


def account_id(database: Database, name: str) -> uuid.UUID:
    """Return the id of the account with this name or id (``acct_…``). Raises :class:`core.errors.NotFound`."""
    given = ids.parse("acct", name)
    named = Account.name == name if given is None else Account.id == given
    with database.reading() as transaction:
        stored: uuid.UUID | None = transaction.execute(
            sa.select(Account.id).where(named)
        ).scalar_one_or_none()
        if stored is None:
            raise errors.NotFound("There is no such account.", param="account")
        return stored


def _account(transaction: Transaction, name: str) -> uuid.UUID:
    transaction.execute(
        transaction.insert(Account)
        .values(id=ids.new(), name=name, created_at=transaction.now())
        .on_conflict_do_nothing(index_elements=["name"])
    )
    return transaction.scalar(sa.select(Account.id).where(Account.name == name))
