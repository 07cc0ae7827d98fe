"""The limit of an answer, so that it fits into the context with the images and the question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.submission import token_budget
from core import errors
from core.profiles import QVQ, TINY


def test_a_job_that_fits_gets_the_requested_tokens_or_the_default() -> None:
    assert (
        token_budget.output_tokens(QVQ, question="How many?", image_tokens=[2560], requested=None)
        == 8192
    )
    assert (
        token_budget.output_tokens(QVQ, question="How many?", image_tokens=[2560], requested=16)
        == 16
    )


def test_a_long_question_leaves_less() -> None:
    question = "数" * 20_000
    room = QVQ.context_tokens - QVQ.overhead_tokens - 2562 - 20_000
    assert (
        token_budget.output_tokens(QVQ, question=question, image_tokens=[2560], requested=16384)
        == room
    )


def test_emoji_count_twice() -> None:
    plain, emoji = (
        token_budget.output_tokens(TINY, question=char * 800, image_tokens=[24], requested=1536)
        for char in ("x", "🦩")
    )
    assert plain - emoji == 800


def test_what_can_never_fit_is_refused_with_its_own_code() -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        token_budget.output_tokens(QVQ, question="?", image_tokens=[8192] * 4, requested=None)
    assert refused.value.specific_code == "context_length_exceeded"


@given(
    question=st.text(min_size=1, max_size=24_000),
    image_tokens=st.lists(st.integers(4, 8192), min_size=1, max_size=8),
    requested=st.none() | st.integers(1, QVQ.max_output_tokens),
)
def test_the_answer_has_its_minimum_and_never_more_than_requested(
    question: str, image_tokens: list[int], requested: int | None
) -> None:
    wanted = requested or QVQ.default_output_tokens
    try:
        given_tokens = token_budget.output_tokens(
            QVQ, question=question, image_tokens=image_tokens, requested=requested
        )
    except errors.InvalidRequest:
        assert sum(image_tokens) + len(question) // 16 > QVQ.context_tokens // 2
    else:
        assert min(wanted, QVQ.min_output_tokens) <= given_tokens <= wanted
