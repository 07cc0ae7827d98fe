"""The raw output of generations: appended while they run, folded into one text at the end, readable at any time."""

import functools
import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self

import sqlalchemy as sa

from core.database import Database, Now, Transaction, insert
from jobs import phrases, trace
from jobs.document import Document
from jobs.events import index as event_index
from jobs.events.index import IndexEntry
from jobs.lifecycle import Status
from jobs.phrases import Part
from jobs.records.attempts import Generation, TraceChunk
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.store import event_sequence, groups, search, steps, timeline

Holding = tuple[uuid.UUID, int]


@dataclass(frozen=True)
class TracePart:
    """The output of one generation since the last flush."""

    job_id: uuid.UUID
    attempt: int
    generation: int
    position: int
    text: str = field(repr=False)
    #: Tokens of the whole generation so far.
    output_tokens: int
    first_token_at: datetime | None
    #: The index of the text; all entries of an attempt that are not stored yet are stored together.
    event_index: tuple[IndexEntry, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class TraceReading:
    """The data that is derived from a text and stored with it. Derive it before a transaction: it takes time.

    Attributes:
        steps: the steps, as :func:`jobs.store.steps.pack` returns them.
        spellings: the normalized texts for the search.
    """

    steps: Mapping[str, Any] = field(repr=False)
    spellings: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, text: str, document: Document | None = None) -> Self:
        """Parse ``text``; a ``document`` of it saves reading it again."""
        return cls(
            steps.pack(text if document is None else document), tuple(phrases.spellings(text))
        )


@dataclass(frozen=True)
class GenerationEnd:
    """The end of a generation: its output, usage and times. Times are the database's; the text is raw.

    The part of the output that ``event_index`` does not cover gets an entry when it is stored.
    """

    output: str = field(repr=False)
    finish_reason: str
    input_tokens: int | None
    cached_tokens: int | None
    image_tokens: int | None
    output_tokens: int
    first_token_at: datetime | None
    ended_at: datetime
    event_index: tuple[IndexEntry, ...] = field(default=(), repr=False)
    #: The generation's number in the attempt.
    generation: int = 0
    #: The document of the output, if it has been read; nobody appends to it.
    document: Document | None = field(default=None, repr=False, compare=False)

    @functools.cached_property
    def _reading(self) -> TraceReading:
        return TraceReading.of(self.output, self.document)

    def read(self) -> TraceReading:
        """Parse the output, once, before the transaction that stores the end."""
        return self._reading


@dataclass(frozen=True)
class GenerationEnded:
    """A generation that has ended: a note for the metrics, counted after the commit."""

    started_at: datetime
    ended: GenerationEnd


@dataclass(frozen=True)
class GenerationTrace:
    """The output of one generation so far, and its usage."""

    attempt: int
    number: int
    text: str = field(repr=False)
    #: Whether the generation has ended and its output is stored as one text: of parallel generations this comes
    #: with the attempt's end.
    complete: bool
    folded: bool
    finish_reason: str | None
    input_tokens: int | None
    cached_tokens: int | None
    image_tokens: int | None
    output_tokens: int
    started_at: datetime
    first_token_at: datetime | None
    ended_at: datetime | None
    continues: int | None = None
    valid_chars: int | None = None
    inserted: str | None = None
    #: The index of the text.
    event_index: tuple[IndexEntry, ...] = field(default=(), repr=False)
    #: The stored steps of the text, with the version of their rules.
    stored_steps: Mapping[str, Any] | None = field(default=None, repr=False)

    def steps(self) -> list[trace.Step]:
        """Return the steps of the text by the current rules."""
        return steps.read(self.text, self.event_index, self.stored_steps)


