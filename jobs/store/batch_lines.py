"""The lines of batches: read from the input file, submitted as jobs, collected when the jobs have ended.

The functions that write move the batch's own row in the same transaction: see :func:`jobs.store.batches.fence`.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from core import ids
from core.database import Database, Transaction
from jobs.records.declarative import table
from jobs.records.files import BatchEntry, BatchLine, BatchStatus, LineState
from jobs.records.jobs import Job
from jobs.store import batches, files
from jobs.store.batches import BatchClaim, BatchLost, fence

#: About what a line takes in the database, without its ``custom_id``, which is stored twice.
_LINE_BYTES: Final = 512
#: Lines whose state one transaction changes.
_ROWS: Final = 1_000
#: Why a line that the batch no longer waits for has failed.
UNFINISHED: Final = {
    BatchStatus.EXPIRED: (
        "batch_expired",
        "This request was not finished before the batch expired.",
    ),
    BatchStatus.CANCELLED: (
        "batch_cancelled",
        "This request was not finished before the batch was cancelled.",
    ),
}
#: Of a job that did not start, or did not end, before its deadline.
_LATE: Final = "deadline_exceeded"

_LINE = table(BatchLine).c
_BATCH = table(BatchEntry).c
_JOB = table(Job).c


@dataclass(frozen=True)
class NewLine:
    """A line of the input file: its number from 1 on, and its place in bytes."""

    number: int
    custom_id: str
    start: int
    length: int


@dataclass(frozen=True)
class LinesRead:
    """What a slice of the input file came to.

    Attributes:
        validated: the bytes of the file up to the end of the slice.
        last_line: the number of its last line.
        total: its lines that are not empty.
        lines: those with a usable ``custom_id``.
        faults: its faults, as the API shows them.
        fault_count: the number of all its faults.
        model: the model that its first line asks for.
    """

    validated: int
    last_line: int
    total: int
    lines: Sequence[NewLine] = ()
    faults: Sequence[dict[str, Any]] = field(default=(), repr=False)
    fault_count: int = 0
    model: str | None = None


@dataclass(frozen=True)
class LineError:
    """Why a line has no answer, with the HTTP status that the same request alone would get."""

    code: str
    message: str
    status: int | None = None
    param: str | None = None


def known_custom_ids(
    database: Database, batch_id: uuid.UUID, custom_ids: Collection[str]
) -> set[str]:
    """Return those of ``custom_ids`` that lines of the batch have."""
    with database.reading() as transaction:
        rows = transaction.execute(
            sa.select(_LINE.custom_id).where(
                _LINE.batch_id == batch_id, _LINE.custom_id.in_(list(custom_ids))
            )
        )
        return set(rows.scalars())


def add(database: Database, held: BatchClaim, read: LinesRead) -> None:
    """Add the lines of a slice of the input file.

    Raises:
        BatchLost: the batch is not this owner's any more, or another process has read the slice.
    """
    batch = held.batch
    faults = [*(batch.faults or ()), *read.faults][: batches.MAX_FAULTS]
    with database.transaction("lines") as transaction:
        fence(
            transaction,
            held,
            _BATCH.validated == batch.validated,
            validated=read.validated,
            last_line=read.last_line,
            total=batch.total + read.total,
            faults=faults or None,
            fault_count=batch.fault_count + read.fault_count,
            model=batch.model or read.model,
            lines_bytes=_BATCH.lines_bytes + _bytes(line.custom_id for line in read.lines),
        )
        rows = [
            {**vars(line), "batch_id": batch.id, "state": LineState.WAITING} for line in read.lines
        ]
        if rows:
            transaction.execute(sa.insert(table(BatchLine)), rows)


def take_over(database: Database, held: BatchClaim, *, limit: int) -> bool:
    """Add up to ``limit`` failed lines of the batch that this one repeats; return whether there may be more.

    Raises:
        BatchLost: the batch is not this owner's any more, or another process has added them.
    """
    batch = held.batch
    with database.transaction() as transaction:
        rows = transaction.execute(
            sa.select(_LINE.number, _LINE.custom_id, _LINE.start, _LINE.length)
            .where(
                _LINE.batch_id == batch.retry_of,
                _LINE.state == LineState.FAILED,
                _LINE.number > batch.last_line,
            )
            .order_by(_LINE.number)
            .limit(limit)
        ).all()
        total, more = batch.total + len(rows), len(rows) == limit
        faults = [] if more else _missing(transaction, batch, total)
        fence(
            transaction,
            held,
            _BATCH.last_line == batch.last_line,
            last_line=rows[-1].number if rows else batch.last_line,
            total=total,
            faults=faults or None,
            fault_count=len(faults),
            lines_bytes=_BATCH.lines_bytes + _bytes(row.custom_id for row in rows),
        )
        if rows:
            transaction.execute(
                sa.insert(table(BatchLine)),
                [
                    {
                        "batch_id": batch.id,
                        "number": row.number,
                        "custom_id": row.custom_id,
                        "start": row.start,
                        "length": row.length,
                        "state": LineState.WAITING,
                    }
                    for row in rows
                ],
            )
    return more


def _missing(transaction: Transaction, batch: BatchEntry, total: int) -> list[dict[str, Any]]:
    """Return the fault of a batch that repeats another one, of which retention has removed lines meanwhile."""
    failed = transaction.execute(
        sa.select(_BATCH.failed).where(_BATCH.id == batch.retry_of)
    ).scalar_one_or_none()
    if failed == total:
        return []
    message = "Lines of the batch that this one repeats are not stored any more."
    return [{"code": "batch_gone", "line": None, "message": message, "param": None}]


def _bytes(custom_ids: Iterable[str]) -> int:
    """Return about what new lines take in the database."""
    return sum(_LINE_BYTES + 2 * len(custom_id.encode()) for custom_id in custom_ids)


def discard(database: Database, held: BatchClaim) -> bool:
    """Delete some lines of a batch none of which will run; return whether there may be more.

    A batch that is on its way to its end counts none of them: neither are those that it has not read.
    """
    total = _BATCH.total if held.batch.ending is None else 0
    with database.transaction() as transaction:
        fence(transaction, held, total=total, lines_bytes=0)
        return batches.delete_lines(transaction, held.id)


def waiting(database: Database, batch_id: uuid.UUID, *, limit: int) -> list[BatchLine]:
    """Return up to ``limit`` lines that are not submitted yet, in their order."""
    return _in_state(database, batch_id, LineState.WAITING, limit=limit)


def unfinished(database: Database, batch_id: uuid.UUID) -> int:
    """Return how many submitted lines have not been collected."""
    with database.reading() as transaction:
        return transaction.scalar(
            sa.select(sa.func.count())
            .select_from(table(BatchLine))
            .where(_LINE.batch_id == batch_id, _LINE.state == LineState.SUBMITTED)
        )


def _in_state(
    database: Database, batch_id: uuid.UUID, state: LineState, *, limit: int
) -> list[BatchLine]:
    with database.reading() as transaction:
        wanted = (
            sa.select(BatchLine)
            .where(_LINE.batch_id == batch_id, _LINE.state == state)
            .order_by(_LINE.number)
            .limit(limit)
        )
        return list(transaction.session.scalars(wanted))


_SUBMITTED = (
    sa.update(table(BatchLine))
    .where(
        _LINE.batch_id == sa.bindparam("b_batch"),
        _LINE.number == sa.bindparam("b_number"),
        _LINE.state == LineState.WAITING,
    )
    .values(state=LineState.SUBMITTED, job_id=sa.bindparam("b_job"))
    .returning(_LINE.number)
)


def submitted(held: BatchClaim, number: int) -> Callable[[Transaction, uuid.UUID], None]:
    """Return what notes the job of a line in the transaction that stores the job.

    It raises :class:`jobs.store.batches.BatchLost`: the line has a job, or the batch is not this owner's any more.
    """

    def note(transaction: Transaction, job_id: uuid.UUID) -> None:
        batches.renew(transaction, held)
        bound = {"b_batch": held.id, "b_number": number, "b_job": job_id}
        if transaction.execute(_SUBMITTED, bound).first() is None:
            raise BatchLost

    return note


def refuse(database: Database, held: BatchClaim, number: int, error: LineError) -> None:
    """Note that a line becomes no job.

    Raises:
        BatchLost: the line has a job, or the batch is not this owner's any more.
    """
    with database.transaction() as transaction:
        fence(transaction, held, failed=_BATCH.failed + 1)
        _move(
            transaction, held, number, LineState.WAITING, state=LineState.FAILED, **_columns(error)
        )


#: The sum of tokens so far, None: there is none yet.
Tokens = Mapping[str, Any] | None


def collect(
    database: Database,
    held: BatchClaim,
    *,
    answered: Callable[[Job], bool],
    add: Callable[[Tokens, Job], Tokens] = lambda tokens, _job: tokens,
    limit: int,
) -> int:
    """Note the ends of up to ``limit`` jobs of the batch; return how many there were.

    Args:
        database: where both are stored.
        held: the batch.
        answered: returns whether the answer to the request of a job is not an error.
        add: returns a sum of tokens with those of such a job.
        limit: the most jobs.

    Raises:
        BatchLost: the batch is not this owner's any more.
    """
    ended = (
        sa.select(_LINE.number, Job)
        .join_from(table(BatchLine), Job, _JOB.id == _LINE.job_id)
        .where(
            _LINE.batch_id == held.id,
            _LINE.state == LineState.SUBMITTED,
            _JOB.finished_at.is_not(None),
        )
        .order_by(_LINE.number)
        .limit(limit)
    )
    with database.reading() as transaction:
        rows: dict[int, Job] = {row.number: row.Job for row in transaction.execute(ended)}
    if not rows:
        return 0
    good = [number for number, job in rows.items() if answered(job)]
    failed = {number: rows[number] for number in rows.keys() - set(good)}
    usage: Tokens = held.batch.usage
    for number in good:
        usage = add(usage, rows[number])
    with database.transaction("gather") as transaction:
        fence(
            transaction,
            held,
            _BATCH.completed == held.batch.completed,
            completed=_BATCH.completed + len(good),
            failed=_BATCH.failed + len(failed),
            usage=None if usage is None else dict(usage),
        )
        moved = transaction.execute(
            sa.update(table(BatchLine))
            .where(
                _LINE.batch_id == held.id,
                _LINE.number.in_(good),
                _LINE.state == LineState.SUBMITTED,
            )
            .values(state=LineState.COMPLETED)
            .returning(_LINE.number)
        ).all()
        if len(moved) < len(good):
            raise BatchLost
        for number, job in failed.items():
            error = _unfinished(held, job)
            _move(
                transaction,
                held,
                number,
                LineState.SUBMITTED,
                state=LineState.FAILED,
                **({} if error is None else _columns(error)),
            )
    return len(rows)


def _unfinished(held: BatchClaim, job: Job) -> LineError | None:
    """Return the error of a job that ended with its batch; None: it failed on its own."""
    if job.error_code == _LATE and job.deadline_at >= held.batch.expires_at:
        return LineError(*UNFINISHED[BatchStatus.EXPIRED])
    ending = held.batch.ending or (BatchStatus.EXPIRED if held.expired else None)
    if ending in UNFINISHED and job.cancel_requested_at is not None:
        return LineError(*UNFINISHED[ending])
    return None


def give_up(database: Database, held: BatchClaim) -> int:
    """Note that some lines that are not submitted never will be; return how many.

    Raises:
        BatchLost: the batch is not this owner's any more.
    """
    ending = held.batch.ending
    if ending not in UNFINISHED:
        return 0
    numbers = [line.number for line in waiting(database, held.id, limit=_ROWS)]
    if not numbers:
        return 0
    with database.transaction() as transaction:
        fence(transaction, held, failed=_BATCH.failed + len(numbers))
        moved = transaction.execute(
            sa.update(table(BatchLine))
            .where(
                _LINE.batch_id == held.id,
                _LINE.number.in_(numbers),
                _LINE.state == LineState.WAITING,
            )
            .values(state=LineState.FAILED, **_columns(LineError(*UNFINISHED[ending])))
            .returning(_LINE.number)
        ).all()
        if len(moved) < len(numbers):
            raise BatchLost
    return len(numbers)


@dataclass(frozen=True)
class LineWritten:
    """A line that has ended, and its result as its file has it, with the end of the line.

    ``has_content`` is whether the result is made of the answer of its job.
    """

    line: BatchLine
    data: bytes = field(repr=False)
    has_content: bool


#: The columns with the file that has the results of lines in a state, and the names of the files.
_FILES: Final = {
    LineState.COMPLETED: ("output_file_id", "output"),
    LineState.FAILED: ("error_file_id", "error"),
}


def write(database: Database, held: BatchClaim, written: Sequence[LineWritten]) -> None:
    """Add the results of the next lines to the files of a batch.

    Args:
        database: where it is stored.
        held: the batch.
        written: the lines, at least one, in their order.

    Raises:
        BatchLost: the batch is not this owner's any more, another process has written the lines, or an answer was
            deleted meanwhile.
    """
    batch = held.batch
    with database.transaction("write") as transaction:
        fence(
            transaction,
            held,
            _BATCH.written_line == batch.written_line,
            written_line=written[-1].line.number,
        )
        for state, (column, kind) in _FILES.items():
            chosen = [each for each in written if each.line.state is state]
            if not chosen:
                continue
            file_id: uuid.UUID | None = getattr(batch, column)
            if file_id is None:
                name = f"{ids.show('batch', batch.id)}_{kind}.jsonl"
                file_id = files.begin(
                    transaction, files.NewFile(batch.account_id, files.OUTPUT, name)
                )
                fence(transaction, held, **{column: file_id})
            start = files.append(transaction, file_id, b"".join(each.data for each in chosen))
            if any(each.has_content for each in chosen):
                _note_places(transaction, held, chosen, start)
        _keep_answers(transaction, [each.line.job_id for each in written if each.has_content])


def _note_places(
    transaction: Transaction, held: BatchClaim, written: Sequence[LineWritten], start: int
) -> None:
    """Note where answers are, so that their deletion finds them; other results have no content."""
    places = []
    for each in written:
        places.append({"b_number": each.line.number, "b_start": start, "b_length": len(each.data)})
        start += len(each.data)
    transaction.execute(
        sa.update(table(BatchLine))
        .where(_LINE.batch_id == held.id, _LINE.number == sa.bindparam("b_number"))
        .values(result_start=sa.bindparam("b_start"), result_length=sa.bindparam("b_length")),
        places,
    )


def _keep_answers(transaction: Transaction, job_ids: Sequence[uuid.UUID | None]) -> None:
    """Let nothing delete the answers of these jobs until the commit: from then on a deletion finds their copies.

    Raises:
        BatchLost: one was deleted since it was read.
    """
    rows = transaction.execute(
        sa.select(_JOB.id, _JOB.data_removed_at, _JOB.answer_removed_at)
        .where(_JOB.id.in_([job_id for job_id in job_ids if job_id is not None]))
        .order_by(_JOB.id)
        .with_for_update(read=True)
    ).all()
    if any(row.data_removed_at or row.answer_removed_at for row in rows):
        raise BatchLost


def running_jobs(database: Database, batch_id: uuid.UUID) -> list[uuid.UUID]:
    """Return the jobs of a batch that have not ended, without those that are being cancelled."""
    with database.reading() as transaction:
        rows = transaction.execute(
            sa.select(_JOB.id)
            .join_from(table(BatchLine), table(Job), _JOB.id == _LINE.job_id)
            .where(
                _LINE.batch_id == batch_id,
                _LINE.state == LineState.SUBMITTED,
                _JOB.finished_at.is_(None),
                _JOB.cancel_requested_at.is_(None),
            )
        )
        return list(rows.scalars())


def ended(
    database: Database,
    batch_id: uuid.UUID,
    *,
    after: int,
    limit: int,
    state: LineState | None = None,
) -> list[BatchLine]:
    """Return up to ``limit`` lines that have ended (in ``state``), in their order, beyond the number ``after``."""
    # As text, so that SQLite, too, sees that the index of the ended lines fits.
    over = sa.text("batch_lines.state IN ('completed', 'failed')")
    wanted = (
        sa.select(BatchLine)
        .where(
            _LINE.batch_id == batch_id,
            _LINE.number > after,
            over if state is None else _LINE.state == state,
        )
        .order_by(_LINE.number)
        .limit(limit)
    )
    with database.reading() as transaction:
        return list(transaction.session.scalars(wanted))


def _move(
    transaction: Transaction, held: BatchClaim, number: int, source: LineState, **values: object
) -> None:
    moved = transaction.execute(
        sa.update(table(BatchLine))
        .where(_LINE.batch_id == held.id, _LINE.number == number, _LINE.state == source)
        .values(**values)
        .returning(_LINE.number)
    )
    if moved.first() is None:
        raise BatchLost


def _columns(error: LineError) -> dict[str, Any]:
    return {f"error_{name}": value for name, value in vars(error).items()}
