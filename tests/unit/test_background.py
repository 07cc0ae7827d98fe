"""Background loops: when rounds run, how they are woken, and how they end."""

from __future__ import annotations

import queue
import threading

import pytest

from core.background import BackgroundLoop
from core.database_faults import DatabaseUnavailable, until_available


def test_a_loop_runs_round_after_round_until_it_is_stopped() -> None:
    rounds: queue.Queue[str] = queue.Queue()
    loop = BackgroundLoop("rounds", lambda: rounds.put("round"), every=0.0)
    loop.start()

    assert [rounds.get(timeout=20) for _ in range(3)] == ["round"] * 3

    loop.stop()
    assert "rounds" not in [thread.name for thread in threading.enumerate()]


def test_a_loop_without_an_interval_waits_until_it_is_woken() -> None:
    rounds: queue.Queue[str] = queue.Queue()
    loop = BackgroundLoop("woken", lambda: rounds.put("round"), first=None)
    loop.start()
    loop.wake()

    rounds.get(timeout=20)
    loop.wake()
    rounds.get(timeout=20)

    loop.stop()
    assert rounds.empty()


def test_a_wake_during_a_round_begins_another_one() -> None:
    rounds: queue.Queue[str] = queue.Queue()
    within, released = threading.Event(), threading.Event()

    def round_() -> None:
        rounds.put("round")
        within.set()
        released.wait(20)

    loop = BackgroundLoop("busy", round_)
    loop.start()
    assert within.wait(20)
    loop.wake()
    released.set()

    assert [rounds.get(timeout=20) for _ in range(2)] == ["round"] * 2
    loop.stop()


def test_stopping_ends_a_pause_within_a_round() -> None:
    within = threading.Event()
    stopped: queue.Queue[bool] = queue.Queue()

    def round_() -> None:
        within.set()
        stopped.put(loop.pause(60))

    loop = BackgroundLoop("pausing", round_)
    loop.start()
    assert within.wait(20)

    loop.stop()

    assert stopped.get(timeout=20)


@pytest.mark.parametrize("started", ["before", "after"])
def test_what_comes_after_the_last_round_runs_however_early_the_stop_comes(started: str) -> None:
    ended = threading.Event()
    loop = BackgroundLoop("ending", lambda: None, first=None, after=ended.set)
    if started == "before":
        loop.start()
    loop.request_stop()
    if started == "after":
        loop.start()

    assert ended.wait(20)


def test_a_call_is_repeated_until_the_database_answers() -> None:
    pauses: list[float] = []
    outcomes: list[Exception | None] = [
        DatabaseUnavailable("away"),
        DatabaseUnavailable("away"),
        None,
    ]

    def call() -> str:
        if error := outcomes.pop(0):
            raise error
        return "written"

    assert until_available(call, failed="not_written", give_up=pauses.append) == "written"
    assert len(pauses) == 2


def test_a_call_is_given_up_when_its_caller_stops() -> None:
    def call() -> None:
        raise DatabaseUnavailable("away")

    with pytest.raises(DatabaseUnavailable):
        until_available(call, failed="not_written", give_up=lambda _seconds: True)
