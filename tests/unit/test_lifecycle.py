"""The table of states, what a role includes, and how long a job waits for its next try."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import lifecycle
from jobs.lifecycle import HEAD_START, TRANSITIONS, Priority, Status

seeds = st.integers(0, 2**32).map(random.Random)


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("queued", {"running", "failed", "cancelled"}),
        ("running", {"queued", "succeeded", "failed", "cancelled"}),
        ("succeeded", set()),
        ("failed", set()),
        ("cancelled", set()),
    ],
)
def test_a_job_goes_from_here_to_there_and_nowhere_else(source: str, targets: set[str]) -> None:
    assert {str(target) for target in TRANSITIONS[Status(source)]} == targets


def test_the_terminal_states_are_those_that_nothing_leaves() -> None:
    assert {status for status in Status if status.terminal} == {
        Status.SUCCEEDED,
        Status.FAILED,
        Status.CANCELLED,
    }


def test_a_more_urgent_class_has_the_longer_head_start() -> None:
    assert set(HEAD_START) == set(Priority)
    assert HEAD_START[Priority.HIGH] > HEAD_START[Priority.NORMAL] > HEAD_START[Priority.LOW]


@given(seeds, st.integers(1, 100))
def test_a_wait_doubles_up_to_a_minute_with_some_jitter(rng: random.Random, count: int) -> None:
    longest = min(60, 5 * 2 ** (count - 1))

    wait = lifecycle.backoff(count, rng=rng)

    assert timedelta(seconds=longest * 0.8) <= wait <= timedelta(seconds=longest)


@given(seeds)
def test_an_uncounted_release_waits_about_a_second(rng: random.Random) -> None:
    wait = lifecycle.release_wait(rng=rng)

    assert timedelta(seconds=0.5) <= wait <= timedelta(seconds=2)


def test_waits_differ_so_that_jobs_do_not_come_back_all_at_once() -> None:
    rng = random.Random(1)

    assert len({lifecycle.backoff(1, rng=rng) for _ in range(20)}) == 20
