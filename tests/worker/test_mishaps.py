"""What the service makes of each thing that can go wrong at an engine, over real HTTP: tries, faults, one result."""

from __future__ import annotations

import hashlib
import operator
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest

from jobs.lifecycle import Outcome, Status
from jobs.records.jobs import Job
from jobs.store import claims, commands, history
from tests.databases import Age
from tests.engines.conftest import connect
from tests.engines.subjects import OPTIONS, Connect
from tests.scripted_server import BackgroundServer
from tests.worker import behaviors
from tests.worker.conftest import Bench

__all__ = ["connect"]

QUARANTINED = "image_quarantined"


@pytest.fixture
def server() -> Iterator[BackgroundServer]:
    with BackgroundServer(OPTIONS) as server:
        yield server


def submit(bench: Bench, question: str = "How many circles?") -> uuid.UUID:
    """Submit a job that fits the small model's context, which this engine has."""
    return behaviors.submit(bench, question=question, max_output_tokens=1000)


def due_again(bench: Bench, job_id: uuid.UUID) -> None:
    """Let a job that waits for another try be due now."""
    with bench.database.transaction() as transaction:
        job = transaction.session.get_one(Job, job_id)
        job.not_before = job.created_at


def outcomes(bench: Bench, job_id: uuid.UUID) -> list[Outcome | None]:
    return [view.attempt.outcome for view in history.attempts(bench.database, job_id)]


@pytest.mark.parametrize(
    "case",
    [
        # An error in band, in the middle: the engine took the request, so that it counts.
        ("evicted", Outcome.RETRIED, 1, "engine_fault", True),
        ("fault", Outcome.RETRIED, 1, "engine_fault", True),
        # The same fault as other versions of SGLang report it: an abort without a request for it.
        ("bare_abort", Outcome.RETRIED, 1, "engine_fault", True),
        ("reset", Outcome.RETRIED, 1, "engine_fault", True),
        ("cut_off", Outcome.RETRIED, 1, "engine_fault", True),
        # Before the first token nothing was used up.
        ("early_abort", Outcome.RELEASED, 0, "engine_busy", False),
        ("busy", Outcome.RELEASED, 0, "engine_busy", False),
        ("starting", Outcome.RELEASED, 0, "engine_unavailable", False),
    ],
    ids=operator.itemgetter(0),
)
def test_after_a_mishap_the_job_is_retried_and_answered_once(
    bench: Bench,
    server: BackgroundServer,
    connect: Connect,
    case: tuple[str, Outcome, int, str, bool],
) -> None:
    behavior, outcome, failures, code, spoke = case
    job_id = submit(bench, question=f"[[behavior:{behavior}]] How many circles?")

    behaviors.work(bench, connect(server.url))

    job = bench.view(job_id).job
    assert (job.status, job.failures, job.crashes) == (Status.QUEUED, failures, 0)
    assert bench.attempt(job_id).attempt.error_code == code
    [partial] = bench.trace(job_id)
    assert (bool(partial.text), partial.complete) == (spoke, True)

    with BackgroundServer(OPTIONS.model_copy(update={"markers": False})) as healthy:
        due_again(bench, job_id)
        behaviors.work(bench, connect(healthy.url))

    job = bench.view(job_id).job
    assert job.status is Status.SUCCEEDED
    assert outcomes(bench, job_id) == [outcome, Outcome.SUCCEEDED]
    before, whole = bench.trace(job_id)
    assert (before, whole.attempt) == (partial, 2)
    assert whole.text.endswith(f"\\boxed{{{job.answer_text}}}")
    assert job.output_tokens == whole.output_tokens


def test_a_request_that_an_engine_refuses_fails_the_job_at_once(
    bench: Bench, server: BackgroundServer, connect: Connect
) -> None:
    job_id = submit(bench, question="[[behavior:refuse]] How many circles?")

    behaviors.work(bench, connect(server.url))

    job = bench.view(job_id).job
    assert (job.status, job.error_code, job.attempt) == (Status.FAILED, "engine_rejected", 1)


