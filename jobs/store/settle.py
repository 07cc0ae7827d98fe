"""How an attempt ends: succeed, fail, stop, retry, release; each by one fenced UPDATE.

Each verb returns False when the job is no longer the claim's, and then nothing has been written.
"""

from __future__ import annotations

import functools
import random
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from core.database import Database, Now, Seconds, Transaction
from jobs import findings as guarded
from jobs import lifecycle
from jobs.answers.extraction import Answer
from jobs.answers.values import read as read_value
from jobs.answers.votes import Tally
from jobs.findings import Finding
from jobs.lifecycle import Outcome, Status
from jobs.phrases import Part
from jobs.records import Attempt, Generation, Job, table
from jobs.store import findings, groups, quarantine, search, timeline, traces
from jobs.store.claims import Claim


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, as the caller sees it."""

    code: str
    message: str
    retryable: bool = False

    @property
    def columns(self) -> dict[str, Any]:
        """What the row of a failed job says of it."""
        return {
            "error_code": self.code,
            "error_message": self.message,
            "error_retryable": self.retryable,
        }


def succeed(
    database: Database,
    claim: Claim,
    *,
    answer: Answer | None,
    generation: traces.GenerationEnd,
    others: Sequence[traces.GenerationEnd] = (),
    forced: bool = False,
    found: Iterable[Finding] = (),
    tally: Tally | None = None,
    finish_reason: str | None = None,
) -> bool:
    """End the job with its answer (None: the trace holds none), usage and trace; False when it is lost.

    Args:
        database: where it is kept.
        claim: the fence.
        answer: what was read in ``generation``.
        generation: the stream that ended last.
        others: the attempt's other streams whose end is not written yet.
        forced: whether the model was made to answer.
        found: what guards saw in these streams.
        tally: how its samples voted, if they did.
        finish_reason: of the stream that gave the answer, when that is another one.
    """
    value = read_value(answer.text, claim.options.get("answer_format")) if answer else None
    found = tuple(found)
    _read(generation, *others)
    firsts = [one.first_token_at for one in (generation, *others) if one.first_token_at is not None]
    with database.transaction("succeed") as transaction:
        settled = _settle(
            transaction,
            claim,
            outcome=Outcome.SUCCEEDED,
            generation=generation,
            others=others,
            values={
                "answer_text": answer.text if answer else None,
                "answer_rule": answer.rule if answer else None,
                "answer_value": value,
                "answer_forced": forced if answer else None,
                "votes": tally.plain() if tally else None,
                "confidence": tally.confidence if tally else guarded.confidence(found),
                "finish_reason": finish_reason or generation.finish_reason,
                "first_token_at": min(firsts, default=None),
            },
        )
        if settled:
            quarantine.clear_crashes(
                transaction,
                claim.account_id,
                [image.key for image in claim.images],
                job_id=claim.job_id,
                attempt=claim.attempt,
            )
            findings.keep(transaction, claim.job_id, claim.attempt, found)
            if tally is not None:
                transaction.notes.append(tally)
        return settled


QUARANTINED = Failure(
    code=quarantine.CODE, message="An image of the job took too many engines down."
)


def fail(
    database: Database,
    claim: Claim,
    fault: Failure,
    *,
    generation: traces.GenerationEnd | None,
    others: Sequence[traces.GenerationEnd] = (),
    deadly: int | None = None,
) -> bool:
    """End the job as failed, its partial trace kept; False when it is lost. ``deadly`` is as in :func:`retry`."""
    _read(generation, *others)
    with database.transaction("fail") as transaction:
        if _quarantines(transaction, claim, deadly):
            fault = QUARANTINED
        return _settle(
            transaction,
            claim,
            outcome=Outcome.FAILED,
            generation=generation,
            others=others,
            fault=fault,
            values=fault.columns,
        )


def stop(
    database: Database,
    claim: Claim,
    *,
    generation: traces.GenerationEnd | None,
    others: Sequence[traces.GenerationEnd] = (),
) -> bool:
    """End the job as cancelled, after its engine has stopped; False when it is lost."""
    _read(generation, *others)
    with database.transaction("stop") as transaction:
        return _stop(transaction, claim, generation=generation, others=others)


def retry(
    database: Database,
    claim: Claim,
    fault: Failure,
    *,
    generation: traces.GenerationEnd | None,
    others: Sequence[traces.GenerationEnd] = (),
    rng: random.Random,
    deadly: int | None = None,
) -> bool:
    """Put the job back for another try after a counted fault, with backoff; False when it is lost.

    A job whose cancel was asked for meanwhile does not go back: it ends as cancelled. Nor does one over which an
    engine died for the ``deadly``-th time (None: none died): its image is in quarantine then, and it fails.
    """
    _read(generation, *others)
    with database.transaction("retry") as transaction:
        if _cancel_requested(transaction, claim):
            return _stop(transaction, claim, generation=generation, others=others)
        if _quarantines(transaction, claim, deadly):
            return _settle(
                transaction,
                claim,
                outcome=Outcome.FAILED,
                generation=generation,
                others=others,
                fault=QUARANTINED,
                values=QUARANTINED.columns,
            )
        wait = lifecycle.backoff(claim.failures + 1, rng=rng)
        return _settle(
            transaction,
            claim,
            outcome=Outcome.RETRIED,
            generation=generation,
            others=others,
            fault=fault,
            values={"failures": 1, "not_before": wait},
        )


def release(
    database: Database,
    claim: Claim,
    *,
    generation: traces.GenerationEnd | None,
    others: Sequence[traces.GenerationEnd] = (),
    wait: timedelta = timedelta(0),
    fault: Failure | None = None,
) -> bool:
    """Give the job back uncounted: a drain, or (``fault``) an engine that is full or away; False when it is lost.

    An engine that took no request sends no bill: the job keeps the one it has.

    A job whose cancel was asked for meanwhile does not go back: it ends as cancelled.
    """
    _read(generation, *others)
    with database.transaction("release") as transaction:
        if _cancel_requested(transaction, claim):
            return _stop(transaction, claim, generation=generation, others=others)
        return _settle(
            transaction,
            claim,
            outcome=Outcome.RELEASED,
            generation=generation,
            others=others,
            fault=fault,
            billed=fault is None,
            values={"not_before": wait},
        )


def _read(*generations: traces.GenerationEnd | None) -> None:
    """Read what is kept beside the streams' texts now, not while the transaction keeps others waiting."""
    for generation in generations:
        if generation is not None:
            generation.read()


