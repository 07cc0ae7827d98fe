"""The server's pools of connections: which item a full pool evicts, and when items expire."""

from __future__ import annotations

from api.serving.shares import TimedPool


def full_pool(*groups: str) -> TimedPool[int]:
    """Return a pool that has no more room; its items are numbers, in order of arrival, one second apart."""
    pool = TimedPool[int](len(groups), seconds=10)
    for number, group in enumerate(groups):
        assert pool.add(number, group, now=number) is None
    return pool


def test_a_full_pool_evicts_the_oldest_item_of_the_largest_group() -> None:
    pool = full_pool("b", "a", "a", "a")

    assert [pool.add(number, "a", now=number) for number in range(4, 8)] == [1, 2, 3, 4]
    assert len(pool) == 4
    # The new item counts.
    assert pool.add(8, "b", now=8) == 5


def test_of_groups_of_one_size_the_one_with_the_oldest_item_loses_it() -> None:
    assert full_pool("b", "a", "b", "a").add(4, "c", now=4) == 0


def test_one_group_may_fill_the_pool() -> None:
    assert full_pool("a", "a", "a").add(3, "a", now=3) == 0


def test_an_item_that_has_left_is_not_evicted_and_counts_no_longer() -> None:
    pool = full_pool("a", "a", "b", "b")
    pool.discard(0)
    pool.discard(0)

    assert len(pool) == 3
    assert pool.add(4, "c", now=4) is None
    assert [pool.evict() for _ in range(5)] == [2, 1, 3, 4, None]


def test_items_expire_in_their_order() -> None:
    pool = full_pool("a", "b", "a")

    assert list(pool.expired(9.9)) == []
    assert list(pool.expired(11)) == [0, 1]
    assert list(pool.expired(11)) == []
    assert len(pool) == 1
