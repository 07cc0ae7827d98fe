"""The samples of a job vote on its answer: early stop, engine slots, cancels, crashes, live events."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from core import errors, profiles
from core.database import Database
from jobs.engine import Chunk
from jobs.events.live import LiveEvent
from jobs.lifecycle import Outcome, Role, Status
from jobs.store import accounts, claims, event_log, history, retention, traces
from scripted import Scripted, ScriptedOptions
from tests import factories
from tests.fakes import NoSandbox, RecordingPublisher
from tests.worker import behaviors
from tests.worker.conftest import ENDS, Bench, real_image
from tests.worker.sample_engine import SampleEngine
from worker import equality
from worker.equality import Equality
from worker.leases import StopReason

WaitFor = Callable[[Callable[[], bool]], bool]


@pytest.fixture
def sample_streams() -> SampleEngine:
    return SampleEngine()


@pytest.fixture
def vote_bench(bench: Bench, sample_streams: SampleEngine) -> Bench:
    """The bench with an engine of several streams."""
    return bench.with_engine(sample_streams, margin=0)


def ask(bench: Bench, samples: int, **options: Any) -> uuid.UUID:  # noqa: ANN401 - any option
    return bench.submit(options={"samples": samples} | options)


def start(bench: Bench) -> threading.Thread:
    thread = threading.Thread(target=bench.runner.work, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(60)
    return not thread.is_alive()


def votes_of(bench: Bench, job_id: uuid.UUID) -> tuple[Any, ...]:
    votes = bench.view(job_id).job.votes
    assert votes is not None
    return (
        votes["begun"],
        votes["counted"],
        [(answer_class["text"], answer_class["generations"]) for answer_class in votes["classes"]],
        votes["abstained"],
    )


def finishes(bench: Bench, job_id: uuid.UUID) -> list[str | None]:
    return [trace.finish_reason for trace in bench.trace(job_id)]


def test_a_first_wave_that_agrees_decides_the_vote(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    job_id = ask(vote_bench, 5)
    for vote in range(3):
        sample_streams.answer(vote, "6")

    vote_bench.runner.work()

    job = vote_bench.view(job_id).job
    assert (job.status, job.answer_text, job.confidence) == (Status.SUCCEEDED, "6", 1.0)
    assert votes_of(vote_bench, job_id) == (3, 3, [("6", [0, 1, 2])], [])
    assert (job.input_tokens, job.cached_tokens, job.output_tokens) == (30, 16, 15)
    assert sorted(sample_streams.votes()) == [0, 1, 2]
    assert [trace.text.count("boxed{6}") for trace in vote_bench.trace(job_id)] == [1, 1, 1]
    assert vote_bench.engines.states() is not None
    assert taken(vote_bench) == 0


def taken(bench: Bench) -> int:
    """Return how many permits are out."""
    free = 0
    permits = []
    while (permit := bench.engines.acquire()) is not None:
        permits.append(permit)
        free += 1
    for permit in permits:
        permit.release()
    return bench.engines.window() - free


def test_other_samples_start_with_the_first_token_of_the_first(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    ask(vote_bench, 3)
    thread = start(vote_bench)
    assert sample_streams.begun(1)
    assert sample_streams.votes() == [0]

    sample_streams.say(0, "I ")
    assert sample_streams.begun(2)

    for vote in range(2):
        sample_streams.answer(vote, "6")
    assert ended(thread)
    assert sample_streams.votes() == [0, 1]
    assert [request.rid for request in sample_streams.requests] == list(
        dict.fromkeys(request.rid for request in sample_streams.requests)
    )
    assert len({request.salt for request in sample_streams.requests}) == 1


def test_a_second_wave_is_stopped_by_the_vote_that_decides(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    job_id = ask(vote_bench, 5)
    sample_streams.answer(0, "6")
    sample_streams.answer(1, "7")
    sample_streams.answer(2, "6")
    thread = start(vote_bench)
    assert sample_streams.begun(5)
    sample_streams.say(3, "Hmm")

    sample_streams.answer(4, "6")

    assert ended(thread)
    assert sample_streams.aborted == [3]
    job = vote_bench.view(job_id).job
    assert (job.answer_text, job.confidence) == ("6", 0.75)
    begun, counted, classes, abstained = votes_of(vote_bench, job_id)
    assert (begun, counted, abstained) == (5, 4, [])
    assert [(text, len(samples)) for text, samples in classes] == [("6", 3), ("7", 1)]
    [stopped] = [trace for trace in vote_bench.trace(job_id) if trace.finish_reason == "unneeded"]
    assert (stopped.text, stopped.output_tokens, stopped.complete) == ("Hmm", 2, True)
    assert job.output_tokens == 4 * 5 + 2
    assert taken(vote_bench) == 0


def test_samples_without_an_answer_abstain_and_count_against_the_winner(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    job_id = ask(vote_bench, 5)
    sample_streams.feed(
        0,
        Chunk(text="Wait, I need to look again."),
        Chunk(finish_reason="stop"),
        sample_streams.END,
    )
    sample_streams.answer(1, "6")
    sample_streams.answer(2, "6")

    vote_bench.runner.work()

    job = vote_bench.view(job_id).job
    assert (job.answer_text, round(job.confidence or 0, 2)) == ("6", 0.67)
    assert votes_of(vote_bench, job_id)[3] == [0]
    assert vote_bench.view(job_id).findings == ()


def test_a_vote_in_which_all_abstain_ends_without_an_answer(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    job_id = ask(vote_bench, 2)
    for vote in range(2):
        sample_streams.feed(
            vote, Chunk(text="Hmm."), Chunk(finish_reason="stop"), sample_streams.END
        )

    vote_bench.runner.work()

    job = vote_bench.view(job_id).job
    assert (job.status, job.answer_text, job.confidence) == (Status.SUCCEEDED, None, None)
    assert votes_of(vote_bench, job_id) == (2, 2, [], [0, 1])
    assert [entry.kind for entry in vote_bench.view(job_id).findings] == ["no_answer"]


def test_with_one_engine_slot_samples_run_one_after_the_other_and_two_jobs_finish(
    bench: Bench,
) -> None:
    sample_streams = SampleEngine(window=1)
    alone = bench.with_engine(sample_streams, margin=0)
    jobs = [ask(alone, 3), ask(alone, 3)]
    for _ in jobs:
        for vote in range(2):
            sample_streams.answer(vote, "6")

    threads = [start(alone), start(alone)]

    assert all(ended(thread) for thread in threads)
    # A slot that found no permit had nothing to do; the other one went on.
    alone.runner.work()
    assert [alone.status(job_id) for job_id in jobs] == [Status.SUCCEEDED] * 2
    assert sample_streams.most == 1
    assert sample_streams.votes() == [0, 1, 0, 1]


def test_many_votes_share_a_small_window_without_waiting_for_each_other(bench: Bench) -> None:
    engine = Scripted(
        options=ScriptedOptions(tokens_per_second=0, prefill_tokens_per_second=0, window=3),
        profile=profiles.QVQ,
    )
    crowd = bench.with_engine(engine, margin=0)
    jobs = [
        crowd.submit(question="How many?", options={"samples": 4, "seed": seed}, image=real_image())
        for seed in range(6)
    ]

    threads = [start(crowd) for _ in range(3)]

    assert all(ended(thread) for thread in threads)
    crowd.runner.work()
    assert {crowd.status(job_id) for job_id in jobs} == {Status.SUCCEEDED}
    assert taken(crowd) == 0


@pytest.mark.parametrize("reason", ENDS)
def test_a_stop_reaches_every_sample(
    vote_bench: Bench, sample_streams: SampleEngine, wait_for: WaitFor, reason: StopReason
) -> None:
    job_id = ask(vote_bench, 5)
    thread = start(vote_bench)
    sample_streams.say(0, "One ")
    assert sample_streams.begun(3)
    for vote in (1, 2):
        sample_streams.say(vote, "More ")
    assert wait_for(lambda: len(vote_bench.trace(job_id)) == 3)
    assert wait_for(
        lambda: sum(len(live.text()) for live in vote_bench.trace_writer.buffers()) == 14
    )

    vote_bench.runner.drain()
    vote_bench.leases.end((job_id, 1), reason)

    assert ended(thread)
    # Once is enough; the loss of a lease may be noticed by two.
    assert set(sample_streams.aborted) == {0, 1, 2}
    assert vote_bench.outcome(job_id) == ENDS[reason]
    if reason is not StopReason.LOST:
        assert finishes(vote_bench, job_id) == [str(reason)] * 3
        assert sorted(trace.text for trace in vote_bench.trace(job_id)) == [
            "More ",
            "More ",
            "One ",
        ]
        assert vote_bench.view(job_id).job.output_tokens == 6
    assert vote_bench.view(job_id).job.votes is None
    assert taken(vote_bench) == 0


def test_a_cancel_before_the_first_token_stops_the_first_sample_and_starts_no_other(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    job_id = ask(vote_bench, 5)
    thread = start(vote_bench)
    assert sample_streams.begun(1)

    vote_bench.runner.drain()
    vote_bench.leases.end((job_id, 1), StopReason.CANCEL)

    assert ended(thread)
    assert (sample_streams.votes(), sample_streams.aborted) == ([0], [0])
    assert vote_bench.status(job_id) is Status.CANCELLED


def test_a_fault_of_one_sample_stops_the_others_and_the_next_attempt_votes_again(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    job_id = ask(vote_bench, 3)
    thread = start(vote_bench)
    sample_streams.say(0, "I ")
    assert sample_streams.begun(2)
    vote_bench.runner.drain()

    sample_streams.feed(1, errors.EngineFault("It broke."))

    assert ended(thread)
    assert sample_streams.aborted == [0]
    job = vote_bench.view(job_id).job
    assert (job.status, job.failures) == (Status.QUEUED, 1)
    assert finishes(vote_bench, job_id) == ["unneeded", "error"]
    assert taken(vote_bench) == 0


def test_a_sample_that_the_engine_has_no_room_for_runs_again(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    job_id = ask(vote_bench, 3)
    sample_streams.feed(1, errors.EngineBusy("It is full."))
    thread = start(vote_bench)
    sample_streams.say(0, "I ")
    assert sample_streams.begun(2)

    sample_streams.answer(0, "6")
    sample_streams.answer(1, "6")

    assert ended(thread)
    assert sample_streams.votes() == [0, 1, 1]
    job = vote_bench.view(job_id).job
    assert (job.status, job.failures, job.attempt) == (Status.SUCCEEDED, 0, 1)
    assert votes_of(vote_bench, job_id) == (2, 2, [("6", [0, 2])], [])


def test_a_crash_of_the_worker_keeps_partial_traces_and_the_next_attempt_votes_again(
    vote_bench: Bench, sample_streams: SampleEngine, wait_for: WaitFor
) -> None:
    job_id = ask(vote_bench, 3)
    thread = start(vote_bench)
    sample_streams.say(0, "One ")
    assert sample_streams.begun(2)
    sample_streams.answer(1, "7")
    assert wait_for(
        lambda: vote_bench.trace(job_id)[1].complete if vote_bench.trace(job_id)[1:] else False
    )
    vote_bench.trace_writer.flush()
    assert vote_bench.view(job_id).progress == history.Progress(output_tokens=6, samples_done=1)

    vote_bench.steal()
    vote_bench.runner.drain()
    vote_bench.leases.look()

    assert ended(thread)
    stored = vote_bench.trace(job_id)
    assert [(trace.attempt, trace.text[:4], trace.finish_reason) for trace in stored] == [
        (1, "One ", "lost"),
        (1, "I lo", "stop"),
    ]
    assert vote_bench.view(job_id).job.crashes == 1


def scripted(
    bench: Bench,
    *,
    samples: int,
    question: str = "How many?",
    **options: Any,  # noqa: ANN401 - any option
) -> uuid.UUID:
    engine = Scripted(
        options=ScriptedOptions(tokens_per_second=2000, prefill_tokens_per_second=0, markers=True),
        profile=profiles.QVQ,
    )
    voting = bench.with_engine(engine, margin=0)
    job_id = voting.submit(
        question=question,
        options={"samples": samples, "max_output_tokens": 600} | options,
        image=real_image(),
    )
    voting.runner.work()
    return job_id


def test_the_events_of_each_sample_match_its_stored_trace(bench: Bench, database: Database) -> None:
    publisher = RecordingPublisher()
    bench.trace_writer._publisher = publisher  # noqa: SLF001 - the bench's own, to read its events
    bench.trace_writer.start()
    job_id = scripted(bench, samples=4)
    bench.trace_writer.stop()

    page = event_log.read(database, job_id, after=0, limit=10_000)

    numbers = [event.number for event in page.events]
    assert numbers == sorted(set(numbers))
    stored = bench.trace(job_id)
    assert len(stored) >= 2
    for trace in stored:
        said = [event for event in page.events if event.generation == trace.number]
        assert "".join(event.delta or "" for event in said) == trace.text != ""
        assert live(publisher.reported, trace.number) == trace.text
    for after in numbers[:: max(1, len(numbers) // 7)]:
        rest = event_log.read(database, job_id, after=after, limit=10_000).events
        assert rest == [event for event in page.events if event.number > after]


def test_samples_that_speak_in_turns_have_their_events_in_this_order(
    vote_bench: Bench, sample_streams: SampleEngine, database: Database, wait_for: WaitFor
) -> None:
    publisher = RecordingPublisher()
    writer = vote_bench.trace_writer
    writer._publisher = publisher  # noqa: SLF001 - the bench's own, to read its events
    job_id = ask(vote_bench, 3)
    thread = start(vote_bench)
    said = 0
    for turn in range(6):
        sample_streams.say(turn % 2, f"word{turn} ")
        said += len(f"word{turn} ")
        # The other sample begins with the first token of the first one.
        assert sample_streams.begun(2)
        assert wait_for(lambda: sum(len(one.text()) for one in writer.buffers()) == said)  # noqa: B023 - called now
        writer.tick()
        if turn in (1, 4):
            writer.flush()
    for vote in range(2):
        sample_streams.answer(vote, "6")
    assert ended(thread)

    page = event_log.read(database, job_id, after=0, limit=10_000)
    assert [event.generation for event in page.events if event.delta][:6] == [0, 1] * 3
    for trace in vote_bench.trace(job_id):
        stored = [event.delta for event in page.events if event.generation == trace.number]
        assert "".join(delta or "" for delta in stored) == trace.text != ""
        assert live(publisher.reported, trace.number) == trace.text


def live(reported: list[LiveEvent], generation: int) -> str:
    numbers = [event.mark.number for event in reported]
    assert numbers == sorted(set(numbers))
    return "".join(event.delta for event in reported if event.generation == generation)


def test_guards_watch_each_sample_and_a_forced_answer_is_a_vote(bench: Bench) -> None:
    on = behaviors.ON
    job_id = scripted(
        bench,
        samples=3,
        question="How many? [[behavior:verbatim_loop]]",
        guards=on,
        max_output_tokens=4000,
    )

    view = bench.view(job_id)
    stored = bench.trace(job_id)
    votes = view.job.votes
    assert votes is not None
    assert (view.job.status, view.job.answer_forced) == (Status.SUCCEEDED, True)
    forced = {trace.number: trace.continues for trace in stored if trace.continues is not None}
    cast = {generation for one in votes["classes"] for generation in one["generations"]}
    assert cast <= forced.keys()
    cut = {forced[generation] for generation in cast}
    assert cut <= {entry.generation for entry in view.findings if entry.kind == "loop"}
    assert all(trace.text for trace in stored if trace.number in cut | cast)
    bench.reported(job_id)


_NUMBERED = {"type": "object", "properties": {"count": {"type": "number"}}, "required": ["count"]}


@pytest.mark.parametrize(
    "answer_format",
    [{"type": "json_schema", "schema": _NUMBERED}, {"type": "json_object"}],
    ids=lambda answer_format: str(answer_format["type"]),
)
def test_answers_in_json_vote_by_their_values(
    vote_bench: Bench, sample_streams: SampleEngine, answer_format: dict[str, Any]
) -> None:
    job_id = ask(vote_bench, 3, answer_format=answer_format)
    for vote, text in enumerate(['{"count": 6, "sure": true}', '{"sure": true, "count": 6.0}']):
        sample_streams.feed(
            vote, Chunk(text="I see six."), Chunk(finish_reason="stop"), sample_streams.END
        )
        sample_streams.feed(vote, Chunk(text=text), Chunk(finish_reason="stop"), sample_streams.END)

    vote_bench.runner.work()

    job = vote_bench.view(job_id).job
    assert (job.answer_value, job.confidence) == ({"count": 6, "sure": True}, 1.0)
    stored = {trace.number: trace for trace in vote_bench.trace(job_id)}
    assert job.votes is not None
    [agreed] = job.votes["classes"]
    assert [stored[number].text for number in agreed["generations"]] == [
        '{"count": 6, "sure": true}',
        '{"sure": true, "count": 6.0}',
    ]
    assert {stored[number].continues for number in agreed["generations"]} == set(stored) - {
        *agreed["generations"]
    }
    vote_bench.reported(job_id)


def test_the_start_of_a_sample_is_written_once_and_not_by_a_worker_that_lost_the_job(
    bench: Bench,
) -> None:
    bench.submit()
    claimed = factories.claim(bench.database, "me")
    factories.begin(bench.database, claimed)

    first = claims.join(bench.database, claimed, rid="b" * 32, generation=1)
    assert first is not None
    assert claims.join(bench.database, claimed, rid="b" * 32, generation=1) == first

    bench.steal()
    assert claims.join(bench.database, claimed, rid="c" * 32, generation=2) is None
    claims.leave(bench.database, claimed, factories.make_ended(generation=1))
    assert [trace.finish_reason for trace in bench.trace(claimed.job_id)] == ["lost", "lost"]


def test_a_sample_that_ended_while_others_run_may_still_be_written(bench: Bench) -> None:
    job_id = bench.submit()
    claimed = factories.claim(bench.database, "me")
    factories.begin(bench.database, claimed)
    claims.leave(bench.database, claimed, factories.make_ended("I see 6."))

    traces.append(bench.database, owner="me", pieces=[factories.make_piece(claimed, "I see 6.")])

    [trace] = bench.trace(job_id)
    assert (trace.text, trace.finish_reason, trace.complete) == ("I see 6.", "stop", True)


def test_the_votes_are_removed_with_the_answer(
    vote_bench: Bench, sample_streams: SampleEngine
) -> None:
    job_id = ask(vote_bench, 2)
    for vote in range(2):
        sample_streams.answer(vote, "6")
    vote_bench.runner.work()

    retention.remove_job(vote_bench.database, job_id, account_id=None, actor="key:test")

    job = vote_bench.view(job_id).job
    assert (job.answer_text, job.votes, job.confidence) == (None, None, 1.0)


class AbsentEngine:
    """A sandbox whose children cannot be started."""

    def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Refuse."""
        del payload, arguments
        raise errors.Unavailable("A sandbox cannot be started.")


