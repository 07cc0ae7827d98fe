"""Permits: how many, for whom, and for which engine."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import errors, profiles
from jobs.settings import Settings
from worker import engine
from worker.engines import pool
from worker.engines.pool import Engines
from worker.engines.scripted import Scripted
from worker.engines.sglang import SGLang

GONE = errors.EngineUnavailable("gone")
FULL = errors.EngineBusy("full")


class Quiet:
    """An engine that only tells its window; None is out of reach."""

    def __init__(self, url: str = "a", window: int | None = 8) -> None:
        self.url = url
        self.window = window
        self.closed = False

    def facts(self) -> engine.Facts:
        if self.window is None:
            raise errors.EngineUnavailable("gone")
        return engine.Facts(model="m", version="1", window=self.window)

    def stream(self, request: engine.Request) -> AbstractContextManager[engine.Stream]:
        raise NotImplementedError

    def abort(self, rid: str) -> None:
        raise NotImplementedError

    def load(self) -> engine.Load:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class Watch:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def watch() -> Watch:
    return Watch()


def made(*engines: Quiet, watch: Watch | None = None, live_workers: int = 1) -> Engines:
    engines_ = Engines(engines, live_workers=live_workers, now=watch or Watch(), jitter=lambda: 1.0)
    engines_.refresh()
    return engines_


def drain(engines: Engines) -> list[pool.Permit]:
    """Take all permits there are."""
    return list(iter(engines.acquire, None))


@pytest.mark.parametrize(
    ("window", "permits"), [(1, 5), (8, 12), (64, 72), (512, 576), (4096, 4096 + 128)]
)
def test_a_margin_keeps_the_engine_busy_and_its_queue_short(window: int, permits: int) -> None:
    assert len(drain(made(Quiet(window=window)))) == permits


@pytest.mark.parametrize(("live", "permits"), [(1, 12), (2, 6), (5, 2), (12, 1), (100, 1)])
def test_the_window_is_shared_among_the_live_workers(live: int, permits: int) -> None:
    engines = made(Quiet(window=8))

    engines.share(live)

    assert engines.window() == permits
    assert len(drain(engines)) == permits


def test_a_smaller_share_takes_nothing_back_but_gives_nothing_more() -> None:
    engines = made(Quiet(window=8))
    permits = drain(engines)

    engines.share(4)

    for permit in permits[:9]:
        permit.release()
        assert engines.acquire() is None
    permits[9].release()
    assert engines.acquire() is not None


def test_a_permit_comes_back_once_however_often_it_is_released() -> None:
    engines = made(Quiet(window=1))
    permits = drain(engines)

    permits[0].release()
    permits[0].release()

    assert len(drain(engines)) == 1


def test_a_permit_comes_back_at_the_end_of_its_block() -> None:
    engines = made(Quiet(window=1))
    drain(engines)[0].release()
    last = engines.acquire()
    assert last is not None

    with last:
        assert engines.acquire() is None
        assert last.engine.url == "a"
        assert last.facts.window == 1

    assert engines.acquire() is not None


def test_the_engine_with_the_most_room_in_proportion_is_next() -> None:
    engines = made(Quiet("small", window=4), Quiet("large", window=28))

    given = [permit.engine.url for permit in drain(engines)]

    assert len(given) == 8 + 32
    assert given[:10].count("large") == 8
    assert given[:10].count("small") == 2


def test_nobody_is_asked_before_the_facts_are_read() -> None:
    engines = Engines([Quiet()])
    assert engines.acquire() is None

    engines.refresh()

    assert engines.acquire() is not None


def test_an_engine_out_of_reach_gives_no_permits_until_it_is_back() -> None:
    away, here = Quiet("away", window=None), Quiet("here")
    engines = made(away, here)
    assert {permit.engine.url for permit in drain(engines)} == {"here"}

    away.window = 2
    engines.refresh()

    assert {permit.engine.url for permit in drain(engines)} == {"away"}


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
    engines = Engines([only], now=watch, jitter=lambda: 0.0)
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


@given(
    windows=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    live=st.integers(1, 6),
    moves=st.lists(st.tuples(st.sampled_from("arbsgf"), st.integers(0, 50)), max_size=40),
)
def test_there_are_never_more_permits_than_the_share(
    windows: list[int], live: int, moves: list[tuple[str, int]]
) -> None:
    members = [Quiet(str(n), window) for n, window in enumerate(windows)]
    watch = Watch()
    engines = made(*members, watch=watch, live_workers=live)
    out: list[pool.Permit] = []
    for move, number in moves:
        member = members[number % len(members)]
        if move == "a" and (permit := engines.acquire()) is not None:
            out.append(permit)
        elif move == "r" and out:
            out.pop(number % len(out)).release()
        elif move == "b":
            engines.report(member, FULL)
        elif move == "s":
            watch.seconds += number
        elif move == "g":
            engines.report(member, None)
        elif move == "f":
            engines.refresh()
        for one in members:
            most = max((one.window or 0) + max(4, (one.window or 0) // 8), 1)
            held = sum(permit.engine is one for permit in out)
            assert held <= max(most // live, 1)


def test_closing_releases_all_engines() -> None:
    members = [Quiet("a"), Quiet("b")]

    made(*members).close()

    assert all(member.closed for member in members)


def test_the_settings_name_the_engines() -> None:
    settings = Settings.read(
        {"LONGLOOK_ENGINE_URLS": "http://one:30000, scripted:?window=3", "LONGLOOK_MODEL": "tiny-x"}
    )

    engines = pool.build(settings, profiles.TINY)

    first, second = engines.engines
    assert isinstance(first, SGLang)
    assert isinstance(second, Scripted)
    assert second.facts() == engine.Facts("tiny-x", "scripted-1", window=3, context_tokens=2048)
    engines.close()


def test_a_wrong_option_in_the_settings_is_an_error() -> None:
    settings = Settings.read({"LONGLOOK_ENGINE_URLS": "scripted:?persona=nobody"})

    with pytest.raises(errors.SettingsError, match="nobody"):
        pool.build(settings, profiles.TINY)
