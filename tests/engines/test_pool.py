"""Permits: how many, for whom, and for which engine."""

from __future__ import annotations

import threading
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors, profiles
from core.settings import Settings
from jobs import engine
from scripted import Scripted
from tests.engines.quiet_engine import Quiet, Watch, drain, made
from worker.engines import pool
from worker.engines.pool import EnginePool
from worker.engines.sglang.client import SGLang
from worker.engines.watchdog import WatchedEngine

FULL = errors.EngineBusy("full")


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


def test_no_engine_is_asked_before_its_facts_are_read() -> None:
    engines = EnginePool([Quiet()])
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


def test_an_engine_whose_streams_get_tokens_is_not_away_though_it_is_slow_to_report() -> None:
    busy = Quiet("busy")
    engines = EnginePool([busy], silent_seconds=60)
    engines.refresh()
    slot = engines.acquire()
    assert slot is not None
    assert isinstance(slot.engine, WatchedEngine)

    busy.window = None
    slot.engine.woken()
    engines.refresh()
    assert engines.acquire() is not None

    quiet = EnginePool([busy], silent_seconds=60)
    quiet.refresh()
    assert quiet.acquire() is None
    engines.close()
    quiet.close()


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
    out: list[pool.EngineSlot] = []
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


class Together(Quiet):
    """Engines that answer when all of them have been asked."""

    def __init__(self, url: str, requested: threading.Barrier) -> None:
        super().__init__(url)
        self._requested = requested

    def facts(self) -> engine.EngineFacts:
        self._requested.wait(60)
        return super().facts()


def test_engines_are_asked_at_the_same_time() -> None:
    requested = threading.Barrier(5)

    engines = made(*(Together(str(n), requested) for n in range(5)))

    assert engines.window() == 5 * 12


def test_closing_releases_all_engines() -> None:
    members = [Quiet("a"), Quiet("b")]

    made(*members).close()

    assert all(member.closed for member in members)


def test_the_settings_name_the_engines() -> None:
    settings = Settings.read(
        {"LONGLOOK_ENGINE_URLS": "http://one:30000, scripted:?window=3", "LONGLOOK_MODEL": "tiny-x"}
    )

    engines = [pool.build_engine(url, settings, profiles.TINY) for url in settings.engine_urls]

    first, second = engines
    assert isinstance(first, SGLang)
    assert isinstance(second, Scripted)
    assert second.facts() == engine.EngineFacts(
        "tiny-x", "scripted-1", window=3, context_tokens=2048
    )
    first.close()


def test_a_wrong_option_in_the_settings_is_an_error() -> None:
    settings = Settings.read({"LONGLOOK_ENGINE_URLS": "scripted:?behavior=nobody"})

    with pytest.raises(errors.SettingsError, match="nobody"):
        pool.build(settings, profiles.TINY)


A, B = (uuid.UUID(int=number) for number in (1, 2))


def exactly(permits: int, watch: Watch | None = None) -> EnginePool:
    """Return an engine that gives so many permits."""
    engines = EnginePool([Quiet(window=permits)], margin=0, now=watch or Watch())
    engines.refresh()
    return engines


def held_by(engines: EnginePool, account_id: uuid.UUID, count: int) -> list[pool.EngineSlot]:
    """Return ``count`` permits of an account: one by a claim, and the rest for further samples."""
    first = engines.acquire()
    assert first is not None
    engines.claimed(first, account_id)
    more = [engines.another(first) for _ in range(count - 1)]
    assert None not in more
    return [first, *[one for one in more if one is not None]]


def test_while_a_claim_finds_no_room_an_account_with_its_share_gets_no_further_permits() -> None:
    engines = exactly(4)
    permits = held_by(engines, A, 4)
    assert engines.acquire() is None
    assert engines.must_yield(permits[0])

    permits.pop().release(notify=True)
    assert engines.another(permits[0]) is None
    claim = engines.acquire()
    assert claim is not None
    engines.claimed(claim, B)

    permits.pop().release()
    assert engines.another(permits[0]) is not None


def test_an_account_with_less_than_its_share_gets_further_permits_before_jobs_of_others() -> None:
    engines = exactly(6)
    many = held_by(engines, A, 5)
    [one] = held_by(engines, B, 1)
    assert engines.acquire() is None
    many.pop().release(notify=True)

    assert engines.another(many[0]) is None
    assert engines.another(one) is not None
    assert not engines.must_yield(one)


def test_room_for_a_waiting_claim_is_announced_once() -> None:
    rung: list[str] = []
    engines = exactly(2)
    engines.listen(lambda: rung.append("bell"))
    permits = held_by(engines, A, 2)
    permits.pop().release(notify=True)
    assert rung == []

    permits += held_by(engines, A, 1)
    assert engines.acquire() is None
    last = permits.pop()
    last.release(notify=True)
    last.release(notify=True)
    assert rung == ["bell"]

    claim = engines.acquire()
    assert claim is not None
    engines.claimed(claim, None)
    claim.release(notify=True)
    assert rung == ["bell"]


def test_a_claim_that_was_never_made_again_is_forgotten() -> None:
    watch = Watch()
    engines = exactly(2, watch)
    permits = held_by(engines, A, 2)
    assert engines.acquire() is None
    permits.pop().release()
    assert engines.another(permits[0]) is None

    watch.seconds += 31

    assert engines.another(permits[0]) is not None
