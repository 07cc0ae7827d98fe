"""Engines that refused are left alone for a while, then tried with one stream."""

from __future__ import annotations

import pytest

from core import errors
from tests.engines.quiet_engine import Quiet, Watch, drain, made
from worker.engines.pool import EnginePool

GONE = errors.EngineUnavailable("gone")
FULL = errors.EngineBusy("full")


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_an_engine_that_is_back_need_not_rest_for_what_was_before(watch: Watch) -> None:
    only = Quiet()
    engines = made(only, watch=watch)
    engines.report(only, GONE)
    only.window = None
    engines.refresh()

    only.window = 8
    engines.refresh()

    assert len(drain(engines)) == 12


@pytest.mark.parametrize("fault", [GONE, FULL])
def test_an_engine_that_refused_rests_and_is_tried_with_one_stream(
    fault: errors.EngineError, watch: Watch
) -> None:
    only = Quiet()
    engines = made(only, watch=watch)
    engines.report(only, fault)
    assert engines.acquire() is None

    watch.seconds += 1.0

    assert len(drain(engines)) == 1
    engines.report(only, None)
    assert len(drain(engines)) == 11


def test_a_try_is_given_although_older_streams_still_run(watch: Watch) -> None:
    only = Quiet()
    engines = made(only, watch=watch)
    running = [engines.acquire() for _ in range(5)]
    engines.report(only, FULL)
    watch.seconds += 1.0

    assert all(running)
    assert len(drain(engines)) == 1


def test_a_try_that_tells_nothing_makes_room_for_another(watch: Watch) -> None:
    only = Quiet()
    engines = made(only, watch=watch)
    engines.report(only, GONE)
    watch.seconds += 1.0
    trial = engines.acquire()
    assert trial is not None

    engines.report(only, errors.EngineFault("broke"))
    trial.release()

    assert len(drain(engines)) == 1


def test_rests_double_up_to_half_a_minute(watch: Watch) -> None:
    only = Quiet()
    engines = made(only, watch=watch)
    rests = []
    for _ in range(7):
        engines.report(only, GONE)
        began = watch.seconds
        while (trial := engines.acquire()) is None:
            watch.seconds += 0.5
        trial.release()
        rests.append(watch.seconds - began)

    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_rests_differ_between_workers() -> None:
    watch = Watch()
    only = Quiet()
    engines = EnginePool([only], now=watch, jitter=lambda: 0.0)
    engines.refresh()
    engines.report(only, GONE)

    watch.seconds += 0.5

    assert engines.acquire() is not None


def test_many_streams_that_fail_together_are_one_fault(watch: Watch) -> None:
    only = Quiet()
    engines = made(only, watch=watch)
    for _ in range(60):
        engines.report(only, FULL)

    watch.seconds += 1.0

    assert engines.acquire() is not None


def test_a_success_of_an_older_stream_does_not_end_a_rest(watch: Watch) -> None:
    only = Quiet()
    engines = made(only, watch=watch)
    engines.report(only, FULL)

    engines.report(only, None)

    assert engines.acquire() is None


@pytest.mark.parametrize("error", [errors.EngineFault("broke"), errors.EngineRejected("no")])
def test_a_fault_of_one_request_is_not_held_against_the_engine(
    error: errors.EngineError, watch: Watch
) -> None:
    only = Quiet()
    engines = made(only, watch=watch)

    engines.report(only, error)

    assert len(drain(engines)) == 12


def test_while_one_engine_rests_the_others_work(watch: Watch) -> None:
    tired, fresh = Quiet("tired"), Quiet("fresh")
    engines = made(tired, fresh, watch=watch)

    engines.report(tired, GONE)

    assert {permit.engine.url for permit in drain(engines)} == {"fresh"}
