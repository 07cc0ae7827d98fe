"""A trace that spends its budget, or does not end its final answer, is cut back to before the heading."""

from __future__ import annotations

import random

from jobs.findings import FindingKind
from tests.worker.guarded import feed, make_guards
from worker.guards.chain import GuardChain

ALL = dict.fromkeys(("loop", "budget", "language"), True)


def make_watch(question: str = "How many circles?", **switched: bool) -> GuardChain:
    return make_guards(ALL | switched, question=question)


def test_a_box_from_before_does_not_end_a_final_answer_that_goes_on_and_on() -> None:
    dice = random.Random(1)
    talk = "".join(chr(dice.randint(97, 122)) + " " * dice.randint(0, 1) for _ in range(4000))
    text = f"So far \\boxed{{3}}.\n\n**Final Answer**\n\n\\boxed{{\\text{{{talk}"

    verdict, _ = feed(make_watch(), text)

    assert verdict is not None
    assert (verdict.finding.kind, text[: verdict.stored]) == (
        FindingKind.NO_ANSWER,
        "So far \\boxed{3}.",
    )


def test_a_budget_used_up_inside_the_box_is_cut_back_to_before_the_heading() -> None:
    text = "I see six.\n\n**Final Answer**\n\n\\boxed{\\text{"

    verdict = make_watch().reasoning.end(text, "length")

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.BUDGET
    assert text[: verdict.stored] == "I see six."
