"""The buckets of requests: never more than the policy, and what is promised is kept."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from api.rate_limits import Limiter
from tests import races
from tests.fakes import HandTimer

KEY = uuid.UUID(int=1)
RATES = st.integers(1, 10_000)
PAUSES = st.lists(st.floats(0, 100), min_size=1, max_size=200)


@given(per_minute=RATES, pauses=PAUSES)
def test_no_more_pass_than_a_minutes_worth_and_what_time_brings(
    per_minute: int, pauses: list[float]
) -> None:
    timer = HandTimer()
    limiter = Limiter(per_minute=per_minute, timer=timer)
    began, passed = timer.seconds, 0
    for pause in pauses:
        timer.seconds += pause
        _, taken = limiter.take(KEY)
        passed += taken

        assert passed <= per_minute * (1 + (timer.seconds - began) / 60) + 1e-6


@given(per_minute=RATES, pauses=PAUSES)
def test_the_reported_rest_and_time_are_true(per_minute: int, pauses: list[float]) -> None:
    timer = HandTimer()
    limiter = Limiter(per_minute=per_minute, timer=timer)
    for pause in pauses:
        timer.seconds += pause
        standing, _ = limiter.take(KEY)

    assert 0 <= standing.remaining < per_minute
    assert 1 <= standing.seconds <= 60
    timer.seconds += standing.seconds + 1e-6
    taken = [limiter.take(KEY)[1] for _ in range(standing.remaining + 1)]
    assert all(taken)


def test_a_minutes_worth_at_once_is_fine_and_one_more_is_not() -> None:
    limiter = Limiter(per_minute=100, timer=HandTimer())

    taken = [limiter.take(KEY)[1] for _ in range(101)]

    assert taken == [True] * 100 + [False]
    assert limiter.take(uuid.UUID(int=2))[1]


def test_requests_at_the_same_time_are_all_counted() -> None:
    limiter = Limiter(per_minute=100, timer=HandTimer())

    def some() -> int:
        return sum(limiter.take(KEY)[1] for _ in range(40))

    assert sum(races.race(*[some] * 4)) == 100
