"""Named places in the critical steps of a job, where the test suite can kill, stop, or break this process.

``LONGLOOK_TEST_FAILPOINTS="succeed.committed=kill"`` kills the process right after the commit of a
success; ``stream.chunk=pause:5`` stops the process when it reaches the place for the sixth time. Nothing else arms a
place, and an unarmed one costs a lookup in an empty dictionary.
"""

import functools
import itertools
import os
import signal
from collections.abc import Callable, Mapping

from core import errors

VARIABLE = "LONGLOOK_TEST_FAILPOINTS"


class FailpointFault(Exception):
    """Raised by a place that is armed with ``raise``; callers treat it as a lost connection."""


def _raise() -> None:
    raise FailpointFault("raised by a failpoint")


_ACTIONS: Mapping[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "pause": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "raise": _raise,
}


class Failpoint:
    """An armed place, which acts once.

    Args:
        act: the action.
        passes: the number of visits without the action.
    """

    def __init__(self, act: Callable[[], None], *, passes: int = 0) -> None:
        self._act = act
        self._passes = passes
        self._visits = itertools.count()

    def visit(self) -> None:
        """Count the visit, or act when it is time."""
        if next(self._visits) == self._passes:
            self._act()


def hit(place: str, moment: str) -> None:
    """Visit ``place.moment``. Does nothing unless the test suite has armed it in this process."""
    if armed := _armed():
        failpoint = armed.get(f"{place}.{moment}")
        if failpoint is not None:
            failpoint.visit()


def parse(text: str) -> dict[str, Failpoint]:
    """Return the armed places of a list such as ``place.moment=action[:passes],…``.

    Raises:
        core.errors.SettingsError: ``text`` is not such a list.
    """
    armed: dict[str, Failpoint] = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.partition("=")
        action, _, passes = rest.partition(":")
        if action not in _ACTIONS or not (passes or "0").isdigit():
            raise errors.SettingsError(f"{VARIABLE}: {part!r} must be place=kill|pause|raise[:n]")
        armed[name] = Failpoint(_ACTIONS[action], passes=int(passes or 0))
    return armed


@functools.cache
def _armed() -> dict[str, Failpoint]:
    return parse(os.environ.get(VARIABLE, ""))
