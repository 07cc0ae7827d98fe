"""Operations: one action on all jobs that a query matched, job by job, by any process that works on them.

The set is decided once: first all ids that match, and that are older than the operation, are collected. Then each job
is one transaction, which changes the job, notes its result, and moves the operation's ``last_job_id``, if the lease of
the process still holds. So a process may end at any line, and the next one continues with the first job that has no
result: no job is done twice, and the counts add up.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from core import errors, ids
from core.database import Database, Now, Seconds, Transaction
from jobs import filters
from jobs.lifecycle import OperationAction, OperationResult, Status
from jobs.records.accounts import ApiKey
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.operations import Operation, OperationJob
from jobs.store import erased_accounts, history, shared_work

#: The most jobs of one operation.
MAX_JOBS = 1_000_000
#: The most unfinished operations of one account.
MAX_OPEN = 20

_OP = table(Operation).c
_ITEM = table(OperationJob).c
_JOB = table(Job).c


class OperationLost(Exception):
    """The operation has ended, or another process works on it; the transaction must not commit."""


@dataclass(frozen=True)
class NewOperation:
    """What a caller wants done. ``scope_id`` is the account of the jobs, or the one to erase; None: all accounts."""

    account_id: uuid.UUID
    key_id: uuid.UUID
    action: OperationAction
    query: str
    scope_id: uuid.UUID | None
    max_jobs: int
    request_id: str
    idempotency_key: str | None = None
    fingerprint: str | None = None
    #: Its jobs, which exist; empty: those of the query.
    job_ids: tuple[uuid.UUID, ...] = ()
    erases_account: bool = False


@dataclass(frozen=True)
class OperationClaim:
    """An operation that ``owner`` works on until its lease ends."""

    id: uuid.UUID
    owner: str
    lease: timedelta
    account_id: uuid.UUID
    key_id: uuid.UUID
    key_name: str
    action: OperationAction
    query: str
    scope_id: uuid.UUID | None
    max_jobs: int
    request_id: str
    created_at: datetime
    collected: bool
    last_job_id: uuid.UUID | None
    total: int
    reasons: Mapping[str, int]
    erases_account: bool | None

    @property
    def filter(self) -> filters.Filter:
        """The filter of its query; ages are relative to its creation."""
        parsed = filters.parse(self.query, now=self.created_at)
        return replace(parsed, account_id=self.scope_id)

    @property
    def noted(self) -> dict[str, str]:
        """What the timeline of a job says of the operation that changes it."""
        return {"operation": ids.show("op", self.id), "key_name": self.key_name}


@dataclass(frozen=True)
class StepResult:
    """What came of one job: its reason if it was not done, and the new job of a rerun."""

    result: OperationResult
    reason: str | None = None
    new_job_id: uuid.UUID | None = None


@dataclass(frozen=True)
class PendingJob:
    """A job that an operation has not reached yet."""

    job_id: uuid.UUID
    #: None: the job is not stored any more.
    account_id: uuid.UUID | None


def create(database: Database, requested: NewOperation) -> tuple[Operation, bool]:
    """Store an operation; return it, and False if an earlier request with the same key has created it.

    Raises:
        core.errors.QueueFull: the account has too many unfinished operations.
        core.errors.IdempotencyKeyReused: the key was used with a different request.
        core.errors.Unauthenticated: the account is erased.
    """
    known = replay(database, requested)
    if known is not None:
        return known, False
    try:
        with database.transaction() as transaction:
            _refuse_too_many(transaction, requested.account_id)
            name = transaction.execute(
                sa.select(ApiKey.name).where(ApiKey.id == requested.key_id)
            ).scalar_one()
            now = transaction.scalar(sa.select(transaction.now()))
            given = {name: value for name, value in vars(requested).items() if name != "job_ids"}
            operation = Operation(
                **given,
                id=ids.new(),
                key_name=name,
                status=Status.QUEUED,
                total=len(requested.job_ids),
                collected_at=now if requested.job_ids else None,
                done=0,
                skipped=0,
                failed=0,
                reasons={},
                not_before=now,
                served_at=now,
                created_at=now,
            )
            transaction.session.add(operation)
            transaction.flush()
            _add_jobs(transaction, operation.id, requested.job_ids)
            erased_accounts.refuse(transaction, requested.account_id)
            return operation, True
    except sa.exc.IntegrityError:
        known = replay(database, requested)
        if known is None:
            raise
        return known, False


def _refuse_too_many(transaction: Transaction, account_id: uuid.UUID) -> None:
    unfinished = transaction.scalar(
        sa.select(sa.func.count())
        .select_from(Operation)
        .where(Operation.finished_at.is_(None), Operation.account_id == account_id)
    )
    if unfinished >= MAX_OPEN:
        raise errors.QueueFull(
            f"The account has {unfinished} unfinished operations.", retry_after=60
        )


def replay(database: Database, requested: NewOperation) -> Operation | None:
    """Return the operation that an earlier request with the same key has created, or None.

    Raises:
        core.errors.IdempotencyKeyReused: the key was used with a different request.
    """
    if requested.idempotency_key is None:
        return None
    with database.reading() as transaction:
        known = transaction.session.scalars(
            sa.select(Operation).where(
                Operation.account_id == requested.account_id,
                Operation.idempotency_key == requested.idempotency_key,
            )
        ).one_or_none()
    if known is not None and known.fingerprint != requested.fingerprint:
        raise errors.IdempotencyKeyReused(
            "This Idempotency-Key was used with a different request.", param="Idempotency-Key"
        )
    return known


def get(
    database: Database, operation_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> Operation | None:
    """Return an operation, or None when it does not exist (in this account; None: in any account)."""
    with database.reading() as transaction:
        operation = transaction.session.get(Operation, operation_id)
        return operation if operation and account_id in (None, operation.account_id) else None


def page(
    database: Database, *, account_id: uuid.UUID | None, limit: int, after: uuid.UUID | None
) -> tuple[list[Operation], bool]:
    """Return up to ``limit`` operations beyond ``after``, newest first, and whether there are more."""
    return shared_work.page(database, Operation, account_id=account_id, limit=limit, after=after)


def jobs(
    database: Database,
    operation_id: uuid.UUID,
    *,
    left: bool,
    limit: int,
    after: uuid.UUID | None,
) -> tuple[list[OperationJob], bool]:
    """Return up to ``limit`` jobs of an operation beyond ``after``, and whether there are more.

    With ``left`` only those that were skipped or failed.
    """
    wanted = (
        sa.select(OperationJob)
        .where(OperationJob.operation_id == operation_id)
        .order_by(OperationJob.job_id)
        .limit(limit + 1)
    )
    if left:
        wanted = wanted.where(OperationJob.reason.is_not(None))
    if after is not None:
        wanted = wanted.where(OperationJob.job_id > after)
    with database.reading() as transaction:
        rows = list(transaction.session.scalars(wanted))
        return rows[:limit], len(rows) > limit


_UNFINISHED = (Status.QUEUED, Status.RUNNING)


def cancel(database: Database, operation_id: uuid.UUID) -> bool:
    """End an operation: it changes no further job. Return False if it had ended before."""
    with database.transaction() as transaction:
        return end(transaction, Status.CANCELLED, _OP.id == operation_id)


def end(
    transaction: Transaction,
    status: Status,
    *where: sa.ColumnElement[bool],
    code: str | None = None,
    message: str | None = None,
) -> bool:
    """End the unfinished operations that meet all of ``where``; return whether there were any."""
    ended = transaction.execute(
        sa.update(table(Operation))
        .where(_OP.status.in_(_UNFINISHED), *where)
        .values(
            status=status,
            finished_at=Now(),
            lease_owner=None,
            lease_expires_at=None,
            waiting_for=None,
            error_code=code,
            error_message=message,
        )
        .returning(_OP.id)
    )
    return ended.first() is not None


def _free(owner: str) -> sa.Select[uuid.UUID]:
    """Return the operation that has waited longest for a process, locked on PostgreSQL."""
    choice = (
        sa.select(_OP.id)
        .where(*shared_work.due(Operation, owner=owner))
        .order_by(_OP.served_at, _OP.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    return sa.select(choice.c.id)


def claim(database: Database, *, owner: str, lease: timedelta) -> OperationClaim | None:
    """Take the operation that has waited longest; return None when there is nothing to do."""
    with database.transaction() as transaction:
        row = (
            transaction.execute(
                sa.update(table(Operation))
                .where(_OP.id.in_(_free(owner)))
                .values(
                    status=Status.RUNNING,
                    started_at=sa.func.coalesce(_OP.started_at, Now()),
                    served_at=Now(),
                    waiting_for=None,
                    lease_owner=owner,
                    lease_expires_at=Now(sa.bindparam("b_lease", lease, type_=Seconds())),
                )
                .returning(*(_OP[name] for name in _CLAIMED), _OP.collected_at)
            )
            .mappings()
            .one_or_none()
        )
    if row is None:
        return None
    return OperationClaim(
        owner=owner,
        lease=lease,
        collected=row["collected_at"] is not None,
        **{name: row[name] for name in _CLAIMED},
    )


_CLAIMED = (
    "id",
    "account_id",
    "key_id",
    "key_name",
    "action",
    "query",
    "scope_id",
    "max_jobs",
    "request_id",
    "created_at",
    "last_job_id",
    "total",
    "reasons",
    "erases_account",
)


def release(
    database: Database, held: OperationClaim, *, waiting_for: str | None = None, pause: timedelta
) -> None:
    """Give an operation back, to continue after ``pause`` at the earliest; ``waiting_for`` is the code of the cause."""
    shared_work.release(
        database, Operation, held.id, owner=held.owner, pause=pause, waiting_for=waiting_for
    )


def finish(
    database: Database,
    held: OperationClaim,
    status: Status,
    *,
    code: str | None = None,
    message: str | None = None,
) -> None:
    """End an operation of this owner; with ``code`` and ``message`` if it cannot go on."""
    with database.transaction("conclude") as transaction:
        mine = (_OP.id == held.id, _OP.lease_owner == held.owner)
        end(transaction, status, *mine, code=code, message=message)


def _fence(
    transaction: Transaction,
    held: OperationClaim,
    **values: object,
) -> None:
    """Renew the lease and set ``values``, with the operation's row locked until the commit.

    Raises:
        OperationLost: the operation has ended, another process works on it, or an earlier commit has landed.
    """
    at = _OP.last_job_id
    moved = transaction.execute(
        sa.update(table(Operation))
        .where(
            _OP.id == held.id,
            _OP.lease_owner == held.owner,
            _OP.status == Status.RUNNING,
            at.is_(None) if held.last_job_id is None else at == held.last_job_id,
        )
        .values(
            lease_expires_at=Now(sa.bindparam("b_lease", held.lease, type_=Seconds())), **values
        )
        .returning(_OP.id)
    )
    if moved.first() is None:
        raise OperationLost


def collect(database: Database, held: OperationClaim, *, limit: int) -> OperationClaim:
    """Add up to ``limit`` further jobs to the set of an operation; return how it stands now.

    Raises:
        OperationLost: it is not this owner's any more.
    """
    matched = history.matching(
        database, held.filter, after=held.last_job_id, before=held.id, limit=limit
    )
    whole = len(matched) < limit
    total = held.total + len(matched)
    last = None if whole else matched[-1]
    with database.transaction("collect") as transaction:
        _fence(
            transaction,
            held,
            total=total,
            last_job_id=last,
            collected_at=Now() if whole else None,
        )
        _add_jobs(transaction, held.id, matched)
    return replace(held, total=total, last_job_id=last, collected=whole)


def _add_jobs(
    transaction: Transaction, operation_id: uuid.UUID, job_ids: Sequence[uuid.UUID]
) -> None:
    if job_ids:
        transaction.execute(
            sa.insert(table(OperationJob)),
            [{"operation_id": operation_id, "job_id": job_id} for job_id in job_ids],
        )


def pending(database: Database, held: OperationClaim, *, limit: int) -> list[PendingJob]:
    """Return up to ``limit`` jobs of an operation that have no result yet, the lowest ids first."""
    wanted = (
        sa.select(_ITEM.job_id, _JOB.account_id)
        .outerjoin_from(table(OperationJob), table(Job), _JOB.id == _ITEM.job_id)
        .where(_ITEM.operation_id == held.id)
        .order_by(_ITEM.job_id)
        .limit(limit)
    )
    if held.last_job_id is not None:
        wanted = wanted.where(_ITEM.job_id > held.last_job_id)
    with database.reading() as transaction:
        return [PendingJob(row.job_id, row.account_id) for row in transaction.execute(wanted)]


def step(
    database: Database,
    held: OperationClaim,
    job_id: uuid.UUID,
    act: Callable[[Transaction], StepResult],
) -> OperationClaim:
    """Do one job of an operation and note the result, in one transaction; return how the operation stands now.

    Args:
        database: where both are stored.
        held: the operation.
        job_id: the first of its jobs without a result.
        act: changes the job; what it raises undoes the transaction.

    Raises:
        OperationLost: the operation is not this owner's any more; nothing has changed.
    """
    with database.transaction("operate") as transaction:
        _fence(transaction, held, last_job_id=job_id)
        came = act(transaction)
        reasons = dict(held.reasons)
        if came.reason is not None:
            reasons[came.reason] = reasons.get(came.reason, 0) + 1
        noted = transaction.execute(
            sa.update(table(OperationJob))
            .where(_ITEM.operation_id == held.id, _ITEM.job_id == job_id, _ITEM.result.is_(None))
            .values(result=came.result, reason=came.reason, new_job_id=came.new_job_id)
            .returning(_ITEM.job_id)
        )
        if noted.first() is None:
            raise OperationLost
        counter = _OP[str(came.result)]
        transaction.execute(
            sa.update(table(Operation))
            .where(_OP.id == held.id)
            .values({counter: counter + 1, _OP.reasons: reasons})
        )
    return replace(held, last_job_id=job_id, reasons=reasons)


def unfinished(database: Database) -> Sequence[Operation]:
    """Return the operations that have not ended, the one that waits longest first."""
    with database.reading() as transaction:
        wanted = sa.select(Operation).where(Operation.finished_at.is_(None))
        return transaction.session.scalars(wanted.order_by(Operation.served_at)).all()
