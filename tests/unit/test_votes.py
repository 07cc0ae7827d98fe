"""The vote on an answer: its waves, its classes, and that whoever stops early loses nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.answers import votes

ANSWERS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=2, max_size=9)


def same(one: str, other: str) -> bool:
    return one == other


def ranked(answers: dict[int, str | None]) -> list[votes.AnswerClass]:
    return votes.classes(answers, same)


def winner(answers: dict[int, str | None]) -> str | None:
    found = ranked(answers)
    return found[0].text if found else None


@pytest.mark.parametrize(
    ("samples", "planned"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (5, [3, 2]), (8, [4, 2, 2]), (16, [8, 4, 2, 2])],
)
def test_samples_run_in_waves(samples: int, planned: list[int]) -> None:
    assert votes.waves(samples) == planned


@pytest.mark.parametrize("samples", range(1, 65))
def test_waves_contain_every_sample_and_the_first_can_decide(samples: int) -> None:
    planned = votes.waves(samples)
    first = range(planned[0])
    assert sum(planned) == samples
    assert votes.decided(ranked(dict.fromkeys(first, "a")), cast=first, requested=samples)


@given(st.permutations(range(9)), st.lists(st.sampled_from("abc"), min_size=9, max_size=9))
def test_the_order_of_arrival_does_not_matter(order: list[int], texts: list[str]) -> None:
    assert ranked({vote: texts[vote] for vote in order}) == ranked(dict(enumerate(texts)))


@given(st.data(), ANSWERS)
def test_a_vote_is_decided_exactly_if_no_class_can_overtake(
    data: st.DataObject, answers: list[str | None]
) -> None:
    """Whatever the missing votes are, it holds; and what would hold, whatever they are, is a decision."""
    requested = len(answers)
    there = data.draw(st.sets(st.sampled_from(range(requested)), min_size=2))
    cast = {vote: answers[vote] for vote in there}
    missing = [vote for vote in range(requested) if vote not in there][:4]
    if len(there) + len(missing) < requested:
        return
    ends = {
        winner(cast | dict(zip(missing, rest, strict=True)))
        for rest in itertools.product(["a", "b", "c", "new", None], repeat=len(missing))
    }

    decided = votes.decided(ranked(cast), cast=cast, requested=requested)

    assert decided is (len(ends) == 1 or not missing)


@given(ANSWERS)
def test_waves_have_the_same_winner_as_the_complete_vote(answers: list[str | None]) -> None:
    cast: dict[int, str | None] = {}
    first = 0
    for size in votes.waves(len(answers)):
        cast |= {vote: answers[vote] for vote in range(first, first + size)}
        first += size
        if votes.decided(ranked(cast), cast=cast, requested=len(answers)):
            break

    assert winner(cast) == winner(dict(enumerate(answers)))


def test_fewer_than_two_votes_decide_nothing() -> None:
    assert not votes.decided(ranked({0: "a"}), cast=[0], requested=2)
    assert not votes.decided(ranked({0: None, 1: None}), cast=[0, 1], requested=5)
    assert votes.decided(ranked({0: None, 1: None}), cast=[0, 1], requested=2)


def test_confidence_is_the_winners_share_of_the_counted_samples() -> None:
    cast = {0: "a", 1: None, 2: "b", 3: "a"}
    tally = votes.Tally(
        requested=5,
        begun=5,
        classes=tuple(ranked(cast)),
        abstained=(1,),
        generations={0: 0, 1: 1, 2: 4, 3: 3},
    )
    assert (tally.counted, tally.confidence) == (4, 0.5)
    assert tally.plain() == {
        "requested": 5,
        "begun": 5,
        "counted": 4,
        "classes": [{"text": "a", "generations": [0, 3]}, {"text": "b", "generations": [4]}],
        "abstained": [1],
    }
    assert votes.Tally(5, 5, (), (0, 1), {0: 0, 1: 1}).confidence is None