def test_a_vote_whose_answers_cannot_be_compared_is_retried_with_its_reason(
    bench: Bench, sample_streams: SampleEngine
) -> None:
    mathematics = Equality(AbsentEngine(), equality.shares(most_waiting=1), pause_seconds=0)
    vote_bench = bench.with_engine(sample_streams, margin=0, mathematics=mathematics)
    job_id = ask(vote_bench, 3)
    sample_streams.answer(0, "\\sqrt{4}")
    sample_streams.answer(1, "2")

    assert ended(start(vote_bench))

    assert vote_bench.outcome(job_id) == (Status.QUEUED, Outcome.RETRIED)
    assert vote_bench.attempt(job_id).attempt.error_code == "answers_not_compared"
    assert vote_bench.view(job_id).job.votes is None
    assert finishes(vote_bench, job_id) == ["stop", "stop"]
    assert taken(vote_bench) == 0


@pytest.mark.parametrize("reason", ENDS)
def test_a_vote_that_waits_for_a_comparison_holds_no_engine_slot_and_can_be_stopped(
    bench: Bench, sample_streams: SampleEngine, wait_for: WaitFor, reason: StopReason
) -> None:
    places = equality.shares(1, most_waiting=8)
    mathematics = Equality(NoSandbox(), places, look_seconds=0.01)
    vote_bench = bench.with_engine(sample_streams, margin=0, mathematics=mathematics)
    job_id = ask(vote_bench, 2)
    with places.hold(uuid.uuid4(), seconds=0):
        sample_streams.answer(0, "\\sqrt{4}")
        sample_streams.answer(1, "2")
        thread = start(vote_bench)
        assert wait_for(lambda: places.waiting == 1)
        assert wait_for(lambda: taken(vote_bench) == 0)

        vote_bench.runner.drain()
        vote_bench.leases.end((job_id, 1), reason)

        assert ended(thread)
    assert vote_bench.outcome(job_id) == ENDS[reason]


