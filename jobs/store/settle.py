"""The end of an attempt: succeed, fail, stop, retry, release; each by one fenced UPDATE.

Each function returns False when the claim has lost the job; then it has written nothing.
"""

import functools
import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core.database import Database, Now, Seconds, Transaction
from jobs import findings as guarded
from jobs import lifecycle
from jobs.answers.extraction import Answer
from jobs.answers.sections import read as read_value
from jobs.answers.votes import Tally
from jobs.findings import Finding
from jobs.lifecycle import Outcome, Status
from jobs.phrases import Part
from jobs.records.attempts import Attempt, Generation
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.store import findings, groups, quarantine, search, timeline, traces
from jobs.store.claims import Claim


@dataclass(frozen=True)
class Failure:
    """The error of a failed attempt, as callers see it."""

    code: str
    message: str
    retryable: bool = False

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of a failed job."""
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
    guard_findings: Iterable[Finding] = (),
    tally: Tally | None = None,
    finish_reason: str | None = None,
) -> bool:
    """End the job with its answer (None: the trace has none), usage and trace; return False when it is lost.

    Args:
        database: where the job is stored.
        claim: the fence.
        answer: the answer in ``generation``.
        generation: the generation that ended last.
        others: the attempt's other generations whose end is not stored yet.
        forced: whether a guard made the model answer.
        guard_findings: the guards' findings in these generations.
        tally: how the samples voted, if they did.
        finish_reason: that of the generation with the answer, when it is another one.
    """
    value = None
    if answer is not None:
        value = read_value(answer.text, claim.options.get("answer_format"), claim.question)
    guard_findings = tuple(guard_findings)
    ends = _read(generation, *others)
    firsts = [end.first_token_at for end in ends if end.first_token_at is not None]
    with database.transaction("succeed") as transaction:
        settled = _settle(
            transaction,
            claim,
            outcome=Outcome.SUCCEEDED,
            ends=ends,
            values={
                "answer_text": answer.text if answer else None,
                "answer_tex": answer.tex if answer else None,
                "answer_rule": answer.rule if answer else None,
                "answer_value": value,
                "answer_forced": forced if answer else None,
                "votes": tally.plain() if tally else None,
                "confidence": tally.confidence if tally else guarded.confidence(guard_findings),
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
            findings.store(transaction, claim.job_id, claim.attempt, guard_findings)
            if tally is not None:
                transaction.notes.append(tally)
        return settled


#: The message of a job whose answer in JSON used up the token budget.
ANSWER_CUT = "The answer reached its token limit before it was complete JSON of the schema."
QUARANTINED = Failure(
    code=quarantine.CODE,
    message="Too many engines crashed while they processed an image of the job.",
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
    """End the job as failed, with its partial trace; return False when it is lost. ``deadly``: see :func:`retry`."""
    ends = _read(generation, *others)
    with database.transaction("fail") as transaction:
        if _quarantines(transaction, claim, deadly):
            fault = QUARANTINED
        return _settle(
            transaction,
            claim,
            outcome=Outcome.FAILED,
            ends=ends,
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
    """End the job as cancelled, after its engine has stopped; return False when the job is lost."""
    ends = _read(generation, *others)
    with database.transaction("stop") as transaction:
        return _stop(transaction, claim, ends, begun=generation is not None)


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
    """Return the job to the queue for another attempt after a counted fault, with backoff; False when it is lost.

    A job that was cancelled meanwhile ends as cancelled instead. A job over which an engine crashed for the
    ``deadly``-th time (None: no engine crashed) fails: its image is in quarantine then.
    """
    ends = _read(generation, *others)
    with database.transaction("retry") as transaction:
        if _cancel_requested(transaction, claim):
            return _stop(transaction, claim, ends, begun=generation is not None)
        if _quarantines(transaction, claim, deadly):
            return _settle(
                transaction,
                claim,
                outcome=Outcome.FAILED,
                ends=ends,
                fault=QUARANTINED,
                values=QUARANTINED.columns,
            )
        wait = lifecycle.backoff(claim.failures + 1, rng=rng)
        return _settle(
            transaction,
            claim,
            outcome=Outcome.RETRIED,
            ends=ends,
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
    """Return the job to the queue without counting the attempt; return False when the job is lost.

    The reason is a drain or, with ``fault``, an engine that is full or away. An engine that accepted no request used
    nothing: the job keeps the usage that it has.

    A job that was cancelled meanwhile ends as cancelled instead.
    """
    ends = _read(generation, *others)
    with database.transaction("release") as transaction:
        if _cancel_requested(transaction, claim):
            return _stop(transaction, claim, ends, begun=generation is not None)
        return _settle(
            transaction,
            claim,
            outcome=Outcome.RELEASED,
            ends=ends,
            fault=fault,
            billed=fault is None,
            values={"not_before": wait},
        )


def _read(*generations: traces.GenerationEnd | None) -> list[traces.GenerationEnd]:
    """Return the generations, with their texts parsed now, not while the transaction blocks other writers."""
    ends = [generation for generation in generations if generation is not None]
    for end in ends:
        end.read()
    return ends


def landed(database: Database, claim: Claim) -> Outcome | None:
    """Return the outcome of the attempt, None while it runs: the check after a commit whose result is unknown."""
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
    """Store the end of an attempt whose job has already left the running state."""
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
    return {"b_job": claim.job_id, "b_attempt": claim.attempt, "b_owner": claim.owner}


def _cancel_requested(transaction: Transaction, claim: Claim) -> bool:
    """Return whether the job was cancelled; the lock prevents a cancel until the commit."""
    return transaction.execute(_FENCED, _fence(claim)).scalar_one_or_none() is not None


def _quarantines(transaction: Transaction, claim: Claim, deadly: int | None) -> bool:
    """Return whether an engine's crash puts an image of the job into quarantine; a lost claim counts no crash."""
    if deadly is None:
        return False
    if transaction.execute(_FENCED, _fence(claim)).first() is None:
        return False
    keys = [image.key for image in claim.images]
    return quarantine.record_crash(transaction, claim.account_id, keys, limit=deadly)


