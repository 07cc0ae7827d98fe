"""One child of a sandbox, seen from its parent: start, call, kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import structlog

from core import errors
from core.sandbox import frames

#: The limit for loading a target.
_START_SECONDS = 60.0
#: A child that has closed its connection ends sooner than this.
_END_SECONDS = 5.0
#: The parent's environment variables that a child gets: no settings and no secrets.
_INHERITED = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH")
#: A child works in bursts on blocks of megabytes. By default glibc would give them back to the system after
#: every call and fault them in again at the next: a tenth of the time of decoding a photograph.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20)}

log = structlog.get_logger(__name__)


class Content(Protocol):
    """Bytes that may be in a file, such as :class:`core.spool.SpooledFile`."""

    def getvalue(self) -> bytes:
        """Return the bytes."""

    def reader(self) -> AbstractContextManager[int | None]:
        """Return a block with a descriptor for reading them from their start; None: they are in memory."""


class SandboxTimeout(errors.LonglookError):
    """The call took too long by the clock, perhaps because the machine is busy; its child was killed."""

    code = "sandbox_timeout"


class SandboxCpuExceeded(errors.LonglookError):
    """The call used too much CPU time, on a busy machine as on an idle one; its child has ended."""

    code = "sandbox_cpu_exceeded"


class SandboxCrashed(errors.LonglookError):
    """The call's child died: out of memory, a crash, an unexpected exception of the target.

    Attributes:
        signal: the number of the signal that ended it, None when it exited or still runs.
    """

    code = "sandbox_crashed"

    def __init__(self, message: str, *, signal: int | None = None) -> None:
        super().__init__(message)
        self.signal = signal


class Child:
    """A running child. It serves one call at a time; :meth:`kill` may be called by any thread."""

    def __init__(self, target: str, *, memory_mb: int, imports_late: bool = False) -> None:
        self.calls = 0
        #: The active layers of its confinement, once it has started.
        self.confined: tuple[str, ...] = ()
        self._target = target
        self._socket, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= _ALLOCATOR
        environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        arguments = [target, str(memory_mb), str(os.getpid()), *(["late"] if imports_late else [])]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - no argument comes from a caller
                    # -P: files in the working directory are not modules.
                    [sys.executable, "-P", "-m", "core.sandbox", *arguments],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,  # The parent handles Ctrl-C at the terminal.
                )
        except BaseException:
            self._socket.close()
            raise

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def await_start(self) -> None:
        """Return once the target is loaded, so that the deadline of a call does not include it.

        Raises:
            core.errors.Unavailable: the child cannot start.
        """
        try:
            reply, _ = frames.receive(self._socket, deadline=time.monotonic() + _START_SECONDS)
            reason = reply.get("crashed")
            self.confined = tuple(reply.get("confined", ()))
        except (OSError, ValueError) as error:
            reason = type(error).__name__
        if reason:
            log.error("sandbox_start_failed", target=self._target, reason=reason)
            raise errors.Unavailable("A sandbox cannot be started.")

    def ask(
        self,
        arguments: dict[str, Any],
        payload: bytes | Content,
        *,
        seconds: float,
        cpu_seconds: float | None = None,
    ) -> tuple[dict[str, Any], bytes]:
        """Send one call and return its reply.

        Args:
            arguments: JSON values.
            payload: the bytes to work on. The child reads a file itself.
            seconds: the limit by the clock, sending included.
            cpu_seconds: the limit of the CPU time; None: no limit.

        Raises:
            SandboxTimeout: there was no reply in time.
            SandboxCpuExceeded: the call used too much CPU time.
            SandboxCrashed: the child died.
        """
        self.calls += 1
        deadline = time.monotonic() + seconds
        try:
            call = {"arguments": arguments, "cpu_seconds": cpu_seconds}
            self._send(call, payload, deadline=deadline)
            reply, data = frames.receive(self._socket, deadline=deadline)
        except TimeoutError:
            log.warning("sandbox_timed_out", target=self._target, seconds=seconds)
            raise SandboxTimeout(f"The call took more than {seconds:g} s.") from None
        except (OSError, ValueError):
            reply, data = {"crashed": "died without a word"}, b""
        if "crashed" in reply:
            ended_by = self._signal()
            if cpu_seconds is not None and ended_by == signal.SIGPROF:
                log.warning("sandbox_cpu_exceeded", target=self._target, cpu_seconds=cpu_seconds)
                raise SandboxCpuExceeded(f"The call used more than {cpu_seconds:g} s of CPU time.")
            log.warning(
                "sandbox_crashed", target=self._target, reason=reply["crashed"], signal=ended_by
            )
            raise SandboxCrashed("The call's process died.", signal=ended_by)
        return reply, data

    def _send(self, call: dict[str, Any], payload: bytes | Content, *, deadline: float) -> None:
        if isinstance(payload, bytes):
            frames.send(self._socket, call, payload, deadline=deadline)
            return
        with payload.reader() as descriptor:
            body = payload.getvalue() if descriptor is None else b""
            frames.send(self._socket, call, body, descriptor=descriptor, deadline=deadline)

    def _signal(self) -> int | None:
        """Return the signal that ended the child, whose connection is closed or closing."""
        try:
            status = self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        return -status if status < 0 else None

    def kill(self) -> None:
        """Kill the child's process. A caller that waits for its reply gets an error at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill the child and close the connection."""
        self.kill()
        self._socket.close()
