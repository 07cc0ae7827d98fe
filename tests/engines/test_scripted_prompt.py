"""The scripted engine's prefix cache, and the dimensions of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.images.dimensions import dimensions
from scripted.prompt import PrefixCache
from tests.engines import asking

PARTS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=6)


@given(st.lists(PARTS, max_size=6), PARTS)
def test_the_cache_matches_the_longest_inserted_prefix(
    shown: list[list[tuple[int, int]]], requested: list[tuple[int, int]]
) -> None:
    cache = PrefixCache(10_000)
    sizes = {0: 1, 1: 2, 2: 3}
    shown = [[(name, sizes[name]) for name, _ in parts] for parts in shown]
    requested = [(name, sizes[name]) for name, _ in requested]
    for parts in shown:
        cache.insert(parts)

    longest = max((_common(parts, requested) for parts in shown), default=0)
    total = sum(size for _, size in requested)
    assert cache.match(requested) == min(longest, total - 1)


def _common(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> int:
    common = 0
    for left, right in zip(one, two, strict=False):
        if left != right:
            break
        common += left[1]
    return common


def test_a_full_cache_forgets_what_was_used_longest_ago_from_its_end() -> None:
    cache = PrefixCache(25)
    old = [("system", 5), ("old", 10)]
    new = [("system", 5), ("new", 10), ("x", 1)]
    cache.insert(old)
    cache.insert(new)

    assert cache.match([*old, ("y", 1)]) == 5
    assert cache.match([*new, ("y", 1)]) == 16


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (asking.png(width=31, height=17).data, (31, 17)),
        (
            b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc4\x00\x03c\xff\xc2\x00\x11\x08\x00\x11\x00\x1f\x03",
            (31, 17),
        ),
        (b"\xff\xd8\xff\xe0\x00", None),
        (b"GIF89a", None),
        (b"", None),
    ],
)
def test_an_image_has_its_size(data: bytes, size: tuple[int, int] | None) -> None:
    assert dimensions(data) == size
