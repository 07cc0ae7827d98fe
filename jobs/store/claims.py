"""Running a job: claim, begin, renew, watch; each is fenced by the attempt and its owner.

:func:`claim` returns a :class:`Claim`. Its owner may write only while the job's row names this attempt and owner. When
it no longer does, each function returns None (or leaves the job out of its result), and the owner discards what it has.
:mod:`jobs.store.settle` ends an attempt.
"""

import contextlib
import random
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core.database import Database, Now, Seconds, Transaction
from jobs.events.index import SequenceBlock
from jobs.findings import Finding
from jobs.lifecycle import Status
from jobs.records.attempts import Attempt, Generation
from jobs.records.declarative import table
from jobs.records.images import Image, ImageBytes, ImageCrashes, JobImage
from jobs.records.jobs import Job
from jobs.store import dispatch, findings, pauses, timeline, traces


@dataclass(frozen=True)
class ClaimedImage:
    """An image of a claimed job, without its bytes."""

    key: str
    media_type: str
    width: int
    height: int
    tokens: int


@dataclass(frozen=True)
class Claim:
    """A job that this owner runs now, as its ``attempt``-th attempt."""

    job_id: uuid.UUID
    attempt: int
    owner: str
    account_id: uuid.UUID
    model: str
    question: str = field(repr=False)
    options: Mapping[str, Any]
    images: tuple[ClaimedImage, ...]
    failures: int
    max_attempts: int
    request_id: str
    #: Whether an image of the job is in quarantine, because too many engines crashed over it: no engine may get it.
    quarantined: bool
    #: The sequence numbers of this attempt's events; all its generations share them.
    numbers: SequenceBlock = field(default_factory=SequenceBlock, repr=False, compare=False)


@dataclass(frozen=True)
class Continuation:
    """The start of a generation that continues another one, and the other one's last sequence number."""

    started_at: datetime
    through: int


@dataclass(frozen=True)
class StopFlags:
    """The reasons to stop a running job that have come up since it was claimed."""

    cancel: bool
    overdue: bool


_JOB = table(Job).c


def _claimed(*, of_turn: bool) -> timeline.Change:
    """Return the change that claims the best job: of the turn that is bound, or of all jobs."""
    return timeline.Change(
        "claimed",
        source=Status.QUEUED,
        target=Status.RUNNING,
        where=(_JOB.id == dispatch.best(of_turn=of_turn),),
        values={
            "attempt": _JOB.attempt + 1,
            "lease_expires_at": Now(sa.bindparam("b_lease", type_=Seconds())),
            "started_at": sa.func.coalesce(_JOB.started_at, Now()),
        },
        numbers=SequenceBlock.BLOCK,
        shown=("model", "question", "options", "max_attempts"),
    )


#: Pauses between attempts to take a turn: a claim holds one for some milliseconds.
_PAUSES_SECONDS = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
_CLAIMED_OF_TURN = _claimed(of_turn=True)
_CLAIMED_OF_ALL = _claimed(of_turn=False)
_ATTEMPT = sa.insert(table(Attempt)).values(claimed_at=Now())
#: The columns of a job that its claim has unchanged.
_COPIED = ("account_id", "model", "options", "failures", "max_attempts", "request_id")


def claim(
    database: Database,
    *,
    owner: str,
    lease: timedelta,
    pauses_seconds: Iterable[float] = _PAUSES_SECONDS,
) -> Claim | None:
    """Claim the best eligible job for ``owner``; return None if no job is eligible.

    It is the best job of the account that has the next turn. On PostgreSQL other claims may be taking all turns at this
    moment; then the claim is repeated a few times. If the other claims take too long, or a turn is missing, the job
    with the lowest ``ordering_at`` is claimed.

    Args:
        database: where jobs are stored.
        owner: the worker's id.
        lease: how long the owner holds the job without a renewal.
        pauses_seconds: about how long to wait each time that other claims take all turns.
    """
    pause = threading.Event()
    for seconds in pauses_seconds:
        with contextlib.suppress(_AllTurnsTaken):
            return _claim(database, owner, lease, or_by_rank=False)
        pause.wait(seconds * random.uniform(0.5, 1.5))  # noqa: S311 - so that claims do not meet again
    return _claim(database, owner, lease, or_by_rank=True)


