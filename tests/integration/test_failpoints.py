"""Failpoints do nothing unless they are armed, and then what they were told, once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core import errors, failpoints

HIT_THRICE = "from core import failpoints; [failpoints.hit('here', 'now') for _ in range(3)]"


def run(armed: str | None) -> int:
    """Return the exit status of a process that is three times at ``here.now``."""
    environment = {} if armed is None else {failpoints.VARIABLE: armed}
    return subprocess.run(
        [sys.executable, "-c", HIT_THRICE], env=environment, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize(
    ("armed", "status"),
    [(None, 0), ("", 0), ("there.now=kill", 0), ("here.now=kill", -9), ("here.now=raise:2", 1)],
)
def test_a_process_passes_what_is_not_armed(armed: str | None, status: int) -> None:
    assert run(armed) == status


def test_a_place_is_passed_so_often_and_then_acts_once() -> None:
    visits: list[int] = []
    place = failpoints.Failpoint(lambda: visits.append(1), passes=2)

    for _ in range(5):
        place.visit()
        visits.append(0)

    assert visits == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("text", ["here.now", "here.now=explode", "here.now=kill:often"])
def test_a_place_that_cannot_be_armed_is_told(text: str) -> None:
    with pytest.raises(errors.SettingsError, match=failpoints.VARIABLE):
        failpoints.parse(text)


def test_several_places_are_armed_at_once() -> None:
    assert sorted(failpoints.parse("a.commit=kill,b.commit=raise:3")) == ["a.commit", "b.commit"]