_JOB = table(Job).c
_GENERATION = table(Generation).c
#: The fields of :class:`GenerationTrace` that are columns of its generation.
_COPIED = {field.name for field in fields(GenerationTrace)} & {*_GENERATION.keys()} - {
    "event_index"
}
#: The condition of a job to be one of some holdings and still to belong to their owner; :func:`fence` has the values.
#:
#: The ids are a condition of their own because SQLite has no index for pairs: for ``ORDER BY`` it would walk all jobs
#: that there ever were.
HELD = (
    timeline.standing(Status.RUNNING),
    _JOB.lease_owner == sa.bindparam("b_owner"),
    _JOB.id.in_(sa.bindparam("b_ids", expanding=True)),
    sa.tuple_(_JOB.id, _JOB.attempt).in_(sa.bindparam("b_held", expanding=True)),
)


def fence(owner: str, held: Iterable[Holding]) -> dict[str, Any]:
    """Return the values of :data:`HELD`: the jobs and attempts ``held`` that must still belong to ``owner``."""
    pairs = sorted(held)
    return {"b_owner": owner, "b_held": pairs, "b_ids": [job_id for job_id, _ in pairs]}


_HOLD = sa.select(_JOB.id, _JOB.attempt).where(*HELD).order_by(_JOB.id)
_HOLD_SHARED = _HOLD.with_for_update(read=True)
_HOLD_ALONE = _HOLD.with_for_update()


def hold(
    transaction: Transaction, owner: str, held: Iterable[Holding], *, alone: bool = False
) -> set[Holding]:
    """Return those of ``held`` that are still ``owner``'s, and lock them against other claims until the commit.

    With ``alone`` they are also locked against the owner's other transactions, such as the recorder's.
    """
    rows = transaction.execute(_HOLD_ALONE if alone else _HOLD_SHARED, fence(owner, held))
    return {(row.id, row.attempt) for row in rows}


def append(
    database: Database,
    *,
    owner: str,
    pieces: Sequence[TracePart],
    reserve: Mapping[Holding, int] = MappingProxyType({}),
) -> set[Holding]:
    """Append ``pieces`` in one transaction, with each row fenced; return the holdings that are lost.

    Args:
        database: where they are stored.
        owner: the worker that holds their jobs.
        pieces: the pieces of all generations, so that a lower sequence number is never stored later than a higher one.
        reserve: the sequence number up to which each holding reserves numbers.
    """
    wanted = {(piece.job_id, piece.attempt) for piece in pieces} | set(reserve)
    with database.transaction("flush") as transaction:
        held = hold(transaction, owner, wanted)
        # A piece may be late: an attempt continues after one of its generations has ended and been folded.
        ended = _ended(transaction, held)
        stored = [
            piece
            for piece in pieces
            if (piece.job_id, piece.attempt) in held
            and (piece.job_id, piece.attempt, piece.generation) not in ended
        ]
        # Jobs before attempts, as in all transactions: another generation of the attempt may start at this moment.
        event_sequence.reserve(
            transaction, {holding: end for holding, end in reserve.items() if holding in held}
        )
        if stored:
            _write(transaction, stored)
            event_sequence.store_through(transaction, _through(stored))
    return wanted - held


_ENDED = sa.select(_GENERATION.job_id, _GENERATION.attempt, _GENERATION.number).where(
    sa.tuple_(_GENERATION.job_id, _GENERATION.attempt).in_(sa.bindparam("held", expanding=True)),
    _GENERATION.output.is_not(None),
)


def _ended(transaction: Transaction, held: Iterable[Holding]) -> set[tuple[uuid.UUID, int, int]]:
    """Return the generations of ``held`` whose whole output is stored: (job, attempt, number)."""
    rows = transaction.execute(_ENDED, {"held": sorted(held)})
    return {(row.job_id, row.attempt, row.number) for row in rows}


