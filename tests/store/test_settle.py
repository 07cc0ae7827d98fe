"""What is written when an attempt ends: the job, the attempt, the stream, the bill and the timeline."""

from __future__ import annotations

import dataclasses
import random
import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.answers.extraction import Answer
from jobs.findings import Action, Finding, FindingKind
from jobs.lifecycle import Outcome, Status
from jobs.records.jobs import Job
from jobs.store import claims, commands, history, settle, steps, traces
from tests import factories
from tests.databases import Age

FAULT = settle.Failure(code="engine_fault", message="The engine failed.", retryable=True)
RNG = random.Random(1)


def begun(database: Database, account_id: uuid.UUID) -> claims.Claim:
    """Submit, claim and begin a job."""
    factories.make_job(database, account_id)
    claimed = factories.claim(database)
    assert factories.begin(database, claimed) is not None
    return claimed


def test_the_request_to_the_engine_is_stored_with_the_attempt(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)

    [view] = history.attempts(database, claimed.job_id)

    assert (view.attempt.engine, view.attempt.engine_version) == ("http://engine", "1.0")
    assert view.attempt.model == "tiny-qvq"
    assert view.attempt.prompt == {
        "messages": [{"role": "user", "content": "How many circles are there?"}]
    }
    assert view.attempt.sampling == {"temperature": 0.5}
    [stream] = view.generations
    assert (stream.number, len(stream.rid), stream.output_tokens) == (0, 32, 0)
    assert stream.ended_at is None


def test_success_writes_answer_usage_trace_and_attempt(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    ended = factories.make_ended("So \\boxed{6}.")

    assert settle.succeed(database, claimed, answer=Answer("6", "boxed"), generation=ended)

    job = factories.get_job(database, claimed.job_id).job
    assert (job.status, job.answer_text, job.answer_rule) == (Status.SUCCEEDED, "6", "boxed")
    assert (job.finish_reason, job.error_code) == ("stop", None)
    assert (job.input_tokens, job.cached_tokens, job.image_tokens, job.output_tokens) == (
        50,
        40,
        4,
        11,
    )
    assert (job.lease_owner, job.lease_expires_at) == (None, None)
    assert job.first_token_at == ended.first_token_at
    assert job.finished_at is not None
    [view] = history.attempts(database, claimed.job_id)
    assert view.attempt.outcome is Outcome.SUCCEEDED
    assert view.attempt.ended_at is not None
    [trace] = traces.read(database, claimed.job_id)
    assert (trace.text, trace.complete, trace.finish_reason) == ("So \\boxed{6}.", True, "stop")
    assert settle.landed(database, claimed) is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("wanted", "text", "value"),
    [
        ({"type": "number"}, "six", 6),
        ({"type": "number"}, "0.1 m", 0.1),
        ({"type": "boolean"}, "No.", False),
        ({"type": "choice", "options": ["12", "true"]}, "A", "12"),
        ({"type": "choice", "options": ["12", "true"]}, "B", "true"),
        ({"type": "number"}, "many", None),
        ({"type": "free"}, "6", None),
        (None, "6", None),
    ],
)
def test_the_value_of_an_answer_is_stored_in_the_requested_format(
    database: Database,
    account_id: uuid.UUID,
    wanted: dict[str, object] | None,
    text: str,
    value: object,
) -> None:
    job_id = factories.make_job(database, account_id, options={"answer_format": wanted})
    claimed = factories.claim(database)
    factories.begin(database, claimed)

    settle.succeed(
        database, claimed, answer=Answer(text, "boxed"), generation=factories.make_ended()
    )

    job = factories.get_job(database, job_id).job
    assert (job.answer_text, job.answer_value, type(job.answer_value)) == (text, value, type(value))
    with database.reading() as transaction:  # No value is SQL's NULL, not JSON's.
        missing = sa.select(Job.answer_value.is_(sa.null()))
        assert transaction.execute(missing).scalar_one() is (value is None)


