"""What each account stores, and its storage quota.

Triggers write each change of the stored bytes down, in the transaction that makes it (revision 0100): whatever
process writes, and wherever it dies, the changes add up to what the rows hold. :func:`fold` adds changes up in
totals, so that there are few to read. Nothing is counted of a running stream's text until the stream ends.
"""

from __future__ import annotations

import collections
import enum
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from core import errors
from core.database import Database, DatabaseUnavailable, Transaction
from jobs.outbox import WebhookAttempt, WebhookDelivery, WebhookNotification
from jobs.records import (
    Account,
    Attempt,
    Generation,
    Image,
    ImageBytes,
    Job,
    SearchText,
    StorageChange,
    StorageTotal,
    table,
)

Timer = Callable[[], float]

_MIB: Final = 2**20
_LOOK_SECONDS: Final = 1.0
#: A look is not repeated before this many times its own duration: changes that nobody folds cost 5 % at most.
_LOOK_SHARE: Final = 20
#: Nearer than this to its quota an account is measured exactly, one transaction after the other: more than an
#: account can add while a look is fresh.
_MARGIN: Final = 2**30
#: Any number: the namespace of the advisory locks by which an account's transactions take turns near its quota.
_LOCK: Final = 7_302_027
_FOLDED: Final = 1_000
_COUNTED_JOBS: Final = 500


class StorageKind(enum.StrEnum):
    """What stored bytes are of."""

    #: Canonical images, each once per account.
    IMAGES = enum.auto()
    #: What models said, with its index, its steps, the prompts and the copies that searches read.
    TRACES = enum.auto()
    #: Questions and answers, with the copies that searches read.
    JOBS = enum.auto()
    #: What stays when data are deleted: options and metadata, 1 KiB for each job, half of that for each image.
    RECORDS = enum.auto()
    #: Webhook messages, and what receivers answered; half a KiB more for each message and each try.
    DELIVERIES = enum.auto()


_JOB_BYTES: Final = 1024
_IMAGE_BYTES: Final = 512
_EVENT_BYTES: Final = 512
_ATTEMPT_BYTES: Final = 512


@dataclass(frozen=True)
class AccountStorage:
    """What an account stores, in bytes, and what it may store (None: any amount)."""

    by_kind: Mapping[StorageKind, int]
    limit: int | None

    @property
    def total(self) -> int:
        """The bytes of all kinds."""
        return sum(self.by_kind.values())


@dataclass(frozen=True)
class AccountUsage:
    """An account, what it stores, and its own quota in MiB if it has one."""

    account_id: uuid.UUID
    name: str
    usage: AccountStorage
    storage_mb: int | None


@dataclass(frozen=True)
class _Look:
    """What an account stored when it was looked at, and what it may; by the timer, until when that is believed."""

    used: int
    limit: int | None
    until: float


class Quota:
    """Refuses what accounts over their storage quota send.

    Args:
        database: where it is kept.
        default_mb: MiB that an account may store which has no quota of its own; 0 is no limit.
        timer: seconds, by any clock that never goes back.
    """

    def __init__(
        self, database: Database, *, default_mb: int, timer: Timer = time.monotonic
    ) -> None:
        self._database = database
        self._default_mb = default_mb
        self._timer = timer
        self._lock = threading.Lock()
        self._looks: dict[uuid.UUID, _Look] = {}

    def check(self, account_id: uuid.UUID) -> int | None:
        """Return when ``account_id`` may store more.

        Returns:
            The bytes that :func:`enforce` must hold the account to when it stores what it sends; None while it is
            far from its quota.

        Raises:
            core.errors.StorageQuotaExceeded: it stores all that it may already.
            core.database.DatabaseUnavailable: the database does not answer.
        """
        look = self._looks.get(account_id)
        if look is None or self._timer() >= look.until or _is_full(look):
            # Whoever has just deleted something does not wait for a second.
            look = self._look(account_id)
        if look.limit is None:
            return None
        if _is_full(look):
            raise _exceeded(look.used, look.limit)
        return look.limit if look.used + _MARGIN > look.limit else None

    def has_room(self, account_id: uuid.UUID) -> bool:
        """Whether ``account_id`` stored less than it may within the last second; True when nobody knows."""
        try:
            look = self._looks.get(account_id)
            if look is None or self._timer() >= look.until:
                look = self._look(account_id)
        except DatabaseUnavailable:
            return True
        return not _is_full(look)

    def usage(self, account_id: uuid.UUID) -> AccountStorage:
        """Return what an account stores and may store. Raises :class:`core.errors.NotFound`: there is none."""
        return usage(self._database, account_id, default_mb=self._default_mb)

    def _look(self, account_id: uuid.UUID) -> _Look:
        began = self._timer()
        found = self.usage(account_id)
        ended = self._timer()
        until = ended + max(_LOOK_SECONDS, _LOOK_SHARE * (ended - began))
        look = _Look(found.total, found.limit, until)
        with self._lock:
            self._looks[account_id] = look
        return look