_WRITTEN = (
    sa.update(table(Generation))
    .where(
        _GENERATION.job_id == sa.bindparam("b_job"),
        _GENERATION.attempt == sa.bindparam("b_attempt"),
        _GENERATION.number == sa.bindparam("b_number"),
        # The usage of a parallel generation that has ended is final.
        _GENERATION.ended_at.is_(None),
    )
    .values(output_tokens=sa.bindparam("b_tokens"), first_token_at=sa.bindparam("b_first"))
)
_FIRST_TOKEN = (
    sa.update(table(Job))
    .where(table(Job).c.id == sa.bindparam("b_job"), table(Job).c.first_token_at.is_(None))
    .values(first_token_at=sa.bindparam("b_first"))
)


_NOW = sa.select(Now())


@functools.cache
def _chunk(dialect: str) -> sa.Insert:
    """Return the statement that appends a piece, or does nothing when the piece is stored already."""
    return insert(dialect, table(TraceChunk)).on_conflict_do_nothing()


def _write(transaction: Transaction, pieces: Sequence[TracePart]) -> None:
    now = transaction.execute(_NOW).scalar_one()
    # A piece whose write had no response is sent again, unchanged.
    transaction.execute(
        _chunk(transaction.dialect),
        [
            {
                "job_id": piece.job_id,
                "attempt": piece.attempt,
                "generation": piece.generation,
                "position": piece.position,
                "text": piece.text,
                "event_index": event_index.pack(piece.event_index),
                "last_sequence_number": piece.event_index[-1].number if piece.event_index else None,
                "at": now,
            }
            for piece in pieces
        ],
    )
    transaction.execute(
        _WRITTEN,
        [
            {
                "b_job": piece.job_id,
                "b_attempt": piece.attempt,
                "b_number": piece.generation,
                "b_tokens": piece.output_tokens,
                "b_first": piece.first_token_at,
            }
            for piece in pieces
        ],
    )
    firsts = [piece for piece in pieces if piece.position == 0]
    if firsts:
        transaction.execute(
            _FIRST_TOKEN,
            [{"b_job": piece.job_id, "b_first": piece.first_token_at} for piece in firsts],
        )
        groups.record_released(transaction, {piece.job_id for piece in firsts})


def _through(pieces: Iterable[TracePart]) -> dict[Holding, int]:
    """Return the last sequence number in ``pieces`` of each attempt."""
    through: dict[Holding, int] = {}
    for piece in pieces:
        if piece.event_index:
            holding = (piece.job_id, piece.attempt)
            through[holding] = max(piece.event_index[-1].number, through.get(holding, 0))
    return through


_NOTED = sa.update(table(Generation)).where(
    _GENERATION.job_id == sa.bindparam("b_job"),
    _GENERATION.attempt == sa.bindparam("b_attempt"),
    _GENERATION.number == sa.bindparam("b_generation"),
)
_FINISHED = _NOTED.returning(_GENERATION.started_at)
_FOLDED = sa.delete(table(TraceChunk)).where(
    table(TraceChunk).c.job_id == sa.bindparam("b_job"),
    table(TraceChunk).c.attempt == sa.bindparam("b_attempt"),
    table(TraceChunk).c.generation == sa.bindparam("b_generation"),
)


def finish(transaction: Transaction, job_id: uuid.UUID, attempt: int, ended: GenerationEnd) -> None:
    """Store a generation's whole output, its event index and its usage, and delete its chunks.

    Parallel generations are finished in the transaction that ends their attempt, and a generation that another one
    continues before that one starts: so readers see their events in order.
    """
    index = event_sequence.cover(
        transaction, job_id, ended.output, ended.event_index, at=ended.ended_at
    )
    place = {"b_job": job_id, "b_attempt": attempt, "b_generation": ended.generation}
    written = {
        "output": ended.output,
        "event_index": event_index.pack(index),
        "steps": ended.read().steps,
    }
    started_at: datetime | None = transaction.execute(
        _FINISHED, place | written | _usage(ended)
    ).scalar_one_or_none()
    if started_at is not None:
        transaction.notes.append(GenerationEnded(started_at=started_at, ended=ended))
        search.add_normalized(transaction, job_id, Part.TRACE, ended.read().spellings)
    event_sequence.end_through(transaction, job_id, attempt, index)
    transaction.execute(_FOLDED, place)


