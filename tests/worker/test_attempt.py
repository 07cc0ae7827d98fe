"""What the service makes of an engine that loops, never ends, or drifts: by the scripted engine's behaviors."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from core import errors
from core.database import Database
from jobs.engine import Chunk
from jobs.findings import FindingKind
from jobs.lifecycle import Status
from jobs.store import claims, event_log, history, traces
from tests import factories
from tests.worker.behaviors import BUDGET, ON, found, run_behavior
from tests.worker.conftest import ENDS, Bench
from tests.worker.engine_fake import LOOP
from tests.worker.guarded import make_guards
from worker.guards import forced_answer, prompts
from worker.guards.trace import FORCED_TOKENS
from worker.leases import StopReason


@pytest.mark.parametrize(
    ("behavior", "kind"),
    [
        ("verbatim_loop", "loop"),
        ("paraphrase_loop", "paraphrase_loop"),
        ("unterminated_box", "no_answer"),
    ],
)
def test_a_runaway_trace_is_cut_and_an_answer_is_forced(
    bench: Bench, behavior: str, kind: str
) -> None:
    job_id = run_behavior(bench, behavior, tokens_per_second=2000)

    job = bench.view(job_id).job
    assert (job.status, job.answer_forced, job.finish_reason) == (Status.SUCCEEDED, True, "stop")
    assert job.answer_text in {str(number) for number in range(9)}
    assert found(bench, job_id) == [(kind, "forced")]
    look, forced = bench.trace(job_id)
    assert (look.finish_reason, forced.continues, forced.complete) == ("cut", 0, True)
    assert forced.text == f"{job.answer_text}}}"
    [finding] = bench.view(job_id).findings
    assert look.text[finding.start_char : finding.end_char]
    assert finding.tokens_saved >= 0.8 * BUDGET
    assert job.output_tokens == look.output_tokens + forced.output_tokens < 0.2 * BUDGET


def test_events_of_a_cut_and_of_the_forced_answer_come_in_order(bench: Bench) -> None:
    job_id = run_behavior(bench, "verbatim_loop", tokens_per_second=2000)

    events = bench.reported(job_id)

    said = [event.generation for event in events if event.kind is event_log.EventKind.DELTA]
    assert said == sorted(said, key=lambda sample: sample or 0)
    assert set(said) == {0, 1}
    [reported] = [event for event in events if event.kind is event_log.EventKind.FINDING]
    [stored] = bench.view(job_id).findings
    assert reported.finding is not None
    assert (reported.finding["kind"], reported.finding["start"]) == (stored.kind, stored.start_char)
    wanted = history.Filter(account_id=None, findings=[FindingKind.LOOP])
    other = history.Filter(account_id=None, findings=[FindingKind.BUDGET])
    assert [view.job.id for view in history.page(bench.database, wanted, limit=9)[0]] == [job_id]
    assert history.page(bench.database, other, limit=9)[0] == []


def test_an_answer_is_forced_within_the_budget_if_a_trace_reaches_its_limit_without_one(
    bench: Bench,
) -> None:
    job_id = run_behavior(bench, "no_answer_at_length")

    job = bench.view(job_id).job
    assert (job.status, job.answer_forced) == (Status.SUCCEEDED, True)
    assert found(bench, job_id) == [("budget", "forced")]
    assert (job.output_tokens or 0) <= BUDGET


def test_a_remark_in_a_cut_trace_is_no_answer(bench: Bench) -> None:
    job_id = run_behavior(bench, "remark_at_length")

    job = bench.view(job_id).job
    assert (job.answer_rule, job.answer_forced) == ("heading+boxed", True)
    assert found(bench, job_id) == [("budget", "forced")]
    assert "The answer is wrong" in bench.trace(job_id)[0].text


def test_an_answer_is_forced_if_a_trace_is_cut_before_its_box(bench: Bench) -> None:
    job_id = submit_guarded(bench)
    cut = "The answer is 4 there. I count again.\n\n**Final Answer**\n\n\\[ \\"
    bench.engine.feed(Chunk(text=cut), Chunk(finish_reason="length"), bench.engine.END)
    bench.engine.answer("6}")

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.answer_text, job.answer_forced) == ("6", True)
    assert found(bench, job_id) == [("budget", "forced")]


def test_an_answer_is_forced_if_the_model_stops_without_one(bench: Bench) -> None:
    job_id = run_behavior(bench, "no_marker")

    job = bench.view(job_id).job
    assert (job.answer_rule, job.answer_forced) == ("heading+boxed", True)
    assert found(bench, job_id) == [("no_answer", "forced")]


def test_a_short_output_without_a_marker_is_the_answer(bench: Bench) -> None:
    job_id = submit_guarded(bench)
    bench.engine.answer("The flowers are asters.")

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.answer_text, job.answer_rule) == ("The flowers are asters.", "whole")
    assert (job.answer_forced, found(bench, job_id)) == (False, [])


def test_a_refusal_is_a_finding_and_no_answer_is_forced(bench: Bench) -> None:
    job_id = run_behavior(bench, "refusal")

    job = bench.view(job_id).job
    assert (job.status, job.answer_text) == (Status.SUCCEEDED, None)
    assert found(bench, job_id) == [("refusal", "none")]
    assert len(bench.trace(job_id)) == 1


def test_the_original_of_an_answer_is_stored_and_removed_with_it(bench: Bench) -> None:
    job_id = submit_guarded(bench)
    bench.engine.answer("**Final Answer**\n\n\\[ \\boxed{\\text{A red lamp}} \\]")

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.answer_text, job.answer_tex) == ("A red lamp", "\\text{A red lamp}")


def test_an_answer_that_drifted_into_chinese_is_requested_again(bench: Bench) -> None:
    job_id = run_behavior(bench, "chinese_drift")

    job = bench.view(job_id).job
    assert (job.answer_forced, found(bench, job_id)) == (True, [("language", "forced")])
    look, forced = bench.trace(job_id)
    assert "一共五个" in look.text
    assert forced.valid_chars == look.text.index("\n\n**最终答案**")


@pytest.mark.parametrize("behavior", ["no_answer_at_length", "verbatim_loop", "unterminated_box"])
def test_without_guards_a_job_ends_without_an_answer(bench: Bench, behavior: str) -> None:
    job_id = run_behavior(bench, behavior, loop=False, budget=False)

    job = bench.view(job_id).job
    assert (job.answer_text, job.answer_forced, job.output_tokens) == (None, None, BUDGET)
    assert found(bench, job_id) == [("no_answer", "none")]
    assert len(bench.trace(job_id)) == 1


def test_a_clean_trace_is_left_alone(bench: Bench) -> None:
    job_id = run_behavior(bench, "clean")

    assert (bench.view(job_id).job.answer_forced, found(bench, job_id)) == (False, [])
    assert len(bench.trace(job_id)) == 1


def submit_guarded(bench: Bench, **facts: Any) -> uuid.UUID:  # noqa: ANN401 - any field
    return bench.submit(options={"max_output_tokens": BUDGET, "guards": ON}, **facts)


def test_a_forced_answer_continues_greedily_from_the_text_before_the_loop(bench: Bench) -> None:
    submit_guarded(bench)
    bench.engine.loop()
    bench.engine.after_abort = [
        [Chunk(text="6}"), Chunk(text=" and more"), Chunk(finish_reason="stop"), bench.engine.END]
    ]

    bench.runner.work()

    first, second = bench.engine.requests
    assert first.max_output_tokens == BUDGET - forced_answer.RESERVE_TOKENS
    assert (second.sampling.temperature, second.max_output_tokens) == (0.0, FORCED_TOKENS)
    assert second.continuation == f"I see. {LOOP}".rstrip() + prompts.forced_answer("How many?")
    assert (second.salt, second.images) == (first.salt, first.images)
    assert bench.engine.aborted == [first.rid, second.rid]


@pytest.mark.parametrize("switched", [{"budget": False}, {}])
def test_a_forced_answer_stays_within_a_budget_without_a_reserve(
    bench: Bench, switched: dict[str, bool]
) -> None:
    budget = 100
    job_id = bench.submit(options={"max_output_tokens": budget, "guards": ON | switched})
    bench.engine.loop()
    bench.engine.after_abort = [[Chunk(text="6}"), Chunk(finish_reason="stop"), bench.engine.END]]

    bench.runner.work()

    first, second = bench.engine.requests
    assert first.max_output_tokens == budget
    # A loop is seen after 64 tokens at the earliest.
    assert second.max_output_tokens == budget - 64 < FORCED_TOKENS
    assert bench.view(job_id).job.answer_text == "6"


def test_an_answer_before_the_loop_needs_no_second_one(bench: Bench) -> None:
    job_id = submit_guarded(bench)
    bench.engine.loop("**Final Answer** \\boxed{7} ")

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.answer_text, job.answer_forced, job.finish_reason) == ("7", False, "stop")
    assert found(bench, job_id) == [("loop", "stopped")]


def test_a_forced_generation_without_text_ends_without_an_answer(bench: Bench) -> None:
    job_id = submit_guarded(bench)
    bench.engine.loop()
    bench.engine.after_abort = [[Chunk(finish_reason="stop"), bench.engine.END]]

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.answer_text) == (Status.SUCCEEDED, None)
    assert found(bench, job_id) == [("loop", "forced"), ("no_answer", "none")]


@pytest.mark.parametrize("reason", ENDS)
def test_a_forced_answer_can_be_stopped_like_any_generation(
    bench: Bench, reason: StopReason
) -> None:
    job_id = submit_guarded(bench)
    bench.engine.loop()
    bench.engine.after_abort = [[]]

    bench.stop_second(job_id, reason)

    assert bench.outcome(job_id) == ENDS[reason]


def test_an_engine_that_refuses_the_longer_text_does_not_fail_the_job(bench: Bench) -> None:
    job_id = submit_guarded(bench)
    bench.engine.loop()
    bench.engine.after_abort = [[errors.EngineRejected("Too long.")]]

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.finish_reason) == (Status.SUCCEEDED, "stop")
    assert ("no_answer", "none") in found(bench, job_id)


def follow(database: Database, claimed: claims.Claim) -> object:
    watch = make_guards(ON, question="How many?", budget=BUDGET)
    verdict = watch.reasoning.end("I see", "length")
    assert verdict is not None
    return claims.follow(
        database,
        claimed,
        ended=factories.make_ended("I see", finish_reason="length"),
        finding=verdict.finding,
        rid="b" * 32,
        generation=1,
        stored=verdict.stored,
        inserted=verdict.inserted,
    )


def test_a_cut_is_written_once_despite_retries(bench: Bench) -> None:
    job_id = bench.submit()
    claimed = factories.claim(bench.database, "me")
    factories.begin(bench.database, claimed)

    assert follow(bench.database, claimed) == follow(bench.database, claimed)

    assert [trace.complete for trace in bench.trace(job_id)] == [True, False]
    assert found(bench, job_id) == [("budget", "forced")]


def test_a_late_part_of_a_cut_generation_is_not_written(bench: Bench) -> None:
    job_id = bench.submit()
    claimed = factories.claim(bench.database, "me")
    factories.begin(bench.database, claimed)
    follow(bench.database, claimed)

    late = factories.make_piece(claimed, "I see")
    assert traces.append(bench.database, owner="me", pieces=[late]) == set()

    assert [trace.text for trace in bench.trace(job_id)] == ["I see", ""]
    assert bench.trace(job_id)[0].output_tokens == 11


def test_a_worker_that_lost_the_job_cannot_write_a_cut(bench: Bench) -> None:
    job_id = bench.submit()
    claimed = factories.claim(bench.database, "me")
    factories.begin(bench.database, claimed)
    bench.steal()

    assert follow(bench.database, claimed) is None
    assert (len(bench.trace(job_id)), found(bench, job_id)) == (1, [])