def landed(database: Database, claim: Claim) -> Outcome | None:
    """Return how the attempt ended, if it did: the answer after a commit whose outcome is unknown."""
    with database.reading() as transaction:
        attempt = transaction.session.get(Attempt, (claim.job_id, claim.attempt))
        return attempt.outcome if attempt else None


_ATTEMPT_ENDED = (
    sa.update(table(Attempt))
    .where(
        table(Attempt).c.job_id == sa.bindparam("b_job"),
        table(Attempt).c.number == sa.bindparam("b_number"),
    )
    .values(ended_at=Now())
)


def end_attempt(
    transaction: Transaction,
    job_id: uuid.UUID,
    attempt: int,
    *,
    outcome: Outcome,
    fault: Failure | None,
) -> None:
    """Write the end of an attempt, whose job has been moved on."""
    transaction.execute(
        _ATTEMPT_ENDED,
        {
            "b_job": job_id,
            "b_number": attempt,
            "outcome": outcome,
            "error_code": fault.code if fault else None,
            "error_message": fault.message if fault else None,
        },
    )


_JOB = table(Job).c
_FENCE: tuple[sa.ColumnElement[bool], ...] = (
    _JOB.id == sa.bindparam("b_job"),
    _JOB.attempt == sa.bindparam("b_attempt"),
    _JOB.lease_owner == sa.bindparam("b_owner"),
)
_FENCED = sa.select(_JOB.cancel_requested_at).where(*_FENCE).with_for_update()


def _fence(claim: Claim) -> dict[str, Any]:
    """Return the parameters of what is fenced."""
    return {"b_job": claim.job_id, "b_attempt": claim.attempt, "b_owner": claim.owner}


def _cancel_requested(transaction: Transaction, claim: Claim) -> bool:
    """Whether somebody asked for the job's end; until the commit nobody else can."""
    return transaction.execute(_FENCED, _fence(claim)).scalar_one_or_none() is not None


def _quarantines(transaction: Transaction, claim: Claim, deadly: int | None) -> bool:
    """Whether an engine's death puts an image of the job into quarantine; a lost claim accuses nobody."""
    if deadly is None:
        return False
    if transaction.execute(_FENCED, _fence(claim)).first() is None:
        return False
    keys = [image.key for image in claim.images]
    return quarantine.record_crash(transaction, claim.account_id, keys, limit=deadly)


def _stop(
    transaction: Transaction,
    claim: Claim,
    *,
    generation: traces.GenerationEnd | None,
    others: Sequence[traces.GenerationEnd],
) -> bool:
    return _settle(
        transaction,
        claim,
        outcome=Outcome.CANCELLED,
        generation=generation,
        others=others,
        values={} if generation is None else {"engine_stopped_at": timedelta(0)},
    )