def note(transaction: Transaction, job_id: uuid.UUID, attempt: int, ended: GenerationEnd) -> None:
    """Store the end and the usage of a generation while others run in parallel; its output is stored with theirs.

    It cannot be stored earlier: readers see the events of an attempt in the order of their numbers, and events of the
    others with numbers below the last one of this generation may not be stored yet.
    """
    place = {"b_job": job_id, "b_attempt": attempt, "b_generation": ended.generation}
    transaction.execute(_NOTED, place | _usage(ended))


def _usage(ended: GenerationEnd) -> dict[str, Any]:
    """Return the columns of the end of a generation, besides its output."""
    return {
        "finish_reason": ended.finish_reason,
        "input_tokens": ended.input_tokens,
        "cached_tokens": ended.cached_tokens,
        "image_tokens": ended.image_tokens,
        "output_tokens": ended.output_tokens,
        "first_token_at": ended.first_token_at,
        "ended_at": ended.ended_at,
    }


def read_open(database: Database, holdings: Iterable[Holding]) -> dict[str, TraceReading]:
    """Parse the stored output of the open generations of ``holdings``; return the results by text, for :func:`fold`."""
    with database.reading() as transaction:
        texts = {
            generation.text
            for job_id, attempt in holdings
            for generation in _generations(transaction, job_id, attempt=attempt)
            if not generation.folded
        }
    return {text: TraceReading.of(text) for text in texts}


_OPEN = sa.select(_GENERATION.number).where(
    _GENERATION.job_id == sa.bindparam("job_id"),
    _GENERATION.attempt == sa.bindparam("attempt"),
    _GENERATION.output.is_(None),
)


def fold(
    transaction: Transaction,
    job_id: uuid.UUID,
    attempt: int,
    *,
    finish_reason: str,
    read: Mapping[str, TraceReading] = MappingProxyType({}),
    ended_at: datetime | None = None,
) -> None:
    """Close the generations of an attempt that no worker has ended, with the output that is stored.

    Args:
        transaction: the open transaction.
        job_id: the job.
        attempt: its attempt.
        finish_reason: why they ended.
        read: the results of :func:`read_open`; a text that is not among them has grown since, and is parsed now.
        ended_at: when they ended, if that is known; None: now.
    """
    if transaction.execute(_OPEN, {"job_id": job_id, "attempt": attempt}).first() is None:
        return
    for generation in _generations(transaction, job_id, attempt=attempt):
        if generation.folded:
            continue
        reading = read.get(generation.text) or TraceReading.of(generation.text)
        now = transaction.scalar(sa.select(transaction.now()))
        index = event_sequence.cover(
            transaction, job_id, generation.text, generation.event_index, at=now
        )
        transaction.update(
            Generation,
            Generation.job_id == job_id,
            Generation.attempt == attempt,
            Generation.number == generation.number,
            output=generation.text,
            event_index=event_index.pack(index),
            steps=reading.steps,
            # A parallel generation that has ended has these already.
            finish_reason=sa.func.coalesce(Generation.finish_reason, finish_reason),
            ended_at=sa.func.coalesce(
                Generation.ended_at, max(generation.started_at, ended_at) if ended_at else now
            ),
        )
        search.add_normalized(transaction, job_id, Part.TRACE, reading.spellings)
        event_sequence.end_through(transaction, job_id, attempt, index)
    transaction.delete(TraceChunk, TraceChunk.job_id == job_id, TraceChunk.attempt == attempt)


def last_flush(transaction: Transaction, job_id: uuid.UUID, attempt: int) -> datetime | None:
    """Return when the worker last stored a piece of a running attempt, None if it stored none."""
    latest = sa.select(sa.func.max(TraceChunk.at)).where(
        TraceChunk.job_id == job_id, TraceChunk.attempt == attempt
    )
    at: datetime | None = transaction.execute(latest).scalar_one()
    return at