class _AllTurnsTaken(Exception):
    """Other claims are taking all turns that have an eligible job."""


def _claim(database: Database, owner: str, lease: timedelta, *, or_by_rank: bool) -> Claim | None:
    """Claim once.

    Raises:
        _AllTurnsTaken: only without ``or_by_rank``; nothing has changed then.
    """
    with database.transaction("claim") as transaction:
        job = by_turn(transaction, owner, lease)
        if job is None and not or_by_rank and transaction.execute(dispatch.any_turn()).first():
            raise _AllTurnsTaken
        job = job or _without_turn(transaction, owner, lease)
        return None if job is None else hold(transaction, job, owner)


def by_turn(transaction: Transaction, owner: str, lease: timedelta) -> timeline.Changed | None:
    """Take the first turn that has an eligible job and claim its best job; return None when there is no such turn."""
    turn = transaction.execute(dispatch.turn()).first()
    if turn is None:
        return None
    bound = {"b_account": turn.account_id, "b_class": turn.priority}
    return _change(transaction, _CLAIMED_OF_TURN, owner, lease, bound)


def _without_turn(
    transaction: Transaction, owner: str, lease: timedelta
) -> timeline.Changed | None:
    """Claim a job although no turn was free. While a part of the queue is paused, only of a turn that is not."""
    if not pauses.any_active(transaction):
        return by_rank(transaction, owner, lease)
    turn = transaction.execute(dispatch.any_turn()).first()
    if turn is None:
        return None
    bound = {"b_account": turn.account_id, "b_class": turn.priority}
    return _change(transaction, _CLAIMED_OF_TURN, owner, lease, bound)


def by_rank(transaction: Transaction, owner: str, lease: timedelta) -> timeline.Changed | None:
    """Claim the best eligible job of all accounts, without a turn; return None if no job is eligible."""
    return _change(transaction, _CLAIMED_OF_ALL, owner, lease, {})


def _change(
    transaction: Transaction,
    what: timeline.Change,
    owner: str,
    lease: timedelta,
    bound: Mapping[str, Any],
) -> timeline.Changed | None:
    bound = {"lease_owner": owner, "b_lease": lease, **bound}
    changed = timeline.change(transaction, what, actor=f"worker:{owner}", bound=bound)
    return changed[0] if changed else None


def hold(transaction: Transaction, job: timeline.Changed, owner: str) -> Claim:
    """Insert the attempt of a job that was just claimed; return what its owner needs."""
    values = job.values
    own = values["last_sequence_number"] - SequenceBlock.BLOCK
    transaction.execute(
        _ATTEMPT,
        {"job_id": job.id, "number": job.attempt, "worker": owner, "valid_through": own},
    )
    images, quarantined = _claimed_images(transaction, job.id)
    return Claim(
        job_id=job.id,
        attempt=job.attempt,
        owner=owner,
        question=values["question"] or "",
        images=images,
        quarantined=quarantined,
        **{name: values[name] for name in _COPIED},
        numbers=SequenceBlock(own, values["last_sequence_number"]),
    )


_IMAGE = table(Image).c
_JOB_IMAGE = table(JobImage).c
_CRASHES = table(ImageCrashes).c
_IMAGES = (
    sa.select(
        _CRASHES.quarantined_at,
        _IMAGE.image_key.label("key"),
        _IMAGE.media_type,
        _IMAGE.width,
        _IMAGE.height,
        _JOB_IMAGE.tokens,
    )
    .select_from(table(JobImage))
    .join(table(Image), _IMAGE.id == _JOB_IMAGE.image_id)
    .outerjoin(
        table(ImageCrashes),
        sa.and_(_CRASHES.account_id == _IMAGE.account_id, _CRASHES.image_key == _IMAGE.image_key),
    )
    .where(_JOB_IMAGE.job_id == sa.bindparam("job_id"))
    .order_by(_JOB_IMAGE.position)
)


