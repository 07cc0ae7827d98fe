"""Accounts and API keys. A key is shown once; the database stores its HMAC-SHA256 with the pepper."""

import hashlib
import hmac
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core import errors, ids, peppers
from core.database import Database, Now, Seconds, Transaction
from core.peppers import Peppers
from core.settings import Settings
from jobs.lifecycle import Priority, Role
from jobs.records.accounts import Account, ApiKey
from jobs.records.declarative import table
from jobs.store import erased_accounts

DEFAULT_ACCOUNT = "default"
#: The highest limits that a key can have.
MAX_REQUESTS_PER_MINUTE = 1_000_000
MAX_BODY_MB = 1024

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
    #: The pepper of its hash; None: an earlier version hashed it.
    pepper_id: str | None = None

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
    created_by: str | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    expires_at: datetime | None

    def is_live(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True)
class KeyUse:
    """A use of a key, and its hash with the newest pepper if it is stored with an older one."""

    key_id: uuid.UUID
    age: timedelta
    digest: bytes | None = None
    pepper_id: str | None = None


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
    """Return the newest pepper, with which new keys are hashed. Raises :class:`core.errors.SettingsError`."""
    return peppers.read(settings)[0]


_KEY = table(ApiKey).c
_PRINCIPALS = sa.select(
    _KEY.id.label("key_id"),
    _KEY.account_id,
    _KEY.role,
    _KEY.requests_per_minute,
    _KEY.max_body_mb,
    _KEY.max_priority,
    _KEY.pepper_id,
)
_IS_LIVE = sa.and_(
    _KEY.revoked_at.is_(None), sa.or_(_KEY.expires_at.is_(None), _KEY.expires_at > Now(None))
)
_LIVE = _PRINCIPALS.where(_IS_LIVE)
_ACCOUNT = table(Account).c
_LISTED = _PRINCIPALS.add_columns(
    _ACCOUNT.name.label("account"),
    _KEY.name,
    _KEY.redacted_key,
    _KEY.created_at,
    _KEY.created_by,
    _KEY.last_used_at,
    _KEY.revoked_at,
    _KEY.revoked_by,
    _KEY.expires_at,
).join(table(Account), _ACCOUNT.id == _KEY.account_id)
_DIGESTS = sa.select(
    _KEY.digest, sa.case((_KEY.expires_at <= Now(None), _KEY.expires_at)).label("expired_at")
).where(_KEY.revoked_at.is_(None))
_BY_DIGEST = _LIVE.where(_KEY.digest.in_(sa.bindparam("digests", expanding=True)))
_BY_ID = _LIVE.where(_KEY.id == sa.bindparam("key_id"))


def authenticate(database: Database, key: str, *, peppers: Collection[bytes]) -> Principal | None:
    """Return the principal of ``key``, or None when the key is unknown, revoked or expired.

    Args:
        database: where keys are stored.
        key: as the caller sent it.
        peppers: those with which it may be hashed.
    """
    if not well_formed(key):
        return None
    digests = [digest(key, pepper=pepper) for pepper in peppers]
    with database.reading() as transaction:
        return _principal(transaction, _BY_DIGEST, digests=digests)