def _is_full(look: _Look) -> bool:
    return look.limit is not None and look.used >= look.limit


def enforce(transaction: Transaction, account_id: uuid.UUID, limit: int) -> None:
    """Hold an account to ``limit`` bytes, with what this transaction has stored; called last before the commit.

    Of several transactions at once each sees what those before it have stored.

    Raises:
        core.errors.StorageQuotaExceeded: it would store more.
    """
    if transaction.dialect != "sqlite":  # There, whoever writes is alone.
        transaction.execute(_TURN, {"account": account_id.int & 0x7FFFFFFF})
    used = sum(_used(transaction, account_id).values())
    if used > limit:
        raise _exceeded(used, limit, stored=True)


_TURN = sa.select(sa.func.pg_advisory_xact_lock(_LOCK, sa.bindparam("account", type_=sa.Integer())))


def _exceeded(used: int, limit: int, *, stored: bool = False) -> errors.StorageQuotaExceeded:
    stores = "would store" if stored else "stores"
    return errors.StorageQuotaExceeded(
        f"The account {stores} {used / _MIB:.1f} MiB; its quota is {limit / _MIB:.1f} MiB. "
        "Delete jobs or images (DELETE /v1/jobs/{id}, /v1/images/{id}), or ask the operator for a larger quota."
    )


_TOTAL = table(StorageTotal).c
_CHANGE = table(StorageChange).c
_ACCOUNT = table(Account).c
# One statement, so that no fold comes between the two.
_PARTS = sa.union_all(
    sa.select(_TOTAL.account_id, _TOTAL.kind, _TOTAL.bytes).where(
        _TOTAL.account_id == sa.bindparam("account_id")
    ),
    sa.select(_CHANGE.account_id, _CHANGE.kind, _CHANGE.bytes).where(
        _CHANGE.account_id == sa.bindparam("account_id")
    ),
).subquery()
_USED = sa.select(
    _PARTS.c.kind, sa.cast(sa.func.sum(_PARTS.c.bytes), sa.BigInteger()).label("bytes")
).group_by(_PARTS.c.kind)
_QUOTA = sa.select(_ACCOUNT.storage_mb).where(_ACCOUNT.id == sa.bindparam("account_id"))


def usage(database: Database, account_id: uuid.UUID, *, default_mb: int) -> AccountStorage:
    """Return what an account stores; ``default_mb`` is its quota unless it has its own.

    Raises:
        core.errors.NotFound: there is no such account.
    """
    with database.reading() as transaction:
        row = transaction.execute(_QUOTA, {"account_id": account_id}).one_or_none()
        if row is None:
            raise errors.NotFound("There is no such account.", param="account")
        return AccountStorage(
            _shown(_used(transaction, account_id)), _limit(row.storage_mb, default_mb)
        )


