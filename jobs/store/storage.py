"""The bytes that each account stores, and its storage quota.

Triggers (revision 0100) insert each change of the stored bytes, in the transaction that makes the change: whichever
process writes, and wherever it dies, the changes add up to the size of the rows. :func:`fold` adds the changes to
totals, so that there are few to read. The text of a running generation counts once the generation has ended.
"""

import collections
import enum
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from core import errors
from core.database import Database, Transaction
from core.database_faults import DatabaseUnavailable
from jobs.records.accounts import Account, StorageChange, StorageTotal
from jobs.records.attempts import Attempt, Generation
from jobs.records.declarative import table
from jobs.records.files import BatchEntry, FileChunk, FileEntry
from jobs.records.images import Image, ImageBytes
from jobs.records.jobs import Job, ResponseEntry
from jobs.records.search import SearchText

Timer = Callable[[], float]

_MIB: Final = 2**20
_READ_SECONDS: Final = 1.0
#: A reading is repeated after this many times its own duration: many changes that are not folded yet cost at most 5 %.
_READ_SHARE: Final = 20
#: Closer than this to its quota an account is measured exactly, one transaction after the other. It is more than an
#: account can store while a reading is fresh.
_MARGIN: Final = 2**30
#: An arbitrary number: the namespace of the advisory locks with which an account's transactions near its quota wait for
#: each other.
_LOCK: Final = 7_302_027
_FOLDED: Final = 1_000
_COUNTED_JOBS: Final = 500


class StorageKind(enum.StrEnum):
    """The kind of stored bytes."""

    #: Canonical images, each once per account.
    IMAGES = enum.auto()
    #: Outputs of models, with their event index and steps, the prompts, and the copies for the search.
    TRACES = enum.auto()
    #: Questions and answers, with the copies for the search, and what clients of OpenAI's surface sent.
    JOBS = enum.auto()
    #: What remains when data is deleted: options and metadata, 1 KiB per job, 512 bytes per image; and batches with
    #: their lines.
    RECORDS = enum.auto()
    #: Files, plus 512 bytes for each.
    FILES = enum.auto()
    #: Notifications and the responses of their receivers; plus 512 bytes per notification and delivery attempt.
    DELIVERIES = enum.auto()


_JOB_BYTES: Final = 1024
_IMAGE_BYTES: Final = 512
_FILE_BYTES: Final = 512
_BATCH_BYTES: Final = 1024
#: The kinds that :func:`stored` counts without any counter of another room.
_OWN_KINDS: Final = frozenset(StorageKind) - {StorageKind.DELIVERIES}


@dataclass(frozen=True)
class StorageCounter:
    """Counts what another room stores.

    Attributes:
        kinds: what it counts.
        count: returns bytes by kind, for an account and those of its jobs with the given ids; for None it returns
            the bytes that belong to no job.
    """

    kinds: frozenset[StorageKind]
    count: Callable[[Transaction, uuid.UUID, Sequence[uuid.UUID] | None], Mapping[StorageKind, int]]


class QuotaState(enum.StrEnum):
    """How much of its storage quota an account uses: ``near`` is 90 % or more, ``full`` all of it."""

    OK = "ok"
    NEAR = "near"
    FULL = "full"
    UNLIMITED = "unlimited"


_NEAR_QUOTA = 0.9


@dataclass(frozen=True)
class AccountStorage:
    """The bytes that an account stores, and its quota in bytes (None: no quota)."""

    by_kind: Mapping[StorageKind, int]
    limit: int | None

    @property
    def total(self) -> int:
        """The bytes of all kinds."""
        return sum(self.by_kind.values())

    @property
    def state(self) -> QuotaState:
        """How much of the quota is used."""
        if self.limit is None:
            return QuotaState.UNLIMITED
        if self.total >= self.limit:
            return QuotaState.FULL
        return QuotaState.NEAR if self.total >= _NEAR_QUOTA * self.limit else QuotaState.OK


@dataclass(frozen=True)
class AccountUsage:
    """An account, the bytes that it stores, and its own quota in MiB if it has one."""

    account_id: uuid.UUID
    name: str
    usage: AccountStorage
    storage_mb: int | None


@dataclass(frozen=True)
class _Reading:
    """The bytes that an account stores and its quota, as of one moment; valid until a time of the timer."""

    used: int
    limit: int | None
    until: float