def _claimed_images(
    transaction: Transaction, job_id: uuid.UUID
) -> tuple[tuple[ClaimedImage, ...], bool]:
    """Return the images of a job, and whether one of them is in quarantine."""
    rows = [dict(row) for row in transaction.execute(_IMAGES, {"job_id": job_id}).mappings()]
    quarantined = [row.pop("quarantined_at") for row in rows]
    return tuple(ClaimedImage(**row) for row in rows), any(quarantined)


_BYTES = table(ImageBytes).c
_CANONICAL = sa.select(_BYTES.data).where(
    _BYTES.account_id == sa.bindparam("account_id"), _BYTES.image_key == sa.bindparam("key")
)


def image(database: Database, *, account_id: uuid.UUID, key: str) -> bytes | None:
    """Return the canonical bytes of an image, or None when they were removed."""
    with database.reading() as transaction:
        data: bytes | None = transaction.execute(
            _CANONICAL, {"account_id": account_id, "key": key}
        ).scalar_one_or_none()
        return data


_REQUESTED = sa.update(table(Attempt)).where(
    table(Attempt).c.job_id == sa.bindparam("b_job"),
    table(Attempt).c.number == sa.bindparam("b_number"),
)
_GENERATION = (
    sa.insert(table(Generation))
    .values(output_tokens=0, started_at=Now())
    .returning(table(Generation).c.started_at)
)


def begin(
    database: Database,
    claim: Claim,
    *,
    rid: str,
    generation: int,
    engine: str,
    engine_version: str,
    prompt: Mapping[str, Any],
    sampling: Mapping[str, Any],
) -> datetime | None:
    """Store the request that is about to be sent to an engine; return its start, or None if the job is lost.

    The start is a time of the database's clock.
    """
    with database.transaction("begin") as transaction:
        if not traces.hold(transaction, claim.owner, [(claim.job_id, claim.attempt)]):
            return None
        requested = {
            "engine": engine,
            "engine_version": engine_version,
            "model": claim.model,
            "prompt": dict(prompt),
            "sampling": dict(sampling),
        }
        transaction.execute(
            _REQUESTED, requested | {"b_job": claim.job_id, "b_number": claim.attempt}
        )
        return _begin(transaction, claim, generation, rid)


def _begin(
    transaction: Transaction,
    claim: Claim,
    number: int,
    rid: str,
    **continued: int | str,
) -> datetime:
    """Insert a generation; return its start."""
    place = {"job_id": claim.job_id, "attempt": claim.attempt, "number": number}
    started_at: datetime = transaction.execute(
        _GENERATION, {**place, "rid": rid, **continued}
    ).scalar_one()
    return started_at


def join(database: Database, claim: Claim, *, rid: str, generation: int) -> datetime | None:
    """Insert a generation that runs in parallel to others of its attempt; return its start, or None if the job is lost.

    The call may be repeated when its outcome is unknown.
    """
    with database.transaction("join") as transaction:
        if not traces.hold(transaction, claim.owner, [(claim.job_id, claim.attempt)], alone=True):
            return None
        done = _followed(transaction, claim, generation)
        if done is None:
            return _begin(transaction, claim, generation, rid)
        return done.started_at


def leave(database: Database, claim: Claim, ended: traces.GenerationEnd) -> None:
    """Store the end of a generation while others of its attempt continue; it is written again with theirs."""
    with database.transaction("leave") as transaction:
        if traces.hold(transaction, claim.owner, [(claim.job_id, claim.attempt)], alone=True):
            traces.note(transaction, claim.job_id, claim.attempt, ended)