class Heard(traces.GenerationEnd):
    """What a stream left behind, and when it is read."""

    def read(self) -> traces.TraceReading:
        moments.append("read")
        return super().read()


moments: list[str] = []


@pytest.mark.parametrize("verb", ["succeed", "fail", "stop", "retry", "release", "follow"])
def test_a_trace_is_parsed_before_the_transaction(
    database: Database, account_id: uuid.UUID, verb: str
) -> None:
    claimed = begun(database, account_id)
    known = dataclasses.asdict(factories.make_ended())
    generation = Heard(**known)
    sa.event.listen(database.engine, "begin", lambda _: moments.append("begin"))
    moments.clear()

    match verb:
        case "succeed":
            settle.succeed(database, claimed, answer=None, generation=generation)
        case "fail":
            settle.fail(database, claimed, FAULT, generation=generation)
        case "stop":
            settle.stop(database, claimed, generation=generation)
        case "retry":
            settle.retry(database, claimed, FAULT, generation=generation, rng=RNG)
        case "release":
            settle.release(database, claimed, generation=generation)
        case "follow":
            found = Finding(FindingKind.BUDGET, generation=0, start=0, end=1, action=Action.FORCED)
            claims.follow(
                database,
                claimed,
                ended=generation,
                finding=found,
                rid="b" * 32,
                stored=0,
                inserted="",
            )

    assert moments[:2] == ["read", "begin"]
    [trace, *_] = traces.read(database, claimed.job_id)
    assert trace.stored_steps == steps.pack(generation.output)


def test_a_trace_without_an_answer_is_a_success_without_one(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)

    settle.succeed(
        database, claimed, answer=None, generation=factories.make_ended(finish_reason="length")
    )

    job = factories.get_job(database, claimed.job_id).job
    assert (job.status, job.answer_text, job.answer_rule) == (Status.SUCCEEDED, None, None)
    assert job.finish_reason == "length"