class Quota:
    """Refuses requests of accounts that have reached their storage quota.

    Args:
        database: where the count is stored.
        default_mb: the quota in MiB of accounts without their own; 0 is no limit.
        timer: returns seconds, by a clock that never goes back.
    """

    def __init__(
        self, database: Database, *, default_mb: int, timer: Timer = time.monotonic
    ) -> None:
        self._database = database
        self._default_mb = default_mb
        self._timer = timer
        self._lock = threading.Lock()
        self._readings: dict[uuid.UUID, _Reading] = {}

    def check(self, account_id: uuid.UUID) -> int | None:
        """Return when ``account_id`` may store more.

        Returns:
            The limit in bytes that :func:`enforce` must check when the request is stored; None while the account is
            far from its quota.

        Raises:
            core.errors.StorageQuotaExceeded: the account has reached its quota.
            core.database_faults.DatabaseUnavailable: the database does not answer.
        """
        reading = self._readings.get(account_id)
        if reading is None or self._timer() >= reading.until or _is_full(reading):
            # At the quota each request reads again, so that a deletion takes effect at once.
            reading = self._read(account_id)
        if reading.limit is None:
            return None
        if _is_full(reading):
            raise _exceeded(reading.used, reading.limit)
        return reading.limit if reading.used + _MARGIN > reading.limit else None

    def has_room(self, account_id: uuid.UUID) -> bool:
        """Return whether ``account_id`` was below its quota within the last second; True when it is unknown."""
        try:
            reading = self._readings.get(account_id)
            if reading is None or self._timer() >= reading.until:
                reading = self._read(account_id)
        except DatabaseUnavailable:
            return True
        return not _is_full(reading)

    def usage(self, account_id: uuid.UUID) -> AccountStorage:
        """Return what an account stores, and its quota. Raises :class:`core.errors.NotFound`: there is no account."""
        return usage(self._database, account_id, default_mb=self._default_mb)

    def _read(self, account_id: uuid.UUID) -> _Reading:
        started = self._timer()
        current = self.usage(account_id)
        ended = self._timer()
        until = ended + max(_READ_SECONDS, _READ_SHARE * (ended - started))
        reading = _Reading(current.total, current.limit, until)
        with self._lock:
            self._readings[account_id] = reading
        return reading


def _is_full(reading: _Reading) -> bool:
    return reading.limit is not None and reading.used >= reading.limit


def enforce(transaction: Transaction, account_id: uuid.UUID, limit: int) -> None:
    """Check that an account stores at most ``limit`` bytes, including this transaction's; called before the commit.

    Concurrent transactions of the account wait for each other here, so each sees what those before it have stored.

    Raises:
        core.errors.StorageQuotaExceeded: the account would store more.
    """
    if transaction.dialect != "sqlite":  # SQLite has one writer at a time.
        transaction.execute(_TURN, {"account": account_id.int & 0x7FFFFFFF})
    used = sum(_used(transaction, account_id).values())
    if used > limit:
        raise _exceeded(used, limit, stored=True)


_TURN = sa.select(sa.func.pg_advisory_xact_lock(_LOCK, sa.bindparam("account", type_=sa.Integer())))


def _exceeded(used: int, limit: int, *, stored: bool = False) -> errors.StorageQuotaExceeded:
    stores = "would store" if stored else "stores"
    return errors.StorageQuotaExceeded(
        f"The account {stores} {used / _MIB:.1f} MiB; its quota is {limit / _MIB:.1f} MiB. "
        "Delete jobs, images or files (DELETE /v1/jobs/{id}, /v1/images/{id}, /v1/files/{id}), or ask the operator for "
        "a larger quota."
    )


_TOTAL = table(StorageTotal).c
_CHANGE = table(StorageChange).c
_ACCOUNT = table(Account).c


def _sums(*, of_account: bool) -> sa.Select[uuid.UUID, str, int]:
    """Return the statement that adds up totals and changes: one, so that no fold runs between the two."""
    parts = [sa.select(part.account_id, part.kind, part.bytes) for part in (_TOTAL, _CHANGE)]
    if of_account:
        account_id: sa.BindParameter[uuid.UUID] = sa.bindparam("account_id")
        parts = [part.where(part.selected_columns.account_id == account_id) for part in parts]
    all_parts = sa.union_all(*parts).subquery().c
    total = sa.cast(sa.func.sum(all_parts.bytes), sa.BigInteger()).label("bytes")
    key = (all_parts.account_id, all_parts.kind)
    return sa.select(*key, total).group_by(*key)


_USED, _USED_BY_ALL = _sums(of_account=True), _sums(of_account=False)
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
    """Return what all accounts store, ordered by name."""
    used: dict[uuid.UUID, dict[str, int]] = collections.defaultdict(dict)
    with database.reading() as transaction:
        for row in transaction.execute(_USED_BY_ALL):
            used[row.account_id][row.kind] = row.bytes
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
    """Set an account's own quota, 0 for no limit (None: the settings' quota). Raises :class:`core.errors.NotFound`."""
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
        # In one order, so that no two folds deadlock.
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


def recount(
    database: Database,
    account_id: uuid.UUID,
    *,
    counters: Sequence[StorageCounter] = (),
) -> bool:
    """Count the rows of an account and correct what it is said to store; False when another process was quicker.

    The rows and the totals are read in one snapshot, without a lock. From then on both change by the same bytes, so
    their difference can be added later.

    Args:
        database: where both are kept.
        account_id: whose rows.
        counters: of other rooms. A kind that none of them counts is left as it is.
    """
    with database.reading(snapshot=True) as transaction:
        seen = transaction.execute(
            sa.select(_ACCOUNT.storage_recounted_at).where(_ACCOUNT.id == account_id)
        ).scalar_one()
        missing = stored(transaction, account_id, counters=counters)
        missing.subtract(_used(transaction, account_id))
    kinds = _OWN_KINDS.union(*(counter.kinds for counter in counters))
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
            if count and kind in kinds
        ]
        if changes:
            transaction.execute(sa.insert(table(StorageChange)), changes)
        return True