def test_a_job_of_another_account_runs_before_the_further_samples_of_a_vote(
    bench: Bench, sample_streams: SampleEngine
) -> None:
    sample_streams = SampleEngine(window=4)
    vote_bench = bench.with_engine(sample_streams, margin=0)
    slots: list[threading.Thread] = []
    vote_bench.engines.listen(lambda: slots.append(start(vote_bench)))
    vote = ask(vote_bench, 12)
    slots.append(start(vote_bench))
    sample_streams.say(0, "I ")
    assert sample_streams.begun(4)
    key = accounts.new_key()
    accounts.create_key(
        vote_bench.database, key, pepper=b"p", account="other", role=Role.SUBMIT, name="test"
    )
    other = dataclasses.replace(
        vote_bench, account_id=accounts.account_id(vote_bench.database, "other")
    ).submit(options={"seed": 107})
    assert vote_bench.runner.work() == 0

    sample_streams.answer(1, "6")

    assert sample_streams.begun(5)
    assert sample_streams.votes()[4] == 100
    sample_streams.answer(100, "red")
    for number in (0, *range(2, 12)):
        sample_streams.answer(number, "6")
    assert all(ended(slot) for slot in slots)
    assert [vote_bench.status(job_id) for job_id in (vote, other)] == [Status.SUCCEEDED] * 2
    assert taken(vote_bench) == 0