def follow(
    database: Database,
    claim: Claim,
    *,
    ended: traces.GenerationEnd,
    finding: Finding | None,
    rid: str,
    stored: int,
    inserted: str,
    generation: int | None = None,
    beside: bool = False,
) -> Continuation | None:
    """End a generation and insert the next one, which continues it; return None if the job is lost.

    ``finding`` is the reason for the cut; None: the generation came to its end. With ``beside`` other generations of
    the attempt may be running: then the text of the one that was cut is written when all have ended, and
    ``generation`` is the number of the next one.

    The call may be repeated when its outcome is unknown.
    """
    number = ended.generation + 1 if generation is None else generation
    if not beside:
        ended.read()
    with database.transaction("follow") as transaction:
        if not traces.hold(transaction, claim.owner, [(claim.job_id, claim.attempt)], alone=True):
            return None
        done = _followed(transaction, claim, number)
        if done is not None:
            return done
        end = traces.note if beside else traces.finish
        end(transaction, claim.job_id, claim.attempt, ended)
        findings.store(transaction, claim.job_id, claim.attempt, [finding] if finding else [])
        _begin(
            transaction,
            claim,
            number,
            rid,
            continues=ended.generation,
            valid_chars=stored,
            inserted=inserted,
        )
        return _followed(transaction, claim, number)


def _followed(transaction: Transaction, claim: Claim, number: int) -> Continuation | None:
    """Return when a generation started, and the sequence number through which events are stored; None: it did not."""
    row = transaction.execute(
        sa.select(Generation.started_at, Attempt.valid_through)
        .join(
            Attempt,
            sa.and_(Attempt.job_id == Generation.job_id, Attempt.number == Generation.attempt),
        )
        .where(
            Generation.job_id == claim.job_id,
            Generation.attempt == claim.attempt,
            Generation.number == number,
        )
    ).one_or_none()
    return None if row is None else Continuation(row.started_at, row.valid_through or 0)


# Rows are locked in the order in which the recorder locks them: otherwise the two could deadlock.
_MINE = sa.select(_JOB.id).where(*traces.HELD).order_by(_JOB.id).with_for_update().cte("mine")
_RENEWED = (
    sa.update(table(Job))
    .where(_JOB.id.in_(sa.select(_MINE.c.id)))
    .values(lease_expires_at=Now(sa.bindparam("b_lease", type_=Seconds())))
    .returning(_JOB.id, _JOB.attempt)
)


def renew(
    database: Database, *, owner: str, held: Iterable[tuple[uuid.UUID, int]], lease: timedelta
) -> set[tuple[uuid.UUID, int]]:
    """Renew the leases of ``held`` (job, attempt) in one statement; return those that are still the owner's."""
    pairs = list(held)
    if not pairs:
        return set()
    with database.transaction("renew") as transaction:
        rows = transaction.execute(_RENEWED, traces.fence(owner, pairs) | {"b_lease": lease}).all()
        return {(row.id, row.attempt) for row in rows}


_FLAGS = sa.select(
    _JOB.id,
    _JOB.attempt,
    _JOB.cancel_requested_at.is_not(None).label("cancel"),
    (_JOB.deadline_at <= Now()).label("overdue"),
).where(*traces.HELD)


def watch(
    database: Database, *, owner: str, held: Iterable[tuple[uuid.UUID, int]]
) -> dict[tuple[uuid.UUID, int], StopFlags]:
    """Return the flags of ``held`` (job, attempt); a job that is missing from the result is no longer the owner's."""
    pairs = list(held)
    if not pairs:
        return {}
    with database.reading() as transaction:
        rows = transaction.execute(_FLAGS, traces.fence(owner, pairs)).all()
        return {
            (row.id, row.attempt): StopFlags(cancel=bool(row.cancel), overdue=bool(row.overdue))
            for row in rows
        }
