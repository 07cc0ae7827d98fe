"""Batches: the requests in a file, each of which becomes a job, in any process that works on them.

A batch is read, fed to the queue, and written to its files in slices. Each slice is a transaction that also moves the
batch's own row, if the lease of the process still holds. So a process may end at any line, the next one continues
behind the last commit, and the counts add up. The lines are in :mod:`jobs.store.batch_lines`.
"""

import itertools
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from core import errors, ids
from core.database import Database, Now, Seconds, Transaction
from jobs.records.accounts import Account
from jobs.records.declarative import table
from jobs.records.files import BatchEntry, BatchLine, BatchStatus, LineState
from jobs.store import erased_accounts, files, shared_work

#: The purpose of input files.
INPUT: Final = "batch"
#: The most lines of an input file, and the most faults of it that are stored.
MAX_LINES: Final = 50_000
MAX_FAULTS: Final = 1_000
#: The most faults of the batches on a page, each of which may have half a kilobyte.
MAX_PAGE_FAULTS: Final = 5_000

_BATCH = table(BatchEntry).c
_LINE = table(BatchLine).c
#: The states in which a caller may cancel a batch.
_CANCELLABLE = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)


class BatchLost(Exception):
    """The batch was cancelled or has ended, or another process works on it; the transaction must not commit."""


@dataclass(frozen=True)
class NewBatch:
    """What a caller wants done. ``window`` is the time until the batch expires."""

    account_id: uuid.UUID
    key_id: uuid.UUID
    endpoint: str
    input_file_id: uuid.UUID
    completion_window: str
    window: timedelta
    request_id: str
    output_expires_seconds: int | None = None
    metadata: Mapping[str, str] | None = None
    retry_of: uuid.UUID | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class BatchClaim:
    """A batch that ``owner`` works on until its lease ends, as it was when it was claimed."""

    owner: str
    lease: timedelta
    batch: BatchEntry
    #: The time that it had left then.
    left: timedelta

    @property
    def expired(self) -> bool:
        """Whether its time was over then."""
        return self.left <= timedelta(0)

    @property
    def feeding(self) -> bool:
        """Whether its work is to submit lines, and to collect them."""
        return self.batch.status is BatchStatus.IN_PROGRESS and not self.expired

    @property
    def id(self) -> uuid.UUID:
        """The id of the batch."""
        return self.batch.id


def create(
    database: Database, new: NewBatch, *, most_open: int, key_lifetime: timedelta
) -> tuple[BatchEntry, bool]:
    """Store a batch; return it, and False if an earlier request with the same key has created it.

    Args:
        database: where it is stored.
        new: the batch.
        most_open: the most unfinished batches of its account.
        key_lifetime: how long its idempotency key is kept.

    Raises:
        core.errors.NotFound: the account has no such file.
        core.errors.QueueFull: the account has too many unfinished batches.
        core.errors.IdempotencyKeyReused: the key was used with a different request.
        core.errors.Unauthenticated: the account is erased.
    """
    known = replay(database, new, key_lifetime=key_lifetime)
    if known is not None:
        return known, False
    try:
        with database.transaction("batch") as transaction:
            if files.hold(transaction, new.input_file_id, account_id=new.account_id) is None:
                raise errors.NotFound("There is no such file.", param="input_file_id")
            _refuse_too_many(transaction, new.account_id, most_open)
            _forget_expired_key(transaction, new, key_lifetime)
            batch = _insert(transaction, new)
            erased_accounts.refuse(transaction, new.account_id)
            return batch, True
    except sa.exc.IntegrityError:
        known = replay(database, new, key_lifetime=key_lifetime)
        if known is None:
            raise
        return known, False


def _insert(transaction: Transaction, new: NewBatch) -> BatchEntry:
    now = transaction.scalar(sa.select(transaction.now()))
    given = {name: value for name, value in vars(new).items() if name not in ("window", "metadata")}
    batch = BatchEntry(
        **given,
        id=ids.new(),
        status=BatchStatus.VALIDATING,
        metadata_=None if new.metadata is None else dict(new.metadata),
        validated=0,
        last_line=0,
        total=0,
        lines_bytes=0,
        completed=0,
        failed=0,
        fault_count=0,
        written_line=0,
        not_before=now,
        served_at=now,
        created_at=now,
        expires_at=now + new.window,
    )
    transaction.session.add(batch)
    transaction.session.flush()
    return batch


