"""What becomes of a job for each way its engine stream can end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from core import errors
from jobs import engine
from jobs.engine import Chunk
from jobs.lifecycle import Outcome, Status
from jobs.records.images import Image
from jobs.records.jobs import Job
from jobs.store import commands, history, retention
from tests.worker.conftest import Bench, submitted
from worker.leases import StopReason

TRACE = "Let me look. **Final Answer** \\boxed{6}"


def test_an_answer_ends_the_job_with_trace_usage_and_attempt(bench: Bench) -> None:
    job_id = bench.submit()
    bench.engine.answer(TRACE, usage=engine.TokenUsage(54, 42, 24, 8))

    assert bench.runner.work() == 1

    job = bench.view(job_id).job
    assert (job.status, job.answer_text, job.answer_rule) == (
        Status.SUCCEEDED,
        "6",
        "heading+boxed",
    )
    assert (job.input_tokens, job.cached_tokens, job.image_tokens, job.output_tokens) == (
        54,
        42,
        24,
        8,
    )
    assert job.finish_reason == "stop"
    assert job.started_at is not None
    assert job.first_token_at is not None
    assert job.finished_at is not None
    assert job.started_at <= job.first_token_at <= job.finished_at
    [trace] = bench.trace(job_id)
    assert (trace.text, trace.complete) == (TRACE, True)
    attempt = bench.attempt(job_id)
    assert attempt.attempt.outcome is Outcome.SUCCEEDED
    assert attempt.attempt.engine == "fake:"
    assert attempt.attempt.engine_version == "fake-1"
    assert attempt.attempt.sampling is not None
    assert attempt.attempt.sampling["temperature"] == 0.5
    assert attempt.attempt.prompt is not None
    assert attempt.attempt.prompt["messages"][1]["content"][0] == {
        "type": "image",
        "image_key": submitted().key,
    }


def test_the_request_is_explicit_and_salted_by_account_and_image(bench: Bench) -> None:
    bench.submit()
    bench.engine.answer(TRACE)

    bench.runner.work()

    [request] = bench.engine.requests
    assert request.images[0].data == b"canonical a"
    assert (request.max_output_tokens, request.seed, request.sampling.top_p) == (64, 7, 1.0)
    assert request.salt.startswith(bench.account_id.hex + ":")
    assert len(request.rid) == 32


def test_one_slot_runs_all_jobs_one_after_the_other(bench: Bench) -> None:
    job_ids = [bench.submit() for _ in range(3)]
    for _ in job_ids:
        bench.engine.answer(TRACE)

    assert bench.runner.work() == 3
    assert {bench.status(job_id) for job_id in job_ids} == {Status.SUCCEEDED}


def test_a_trace_without_an_answer_succeeds_without_one(bench: Bench) -> None:
    job_id = bench.submit()
    bench.engine.feed(
        Chunk(text="I see \\boxed{"),
        Chunk(finish_reason="length", usage=engine.TokenUsage(1, 0, 0, 64)),
        bench.engine.END,
    )

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.answer_text, job.finish_reason) == (Status.SUCCEEDED, None, "length")


@pytest.mark.parametrize(
    ("fault", "status", "failures", "outcome"),
    [
        (errors.EngineRejected("Too long."), Status.FAILED, 0, Outcome.FAILED),
        (errors.EngineFault("It fell silent."), Status.QUEUED, 1, Outcome.RETRIED),
        (errors.EngineBusy("It is full."), Status.QUEUED, 0, Outcome.RELEASED),
        (errors.EngineUnavailable("It is away."), Status.QUEUED, 0, Outcome.RELEASED),
        (RuntimeError("an unexpected fault"), Status.QUEUED, 1, Outcome.RETRIED),
    ],
    ids=["rejected", "fault", "busy", "unavailable", "unforeseen"],
)
def test_a_fault_is_counted_by_its_kind(
    bench: Bench, fault: Exception, status: Status, failures: int, outcome: Outcome
) -> None:
    job_id = bench.submit()
    bench.engine.feed(fault)

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.failures, job.crashes) == (status, failures, 0)
    assert bench.attempt(job_id).attempt.outcome is outcome
    assert "an unexpected fault" not in (job.error_message or "")


def test_the_last_counted_fault_fails_the_job_and_keeps_the_partial_trace(bench: Bench) -> None:
    job_id = bench.submit(max_attempts=1)
    bench.engine.feed(Chunk(text="I was just "), errors.EngineFault("It fell silent."))

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.error_code, job.error_retryable) == (
        Status.FAILED,
        "engine_fault",
        True,
    )
    assert [trace.text for trace in bench.trace(job_id)] == ["I was just "]


@pytest.mark.parametrize("deaf", [False, True], ids=["abort heard", "abort unheard"])
def test_a_cancel_stops_the_engine_and_keeps_the_partial_trace(bench: Bench, *, deaf: bool) -> None:
    bench.engine.deaf = deaf
    job_id = bench.submit()
    bench.engine.feed(Chunk(text="I see"))
    slot = bench.run_in_thread()

    commands.cancel(bench.database, job_id, account_id=None, actor="key:test")
    bench.leases.look()
    slot.join(60)

    job = bench.view(job_id).job
    assert job.status is Status.CANCELLED
    assert job.cancel_requested_at is not None
    assert job.engine_stopped_at is not None
    assert bench.engine.aborted == [bench.engine.requests[0].rid]
    assert (bench.engine.closed > 0) is deaf
    assert [trace.text for trace in bench.trace(job_id)] == ["I see"]
    assert bench.attempt(job_id).attempt.outcome is Outcome.CANCELLED


def test_a_deadline_fails_the_running_job_with_its_partial_trace(
    bench: Bench,
) -> None:
    job_id = bench.submit()
    bench.engine.feed(Chunk(text="I see"))
    slot = bench.run_in_thread()

    bench.leases.end((job_id, 1), StopReason.DEADLINE)
    slot.join(60)

    job = bench.view(job_id).job
    assert (job.status, job.error_code) == (Status.FAILED, "deadline_exceeded")
    assert [trace.text for trace in bench.trace(job_id)] == ["I see"]


def test_a_drain_returns_the_job_uncounted_and_claims_no_more(bench: Bench) -> None:
    job_id = bench.submit()
    other = bench.submit()
    slot = bench.run_in_thread()

    bench.runner.drain()
    bench.leases.end_all(StopReason.DRAIN)
    slot.join(60)

    job = bench.view(job_id).job
    assert (job.status, job.attempt, job.failures, job.crashes) == (Status.QUEUED, 1, 0, 0)
    assert bench.status(other) is Status.QUEUED
    assert bench.view(other).job.attempt == 0


def test_a_worker_that_lost_its_lease_writes_nothing(bench: Bench) -> None:
    job_id = bench.submit()
    bench.engine.feed(Chunk(text="I see"))
    slot = bench.run_in_thread()

    assert bench.steal().requeued == 1
    bench.engine.answer(TRACE)
    slot.join(60)

    job = bench.view(job_id).job
    assert (job.status, job.answer_text, job.crashes) == (Status.QUEUED, None, 1)
    assert bench.attempt(job_id).attempt.outcome is Outcome.LOST


def test_the_lease_thread_notices_a_lost_lease_and_frees_the_engine(bench: Bench) -> None:
    bench.submit()
    bench.engine.feed(Chunk(text="I see"))
    slot = bench.run_in_thread()

    bench.steal()
    bench.leases.look()
    slot.join(60)

    assert not slot.is_alive()
    assert bench.engine.aborted


def test_a_running_trace_is_readable_and_grows(bench: Bench) -> None:
    job_id = bench.submit()
    slot = bench.run_in_thread()
    live_texts: list[str] = []
    for word in ("I ", "see ", "six."):
        tokens = len(live_texts) + 1
        bench.engine.feed(Chunk(text=word))
        _wait_for_tokens(bench, tokens)
        bench.trace_writer.flush()
        live_texts.append("".join(trace.text for trace in bench.trace(job_id)))
        progress = bench.view(job_id).progress
        assert progress is not None
        assert progress.output_tokens == tokens
    bench.engine.feed(Chunk(finish_reason="stop"), bench.engine.END)
    slot.join(60)

    assert live_texts == ["I ", "I see ", "I see six."]
    assert [trace.text for trace in bench.trace(job_id)] == ["I see six."]


def _wait_for_tokens(bench: Bench, count: int) -> None:
    """Wait until the reading thread has taken ``count`` chunks; it is microseconds away."""
    [live] = bench.trace_writer.buffers()
    deadline = time.monotonic() + 10
    while live.tokens < count and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    assert live.tokens == count


def test_text_that_databases_reject_is_made_readable(bench: Bench) -> None:
    job_id = bench.submit()
    bench.engine.feed(Chunk(text="a\x00b\ud800c"), Chunk(finish_reason="stop"), bench.engine.END)

    bench.runner.work()

    [trace] = bench.trace(job_id)
    assert bench.status(job_id) is Status.SUCCEEDED
    assert "\x00" not in trace.text
    assert trace.text.startswith("a\ufffdb")


def test_a_job_whose_image_was_removed_fails_with_its_own_code(bench: Bench) -> None:
    job_id = bench.submit()
    image_id = bench.view(job_id).images[0].image.id
    with bench.database.transaction() as transaction:
        retention.drop_image(transaction, transaction.session.get_one(Image, image_id))

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.error_code) == (Status.FAILED, "image_removed")


def test_without_room_at_the_engine_nothing_is_claimed(bench: Bench) -> None:
    job_id = bench.submit()
    permits = []
    while (permit := bench.engines.acquire()) is not None:
        permits.append(permit)

    assert bench.runner.work() == 0
    assert bench.view(job_id).job.attempt == 0

    permits[0].release()
    bench.engine.answer(TRACE)
    assert bench.runner.work() == 1


def test_the_threads_of_a_worker_claim_one_after_the_other(bench: Bench) -> None:
    claiming: list[object] = []
    together = threading.Event()

    def begun(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        if "queue_turns" not in statement or connection in claiming:
            return
        claiming.append(connection)
        if len(claiming) > 1:
            together.set()
        # The first claim stays open until another one has begun, or has had the time to.
        together.wait(0.2)

    def ended(connection: sa.Connection) -> None:
        if connection in claiming:
            claiming.remove(connection)

    for name, hear in (("before_cursor_execute", begun), ("rollback", ended), ("commit", ended)):
        sa.event.listen(bench.database.engine, name, hear)
    threads = [threading.Thread(target=bench.runner.work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not together.is_set()
    assert not claiming


def test_an_engine_that_refused_sends_no_bill(bench: Bench) -> None:
    job_id = bench.submit()
    bench.engine.feed(errors.EngineBusy("It is full."))

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.output_tokens, job.engine_seconds) == (None, None)


def test_a_complete_answer_cannot_be_stopped_any_more(
    bench: Bench, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    bench.engine.deaf = True
    job_id = bench.submit()
    bench.engine.feed(Chunk(text=TRACE), Chunk(finish_reason="stop"), Chunk(text=""))
    slot = bench.run_in_thread()
    assert wait_for(lambda: bench.engine.given == 3)

    bench.leases.end_all(StopReason.DRAIN)
    bench.engine.feed(Chunk(usage=engine.TokenUsage(10, 0, 1, 8)), bench.engine.END)
    slot.join(60)

    job = bench.view(job_id).job
    assert (job.status, job.answer_text, job.output_tokens) == (Status.SUCCEEDED, "6", 8)


def test_engine_seconds_add_up_over_attempts(bench: Bench) -> None:
    job_id = bench.submit()
    bench.engine.feed(Chunk(text="I see"), errors.EngineFault("It fell silent."))
    bench.runner.work()
    first = bench.view(job_id).job.engine_seconds
    with bench.database.transaction() as transaction:
        job = transaction.session.get_one(Job, job_id)
        job.not_before = job.created_at
    bench.engine.answer(TRACE)
    bench.runner.work()

    job = bench.view(job_id).job
    assert first is not None
    assert job.engine_seconds is not None
    assert job.engine_seconds > first
    assert [view.attempt.outcome for view in history.attempts(bench.database, job_id)] == [
        Outcome.RETRIED,
        Outcome.SUCCEEDED,
    ]