def stored(
    transaction: Transaction,
    account_id: uuid.UUID,
    *,
    counters: Sequence[StorageCounter] = (),
) -> collections.Counter[str]:
    """Count the bytes of an account's rows by kind, as the triggers of :mod:`migrations.baseline.storage` do.

    The rows of other rooms are counted by ``counters``.
    """
    size = ByteSizes(transaction.dialect)
    counted: collections.Counter[str] = collections.Counter()
    images = sa.select(sa.func.sum(size.binary(ImageBytes.data))).where(
        ImageBytes.account_id == account_id
    )
    counted[StorageKind.IMAGES] += transaction.execute(images).scalar_one() or 0
    facts = sa.select(sa.func.count() * _IMAGE_BYTES).where(Image.account_id == account_id)
    counted[StorageKind.RECORDS] += transaction.execute(facts).scalar_one()
    named = sa.select(sa.func.sum(size.text(FileEntry.filename) + _FILE_BYTES)).where(
        FileEntry.account_id == account_id
    )
    chunks = (
        sa.select(sa.func.sum(size.binary(FileChunk.data)))
        .join(FileEntry, FileEntry.id == FileChunk.file_id)
        .where(FileEntry.account_id == account_id)
    )
    for files in (named, chunks):
        counted[StorageKind.FILES] += transaction.execute(files).scalar_one() or 0
    batch = sa.func.sum(
        size.text(BatchEntry.metadata_)
        + size.text(BatchEntry.faults)
        + BatchEntry.lines_bytes
        + _BATCH_BYTES
    )
    batches = sa.select(batch).where(BatchEntry.account_id == account_id)
    counted[StorageKind.RECORDS] += int(transaction.execute(batches).scalar_one() or 0)
    for counter in counters:
        counted.update(counter.count(transaction, account_id, None))
    after: uuid.UUID | None = None
    while True:
        wanted = sa.select(Job.id).where(Job.account_id == account_id)
        if after is not None:
            wanted = wanted.where(Job.id > after)
        page = list(transaction.execute(wanted.order_by(Job.id).limit(_COUNTED_JOBS)).scalars())
        if not page:
            return counted
        after = page[-1]
        _count_jobs(transaction, size, page, counted)
        for counter in counters:
            counted.update(counter.count(transaction, account_id, page))


class ByteSizes:
    """The SQL of a value's bytes. JSON counts as the text that the database makes of it."""

    def __init__(self, dialect: str) -> None:
        self._sqlite = dialect == "sqlite"

    def text(self, column: Any) -> sa.ColumnElement[int]:  # noqa: ANN401 - any column
        """Return the bytes of a text or of JSON, 0 for NULL."""
        size = (
            sa.func.length(sa.cast(column, sa.LargeBinary()))
            if self._sqlite
            else sa.func.octet_length(sa.cast(column, sa.Text()))
        )
        return sa.func.coalesce(size, 0)

    def binary(self, column: Any) -> sa.ColumnElement[int]:  # noqa: ANN401 - any column
        """Return the bytes of binary data, 0 for NULL."""
        return sa.func.coalesce(
            (sa.func.length if self._sqlite else sa.func.octet_length)(column), 0
        )


def _count_jobs(
    transaction: Transaction,
    size: ByteSizes,
    job_ids: list[uuid.UUID],
    counted: collections.Counter[str],
) -> None:
    data = (Job.question, Job.answer_text, Job.answer_tex, Job.answer_value, Job.votes)
    remaining = (Job.options, Job.metadata_, Job.webhook)
    jobs = Job.id.in_(job_ids)
    sums: list[tuple[StorageKind, Any, sa.ColumnElement[bool]]] = [
        (StorageKind.JOBS, sum(map(size.text, data)), jobs),
        (StorageKind.RECORDS, sum(map(size.text, remaining), _JOB_BYTES), jobs),
        (StorageKind.JOBS, size.text(ResponseEntry.requested), ResponseEntry.job_id.in_(job_ids)),
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
        total = sa.select(sa.func.sum(expression)).where(condition)
        counted[kind] += transaction.execute(total).scalar_one() or 0
    texts = (
        sa.select(SearchText.part, sa.func.sum(size.text(SearchText.text)).label("bytes"))
        .where(SearchText.job_id.in_(job_ids))
        .group_by(SearchText.part)
    )
    for row in transaction.execute(texts):
        kind = StorageKind.TRACES if row.part == "trace" else StorageKind.JOBS
        counted[kind] += row.bytes