@pytest.mark.parametrize("behavior", ["silent", "mute"])
def test_a_silent_engine_is_given_up_and_freed(
    bench: Bench, server: BackgroundServer, connect: Connect, behavior: str
) -> None:
    client = connect(server.url, first_token_seconds=0.5, token_seconds=0.2)
    job_id = submit(bench, question=f"[[behavior:{behavior}]] How many circles?")

    behaviors.work(bench, client)

    job = bench.view(job_id).job
    assert (job.status, job.failures) == (Status.QUEUED, 1)


def test_a_head_that_comes_late_is_waited_for(bench: Bench, connect: Connect) -> None:
    """The head comes with the first token, after the engine's queue and the prefill."""
    slow = OPTIONS.model_copy(update={"prefill_tokens_per_second": 25})
    with BackgroundServer(slow) as server:
        job_id = submit(bench)
        behaviors.work(bench, connect(server.url, first_token_seconds=60, token_seconds=2))

    job = bench.view(job_id).job
    assert (job.status, job.attempt) == (Status.SUCCEEDED, 1)
    assert job.first_token_at is not None
    assert job.started_at is not None
    assert (job.first_token_at - job.started_at).total_seconds() > 2


def test_a_cancel_frees_an_engine_that_notices_lost_clients_late(
    bench: Bench, connect: Connect, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    options = OPTIONS.model_copy(update={"disconnect_seconds": 3600})
    with BackgroundServer(options) as server:
        client = connect(server.url)
        job_id = submit(bench, question="[[behavior:silent]] How many circles?")
        slot = threading.Thread(target=behaviors.work, args=(bench, client))
        slot.start()
        assert wait_for(lambda: any(buffer.tokens == 20 for buffer in bench.trace_writer.buffers()))

        commands.cancel(bench.database, job_id, account_id=None, actor="key:test")
        bench.leases.look()
        slot.join(60)

        assert not slot.is_alive()
        assert wait_for(lambda: client.load().running == 0)
    [trace] = bench.trace(job_id)
    assert (bench.status(job_id), trace.finish_reason) == (Status.CANCELLED, "cancel")
    assert trace.text


def test_a_cancel_stops_no_other_job_though_the_engine_matches_ids_by_their_beginning(
    bench: Bench,
    server: BackgroundServer,
    connect: Connect,
    wait_for: Callable[[Callable[[], bool]], bool],
) -> None:
    client = connect(server.url)
    gone, stored = (
        submit(bench, question=f"[[behavior:no_answer_at_length]] {n} How many circles?")
        for n in range(2)
    )
    slots = [
        threading.Thread(target=behaviors.work, args=(bench, client), kwargs={"jobs": None})
        for _ in range(2)
    ]
    for slot in slots:
        slot.start()
    assert wait_for(
        lambda: len([buffer for buffer in bench.trace_writer.buffers() if buffer.tokens]) == 2
    )

    commands.cancel(bench.database, gone, account_id=None, actor="key:test")
    bench.leases.look()
    for slot in slots:
        slot.join(30)

    assert bench.status(gone) is Status.CANCELLED
    assert bench.status(stored) is Status.SUCCEEDED
    assert len({generation.rid for generation in bench.attempt(stored).generations}) == 2
    assert {len(generation.rid) for generation in bench.attempt(stored).generations} == {32}


def test_an_image_that_takes_engines_down_is_refused_in_the_end(
    bench: Bench, connect: Connect, age: Age
) -> None:
    job_id = submit(bench)
    data = claims.image(
        bench.database,
        account_id=bench.account_id,
        key=bench.view(job_id).images[0].image.image_key,
    )
    assert data is not None
    deadly = OPTIONS.model_copy(update={"deadly_image": hashlib.sha256(data).hexdigest()[:16]})

    with BackgroundServer(deadly) as server:
        client = connect(server.url)
        for _ in range(3):
            due_again(bench, job_id)
            behaviors.work(bench, client)
            age(100)  # Deaths at the same moment are one.
        other = submit(bench, "How many squares?")
        behaviors.work(bench, client)

    first, second = (bench.view(one).job for one in (job_id, other))
    assert (first.status, first.error_code, first.attempt) == (Status.FAILED, QUARANTINED, 3)
    assert (second.status, second.error_code, second.attempt) == (Status.FAILED, QUARANTINED, 1)
    assert bench.trace(other) == [], "no engine was asked"
