"""Permits of requests: never more than there are, and some for whoever has none."""

from __future__ import annotations

import uuid

import pytest

from api.permits import Permits
from tests import races

ONE, TWO, THREE = (uuid.UUID(int=number) for number in range(3))


def drain(permits: Permits, *accounts: uuid.UUID) -> list[int]:
    """Let accounts take in turns until none gets any more; return how many each has."""
    held = dict.fromkeys(accounts, 0)
    while taken := [account for account in accounts if permits.take(account)]:
        for account in taken:
            held[account] += 1
    return list(held.values())


@pytest.mark.parametrize(
    ("count", "most"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (512, 384)]
)
def test_an_account_that_is_alone_has_three_quarters(count: int, most: int) -> None:
    assert drain(Permits(count), ONE) == [most]


def test_accounts_that_want_all_get_the_same_and_leave_some_to_one_that_comes_late() -> None:
    permits = Permits(70)

    assert drain(permits, ONE, TWO) == [30, 30]
    assert drain(permits, THREE) == [8]
    assert not permits.take(ONE)


def test_whoever_has_none_gets_the_last_one_and_then_there_is_none() -> None:
    permits = Permits(4)
    assert drain(permits, ONE) == [3]

    assert permits.take(TWO)
    assert not permits.take(THREE)
    permits.give_back(ONE)
    assert permits.take(THREE)
    assert not permits.take(ONE)


def test_all_that_is_given_back_can_be_taken_again_whoever_takes_meanwhile() -> None:
    permits = Permits(8)

    def use(account: uuid.UUID) -> int:
        used = 0
        for _ in range(2000):
            if permits.take(account):
                used += 1
                permits.give_back(account)
        return used

    assert all(races.race(*(lambda one=one: use(one) for one in (ONE, ONE, TWO, THREE))))
    assert drain(permits, ONE) == [6]
