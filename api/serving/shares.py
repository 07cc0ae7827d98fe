"""Bounds with shares by the rule of :mod:`core.shares`, for one thread: of amounts, and of sets of connections."""

from __future__ import annotations

import collections
import uuid
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from core.shares import has_share

#: Who is counted: an account, or the address of a client that is not known yet.
Group = uuid.UUID | str
Item = TypeVar("Item", bound=Hashable)


class Share:
    """An amount that groups take parts of. For one thread.

    Args:
        total: how much there is, in any unit.
        unknown_keys: how much addresses have to share between them, so that no number of them keeps accounts out; by
            default everything.
    """

    def __init__(self, total: int, *, unknown_keys: int | None = None) -> None:
        self._free = total
        self._free_to_unknown_keys = total if unknown_keys is None else unknown_keys
        self._held: collections.Counter[Group] = collections.Counter()

    @property
    def held(self) -> int:
        """How much is taken by all groups together."""
        return self._held.total()

    def fits(self, group: Group, amount: int = 1) -> bool:
        """Whether :meth:`take` would succeed now."""
        free = min(self._free, self._free_to_unknown_keys) if isinstance(group, str) else self._free
        return has_share(self._held[group], free=free, amount=amount)

    def take(self, group: Group, amount: int = 1) -> bool:
        """Take ``amount`` for ``group``; False, and nothing is taken, if its share does not allow it."""
        if not self.fits(group, amount):
            return False
        self._move(group, amount)
        return True

    def give_back(self, group: Group, amount: int = 1) -> None:
        """Return what ``group`` has taken."""
        self._move(group, -amount)
        if not self._held[group]:
            del self._held[group]

    def _move(self, group: Group, amount: int) -> None:
        self._free -= amount
        if isinstance(group, str):
            self._free_to_unknown_keys -= amount
        self._held[group] += amount


class TimedPool(Generic[Item]):
    """A bounded set of items with one time limit, in the order in which they came.

    One group may fill the pool. When another item comes, the group that holds most loses its oldest one, so a group
    that holds few keeps its items.

    Args:
        limit: how many items the pool holds.
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
        """Add an item; return the one that has to go for it, which is no longer in the pool."""
        self._items[item] = (group, now + self._seconds)
        self._groups.setdefault(group, collections.OrderedDict())[item] = None
        return self.evict() if len(self._items) > self._limit else None

    def discard(self, item: Item) -> None:
        """Remove an item, if it is in the pool."""
        found = self._items.pop(item, None)
        if found is not None:
            members = self._groups[found[0]]
            del members[item]
            if not members:
                del self._groups[found[0]]

    def evict(self) -> Item | None:
        """Remove and return the oldest item of the group that holds most; None if the pool is empty."""
        if not self._items:
            return None
        most = max(self._groups.values(), key=self._rank)
        oldest = next(iter(most))
        self.discard(oldest)
        return oldest

    def expired(self, now: float) -> Iterator[Item]:
        """Remove and yield the items whose time is over."""
        while self._items:
            item, (_, due) = next(iter(self._items.items()))
            if due > now:
                return
            self.discard(item)
            yield item

    def _rank(self, members: collections.OrderedDict[Item, None]) -> tuple[int, float]:
        return len(members), -self._items[next(iter(members))][1]
