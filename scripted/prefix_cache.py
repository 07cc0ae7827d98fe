"""A model of SGLang's radix cache: which tokens of a prompt were computed before.

As in SGLang, a prefix is shared only under the same salt, a picture counts by its content, the last
token of a prompt is always computed, and what was used longest ago goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

#: Tokens that are kept or forgotten together: one word, or all tokens of a picture.
Part = tuple[Hashable, int]


class PrefixCache:
    """Prefixes of prompts, with a capacity in tokens.

    Args:
        capacity: tokens kept at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        #: The hash of all parts up to a place in the tree -> tokens of the last part.
        self._places: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def match(self, parts: Sequence[Part]) -> int:
        """Return how many tokens at the beginning of ``parts`` are known; never all of them."""
        known = 0
        with self._lock:
            for place, tokens in _places(parts):
                if place not in self._places:
                    return known
                known += tokens
        return max(known - 1, 0)

    def insert(self, parts: Sequence[Part]) -> None:
        """Keep all prefixes of ``parts``."""
        # Longest first: a prefix is then younger than what stands on it, and outlives it.
        with self._lock:
            for place, tokens in reversed(_places(parts)):
                if place not in self._places:
                    self._places[place] = tokens
                    self._size += tokens
                self._places.move_to_end(place)
            while self._size > self._capacity:
                self._size -= self._places.popitem(last=False)[1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._places.clear()
            self._size = 0


def _places(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Return the places along ``parts`` with their tokens."""
    path = 0
    places = []
    for name, tokens in parts:
        path = hash((path, name))
        places.append((path, tokens))
    return places