class LiveKeys:
    """The digests of live and expired keys, read about once a second while requests come in: a filter, not a proof.

    Args:
        database: where keys are stored.
        peppers: the secrets that they are hashed with.
        timer: returns seconds, by a clock that never goes back.
    """

    def __init__(
        self,
        database: Database,
        *,
        peppers: Peppers,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._timer = timer
        self._lock = threading.Lock()
        #: Digest -> when the key expired, None while it is live.
        self._expired_at: dict[bytes, datetime | None] = {}
        self._until: float | None = None

    def may_hold(self, key: str) -> bool:
        """Return whether ``key`` was live a moment ago. Raises :class:`core.database_faults.DatabaseUnavailable`."""
        return self._expiry_of(key) is None

    def expired_at(self, key: str) -> datetime | None:
        """Return when ``key`` expired; None if it was unknown, revoked or live a moment ago. Raises the same."""
        expiry = self._expiry_of(key)
        return None if expiry is _UNKNOWN else expiry

    def _expiry_of(self, key: str) -> datetime | None:
        """Return when ``key`` expired, None while it is live, or :data:`_UNKNOWN`."""
        known = self._known()
        digests = (digest(key, pepper=pepper) for pepper in self._peppers.current())
        return next((known[each] for each in digests if each in known), _UNKNOWN)

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
    transaction: Transaction, statement: sa.Executable, **bound: list[bytes] | uuid.UUID
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
    actor: str | None = None,
) -> uuid.UUID:
    """Store ``key`` for ``account``, which is created if it is new; leave a key that is stored already unchanged.

    Args:
        database: where keys are stored.
        key: as :func:`new_key` returns it.
        pepper: the secret that it is hashed with.
        account: the account's name, or the id of one that exists.
        role: the key's role.
        name: a name to distinguish keys.
        requests_per_minute: the key's own limit; None: the settings' limit.
        max_body_mb: the largest request body in MiB; the settings' limit applies as well.
        max_priority: the highest priority of its jobs; None: that of its role.
        expires_at: the key is refused from this time on; None: it does not expire.
        actor: who makes it, as a timeline names it.

    Returns:
        The key's id.

    Raises:
        core.errors.NotFound: there is no account with this id, or it is erased.
    """
    with database.transaction() as transaction:
        owner = _account(transaction, account)
        transaction.execute(
            transaction.insert(ApiKey)
            .values(
                id=ids.new(),
                account_id=owner,
                role=role,
                name=name,
                digest=digest(key, pepper=pepper),
                pepper_id=peppers.identify(pepper),
                redacted_key=f"{key[:5]}…{key[-4:]}",
                created_at=transaction.now(),
                created_by=actor,
                requests_per_minute=requests_per_minute,
                max_body_mb=max_body_mb,
                max_priority=max_priority,
                expires_at=expires_at,
            )
            .on_conflict_do_nothing(index_elements=["digest"])
        )
        if erased_accounts.is_erased(transaction, owner):
            raise _no_account()
        return transaction.scalar(
            sa.select(ApiKey.id).where(ApiKey.digest == digest(key, pepper=pepper))
        )


def keys(database: Database) -> list[KeyRow]:
    """Return all keys, oldest first."""
    with database.reading() as transaction:
        rows = transaction.execute(_LISTED.order_by(_KEY.id)).mappings()
        return [KeyRow(**row) for row in rows]


def without_pepper(
    rows: Iterable[KeyRow], known: Iterable[bytes], *, or_unknown: bool = False
) -> list[KeyRow]:
    """Return the keys that are hashed with none of the peppers ``known``.

    Args:
        rows: the keys.
        known: peppers.
        or_unknown: whether a key that an earlier version hashed, with a pepper that it did not note, is one of them.
    """
    fit = {peppers.identify(pepper) for pepper in known}
    if not or_unknown:
        fit |= {""}
    return [row for row in rows if (row.pepper_id or "") not in fit]


def key_page(
    database: Database, *, account_id: uuid.UUID | None, limit: int, after: uuid.UUID | None
) -> tuple[list[KeyRow], bool]:
    """Return up to ``limit`` keys beyond ``after``, newest first, and whether there are more.

    Revoked and expired keys are among them. ``account_id`` None: those of all accounts.
    """
    wanted = _LISTED.order_by(_KEY.id.desc()).limit(limit + 1)
    if account_id is not None:
        wanted = wanted.where(_KEY.account_id == account_id)
    if after is not None:
        wanted = wanted.where(_KEY.id < after)
    with database.reading() as transaction:
        rows = [KeyRow(**row) for row in transaction.execute(wanted).mappings()]
        return rows[:limit], len(rows) > limit


def find_key(database: Database, key_id: uuid.UUID) -> KeyRow | None:
    """Return a key, or None when it does not exist."""
    with database.reading() as transaction:
        row = transaction.execute(_LISTED.where(_KEY.id == key_id)).mappings().one_or_none()
        return None if row is None else KeyRow(**row)


