"""A forced answer gets the tokens that are left, and ends with its box."""

from __future__ import annotations

import pytest

from jobs.findings import Action
from tests.worker.guarded import feed, make_guards
from worker.guards import forced_answer
from worker.guards.trace import FORCED_TOKENS

OPENING = "Let me look at the picture, where five red circles are near the left edge. "


def test_a_forced_answer_has_no_more_tokens_than_the_job_has_left() -> None:
    text = OPENING + "So I count again. " * 100
    first = make_guards({"loop": True}, question="How many?", budget=4096)
    feed(first, text)
    assert first.trace.forced_tokens == FORCED_TOKENS

    watch = make_guards({"loop": True}, question="How many?", budget=first.trace.tokens + 20)
    verdict, _ = feed(watch, text)

    assert verdict is not None
    assert verdict.inserted
    assert watch.trace.forced_tokens == 20
    watch.trace.bill(first.trace.tokens + 12)
    assert watch.trace.forced_tokens == 8
    assert watch.trace.verdict == verdict
    # An engine that stops late has used up what the answer was to have.
    watch.trace.bill(first.trace.tokens + 15)
    assert watch.trace.verdict is not None
    assert (watch.trace.verdict.finding.action, watch.trace.verdict.inserted) == (
        Action.STOPPED,
        "",
    )
    assert watch.trace.verdict.stored == verdict.stored


def test_with_hardly_a_token_left_a_loop_is_stopped_and_a_drift_is_only_reported() -> None:
    text = OPENING + "So I count again. " * 100
    first = make_guards({"loop": True}, question="How many?", budget=4096)
    feed(first, text)
    loop = make_guards({"loop": True}, question="How many?", budget=first.trace.tokens + 5)
    verdict, _ = feed(loop, text)
    assert verdict is not None
    assert (verdict.finding.action, verdict.inserted) == (Action.STOPPED, "")

    drift = make_guards({"language": True}, question="How many?", budget=100)
    drift.trace.bill(95)
    text = "我看到六个圆，答案应该是六个。\n\n**最终答案**\n\n\\boxed{六个}"  # noqa: RUF001 - Chinese as written
    verdict = drift.reasoning.end(text, "stop")
    assert verdict is not None
    assert (verdict.finding.action, verdict.stored, verdict.inserted) == (
        Action.NONE,
        len(text),
        "",
    )


@pytest.mark.parametrize(
    ("said", "closed"),
    [("6}", True), ("\\frac{1}{2}", False), ("\\frac{1}{2}}", True), ("\\}", False), ("", False)],
)
def test_a_box_is_closed_by_its_own_brace(said: str, *, closed: bool) -> None:
    assert forced_answer.box_closed(said) is closed