def _refuse_too_many(transaction: Transaction, account_id: uuid.UUID, most_open: int) -> None:
    # One batch of an account at a time, or each of several sees only the others' past. References do not wait for it.
    account = sa.select(Account.id).where(Account.id == account_id)
    transaction.execute(account.with_for_update(key_share=True))
    unfinished = transaction.scalar(
        sa.select(sa.func.count())
        .select_from(table(BatchEntry))
        .where(_BATCH.finished_at.is_(None), _BATCH.account_id == account_id)
    )
    if unfinished >= most_open:
        raise errors.QueueFull(
            f"The account has {unfinished} unfinished batches; the limit is {most_open}.",
            retry_after=60,
        )


def _forget_expired_key(transaction: Transaction, new: NewBatch, lifetime: timedelta) -> None:
    """Remove a key that is older than ``lifetime``, so that it can be used again."""
    transaction.execute(
        sa.update(table(BatchEntry))
        .where(
            _BATCH.account_id == new.account_id,
            _BATCH.idempotency_key == new.idempotency_key,
            _BATCH.created_at <= Now(-lifetime),
        )
        .values(idempotency_key=None)
    )


def replay(database: Database, new: NewBatch, *, key_lifetime: timedelta) -> BatchEntry | None:
    """Return the batch that an earlier request with the same key has created, at most ``key_lifetime`` ago, or None.

    Raises:
        core.errors.IdempotencyKeyReused: the key was used with a different request.
    """
    if new.idempotency_key is None:
        return None
    with database.reading() as transaction:
        known = transaction.session.scalars(
            sa.select(BatchEntry).where(
                _BATCH.account_id == new.account_id,
                _BATCH.idempotency_key == new.idempotency_key,
                _BATCH.created_at > Now(-key_lifetime),
            )
        ).one_or_none()
    if known is not None and known.fingerprint != new.fingerprint:
        raise errors.IdempotencyKeyReused(
            "This Idempotency-Key was used with a different request.", param="Idempotency-Key"
        )
    return known


