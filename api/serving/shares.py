"""Limits that groups share by the rule of :mod:`core.shares`: of amounts, and of sets of connections."""

from __future__ import annotations

import collections
import uuid
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from core.shares import has_share

#: A group: an account, or the address of a client whose account is not known yet.
Group = uuid.UUID | str
Item = TypeVar("Item", bound=Hashable)


class Share:
    """An amount of which groups take shares. Not thread-safe.

    Args:
        total: the amount, in any unit.
        unknown_keys: the amount for all addresses together, so that many addresses cannot lock out accounts; the
            default is the total.
    """

    def __init__(self, total: int, *, unknown_keys: int | None = None) -> None:
        self._free = total
        self._free_to_unknown_keys = total if unknown_keys is None else unknown_keys
        self._held: collections.Counter[Group] = collections.Counter()

    @property
    def held(self) -> int:
        """The amount that all groups have taken."""
        return self._held.total()

    def fits(self, group: Group, amount: int = 1) -> bool:
        """Whether :meth:`take` would succeed now."""
        free = min(self._free, self._free_to_unknown_keys) if isinstance(group, str) else self._free
        return has_share(self._held[group], free=free, amount=amount)

    def take(self, group: Group, amount: int = 1) -> bool:
        """Take ``amount`` for ``group``; return False and take nothing if it exceeds the group's share."""
        if not self.fits(group, amount):
            return False
        self._move(group, amount)
        return True

    def give_back(self, group: Group, amount: int = 1) -> None:
        """Release ``amount`` of ``group``."""
        self._move(group, -amount)
        if not self._held[group]:
            del self._held[group]

    def _move(self, group: Group, amount: int) -> None:
        self._free -= amount
        if isinstance(group, str):
            self._free_to_unknown_keys -= amount
        self._held[group] += amount


class TimedPool(Generic[Item]):
    """A limited set of items with one time limit, in order of arrival.

    One group may fill the pool. If the pool is full, a new item evicts the oldest item of the largest group, so small
    groups keep their items.

    Args:
        limit: maximum number of items.
        seconds: how long an item may stay.
    """

    def __init__(self, limit: int, *, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._items: collections.OrderedDict[Item, tuple[str, float]] = collections.OrderedDict()
        self._groups: dict[str, collections.OrderedDict[Item, None]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item, group: str, *, now: float) -> Item | None:
        """Add an item; return the item that it evicts, if any."""
        self._items[item] = (group, now + self._seconds)
        self._groups.setdefault(group, collections.OrderedDict())[item] = None
        return self.evict() if len(self._items) > self._limit else None

    def discard(self, item: Item) -> None:
        """Remove an item, if it is in the pool."""
        entry = self._items.pop(item, None)
        if entry is not None:
            group, _ = entry
            members = self._groups[group]
            del members[item]
            if not members:
                del self._groups[group]

    def evict(self) -> Item | None:
        """Remove and return the oldest item of the largest group; None if the pool is empty."""
        if not self._items:
            return None
        largest = max(self._groups.values(), key=self._rank)
        oldest = next(iter(largest))
        self.discard(oldest)
        return oldest

    def expired(self, now: float) -> Iterator[Item]:
        """Remove and yield the expired items."""
        while self._items:
            item, (_, due) = next(iter(self._items.items()))
            if due > now:
                return
            self.discard(item)
            yield item

    def _rank(self, members: collections.OrderedDict[Item, None]) -> tuple[int, float]:
        return len(members), -self._items[next(iter(members))][1]
