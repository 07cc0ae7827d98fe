"""The child of a sandbox: ``python -m core.sandbox TARGET MEMORY_MB PARENT_PID [late]``.

It serves calls over its standard input, a socket, until its parent closes it or dies. With ``late`` the target may
import modules while it works.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from core import errors
from core.sandbox import confinement, frames

Target = Callable[..., tuple[dict[str, Any], bytes]]

#: The argument for a target that imports while it works.
LATE = "late"
#: From Linux' ``prctl(2)``.
_PR_SET_PDEATHSIG = 1


def main(name: str, memory_mb: int, parent: int, *, imports_late: bool) -> None:
    """Load the target ``name``, apply the limits, and serve."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # The parent died before the child asked for its death signal.
    connection = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def last_words(kind: type[BaseException], *_: object) -> None:
        # Only the name is sent: the message of a library may quote its input.
        frames.send(connection, {"crashed": kind.__name__})

    # An unexpected exception ends the process, whose state is unknown.
    sys.excepthook = last_words
    module, _, function = name.partition(":")
    target: Target = getattr(importlib.import_module(module), function)
    _limit(resource.RLIMIT_AS, memory_mb * 2**20)
    _limit(resource.RLIMIT_CORE, 0)  # A core file would contain an image of a user.
    held = confinement.confine(parent=parent, imports_late=imports_late)
    frames.send(connection, {"confined": held})
    while _serve(connection, target):
        pass


def _serve(connection: socket.socket, target: Target) -> bool:
    """Answer one call; return False at the end of the connection.

    Everything that the call held is freed on return, so that an idle child is small.
    """
    try:
        call, payload = frames.receive_call(connection)
    except ConnectionError:
        return False
    try:
        with _cpu_limit(call["cpu_seconds"]):
            facts, data = target(payload, **call["arguments"])
    except errors.RequestError as error:
        refused = {
            "class": type(error).__name__,
            "message": error.message,
            "code": error.specific_code,
            "param": error.param,
        }
        frames.send(connection, {"refused": refused})
    else:
        frames.send(connection, {"facts": facts}, data)
    return True


@contextlib.contextmanager
def _cpu_limit(seconds: float | None) -> Iterator[None]:
    """End the process by SIGPROF once the block has used this CPU time, in all threads; None: no limit.

    A limit of the process (RLIMIT_CPU) counts whole seconds, and would count all calls together.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit(what: int, most: int) -> None:
    _, ceiling = resource.getrlimit(what)
    if ceiling != resource.RLIM_INFINITY:
        most = min(most, ceiling)
    resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), imports_late=sys.argv[4:] == [LATE])