def accounts(database: Database, *, default_mb: int) -> list[AccountUsage]:
    """Return what all accounts store, by their names."""
    parts = sa.union_all(
        sa.select(_TOTAL.account_id, _TOTAL.kind, _TOTAL.bytes),
        sa.select(_CHANGE.account_id, _CHANGE.kind, _CHANGE.bytes),
    ).subquery()
    with database.reading() as transaction:
        used: dict[uuid.UUID, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        for row in transaction.execute(
            sa.select(
                parts.c.account_id,
                parts.c.kind,
                sa.cast(sa.func.sum(parts.c.bytes), sa.BigInteger()).label("bytes"),
            ).group_by(parts.c.account_id, parts.c.kind)
        ):
            used[row.account_id][row.kind] += row.bytes
        rows = transaction.execute(
            sa.select(_ACCOUNT.id, _ACCOUNT.name, _ACCOUNT.storage_mb).order_by(_ACCOUNT.name)
        )
        return [
            AccountUsage(
                account_id=row.id,
                name=row.name,
                usage=AccountStorage(_shown(used[row.id]), _limit(row.storage_mb, default_mb)),
                storage_mb=row.storage_mb,
            )
            for row in rows
        ]


def limit_account(database: Database, name: str, *, storage_mb: int | None) -> None:
    """Give an account a quota of its own, 0 for none (None: the settings'). Raises :class:`core.errors.NotFound`."""
    with database.transaction() as transaction:
        limited = transaction.execute(
            sa.update(Account)
            .where(Account.name == name)
            .values(storage_mb=storage_mb)
            .returning(Account.id)
        )
        if limited.first() is None:
            raise errors.NotFound("There is no such account.", param="account")


def _used(transaction: Transaction, account_id: uuid.UUID) -> dict[str, int]:
    """Return the bytes by kind. They are below 0 when more is deleted than was counted: see :func:`recount`."""
    rows = transaction.execute(_USED, {"account_id": account_id})
    return {row.kind: row.bytes for row in rows}


def _shown(used: Mapping[str, int]) -> dict[StorageKind, int]:
    return {kind: max(0, used.get(kind, 0)) for kind in StorageKind}


def _limit(storage_mb: int | None, default_mb: int) -> int | None:
    wanted = default_mb if storage_mb is None else storage_mb
    return wanted * _MIB if wanted else None


_OLDEST = (
    sa.select(_CHANGE.id, _CHANGE.account_id, _CHANGE.kind, _CHANGE.bytes)
    .order_by(_CHANGE.id)
    .limit(_FOLDED)
    .with_for_update(skip_locked=True)
)
_FOLDED_AWAY = sa.delete(table(StorageChange)).where(
    _CHANGE.id.in_(sa.bindparam("ids", expanding=True))
)


def fold(database: Database) -> int:
    """Add up to 1,000 changes to the totals; return how many. Any number of processes may fold at once."""
    with database.reading() as transaction:
        if transaction.execute(sa.select(_CHANGE.id).limit(1)).first() is None:
            return 0
    with database.transaction("fold") as transaction:
        rows = transaction.execute(_OLDEST).all()
        sums: collections.Counter[tuple[uuid.UUID, str]] = collections.Counter()
        for row in rows:
            sums[row.account_id, row.kind] += row.bytes
        # In one order, so that no two of them wait for each other.
        for account_id, kind in sorted(sums):
            total = transaction.insert(StorageTotal).values(
                account_id=account_id, kind=kind, bytes=sums[account_id, kind]
            )
            transaction.execute(
                total.on_conflict_do_update(
                    index_elements=["account_id", "kind"],
                    set_={"bytes": StorageTotal.bytes + total.excluded.bytes},
                )
            )
        if rows:
            transaction.execute(_FOLDED_AWAY, {"ids": [row.id for row in rows]})
        return len(rows)


def recount(database: Database, account_id: uuid.UUID) -> bool:
    """Count the rows of an account and correct its totals; return False when another process was quicker.

    The rows and their count are read as they stood at one moment, without a lock. From then on both change by the
    same bytes, so that what they differ by can be added later.

    Args:
        database: where both are kept.
        account_id: whose rows.
    """
    with database.reading(snapshot=True) as transaction:
        seen = transaction.execute(
            sa.select(_ACCOUNT.storage_recounted_at).where(_ACCOUNT.id == account_id)
        ).scalar_one()
        missing = stored(transaction, account_id)
        missing.subtract(_used(transaction, account_id))
    with database.transaction("recount") as transaction:
        first = transaction.execute(
            sa.update(table(Account))
            .where(
                _ACCOUNT.id == account_id, _ACCOUNT.storage_recounted_at.is_not_distinct_from(seen)
            )
            .values(storage_recounted_at=transaction.now())
            .returning(_ACCOUNT.id)
        ).first()
        if first is None:
            return False
        changes = [
            {"account_id": account_id, "kind": kind, "bytes": count}
            for kind, count in missing.items()
            if count
        ]
        if changes:
            transaction.execute(sa.insert(table(StorageChange)), changes)
        return True


def stored(transaction: Transaction, account_id: uuid.UUID) -> collections.Counter[str]:
    """Count what the rows of an account hold, in bytes by kind, as the triggers of revision 0100 do."""
    size = _Sizes(transaction.dialect)
    found: collections.Counter[str] = collections.Counter()
    images = sa.select(sa.func.sum(size.binary(ImageBytes.data))).where(
        ImageBytes.account_id == account_id
    )
    found[StorageKind.IMAGES] += transaction.execute(images).scalar_one() or 0
    facts = sa.select(sa.func.count() * _IMAGE_BYTES).where(Image.account_id == account_id)
    found[StorageKind.RECORDS] += transaction.execute(facts).scalar_one()
    of_no_job = WebhookNotification.job_id.is_(None) & (
        WebhookNotification.account_id == account_id
    )
    found[StorageKind.DELIVERIES] += _deliveries(transaction, size, of_no_job)
    after: uuid.UUID | None = None
    while True:
        wanted = sa.select(Job.id).where(Job.account_id == account_id)
        if after is not None:
            wanted = wanted.where(Job.id > after)
        page = list(transaction.execute(wanted.order_by(Job.id).limit(_COUNTED_JOBS)).scalars())
        if not page:
            return found
        after = page[-1]
        _count_jobs(transaction, size, page, found)


class _Sizes:
    """The SQL of a value's bytes. JSON counts as the text that the database makes of it."""

    def __init__(self, dialect: str) -> None:
        self._sqlite = dialect == "sqlite"

    def text(self, column: Any) -> sa.ColumnElement[int]:  # noqa: ANN401 - any column
        """Return the bytes of a text, or of JSON; of none 0."""
        size = (
            sa.func.length(sa.cast(column, sa.LargeBinary()))
            if self._sqlite
            else sa.func.octet_length(sa.cast(column, sa.Text()))
        )
        return sa.func.coalesce(size, 0)

    def binary(self, column: Any) -> sa.ColumnElement[int]:  # noqa: ANN401 - any column
        """Return the bytes of binary data; of none 0."""
        return sa.func.coalesce(
            (sa.func.length if self._sqlite else sa.func.octet_length)(column), 0
        )


def _count_jobs(
    transaction: Transaction,
    size: _Sizes,
    job_ids: list[uuid.UUID],
    found: collections.Counter[str],
) -> None:
    data = (Job.question, Job.answer_text, Job.answer_value, Job.votes)
    staying = (Job.options, Job.metadata_, Job.webhook)
    mine = Job.id.in_(job_ids)
    sums: list[tuple[StorageKind, Any, sa.ColumnElement[bool]]] = [
        (StorageKind.JOBS, sum(map(size.text, data)), mine),
        (StorageKind.RECORDS, sum(map(size.text, staying), _JOB_BYTES), mine),
        (StorageKind.TRACES, size.text(Attempt.prompt), Attempt.job_id.in_(job_ids)),
        (
            StorageKind.TRACES,
            size.text(Generation.output)
            + size.text(Generation.steps)
            + size.binary(Generation.event_index),
            Generation.job_id.in_(job_ids),
        ),
    ]
    for kind, expression, condition in sums:
        counted = sa.select(sa.func.sum(expression)).where(condition)
        found[kind] += transaction.execute(counted).scalar_one() or 0
    texts = (
        sa.select(SearchText.part, sa.func.sum(size.text(SearchText.text)).label("bytes"))
        .where(SearchText.job_id.in_(job_ids))
        .group_by(SearchText.part)
    )
    for row in transaction.execute(texts):
        kind = StorageKind.TRACES if row.part == "trace" else StorageKind.JOBS
        found[kind] += row.bytes
    found[StorageKind.DELIVERIES] += _deliveries(
        transaction, size, WebhookNotification.job_id.in_(job_ids)
    )


def _deliveries(transaction: Transaction, size: _Sizes, of: sa.ColumnElement[bool]) -> int:
    payloads = sa.select(
        sa.func.sum(size.binary(WebhookNotification.payload) + _EVENT_BYTES)
    ).where(of)
    tried = (
        size.binary(WebhookAttempt.response_body) + size.text(WebhookAttempt.url) + _ATTEMPT_BYTES
    )
    answers = (
        sa.select(sa.func.sum(tried))
        .join(WebhookDelivery, WebhookDelivery.id == WebhookAttempt.delivery_id)
        .join(WebhookNotification, WebhookNotification.id == WebhookDelivery.notification_id)
        .where(of)
    )
    return sum(transaction.execute(counted).scalar_one() or 0 for counted in (payloads, answers))
