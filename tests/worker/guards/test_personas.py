"""What the service makes of each behavior: a right answer or honestly none, a finding, and few runaway tokens."""

from __future__ import annotations

import pytest

from jobs.lifecycle import Status
from tests.worker.behaviors import BUDGET, found, run_behavior
from tests.worker.conftest import Bench


@pytest.mark.parametrize(
    ("behavior", "switched", "kind"),
    [
        ("verbatim_loop", {}, "loop"),
        ("paraphrase_loop", {}, "paraphrase_loop"),
        ("unterminated_box", {}, "no_answer"),
        ("no_answer_at_length", {"convergence": True}, "converged"),
    ],
)
def test_a_runaway_ends_with_the_right_answer_its_finding_and_at_most_a_fifth_of_its_tokens(
    bench: Bench, behavior: str, switched: dict[str, bool], kind: str
) -> None:
    right = bench.view(run_behavior(bench, "clean", temperature=0)).job.answer_text

    job_id = run_behavior(bench, behavior, temperature=0, tokens_per_second=500, **switched)

    job = bench.view(job_id).job
    assert (job.status, job.answer_text, job.answer_forced) == (Status.SUCCEEDED, right, True)
    assert found(bench, job_id) == [(kind, "forced")]
    [finding] = bench.view(job_id).findings
    assert finding.tokens_saved >= 0.8 * BUDGET
    # The whole bill: the trace, what was asked on the way, and the answer.
    assert (job.output_tokens or 0) <= 0.2 * BUDGET


@pytest.mark.parametrize("stream_interval", [1, 10])
def test_a_loop_ends_at_the_same_token_however_many_a_chunk_has(
    bench: Bench, stream_interval: int
) -> None:
    job_id = run_behavior(
        bench,
        "paraphrase_loop",
        temperature=0,
        tokens_per_second=500,
        stream_interval=stream_interval,
    )

    assert found(bench, job_id) == [("paraphrase_loop", "forced")]
    [finding] = bench.view(job_id).findings
    trace, _ = bench.trace(job_id)
    assert 1000 <= trace.output_tokens <= 1400
    assert BUDGET - 1400 <= finding.tokens_saved + 80 <= BUDGET - 1000


def test_without_probes_an_answer_is_forced_when_a_trace_reaches_its_limit(
    bench: Bench,
) -> None:
    right = bench.view(run_behavior(bench, "clean", temperature=0)).job.answer_text

    job_id = run_behavior(bench, "no_answer_at_length", temperature=0)

    job = bench.view(job_id).job
    assert (job.answer_text, job.answer_forced) == (right, True)
    assert found(bench, job_id) == [("budget", "forced")]
    assert (job.output_tokens or 0) <= BUDGET


def test_a_drift_into_chinese_ends_with_the_answer_in_the_questions_language(bench: Bench) -> None:
    right = bench.view(run_behavior(bench, "clean", temperature=0)).job.answer_text

    job_id = run_behavior(bench, "chinese_drift", temperature=0)

    job = bench.view(job_id).job
    assert (job.answer_text, job.answer_forced) == (right, True)
    [finding] = bench.view(job_id).findings
    assert (finding.kind, finding.action) == ("language", "forced")
    assert finding.evidence["question"] == 0
    assert finding.evidence["answer"] == 1
    assert finding.evidence["trace"] > 0.5
    look, forced = bench.trace(job_id)
    assert forced.output_tokens < 0.2 * look.output_tokens


@pytest.mark.parametrize(
    ("behavior", "off"),
    [
        ("verbatim_loop", ("loop", "budget")),
        ("paraphrase_loop", ("loop", "budget")),
        ("unterminated_box", ("budget",)),
        ("no_answer_at_length", ("budget",)),
    ],
)
def test_with_its_guard_off_a_runaway_ends_without_an_answer(
    bench: Bench, behavior: str, off: tuple[str, ...]
) -> None:
    job_id = run_behavior(bench, behavior, **dict.fromkeys(off, False))

    job = bench.view(job_id).job
    assert (job.status, job.answer_text, job.finish_reason) == (Status.SUCCEEDED, None, "length")
    assert found(bench, job_id) == [("no_answer", "none")]


def test_with_its_guard_off_a_drift_keeps_its_answer(bench: Bench) -> None:
    job_id = run_behavior(bench, "chinese_drift", language=False)

    job = bench.view(job_id).job
    assert (job.answer_text, found(bench, job_id)) == ("一共五个", [])
