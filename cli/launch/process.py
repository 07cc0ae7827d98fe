"""One program and its children: a process group that ends with the supervisor, and a log.

Two mechanisms make sure that no process is left behind. The program leads its own session, so that a terminal's
Ctrl-C reaches only the supervisor, and the program and its children can be killed as one group. And Linux kills
it when the supervisor dies for any reason (``PR_SET_PDEATHSIG``, prctl(2)); this is bound to the *thread* that
started the program, so programs must be started from the main thread.
"""

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
_MAX_LINE: Final = 300


@dataclass(frozen=True)
class Program:
    """A program to run.

    Attributes:
        name: its name in the terminal and in the name of its log.
        command: program and arguments.
        environment: its complete environment.
        stop_seconds: time between SIGTERM and the kill of its group.
        descriptors: file descriptors that it inherits.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    stop_seconds: float
    descriptors: tuple[int, ...] = ()


class Process:
    """A running program.

    Args:
        program: the program.
        folder: its working directory.
        log: file to append its output to.
        rotation: limits of the log.

    Raises:
        core.errors.LaunchError: it cannot be started.
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
                    preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - the supervisor has no threads
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
        """Return the exit status once the program has ended (negative for a signal); kill remaining children."""
        if self._popen.returncode is None:
            # Checked before it is reaped: until then no other group can get its id.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self._kill_group()
        return self._popen.wait()

    def terminate(self) -> None:
        """Ask the program to end with SIGTERM."""
        if self.ended() is None:
            self._popen.terminate()

    def kill(self) -> None:
        """Kill the program and its children."""
        if self._popen.returncode is None:
            self._kill_group()
            self._popen.wait()

    def last_lines(self, count: int = 5) -> str:
        """Return the last lines of this run's log in readable form."""
        with self.log.open("rb") as file:
            file.seek(self._begin)
            written = file.read().decode(errors="replace")
        lines = [_plain(line)[:_MAX_LINE] for line in written.splitlines() if line.strip()]
        return "\n".join(f"  {line}" for line in lines[-count:])

    def rotate_log(self) -> bool:
        """Rotate the log if it is too long; return whether it was rotated and is empty now."""
        if not self._rotation.due(self.log):
            return False
        self._rotation.rotate_open(self.log)
        self._begin = 0
        return True

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _plain(line: str) -> str:
    """Return a readable log line: of a JSON line, the event and the last line of the exception."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line.rstrip()
    if not isinstance(entry, dict) or "event" not in entry:
        return line.rstrip()
    exception = str(entry.get("exception", "")).strip().splitlines()
    return ": ".join([str(entry["event"]), *exception[-1:]])


def _die_with(parent: int) -> Callable[[], None] | None:
    """Return a function for a new process to call before it starts its program, so that it dies with ``parent``."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # The parent died before the call.
            os._exit(1)

    return prepare