def key_names(
    database: Database, actors: Iterable[str | None], *, account_id: uuid.UUID | None = None
) -> dict[str, str]:
    """Return the names of the keys among ``actors``, by actor; keys without a name are left out.

    Args:
        database: where keys are stored.
        actors: as timelines name them, such as ``key:key_…``.
        account_id: only keys of this account; None: of all.
    """
    parsed = {
        actor: ids.parse("key", actor.removeprefix("key:"))
        for actor in actors
        if actor is not None and actor.startswith("key:")
    }
    if not parsed:
        return {}
    wanted = sa.select(_KEY.id, _KEY.name).where(
        _KEY.id.in_({key for key in parsed.values() if key is not None}), _KEY.name != ""
    )
    if account_id is not None:
        wanted = wanted.where(_KEY.account_id == account_id)
    with database.reading() as transaction:
        names = {row.id: row.name for row in transaction.execute(wanted)}
    return {actor: names[key] for actor, key in parsed.items() if key in names}


#: The least time between two writes of a key's last use.
USE_EVERY = timedelta(minutes=1)
_USED = (
    sa.update(table(ApiKey))
    .where(
        _KEY.id == sa.bindparam("b_id"),
        sa.or_(
            _KEY.last_used_at.is_(None),
            _KEY.last_used_at <= Now(sa.bindparam("b_before", type_=Seconds())),
        ),
    )
    .values(last_used_at=Now(sa.bindparam("b_age", type_=Seconds())))
)
_HASHED_AGAIN = (
    sa.update(table(ApiKey))
    .where(_KEY.id == sa.bindparam("b_id"))
    .values(digest=sa.bindparam("b_digest"), pepper_id=sa.bindparam("b_pepper"))
)


def note_uses(database: Database, uses: Collection[KeyUse]) -> None:
    """Store when keys were last used, each at most once in :data:`USE_EVERY`, and hashes with a newer pepper.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer; nothing is stored.
    """
    # In one order, so that processes that store the same keys wait for each other and do not block each other.
    ordered = sorted(uses, key=lambda use: use.key_id)
    with database.transaction() as transaction:
        transaction.execute(
            _USED,
            [
                {"b_id": use.key_id, "b_age": -use.age, "b_before": -use.age - USE_EVERY}
                for use in ordered
            ],
        )
        again = [
            {"b_id": use.key_id, "b_digest": use.digest, "b_pepper": use.pepper_id}
            for use in ordered
            if use.digest is not None
        ]
        if again:
            transaction.execute(_HASHED_AGAIN, again)


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


def revoke_key(
    database: Database,
    key_id: uuid.UUID,
    *,
    actor: str | None = None,
    keep_an_admin: bool = False,
) -> bool:
    """Revoke a key at once; return False when there is no such key, or it is revoked already.

    Args:
        database: where keys are stored.
        key_id: the key.
        actor: who revokes it, as a timeline names it.
        keep_an_admin: whether the last live key of an admin is refused.

    Raises:
        core.errors.Conflict: it is the last live key of an admin.
    """
    with database.transaction() as transaction:
        if keep_an_admin:
            # Locked, so that two admins do not revoke each other's keys at the same time.
            admins = sa.select(_KEY.id).where(_KEY.role == Role.ADMIN, _IS_LIVE)
            live = transaction.execute(admins.order_by(_KEY.id).with_for_update()).scalars()
            if list(live) == [key_id]:
                raise errors.Conflict(
                    "This is the last active key with the role `admin`. Create another one first, or revoke it on the "
                    "host of the service with `longlook keys revoke`.",
                    param="key_id",
                )
        return _change_live(transaction, key_id, revoked_at=transaction.now(), revoked_by=actor)


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
            raise _no_account()
        return stored


def _no_account() -> errors.NotFound:
    return errors.NotFound("There is no such account.", param="account")


def _account(transaction: Transaction, name: str) -> uuid.UUID:
    """Return the account with this name or id, which is created if the name is new and is no id."""
    given = ids.parse("acct", name)
    named = _ACCOUNT.name == name if given is None else _ACCOUNT.id == given
    known: uuid.UUID | None = transaction.execute(
        sa.select(_ACCOUNT.id).where(named)
    ).scalar_one_or_none()
    if known is not None:
        return known
    # Such a name is a mistyped id, or will be that of an erased account.
    if name.startswith("acct_") or erased_accounts.is_name(name):
        raise _no_account()
    transaction.execute(
        transaction.insert(Account)
        .values(id=ids.new(), name=name, created_at=transaction.now())
        .on_conflict_do_nothing(index_elements=["name"])
    )
    return transaction.scalar(sa.select(Account.id).where(Account.name == name))
