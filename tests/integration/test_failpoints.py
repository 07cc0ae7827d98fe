"""Failpoints: they do nothing unless they are armed, and then act once as configured."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core import errors, failpoints

HIT_THRICE = "from core import failpoints; [failpoints.hit('here', 'now') for _ in range(3)]"


def run(armed: str | None) -> int:
    """Return the exit status of a process that reaches ``here.now`` three times."""
    environment = {} if armed is None else {failpoints.VARIABLE: armed}
    return subprocess.run(
        [sys.executable, "-c", HIT_THRICE], env=environment, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize(
    ("armed", "status"),
    [(None, 0), ("", 0), ("there.now=kill", 0), ("here.now=kill", -9), ("here.now=raise:2", 1)],
)
def test_a_process_passes_a_failpoint_that_is_not_armed(armed: str | None, status: int) -> None:
    assert run(armed) == status


def test_a_failpoint_acts_once_after_its_number_of_passes() -> None:
    visits: list[int] = []
    place = failpoints.Failpoint(lambda: visits.append(1), passes=2)

    for _ in range(5):
        place.visit()
        visits.append(0)

    assert visits == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("text", ["here.now", "here.now=explode", "here.now=kill:often"])
def test_an_unknown_failpoint_cannot_be_armed(text: str) -> None:
    with pytest.raises(errors.SettingsError, match=failpoints.VARIABLE):
        failpoints.parse(text)


def test_several_failpoints_are_armed_together() -> None:
    assert sorted(failpoints.parse("a.commit=kill,b.commit=raise:3")) == ["a.commit", "b.commit"]
