"""The running of a job: claim, begin, renew, watch; all fenced by the attempt and its owner.

A claim gives a :class:`Claim`. Whoever holds it may write only while the row still says so: each verb
returns None (or leaves the job out of its answer) when the job is no longer theirs, and then whatever
the holder has is discarded. How it ends is in :mod:`jobs.store.settle`.
"""

from __future__ import annotations

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
from jobs.records import Attempt, Generation, Image, ImageBytes, ImageCrashes, Job, JobImage, table
from jobs.store import dispatch, findings, timeline, traces


@dataclass(frozen=True)
class ClaimedImage:
    """A picture of a claimed job, without its bytes."""

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
    #: One of the pictures has killed too many engines: it must not get to another one.
    quarantined: bool
    #: For the events of this attempt; all its streams share them.
    numbers: SequenceBlock = field(default_factory=SequenceBlock, repr=False, compare=False)


@dataclass(frozen=True)
class Continuation:
    """When a sample that goes on from another one began, and the last number of the other one's events."""

    started_at: datetime
    through: int


@dataclass(frozen=True)
class StopFlags:
    """What has been asked of a running job since it was claimed."""

    cancel: bool
    overdue: bool


_JOB = table(Job).c


def _claimed(*, of_turn: bool) -> timeline.Change:
    """Return the change that claims the best job, of the turn that is bound or of all."""
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


#: Between two tries to take a turn: a claim holds one for some milliseconds.
_PAUSES_SECONDS = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
_CLAIMED_OF_TURN = _claimed(of_turn=True)
_CLAIMED_OF_ALL = _claimed(of_turn=False)
_ATTEMPT = sa.insert(table(Attempt)).values(claimed_at=Now())


def claim(
    database: Database,
    *,
    owner: str,
    lease: timedelta,
    pauses_seconds: Iterable[float] = _PAUSES_SECONDS,
) -> Claim | None:
    """Claim the best eligible job for ``owner``, or return None when there is none.

    It is the best job of the account whose turn it is. On PostgreSQL other claims may be taking all turns at this
    moment; then the claim is repeated a few times. If the other claims take too long, or a turn is missing, the job
    with the lowest ``ordering_at`` is claimed.

    Args:
        database: where the jobs are.
        owner: for whom.
        lease: how long the owner has the job without a renewal.
        pauses_seconds: about how long to wait each time that all turns are taken.
    """
    pause = threading.Event()
    for seconds in pauses_seconds:
        with contextlib.suppress(_AllTurnsTaken):
            return _claim(database, owner, lease, or_by_rank=False)
        pause.wait(seconds * random.uniform(0.5, 1.5))  # noqa: S311 - so that claims do not meet again
    return _claim(database, owner, lease, or_by_rank=True)


class _AllTurnsTaken(Exception):
    """There are turns with eligible jobs, and other claims are taking all of them."""


def _claim(database: Database, owner: str, lease: timedelta, *, or_by_rank: bool) -> Claim | None:
    """Claim once.

    Raises:
        _AllTurnsTaken: only without ``or_by_rank``; nothing is changed then.
    """
    with database.transaction("claim") as transaction:
        job = by_turn(transaction, owner, lease)
        if job is None and not or_by_rank and transaction.execute(dispatch.any_turn()).first():
            raise _AllTurnsTaken
        job = job or by_rank(transaction, owner, lease)
        return None if job is None else hold(transaction, job, owner)


def by_turn(transaction: Transaction, owner: str, lease: timedelta) -> timeline.Changed | None:
    """Take the first turn that has an eligible job, and claim its best one; return it, or None without such a turn."""
    turn = transaction.execute(dispatch.turn()).first()
    if turn is None:
        return None
    bound = {"b_account": turn.account_id, "b_class": turn.priority}
    return _change(transaction, _CLAIMED_OF_TURN, owner, lease, bound)