def get(
    database: Database, batch_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> BatchEntry | None:
    """Return a batch, or None when it does not exist (in this account; None: in any account)."""
    with database.reading() as transaction:
        batch = transaction.session.get(BatchEntry, batch_id)
        return batch if batch and account_id in (None, batch.account_id) else None


def page(
    database: Database, *, account_id: uuid.UUID | None, limit: int, after: uuid.UUID | None
) -> tuple[list[BatchEntry], bool]:
    """Return up to ``limit`` batches beyond ``after``, newest first, and whether there are more.

    The page has fewer if they would have more than :data:`MAX_PAGE_FAULTS` faults together, but always one if there is
    one.
    """
    wanted = sa.select(_BATCH.id, _BATCH.fault_count).order_by(_BATCH.id.desc()).limit(limit + 1)
    if account_id is not None:
        wanted = wanted.where(_BATCH.account_id == account_id)
    if after is not None:
        wanted = wanted.where(_BATCH.id < after)
    with database.reading() as transaction:
        rows = transaction.execute(wanted).all()
        sums = itertools.accumulate(min(row.fault_count, MAX_FAULTS) for row in rows[:limit])
        fitting = sum(faults <= MAX_PAGE_FAULTS for faults in sums)
        chosen = [row.id for row in rows[: max(1, fitting)]]
        listed = transaction.session.scalars(sa.select(BatchEntry).where(_BATCH.id.in_(chosen)))
        by_id = {batch.id: batch for batch in listed}
        # One that is removed between the two reads is missing.
        return [by_id[each] for each in chosen if each in by_id], len(rows) > len(chosen)


def cancel(database: Database, batch_id: uuid.UUID) -> None:
    """Let a batch submit no further lines, and end; one that is not being read or fed stays as it is."""
    with database.transaction() as transaction:
        _cancel(transaction, _BATCH.id == batch_id)


def _cancel(transaction: Transaction, *where: sa.ColumnElement[bool]) -> None:
    transaction.execute(
        sa.update(table(BatchEntry))
        .where(_BATCH.status.in_(_CANCELLABLE), *where)
        .values(
            status=BatchStatus.CANCELLING,
            ending=BatchStatus.CANCELLED,
            cancelling_at=Now(),
            # At once, and whoever works on it notices.
            not_before=Now(),
            lease_owner=None,
            lease_expires_at=None,
            waiting_for=None,
        )
    )


@dataclass(frozen=True)
class Feeding:
    """What a process feeds now: further claims are for other work on it, such as its end.

    Attributes:
        batches: the batches that it feeds.
        accounts: the accounts of which it feeds no further batch.
        none: whether it feeds no further batch at all.
    """

    batches: Collection[uuid.UUID] = ()
    accounts: Collection[uuid.UUID] = ()
    none: bool = False


#: A batch in this state submits lines, which may take long.
_IS_FED = sa.and_(_BATCH.status == BatchStatus.IN_PROGRESS, _BATCH.expires_at > Now())


def _due(owner: str, feeding: Feeding) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of the batches that ``owner`` may work on now."""
    refused = (
        sa.true()
        if feeding.none
        else sa.or_(
            _BATCH.id.in_(list(feeding.batches)), _BATCH.account_id.in_(list(feeding.accounts))
        )
    )
    return (*shared_work.due(BatchEntry, owner=owner), sa.not_(sa.and_(_IS_FED, refused)))


def _next(owner: str, feeding: Feeding) -> sa.Select[uuid.UUID]:
    """Return the batch that is next, locked on PostgreSQL: accounts take turns, and the batches of each account."""
    others = sa.orm.aliased(table(BatchEntry), name="others")
    turn = (
        sa.select(sa.func.max(others.c.served_at))
        .where(others.c.account_id == _BATCH.account_id, others.c.finished_at.is_(None))
        .scalar_subquery()
    )
    choice = (
        sa.select(_BATCH.id)
        .where(*_due(owner, feeding))
        .order_by(turn, _BATCH.served_at, _BATCH.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=table(BatchEntry))
        .cte("next_batch")
    )
    return sa.select(choice.c.id)


def claim(
    database: Database, *, owner: str, lease: timedelta, feeding: Feeding = Feeding()
) -> BatchClaim | None:
    """Take the batch whose turn it is; return None when there is nothing to do.

    Args:
        database: where batches are stored.
        owner: the process that works on it.
        lease: for how long.
        feeding: what it feeds already.
    """
    with database.reading() as transaction:
        # Most of the time there is none, and a read takes no lock.
        some = sa.select(_BATCH.id).where(*_due(owner, feeding)).limit(1)
        if transaction.execute(some).first() is None:
            return None
    with database.transaction() as transaction:
        row = transaction.execute(
            sa.update(table(BatchEntry))
            .where(_BATCH.id.in_(_next(owner, feeding)))
            .values(
                served_at=Now(),
                waiting_for=None,
                lease_owner=owner,
                lease_expires_at=Now(sa.bindparam("b_lease", lease, type_=Seconds())),
            )
            .returning(_BATCH.id, Now().label("now"))
        ).one_or_none()
        if row is None:
            return None
        batch = transaction.session.get_one(BatchEntry, row.id)
    return BatchClaim(owner, lease, batch, left=batch.expires_at - row.now)


def release(
    database: Database, held: BatchClaim, *, pause: timedelta, waiting_for: str | None = None
) -> None:
    """Give a batch back, to continue after ``pause`` at the earliest; ``waiting_for`` is the code of the cause."""
    shared_work.release(
        database, BatchEntry, held.id, owner=held.owner, pause=pause, waiting_for=waiting_for
    )


def fence(
    transaction: Transaction,
    held: BatchClaim,
    *where: sa.ColumnElement[bool],
    **values: object,
) -> None:
    """Renew the lease and set ``values``, with the batch's row locked until the commit.

    Raises:
        BatchLost: the batch is not this owner's any more, or its row does not meet ``where``.
    """
    columns = {name.removesuffix("_"): value for name, value in values.items()}
    moved = transaction.execute(
        sa.update(table(BatchEntry))
        .where(
            _BATCH.id == held.id,
            _BATCH.lease_owner == held.owner,
            _BATCH.status == held.batch.status,
            *where,
        )
        .values(
            lease_expires_at=Now(sa.bindparam("b_lease", held.lease, type_=Seconds())), **columns
        )
        .returning(_BATCH.id)
    )
    if moved.first() is None:
        raise BatchLost


_RENEWED = (
    sa.update(table(BatchEntry))
    .where(
        _BATCH.id == sa.bindparam("b_id"),
        _BATCH.lease_owner == sa.bindparam("b_owner"),
        _BATCH.status == sa.bindparam("b_status"),
    )
    .values(lease_expires_at=Now(sa.bindparam("b_lease", type_=Seconds())))
    .returning(_BATCH.id)
)


def renew(transaction: Transaction, held: BatchClaim) -> None:
    """Renew the lease, as :func:`fence` does; each line calls this, so the statement is built once.

    Raises:
        BatchLost: the batch is not this owner's any more.
    """
    bound = {
        "b_id": held.id,
        "b_owner": held.owner,
        "b_status": held.batch.status,
        "b_lease": held.lease,
    }
    if transaction.execute(_RENEWED, bound).first() is None:
        raise BatchLost


def begin(database: Database, held: BatchClaim) -> None:
    """Let a batch whose input file is valid submit its lines."""
    with database.transaction() as transaction:
        fence(transaction, held, status=BatchStatus.IN_PROGRESS, in_progress_at=Now())


def begin_end(database: Database, held: BatchClaim, ending: BatchStatus) -> None:
    """Let a batch submit no further lines, and end as ``ending``."""
    with database.transaction() as transaction:
        fence(
            transaction,
            held,
            status=BatchStatus.FINALIZING,
            ending=ending,
            finalizing_at=sa.func.coalesce(_BATCH.finalizing_at, Now()),
        )


def give_up(database: Database, held: BatchClaim, *, code: str, message: str) -> None:
    """Cancel a batch because of something outside of it, which its faults then say."""
    fault = {"code": code, "message": message, "line": None, "param": None}
    with database.transaction() as transaction:
        fence(transaction, held, faults=[fault], fault_count=1)
        _cancel(transaction, _BATCH.id == held.id)


def finish(
    database: Database,
    held: BatchClaim,
    status: BatchStatus,
    *,
    lifetime: timedelta,
    notify: Callable[[Transaction, BatchEntry], None],
) -> None:
    """End a batch, and make its files visible.

    Args:
        database: where it is stored.
        held: the batch; all of its lines are written.
        status: its final state.
        lifetime: how long its files are stored.
        notify: called at the end of the transaction with the batch.

    Raises:
        BatchLost: the batch is not this owner's any more.
    """
    with database.transaction("finish") as transaction:
        fence(transaction, held, status=status, finished_at=Now())
        transaction.execute(
            sa.update(table(BatchEntry))
            .where(_BATCH.id == held.id)
            .values(lease_owner=None, lease_expires_at=None, waiting_for=None)
        )
        batch = transaction.session.get_one(BatchEntry, held.id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                files.complete(transaction, file_id, lifetime)
        notify(transaction, batch)


def end_all(transaction: Transaction, account_id: uuid.UUID) -> None:
    """End the batches of an account that is being erased: they submit nothing more, and write no files."""
    transaction.execute(
        sa.update(table(BatchEntry))
        .where(_BATCH.account_id == account_id, _BATCH.finished_at.is_(None))
        .values(
            status=BatchStatus.CANCELLED,
            ending=BatchStatus.CANCELLED,
            output_file_id=None,
            error_file_id=None,
            cancelling_at=sa.func.coalesce(_BATCH.cancelling_at, Now()),
            finished_at=Now(),
            lease_owner=None,
            lease_expires_at=None,
            waiting_for=None,
        )
    )


def remove_all(database: Database, account_id: uuid.UUID) -> None:
    """Remove the batches of an account, which have ended, with their lines.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer; another call continues.
    """
    while _remove_some(database, _BATCH.account_id == account_id):
        pass


def purge(database: Database, period: timedelta) -> tuple[int, bool]:
    """Remove a batch that ended more than ``period`` ago, or some of its lines.

    Returns:
        How many batches have lost something, and whether there may be more to do.
    """
    with database.reading() as transaction:
        due = sa.select(_BATCH.id).where(_BATCH.finished_at < Now(-period)).limit(1)
        if transaction.execute(due).first() is None:
            return 0, False
    removed = _remove_some(database, _BATCH.finished_at < Now(-period))
    return removed or 0, bool(removed)


#: Lines that one transaction deletes.
_ROWS: Final = 1_000


def _remove_some(database: Database, which: sa.ColumnElement[bool]) -> int:
    """Delete some lines of a batch, and after the last one the batch; return 0 when there was nothing to do."""
    with database.transaction() as transaction:
        batch_id = transaction.execute(
            sa.select(_BATCH.id)
            .where(which, _BATCH.finished_at.is_not(None))
            .limit(1)
            .with_for_update(skip_locked=True)
        ).scalar_one_or_none()
        if batch_id is None:
            return 0
        if not delete_lines(transaction, batch_id):
            transaction.execute(sa.delete(table(BatchEntry)).where(_BATCH.id == batch_id))
        return 1


def delete_lines(transaction: Transaction, batch_id: uuid.UUID) -> bool:
    """Delete some lines of a batch; return whether there may be more."""
    numbers: Sequence[int] = (
        transaction.execute(sa.select(_LINE.number).where(_LINE.batch_id == batch_id).limit(_ROWS))
        .scalars()
        .all()
    )
    transaction.execute(
        sa.delete(table(BatchLine)).where(_LINE.batch_id == batch_id, _LINE.number.in_(numbers))
    )
    return len(numbers) == _ROWS


def has_lines(transaction: Transaction, batch_id: uuid.UUID, *states: LineState) -> bool:
    """Return whether a batch has a line in one of ``states``."""
    return any(
        transaction.execute(
            sa.select(_LINE.number).where(_LINE.batch_id == batch_id, _LINE.state == state).limit(1)
        ).first()
        is not None
        for state in states
    )
