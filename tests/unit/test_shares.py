"""Shares: turns of accounts, order within an account, limits, deadlines, and the wait that a refused call learns."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from core import errors
from core.shares import Shares
from tests import races

A, B, C = (uuid.UUID(int=number) for number in range(3))
_LONG = 60.0


class Timer:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the current time in seconds."""
        return self.now


class Callers:
    """Calls that hold places of ``shares``, each in its own thread, until the test ends them."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._pool = ThreadPoolExecutor(64)
        self._lets_go: dict[str, threading.Event] = {}
        self._ends: dict[str, Future[None]] = {}
        self._got = threading.Condition()
        #: The calls that got a place, in order.
        self.served: list[str] = []

    def call(self, name: str, account_id: uuid.UUID) -> None:
        """Start the call ``name``; return once it holds a place or waits for one."""
        lets_go = self._lets_go[name] = threading.Event()
        before = self._shares.held + self._shares.waiting

        def run() -> None:
            with self._shares.hold(account_id, seconds=_LONG):
                with self._got:
                    self.served.append(name)
                    self._got.notify_all()
                assert lets_go.wait(_LONG)

        self._ends[name] = self._pool.submit(run)
        # Neither counter notifies about its changes.
        pause = threading.Event()
        for _ in range(60_000):
            if self._shares.held + self._shares.waiting > before:
                return
            pause.wait(0.001)
        raise AssertionError(f"{name} neither holds nor waits")

    def await_served(self, count: int) -> None:
        """Return once ``count`` calls have their places."""
        with self._got:
            assert self._got.wait_for(lambda: len(self.served) >= count, _LONG)

    def end(self, name: str) -> None:
        """End the call ``name``, and return once its place is free."""
        self._lets_go[name].set()
        self._ends[name].result(_LONG)

    def serve_all(self) -> list[str]:
        """End the calls one by one, in the order in which they get places, and return this order."""
        for number in range(len(self._lets_go)):
            self.await_served(number + 1)
            self.end(self.served[number])
        return self.served

    def close(self) -> None:
        """End all calls."""
        for lets_go in self._lets_go.values():
            lets_go.set()
        self._pool.shutdown()


@pytest.fixture
def callers_of() -> Iterator[Callable[[Shares], Callers]]:
    """Return a factory of callers, which end with the test."""
    created: list[Callers] = []

    def make(shares: Shares) -> Callers:
        created.append(Callers(shares))
        return created[-1]

    yield make
    for callers in created:
        callers.close()


def drain(shares: Shares, *accounts: uuid.UUID) -> list[int]:
    """Let accounts take places in turns until no account gets another; return the number of places of each."""
    held = dict.fromkeys(accounts, 0)
    while turn := [account for account in accounts if shares.take(account)]:
        for account in turn:
            held[account] += 1
    return list(held.values())


def test_accounts_take_turns_and_calls_of_an_account_keep_their_order(
    callers_of: Callable[[Shares], Callers],
) -> None:
    callers = callers_of(Shares(1, name="things", most_waiting=32))
    for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        callers.call(name, {"a": A, "b": B, "c": C}[name[0]])

    assert callers.serve_all() == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_an_account_that_holds_places_comes_after_one_that_holds_none(
    callers_of: Callable[[Shares], Callers],
) -> None:
    callers = callers_of(Shares(2, name="things", most_waiting=32))
    for name in ("a1", "a2", "a3", "a4"):
        callers.call(name, A)
    callers.call("b1", B)
    callers.call("c1", C)
    callers.end("a1")
    callers.await_served(3)
    callers.end("a2")
    callers.await_served(4)

    assert callers.served == ["a1", "a2", "b1", "c1"]


def test_the_next_call_of_an_account_comes_before_the_second_of_one_that_queued_first(
    callers_of: Callable[[Shares], Callers],
) -> None:
    callers = callers_of(Shares(1, name="things", most_waiting=64))
    for number in range(20):
        callers.call(f"a{number}", A)
    callers.call("b0", B)
    callers.end("a0")
    callers.await_served(2)

    assert callers.served == ["a0", "b0"]


def test_accounts_that_call_again_and_again_do_not_pass_one_that_waits(
    callers_of: Callable[[Shares], Callers],
) -> None:
    callers = callers_of(Shares(1, name="things", most_waiting=64))
    for name, account in (("b1", B), ("a1", A), ("a2", A), ("c1", C)):
        callers.call(name, account)
    for number, name in enumerate(("b1", "a1", "c1")):
        callers.await_served(number + 1)
        callers.end(name)
        callers.call(f"{name}-again", {"a": A, "b": B, "c": C}[name[0]])
    callers.await_served(4)

    assert callers.served == ["b1", "a1", "c1", "b1-again"]
    callers.end("b1-again")
    callers.await_served(5)
    assert callers.served[-1] == "a2"


def test_reserved_places_are_given_to_accounts_without_one() -> None:
    shares = Shares(3, name="things", reserved=1)

    assert drain(shares, A) == [2]
    assert shares.take(B)
    assert not shares.take(C)
    shares.give_back(A)
    assert not shares.may_take(A)
    assert not shares.take(A)
    assert shares.may_take(C)
    assert shares.take(C)
    assert not shares.may_take(C)


def test_a_reserved_place_is_not_given_to_a_waiting_call_of_an_account_that_holds_one(
    callers_of: Callable[[Shares], Callers],
) -> None:
    shares = Shares(2, name="things", most_waiting=8, reserved=1)
    callers = callers_of(shares)
    callers.call("a1", A)
    callers.call("a2", A)
    callers.call("b1", B)
    callers.await_served(2)

    assert callers.served == ["a1", "b1"]
    assert (shares.held, shares.waiting) == (2, 1)


def test_one_account_cannot_fill_the_places_to_wait_in(
    callers_of: Callable[[Shares], Callers],
) -> None:
    shares = Shares(1, name="things", most_waiting=8)
    callers = callers_of(shares)
    callers.call("running", C)
    for number in range(6):
        callers.call(f"a{number}", A)

    with pytest.raises(errors.Overloaded), shares.hold(A, seconds=_LONG):
        pass
    assert (shares.waiting, shares.refused) == (6, 1)
    callers.call("b0", B)
    assert shares.waiting == 7


@pytest.mark.parametrize("most_waiting", [0, 1, 2])
def test_an_account_gets_at_most_one_of_few_places_to_wait_in(
    callers_of: Callable[[Shares], Callers], most_waiting: int
) -> None:
    shares = Shares(1, name="things", most_waiting=most_waiting)
    callers = callers_of(shares)
    callers.call("running", B)
    for number in range(min(1, most_waiting)):
        callers.call(f"a{number}", A)

    with pytest.raises(errors.Overloaded), shares.hold(A, seconds=_LONG):
        pass


def test_the_waiting_calls_of_an_account_have_a_bound_of_their_own(
    callers_of: Callable[[Shares], Callers],
) -> None:
    shares = Shares(1, name="things", most_waiting=100, per_account_waiting=2)
    callers = callers_of(shares)
    for name in ("running", "a1", "a2"):
        callers.call(name, A)

    with pytest.raises(errors.Overloaded), shares.hold(A, seconds=_LONG):
        pass
    callers.call("b1", B)
    assert shares.waiting == 3


def test_a_call_whose_deadline_is_over_is_refused_and_takes_no_place_later() -> None:
    shares = Shares(1, name="things", most_waiting=8)
    with shares.hold(A, seconds=0):
        for seconds in (0, -1, 0.001):
            with pytest.raises(errors.Overloaded), shares.hold(B, seconds=seconds):
                pass
        assert (shares.held, shares.waiting) == (1, 0)

    assert (shares.held, shares.waiting) == (0, 0)
    with shares.hold(B, seconds=0):
        assert shares.held == 1


def test_an_exception_gives_the_place_back() -> None:
    shares = Shares(1, name="things")
    with pytest.raises(ZeroDivisionError), shares.hold(A, seconds=0):
        1 / 0  # noqa: B018 - it is to raise

    assert shares.held == 0


def test_a_refused_call_learns_how_long_the_queue_takes(
    callers_of: Callable[[Shares], Callers],
) -> None:
    timer = Timer()
    shares = Shares(2, name="things", most_waiting=4, timer=timer)
    for _ in range(3):
        with shares.hold(A, seconds=0):
            timer.now += 8

    callers = callers_of(shares)
    for name in ("a1", "a2", "a3", "a4", "a5"):
        callers.call(name, A)
    with pytest.raises(errors.Overloaded) as caught, shares.hold(A, seconds=_LONG):
        pass

    # Three calls wait before it, each takes eight seconds, and two run at a time.
    assert caught.value.retry_after == 16
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (
        503,
        "overloaded",
        True,
    )
    assert "2 of 2" in caught.value.message


def test_a_running_call_counts_in_the_wait_that_a_refused_call_learns() -> None:
    timer = Timer()
    shares = Shares(1, name="things", timer=timer)

    def announced_wait() -> int:
        with pytest.raises(errors.Overloaded) as caught, shares.hold(B, seconds=0):
            pass
        return int(caught.value.retry_after)

    with shares.hold(A, seconds=0):
        assert announced_wait() == 1
        timer.now = 12.5
        assert announced_wait() == 13
        timer.now = 4000
        assert announced_wait() == 60


def test_there_are_never_more_calls_than_places_and_none_is_lost() -> None:
    shares = Shares(3, name="things", most_waiting=64)
    lock = threading.Lock()
    inside = most = 0

    def use(account: uuid.UUID) -> int:
        nonlocal inside, most
        used = 0
        for _ in range(300):
            with shares.hold(account, seconds=_LONG):
                with lock:
                    inside += 1
                    most = max(most, inside)
                used += 1
                with lock:
                    inside -= 1
        return used

    assert (
        races.race(*(lambda caller=caller: use(caller) for caller in (A, A, A, A, B, B, C)))
        == [300] * 7
    )
    assert (most <= 3, shares.held, shares.waiting, shares.refused) == (True, 0, 0, 0)
    assert drain(shares, A) == [3]


@pytest.mark.parametrize(
    ("count", "most"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (512, 384)]
)
def test_an_account_that_is_alone_has_three_quarters(count: int, most: int) -> None:
    assert drain(Shares(count, name="things"), A) == [most]


def test_accounts_that_want_everything_get_equal_shares_and_leave_some_for_a_late_one() -> None:
    shares = Shares(70, name="things")

    assert drain(shares, A, B) == [30, 30]
    assert drain(shares, C) == [8]
    assert not shares.take(A)


def test_an_account_without_a_place_gets_the_last_one() -> None:
    shares = Shares(4, name="things")
    assert drain(shares, A) == [3]

    assert shares.take(B)
    assert not shares.take(C)
    shares.give_back(A)
    assert shares.take(C)
    assert not shares.take(A)


def test_returned_places_can_be_taken_again() -> None:
    shares = Shares(8, name="things")

    def use(account: uuid.UUID) -> int:
        used = 0
        for _ in range(2000):
            if shares.take(account):
                used += 1
                shares.give_back(account)
        return used

    assert all(races.race(*(lambda caller=caller: use(caller) for caller in (A, A, B, C))))
    assert drain(shares, A) == [6]
