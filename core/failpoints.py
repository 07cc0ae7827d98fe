"""Named places on the dangerous lines of a job's life, where the test suite may kill, stop or break this process.

``LONGLOOK_TEST_FAILPOINTS="succeed.committed=kill"`` kills the process right after the commit that a job has
succeeded; ``stream.chunk=pause:5`` lets the place be passed five times and stops the process the sixth time.
Nothing else arms a place, and one that is not armed costs a look into an empty dictionary.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Callable, Mapping

from core import errors

VARIABLE = "LONGLOOK_TEST_FAILPOINTS"


class FailpointFault(Exception):
    """What a place raises that is to break: to those around it, a connection that was lost."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _pause() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _raise() -> None:
    raise FailpointFault("a failpoint was told to break")


_ACTIONS: Mapping[str, Callable[[], None]] = {"kill": _kill, "pause": _pause, "raise": _raise}


class Failpoint:
    """An armed place, which acts once.

    Args:
        act: what it does.
        passes: how often it is passed before.
    """

    def __init__(self, act: Callable[[], None], *, passes: int = 0) -> None:
        self._act = act
        self._passes = passes
        self._visits = itertools.count()

    def visit(self) -> None:
        """Pass, or act when it is time."""
        if next(self._visits) == self._passes:
            self._act()


def hit(place: str, moment: str) -> None:
    """Be at ``place.moment``. Does nothing in a process for which the test suite has not armed it."""
    if armed := _armed():
        failpoint = armed.get(f"{place}.{moment}")
        if failpoint is not None:
            failpoint.visit()


def parse(text: str) -> dict[str, Failpoint]:
    """Return the places that ``place.moment=action[:passes]``, several with commas between them, arms.

    Raises:
        core.errors.SettingsError: it is none of that.
    """
    found: dict[str, Failpoint] = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.partition("=")
        action, _, passes = rest.partition(":")
        if action not in _ACTIONS or not (passes or "0").isdigit():
            raise errors.SettingsError(f"{VARIABLE}: {part!r} is not place=kill|pause|raise[:n]")
        found[name] = Failpoint(_ACTIONS[action], passes=int(passes or 0))
    return found


@functools.cache
def _armed() -> dict[str, Failpoint]:
    return parse(os.environ.get(VARIABLE, ""))
