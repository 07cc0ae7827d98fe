"""One program and everything it starts: a group of its own that dies with the supervisor, and a log.

Two things see to it that nothing is left behind. The program leads a session of its own, so a terminal's
Ctrl-C reaches only the supervisor, and all that it started can be killed as one group. And Linux kills it
when the supervisor dies by whatever cause (``PR_SET_PDEATHSIG``, prctl(2)); that is bound to the *thread*
that started it, so programs are started from the main thread only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cli.launch.rotation import Rotation
from core import errors

_PR_SET_PDEATHSIG: Final = 1
_LONGEST_LINE: Final = 300


@dataclass(frozen=True)
class Program:
    """What to run.

    Attributes:
        name: under which the terminal and the log know it.
        command: program and arguments.
        environment: all of its environment.
        stop_seconds: what SIGTERM leaves it before its group is killed.
        descriptors: file descriptors it inherits.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    stop_seconds: float
    descriptors: tuple[int, ...] = ()


class Process:
    """A running program.

    Args:
        program: what to run.
        folder: its working directory.
        log: file that its output is appended to.
        rotation: how much of it is kept.

    Raises:
        core.errors.LaunchError: it cannot be started at all.
    """

    def __init__(
        self, program: Program, *, folder: Path, log: Path, rotation: Rotation | None = None
    ) -> None:
        self.program = program
        self._rotation = rotation or Rotation()
        self.log = log
        with log.open("ab") as output:
            self._begin = output.tell()
            try:
                self._popen = subprocess.Popen(
                    program.command,
                    cwd=folder,
                    env=dict(program.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=program.descriptors,
                    preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 - the supervisor has no threads
                )
            except OSError as error:
                raise errors.LaunchError(
                    f"{program.name} cannot be started: {program.command[0]}: {error.strerror}."
                ) from error

    @property
    def pid(self) -> int:
        """The id of the process, of its group and of its session."""
        return self._popen.pid

    def ended(self) -> int | None:
        """Return the exit status when the program has ended, negative for a signal; what it left is killed."""
        if self._popen.returncode is None:
            # Looked at before it is reaped: as long as it is not, nobody else can have its group's id.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self._kill_group()
        return self._popen.wait()

    def terminate(self) -> None:
        """Ask the program to end."""
        if self.ended() is None:
            self._popen.terminate()

    def kill(self) -> None:
        """End the program and everything it started at once."""
        if self._popen.returncode is None:
            self._kill_group()
            self._popen.wait()

    def last_words(self, count: int = 5) -> str:
        """Return the last lines that this run wrote, for a person."""
        with self.log.open("rb") as file:
            file.seek(self._begin)
            written = file.read().decode(errors="replace")
        lines = [_plain(line)[:_LONGEST_LINE] for line in written.splitlines() if line.strip()]
        return "\n".join(f"  {line}" for line in lines[-count:])

    def shorten_log(self) -> bool:
        """Put the log aside if it has become long; return whether that was done, and the log is empty now."""
        if not self._rotation.wants(self.log):
            return False
        self._rotation.put_aside_written(self.log)
        self._begin = 0
        return True

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _plain(line: str) -> str:
    """Return a line of a log as a person reads it: of a JSON line the event and the exception's last line."""
    try:
        said = json.loads(line)
    except ValueError:
        return line.rstrip()
    if not isinstance(said, dict) or "event" not in said:
        return line.rstrip()
    exception = str(said.get("exception", "")).strip().splitlines()
    return ": ".join([str(said["event"]), *exception[-1:]])


def _dying_with(parent: int) -> Callable[[], None] | None:
    """Return what a new process does before its program starts, so that it dies when ``parent`` does."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # It died before the call.
            os._exit(1)

    return prepare