#: What becomes of a job whose attempt has ended so.
_TARGETS = {
    Outcome.SUCCEEDED: Status.SUCCEEDED,
    Outcome.FAILED: Status.FAILED,
    Outcome.CANCELLED: Status.CANCELLED,
    Outcome.RETRIED: Status.QUEUED,
    Outcome.RELEASED: Status.QUEUED,
}
#: Columns that are not set to what is given but by it: to the first of two, to a sum, to a time from now.
_COMPUTED: dict[str, sa.ColumnElement[Any]] = {
    "first_token_at": sa.func.coalesce(
        _JOB.first_token_at, sa.bindparam("b_first_token_at", type_=_JOB.first_token_at.type)
    ),
    "engine_seconds": sa.func.coalesce(_JOB.engine_seconds, 0.0) + sa.bindparam("b_engine_seconds"),
    "failures": _JOB.failures + sa.bindparam("b_failures"),
    "not_before": Now(sa.bindparam("b_not_before", type_=Seconds())),
    "engine_stopped_at": Now(sa.bindparam("b_engine_stopped_at", type_=Seconds())),
}


@functools.cache
def _ending(outcome: Outcome, computed: frozenset[str]) -> timeline.Change:
    """Return the change that ends an attempt, with those of the ``computed`` columns that it sets."""
    return timeline.Change(
        str(outcome),
        source=Status.RUNNING,
        target=_TARGETS[outcome],
        where=_FENCE,
        values={name: _COMPUTED[name] for name in sorted(computed)},
    )


def _settle(
    transaction: Transaction,
    claim: Claim,
    *,
    outcome: Outcome,
    generation: traces.GenerationEnd | None,
    others: Sequence[traces.GenerationEnd],
    values: dict[str, Any],
    fault: Failure | None = None,
    billed: bool = True,
) -> bool:
    """End the attempt: the job by one fenced UPDATE, and only then the attempt, its sample and its bill.

    ``values`` are columns of the job, those among :data:`_COMPUTED` by what they are computed from.
    """
    generations = [*others] if generation is None else [generation, *others]
    if generations and billed:
        values = values | _usage(transaction, claim, generations)
    computed = values.keys() & _COMPUTED.keys()
    given = {f"b_{name}" if name in computed else name: value for name, value in values.items()}
    changed = timeline.change(
        transaction,
        _ending(outcome, frozenset(computed)),
        actor=f"worker:{claim.owner}",
        bound=_fence(claim) | given,
    )
    if not changed:
        return False
    if changed[0].status.terminal and changed[0].values["group_id"] == claim.job_id:
        groups.record_released(transaction, [claim.job_id])
    search.keep(transaction, claim.job_id, Part.ANSWER, values.get("answer_text"))
    end_attempt(transaction, claim.job_id, claim.attempt, outcome=outcome, fault=fault)
    for one in sorted(generations, key=lambda one: one.generation):
        traces.finish(transaction, claim.job_id, claim.attempt, one)
    traces.fold(transaction, claim.job_id, claim.attempt, finish_reason="error")
    return True


_GENERATION = table(Generation).c
_BILLS = sa.select(
    _GENERATION.number,
    _GENERATION.started_at,
    _GENERATION.ended_at,
    _GENERATION.input_tokens,
    _GENERATION.cached_tokens,
    _GENERATION.image_tokens,
    _GENERATION.output_tokens,
).where(
    _GENERATION.job_id == sa.bindparam("job_id"), _GENERATION.attempt == sa.bindparam("attempt")
)


def _usage(
    transaction: Transaction, claim: Claim, generations: Iterable[traces.GenerationEnd]
) -> dict[str, Any]:
    """Return the job's bill: all streams of the last attempt that an engine took. Seconds add up over attempts."""
    ends = {one.generation: one for one in generations}
    streams = transaction.execute(_BILLS, {"job_id": claim.job_id, "attempt": claim.attempt}).all()
    seconds = 0.0
    for stream in streams:
        ended_at = ends[stream.number].ended_at if stream.number in ends else stream.ended_at
        seconds += (ended_at - stream.started_at).total_seconds() if ended_at else 0.0
    bills = [*ends.values(), *(stream for stream in streams if stream.number not in ends)]
    return {
        name: _sum(*(getattr(bill, name) for bill in bills))
        for name in ("input_tokens", "cached_tokens", "image_tokens", "output_tokens")
    } | {"engine_seconds": seconds}


def _sum(*tokens: int | None) -> int | None:
    """Return the sum of what is known, None when nothing is."""
    known = [count for count in tokens if count is not None]
    return sum(known) if known else None
