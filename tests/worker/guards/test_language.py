"""Only an answer that drifted into another script is requested again."""

from __future__ import annotations

import pytest

from tests.worker.guarded import make_guards
from worker.guards.chain import GuardChain

ALL = dict.fromkeys(("loop", "budget", "language"), True)


def make_watch(question: str = "How many circles?", **switched: bool) -> GuardChain:
    return make_guards(ALL | switched, question=question)


@pytest.mark.parametrize(
    ("question", "trace", "again"),
    [
        ("How many?", "我看到六个圆，答案应该是六个。\n\n**最终答案**\n\n\\boxed{六个}", True),  # noqa: RUF001 - Chinese as written
        ("How many?", "我看到六个圆。\n\n**最终答案**\n\n\\boxed{6}", False),
        ("What does it say?", "The sign on the door says: open.\n\n**Final Answer**\n\n\\boxed{营业中}", False),
        ("有几个？", "我看到六个圆。\n\n**最终答案**\n\n\\boxed{六个}", False),  # noqa: RUF001 - same
    ],
    ids=["drift", "a number", "a quotation", "asked in Chinese"],
)  # fmt: skip
def test_only_an_answer_that_drifted_into_another_script_is_requested_again(
    question: str, trace: str, *, again: bool
) -> None:
    verdict = make_watch(question).reasoning.end(trace, "stop")
    assert (verdict is not None) is again
