"""Supervisor of the programs of ``longlook up``: restarts them, handles signals, and stops them in order."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli import output
from cli.launch import home
from cli.launch.process import Process, Program
from cli.launch.signals import SignalWait
from core import errors

_TICK_SECONDS: Final = 0.5
_MAX_RESTART_SECONDS: Final = 30.0
#: A program that ran at least this long restarts after the shortest delay.
_STABLE_SECONDS: Final = 60.0


class StopRequested(Exception):
    """A signal requested a stop."""


@dataclass
class _Member:
    """A supervised program and its state."""

    program: Program
    process: Process
    started_at: float
    #: Whether it has been ready; if it ends before, the whole start fails.
    was_ready: bool = False
    restarts: int = 0
    #: Time of its next start; None while it runs.
    due_at: float | None = None
    #: Bytes of its log that have been shown.
    shown: int = 0


class Supervisor:
    """Starts programs, restarts them when they end, and stops them in reverse order.

    Args:
        folder: home directory, for the logs.
        working: working directory of the programs.
        signals: counts stop requests.
        verbose: whether to show the programs' logs on stderr.
        restart_seconds: delay of the first restart; doubles each time the program ends soon.
    """

    def __init__(
        self,
        folder: Path,
        *,
        working: Path,
        signals: SignalWait,
        verbose: bool = False,
        restart_seconds: float = 1.0,
    ) -> None:
        self._folder = folder
        self._working = working
        self._signals = signals
        self._verbose = verbose
        self._restart_seconds = restart_seconds
        self._groups: list[list[_Member]] = []

    def start(self, *programs: Program) -> None:
        """Start ``programs`` as one group. They stop together, before all earlier groups.

        Raises:
            core.errors.LaunchError: a program cannot be started.
        """
        group: list[_Member] = []
        self._groups.append(group)
        for program in programs:
            log = home.log(self._folder, program.name)
            shown = log.stat().st_size if log.exists() else 0
            process = Process(program, folder=self._working, log=log)
            group.append(_Member(program, process, time.monotonic(), shown=shown))

    def mark_ready(self, *, except_for: str | None = None) -> None:
        """Mark all programs (except one) as ready: from now on they are restarted when they end."""
        for member in self._members():
            if member.program.name != except_for:
                member.was_ready = True

    def watch(self, seconds: float) -> None:
        """Supervise the programs for ``seconds``; every wait of ``longlook up`` uses this method.

        Raises:
            StopRequested: a signal requested a stop; raised at once.
            core.errors.LaunchError: a program ended before it was ready.
        """
        until = time.monotonic() + seconds
        while True:
            if self._signals.stops:
                raise StopRequested
            for member in self._members():
                self._check(member)
            left = until - time.monotonic()
            if left <= 0:
                return
            self._signals.wait(min(left, _TICK_SECONDS))

    def stop(self) -> bool:
        """Stop all programs, group by group; return whether they had their time to stop.

        Another signal kills all of them at once.
        """
        stops = self._signals.stops
        for group in reversed(self._groups):
            for member in group:
                member.process.terminate()
            until = time.monotonic() + max((m.program.stop_seconds for m in group), default=0.0)
            while self._signals.stops == stops and time.monotonic() < until:
                if all(member.process.ended() is not None for member in group):
                    break
                for member in group:
                    self._show_and_rotate(member)
                self._signals.wait(min(_TICK_SECONDS, until - time.monotonic()))
            for member in group:
                member.process.kill()
                self._show_log(member)
        return self._signals.stops == stops

    def _members(self) -> list[_Member]:
        return [member for group in self._groups for member in group]

    def _check(self, member: _Member) -> None:
        self._show_and_rotate(member)
        now = time.monotonic()
        if member.due_at is not None:
            if now >= member.due_at:
                member.process = Process(
                    member.program, folder=self._working, log=member.process.log
                )
                member.started_at, member.due_at = now, None
            return
        status = member.process.ended()
        if status is None:
            return
        name, log = member.program.name, member.process.log
        if not member.was_ready:
            raise errors.LaunchError(
                f"{name} ended ({_status(status)}) before it was ready. Its log, {log}, ends with:\n"
                f"{member.process.last_lines()}"
            )
        member.restarts = 1 if now - member.started_at > _STABLE_SECONDS else member.restarts + 1
        wait = min(_MAX_RESTART_SECONDS, self._restart_seconds * 2 ** (member.restarts - 1))
        member.due_at = now + wait
        output.event(
            "warning",
            f"{name} ended ({_status(status)}); it restarts in {wait:.0f} s. Log: {log}",
        )

    def _show_and_rotate(self, member: _Member) -> None:
        self._show_log(member)
        if member.process.rotate_log():
            member.shown = 0

    def _show_log(self, member: _Member) -> None:
        if not self._verbose:
            return
        with member.process.log.open("rb") as file:
            file.seek(member.shown)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            member.shown += len(line)
            output.note(f"{member.program.name:<10} {line[:-1].decode(errors='replace')}")
        sys.stderr.flush()


def _status(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