def _stop(
    transaction: Transaction, claim: Claim, ends: Sequence[traces.GenerationEnd], *, begun: bool
) -> bool:
    values = {"engine_stopped_at": timedelta(0)} if begun else {}
    return _settle(transaction, claim, outcome=Outcome.CANCELLED, ends=ends, values=values)


#: The job's status after each outcome of an attempt.
_TARGETS = {
    Outcome.SUCCEEDED: Status.SUCCEEDED,
    Outcome.FAILED: Status.FAILED,
    Outcome.CANCELLED: Status.CANCELLED,
    Outcome.RETRIED: Status.QUEUED,
    Outcome.RELEASED: Status.QUEUED,
}
#: Columns whose new value is computed from the given one: the first of two, a sum, a time from now.
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
    """Return the change that ends an attempt and sets the ``computed`` columns."""
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
    ends: Sequence[traces.GenerationEnd],
    values: Mapping[str, Any],
    fault: Failure | None = None,
    billed: bool = True,
) -> bool:
    """End the attempt: first the job by one fenced UPDATE, then the attempt and its generations.

    ``values`` are columns of the job; for those in :data:`_COMPUTED`, the value to compute with.
    """
    if ends and billed:
        values = {**values, **_usage(transaction, claim, ends)}
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
    search.add(transaction, claim.job_id, Part.ANSWER, values.get("answer_text"))
    end_attempt(transaction, claim.job_id, claim.attempt, outcome=outcome, fault=fault)
    for end in sorted(ends, key=lambda end: end.generation):
        traces.finish(transaction, claim.job_id, claim.attempt, end)
    traces.fold(transaction, claim.job_id, claim.attempt, finish_reason="error")
    return True


_GENERATION = table(Generation).c
_USAGES = sa.select(
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
    """Return the job's usage: the tokens of the last attempt that an engine accepted, the seconds of all attempts."""
    ends = {end.generation: end for end in generations}
    rows = transaction.execute(_USAGES, {"job_id": claim.job_id, "attempt": claim.attempt}).all()
    seconds = 0.0
    for row in rows:
        ended_at = ends[row.number].ended_at if row.number in ends else row.ended_at
        seconds += (ended_at - row.started_at).total_seconds() if ended_at else 0.0
    usages = [*ends.values(), *(row for row in rows if row.number not in ends)]
    return {
        name: _sum(*(getattr(usage, name) for usage in usages))
        for name in ("input_tokens", "cached_tokens", "image_tokens", "output_tokens")
    } | {"engine_seconds": seconds}


def lost_seconds(
    transaction: Transaction, job_id: uuid.UUID, attempt: int, *, alive_at: datetime
) -> float | None:
    """Return the engine's seconds for an attempt whose worker was last alive at ``alive_at``; None: none began."""
    rows = transaction.execute(_USAGES, {"job_id": job_id, "attempt": attempt}).all()
    ends = [(row.started_at, row.ended_at or max(alive_at, row.started_at)) for row in rows]
    return sum((end - start).total_seconds() for start, end in ends) if rows else None


def _sum(*tokens: int | None) -> int | None:
    """Return the sum of the known counts, None when none is known."""
    known = [count for count in tokens if count is not None]
    return sum(known) if known else None