def by_rank(transaction: Transaction, owner: str, lease: timedelta) -> timeline.Changed | None:
    """Claim the best eligible job of all, whoever's turn it is; return it, or None when there is none."""
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
    """Keep the attempt of a job that was claimed just now; return what its owner needs to know."""
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
        account_id=values["account_id"],
        model=values["model"],
        question=values["question"] or "",
        options=values["options"],
        images=images,
        quarantined=quarantined,
        failures=values["failures"],
        max_attempts=values["max_attempts"],
        request_id=values["request_id"],
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
    """Return the pictures of a job, and whether one of them is in quarantine."""
    rows = transaction.execute(_IMAGES, {"job_id": job_id}).mappings()
    found = [dict(row) for row in rows]
    marks = [row.pop("quarantined_at") for row in found]
    return tuple(ClaimedImage(**row) for row in found), any(marks)


_BYTES = table(ImageBytes).c
_CANONICAL = sa.select(_BYTES.data).where(
    _BYTES.account_id == sa.bindparam("account_id"), _BYTES.image_key == sa.bindparam("key")
)


def image(database: Database, *, account_id: uuid.UUID, key: str) -> bytes | None:
    """Return the canonical bytes of a picture, or None when they have been removed."""
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
    """Note what is about to be asked of which engine; return the start by the database's clock, or None if lost."""
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
        new = {"job_id": claim.job_id, "attempt": claim.attempt, "number": generation, "rid": rid}
        started_at: datetime = transaction.execute(_GENERATION, new).scalar_one()
        return started_at


def join(database: Database, claim: Claim, *, rid: str, generation: int) -> datetime | None:
    """Note a stream that begins beside others of its attempt; return its start, or None if the job is lost.

    It may be called again when it is not known whether it has been done.
    """
    with database.transaction("join") as transaction:
        if not traces.hold(transaction, claim.owner, [(claim.job_id, claim.attempt)], alone=True):
            return None
        done = _followed(transaction, claim, generation)
        if done is None:
            new = {
                "job_id": claim.job_id,
                "attempt": claim.attempt,
                "number": generation,
                "rid": rid,
            }
            started_at: datetime = transaction.execute(_GENERATION, new).scalar_one()
            return started_at
        return done.started_at


def leave(database: Database, claim: Claim, ended: traces.GenerationEnd) -> None:
    """Note the end of a stream beside which others of its attempt go on; it is written again with theirs."""
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
    """End a stream, and begin the next sample, which goes on from it; return its start, or None if lost.

    ``finding`` is what it was cut for; None: it had come to its end. With ``beside`` other streams of the attempt may
    be running: then the text of the one that was cut is written when all have ended, and ``generation`` is the
    number of the next one.

    It may be called again when it is not known whether it has been done.
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
        findings.keep(transaction, claim.job_id, claim.attempt, [finding] if finding else [])
        new = {"job_id": claim.job_id, "attempt": claim.attempt, "number": number, "rid": rid}
        after = {"continues": ended.generation, "kept_chars": stored, "inserted": inserted}
        transaction.execute(_GENERATION, new | after)
        return _followed(transaction, claim, number)


def _followed(transaction: Transaction, claim: Claim, number: int) -> Continuation | None:
    """Return when a sample of an attempt began, and up to which number everything is written; None: it did not."""
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


# Rows are locked in the order in which the recorder locks them: else the two could wait for each other.
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
    pairs = sorted(held)
    if not pairs:
        return set()
    with database.transaction("renew") as transaction:
        rows = transaction.execute(
            _RENEWED, {"b_owner": owner, "b_held": pairs, "b_lease": lease}
        ).all()
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
    """Return what is asked of ``held``; a job that is missing from the answer is no longer the owner's."""
    pairs = sorted(held)
    if not pairs:
        return {}
    with database.reading() as transaction:
        rows = transaction.execute(_FLAGS, {"b_owner": owner, "b_held": pairs}).all()
        return {
            (row.id, row.attempt): StopFlags(cancel=bool(row.cancel), overdue=bool(row.overdue))
            for row in rows
        }