def test_a_failure_stores_its_reason_and_the_partial_trace(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    partial = factories.make_ended("half a tho", finish_reason="error")

    assert settle.fail(database, claimed, FAULT, generation=partial)

    job = factories.get_job(database, claimed.job_id).job
    assert (job.status, job.error_code, job.error_message, job.error_retryable) == (
        Status.FAILED,
        "engine_fault",
        "The engine failed.",
        True,
    )
    assert [trace.text for trace in traces.read(database, claimed.job_id)] == ["half a tho"]
    [view] = history.attempts(database, claimed.job_id)
    assert (view.attempt.outcome, view.attempt.error_code) == (Outcome.FAILED, "engine_fault")


def test_a_stop_stores_the_time_at_which_the_engine_stopped(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    commands.cancel(database, claimed.job_id, account_id=account_id, actor="key:test")

    assert settle.stop(
        database, claimed, generation=factories.make_ended("so far", finish_reason="cancel")
    )

    job = factories.get_job(database, claimed.job_id).job
    assert job.status is Status.CANCELLED
    assert job.cancel_requested_at is not None
    assert job.engine_stopped_at is not None
    assert job.cancel_requested_at <= job.engine_stopped_at
    assert [trace.text for trace in traces.read(database, claimed.job_id)] == ["so far"]


def test_a_stop_before_the_engines_request_stores_no_time_for_it(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    claimed = factories.claim(database)

    assert settle.stop(database, claimed, generation=None)

    job = factories.get_job(database, claimed.job_id).job
    assert (job.status, job.engine_stopped_at) == (Status.CANCELLED, None)


def test_a_retry_counts_a_failure_and_waits_longer_each_time(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id)
    for failures, longest in ((1, 5), (2, 10), (3, 20)):
        claimed = factories.claim(database)
        assert claimed.failures == failures - 1
        assert settle.retry(database, claimed, FAULT, generation=None, rng=RNG)
        job = factories.get_job(database, claimed.job_id).job
        assert (job.status, job.failures, job.crashes) == (Status.QUEUED, failures, 0)
        assert job.error_code is None
        ended_at = history.attempts(database, claimed.job_id)[-1].attempt.ended_at
        assert ended_at is not None
        assert longest * 0.8 <= (job.not_before - ended_at).total_seconds() <= longest

        factories.postpone(database)
        assert claims.claim(database, owner="worker-1", lease=factories.LEASE) is None
        age(601)

    ends = [view.attempt.outcome for view in history.attempts(database, claimed.job_id)]
    assert ends == [Outcome.RETRIED] * 3


def test_a_release_counts_nowhere(database: Database, account_id: uuid.UUID) -> None:
    factories.make_job(database, account_id)
    for attempt in range(1, 8):
        claimed = factories.claim(database)
        assert claimed.attempt == attempt
        assert settle.release(database, claimed, generation=None)

    job = factories.get_job(database, claimed.job_id).job
    assert (job.status, job.attempt, job.failures, job.crashes) == (Status.QUEUED, 7, 0, 0)
    assert {view.attempt.outcome for view in history.attempts(database, job.id)} == {
        Outcome.RELEASED
    }


def test_a_released_job_keeps_its_position_in_the_queue(
    database: Database, account_id: uuid.UUID
) -> None:
    first = factories.make_job(database, account_id)
    factories.make_job(database, account_id)
    settle.release(database, factories.claim(database), generation=None)

    assert factories.claim(database).job_id == first


def test_the_bill_is_the_last_attempts_but_engine_seconds_add_up(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id)
    for seconds, output_tokens in ((2.0, 5), (3.5, 8)):
        claimed = factories.claim(database)
        started = factories.begin(database, claimed)
        assert started is not None
        ended = factories.make_ended(
            ended_at=started + timedelta(seconds=seconds), output_tokens=output_tokens
        )
        if output_tokens == 5:
            settle.retry(database, claimed, FAULT, generation=ended, rng=RNG)
            age(6)
        else:
            settle.succeed(database, claimed, answer=None, generation=ended)

    job = factories.get_job(database, job_id).job
    assert job.engine_seconds == pytest.approx(5.5)
    assert job.output_tokens == 8


def test_an_attempt_that_never_reached_an_engine_costs_nothing(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    claimed = factories.claim(database)

    settle.fail(database, claimed, FAULT, generation=None)

    job = factories.get_job(database, claimed.job_id).job
    assert (job.engine_seconds, job.output_tokens) == (None, None)


def test_a_generation_that_no_worker_ends_is_closed_with_its_stored_output(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    traces.append(database, owner=claimed.owner, pieces=[factories.make_piece(claimed, "so far")])

    assert settle.fail(database, claimed, FAULT, generation=None)

    [trace] = traces.read(database, claimed.job_id)
    assert (trace.text, trace.complete, trace.finish_reason) == ("so far", True, "error")


@pytest.mark.parametrize("verb", ["retry", "release"])
def test_a_job_that_was_to_be_cancelled_does_not_go_back_to_the_queue(
    database: Database, account_id: uuid.UUID, verb: str
) -> None:
    claimed = begun(database, account_id)
    commands.cancel(database, claimed.job_id, account_id=account_id, actor="key:test")
    partial = factories.make_ended("so far", finish_reason="error")

    if verb == "retry":
        assert settle.retry(database, claimed, FAULT, generation=partial, rng=RNG)
    else:
        assert settle.release(database, claimed, generation=partial)

    job = factories.get_job(database, claimed.job_id).job
    assert (job.status, job.failures) == (Status.CANCELLED, 0)
    assert job.engine_stopped_at is not None
    assert settle.landed(database, claimed) is Outcome.CANCELLED
    assert [trace.text for trace in traces.read(database, job.id)] == ["so far"]


def test_nothing_has_landed_of_an_attempt_that_still_runs(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)

    assert settle.landed(database, claimed) is None
