"""Ids of what lists show from the oldest to the newest: a list never passes an id that may still appear.

A transaction makes its ids before it commits, so a smaller id can become visible after a larger one. On PostgreSQL each
transaction therefore says since when it makes ids, in a shared advisory lock whose key is that time; the lock ends with
the transaction, however it ends. A page of a list ends before the earliest time of these locks, and before the time at
which it began. All times are of the server's clock, which makes the ids: the clocks of other hosts do not matter, and
neither do transactions that make no such ids, however long they run.

On SQLite a transaction that writes has the only write lock from its start, so ids become visible in their order.
"""

import random
import time
import uuid
from typing import Final

import sqlalchemy as sa

from core.database import Transaction
from core.database_faults import DatabaseUnavailable

#: The upper 20 bits of the lock's key; the rest is a time in milliseconds, which fits until the year 2527.
_LOCKS: Final = 0x4C4F2
_TIME_BITS: Final = 44
#: The parts of a UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds, version, 12 bits below the millisecond, variant.
_BELOW: Final = 12
_VERSION: Final = 7
_VARIANT: Final = 0b10
_RANDOM_BITS: Final = 62

#: First the lock, then the time of the ids: a page that does not see the lock began before that time.
_BEGIN: Final = sa.text(
    "SELECT pg_advisory_xact_lock_shared(:locks + floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), "
    "floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now"
)
#: First the time, then the locks: one that is taken meanwhile is of later ids.
_BOUND: Final = sa.text(
    "WITH clock AS MATERIALIZED ("
    "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) "
    "SELECT clock.now, pg_is_in_recovery() AS standby, "
    "(SELECT min(((classid::bigint << 32) | objid::bigint) - :locks) FROM pg_locks "
    "WHERE clock.now IS NOT NULL AND locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid::bigint >> :shift = :kind) AS began FROM clock"
)
_KEY: Final = {"locks": _LOCKS << _TIME_BITS}
_BOUND_KEY: Final = _KEY | {"shift": _TIME_BITS - 32, "kind": _LOCKS}


def new(transaction: Transaction) -> uuid.UUID:
    """Return a new id, above those that ``transaction`` has made so far and those that any list has passed."""
    last = transaction.last_ordered_id
    place = _place_of(_now(transaction)) if last is None else _place_in(last) + 1
    made = _id(place, random.getrandbits(_RANDOM_BITS))
    transaction.last_ordered_id = made
    return made


def bound(transaction: Transaction) -> uuid.UUID | None:
    """Return the id before which a list must end; None: there is no limit.

    Read it before the list, which may have a later snapshot.

    Raises:
        DatabaseUnavailable: the server is a standby, which lags behind and does not know these locks.
    """
    if transaction.dialect == "sqlite":
        return None
    row = transaction.execute(_BOUND, _BOUND_KEY).one()
    if row.standby:
        raise DatabaseUnavailable("The database is read-only.")
    began = row.now if row.began is None else min(row.now, row.began * 1000)
    return _id(_place_of(began), 0)


def _now(transaction: Transaction) -> int:
    """Return the time in microseconds, from which on the transaction makes ids."""
    if transaction.dialect == "sqlite":
        return time.time_ns() // 1000
    now: int = transaction.execute(_BEGIN, _KEY).one().now
    return now


def _place_of(microseconds: int) -> int:
    """Return a time as ids have it: milliseconds, then the rest in units of 1/4096."""
    milliseconds, rest = divmod(microseconds, 1000)
    return (milliseconds << _BELOW) + (rest << _BELOW) // 1000


def _place_in(made: uuid.UUID) -> int:
    return (made.int >> 80 << _BELOW) + (made.int >> 64 & ((1 << _BELOW) - 1))


def _id(place: int, tail: int) -> uuid.UUID:
    milliseconds, below = divmod(place, 1 << _BELOW)
    return uuid.UUID(
        int=milliseconds << 80 | _VERSION << 76 | below << 64 | _VARIANT << _RANDOM_BITS | tail
    )