def read(
    database: Database, job_id: uuid.UUID, *, attempt: int | None = None
) -> list[GenerationTrace]:
    """Return the traces of a job, of one attempt or of all, in order; they are partial while the job runs."""
    with database.reading() as transaction:
        return _generations(transaction, job_id, attempt=attempt)


def answer_tokens(database: Database, job_id: uuid.UUID, attempt: int) -> int:
    """Return the tokens of the last generations of all samples of an attempt, without samples of one generation.

    With an answer in JSON, these are the answers alone.
    """
    with database.reading() as transaction:
        rows = transaction.execute(
            sa.select(_GENERATION.number, _GENERATION.continues, _GENERATION.output_tokens)
            .where(_GENERATION.job_id == job_id, _GENERATION.attempt == attempt)
            .order_by(_GENERATION.number)
        ).all()
    continued = {row.continues for row in rows}
    return sum(
        row.output_tokens
        for row in rows
        if row.continues is not None and row.number not in continued
    )


def newest(
    database: Database, job_id: uuid.UUID, *, chars: int
) -> tuple[list[GenerationTrace], list[int]]:
    """Return the traces of a job's newest attempts, and the numbers of the earlier attempts that are left out.

    The last attempt is always included, and earlier ones while all together have at most ``chars`` characters.
    """
    sizes = (
        sa.select(
            _GENERATION.attempt, sa.func.sum(sa.func.length(_GENERATION.output)).label("chars")
        )
        .where(_GENERATION.job_id == job_id)
        .group_by(_GENERATION.attempt)
        .order_by(_GENERATION.attempt.desc())
    )
    with database.reading() as transaction:
        rows = transaction.execute(sizes).all()
        sums = itertools.accumulate(row.chars or 0 for row in rows)
        fitting = max(1, sum(1 for _ in itertools.takewhile(lambda total: total <= chars, sums)))
        omitted = sorted(row.attempt for row in rows[fitting:])
        since = omitted[-1] + 1 if omitted else None
        return _generations(transaction, job_id, attempt=None, since=since), omitted


def _generations(
    transaction: Transaction, job_id: uuid.UUID, *, attempt: int | None, since: int | None = None
) -> list[GenerationTrace]:
    generations = sa.select(Generation).where(Generation.job_id == job_id)
    chunks = sa.select(TraceChunk).where(TraceChunk.job_id == job_id)
    if since is not None:
        generations = generations.where(Generation.attempt >= since)
        chunks = chunks.where(TraceChunk.attempt >= since)
    if attempt is not None:
        generations = generations.where(Generation.attempt == attempt)
        chunks = chunks.where(TraceChunk.attempt == attempt)
    # The chunks are read first: when a generation ends between the two reads, its row has the whole text.
    pieces: dict[tuple[int, int], list[TraceChunk]] = {}
    ordered = chunks.order_by(TraceChunk.attempt, TraceChunk.generation, TraceChunk.position)
    for chunk in transaction.session.scalars(ordered):
        pieces.setdefault((chunk.attempt, chunk.generation), []).append(chunk)
    rows = transaction.session.scalars(generations.order_by(Generation.attempt, Generation.number))
    return [_trace(row, pieces.get((row.attempt, row.number), ())) for row in rows]


def _trace(generation: Generation, pieces: Sequence[TraceChunk]) -> GenerationTrace:
    """Return the trace of ``generation``: its output once it has ended, before that the text of its ``pieces``."""
    ended = generation.output is not None
    indexes = [generation.event_index] if ended else [piece.event_index for piece in pieces]
    return GenerationTrace(
        **{name: getattr(generation, name) for name in _COPIED},
        text="".join(piece.text for piece in pieces)
        if generation.output is None
        else generation.output,
        complete=generation.ended_at is not None,
        folded=ended,
        event_index=tuple(entry for index in indexes for entry in event_index.unpack(index)),
        stored_steps=generation.steps,
    )
