"""Recent keys: how long they are remembered, and how many."""

from __future__ import annotations

from core.recent import Recent


def test_a_key_is_remembered_for_its_time_after_the_last_addition() -> None:
    now = 0.0
    recent = Recent(8, seconds=10, timer=lambda: now)
    recent.add("a")
    now = 9
    recent.add("b")
    recent.add("a")
    now = 18.5

    assert "a" in recent
    assert "b" in recent
    assert "c" not in recent
    now = 19
    assert "a" not in recent
    assert "b" not in recent


def test_the_oldest_key_makes_room_for_a_new_one() -> None:
    recent = Recent(2, seconds=10, timer=lambda: 0)
    for key in ("a", "b", "a", "c"):
        recent.add(key)

    assert [key in recent for key in ("a", "b", "c")] == [True, False, True]
