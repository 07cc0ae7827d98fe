"""Keeps the programs of ``longlook up`` running, and ends them in order. The one that hears signals."""

from __future__ import annotations

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
_LONGEST_WAIT_SECONDS: Final = 30.0
#: A program that ran this long before it ended begins again with the shortest wait.
_STEADY_SECONDS: Final = 60.0


class StopAsked(Exception):
    """A signal asked the supervisor to stop."""


@dataclass
class _Member:
    """A program that has to run, and how it fared so far."""

    program: Program
    process: Process
    started_at: float
    #: Whether it has ever worked: the end of one that never did ends everything, with its last words.
    proven: bool = False
    falls: int = 0
    #: When it is started again; None while it runs.
    due_at: float | None = None
    #: Up to where its log has been shown.
    shown: int = 0


class Supervisor:
    """Starts programs, starts them again when they end, and ends them in the reverse order.

    Args:
        folder: the home directory, where the logs go.
        working: the working directory of the programs.
        signals: the requests to stop.
        verbose: whether the programs' logs are shown on stderr as well.
        first_wait_seconds: before a program that ended starts again; doubles each time it ends soon.
    """

    def __init__(
        self,
        folder: Path,
        *,
        working: Path,
        signals: SignalWait,
        verbose: bool = False,
        first_wait_seconds: float = 1.0,
    ) -> None:
        self._folder = folder
        self._working = working
        self._signals = signals
        self._verbose = verbose
        self._first_wait_seconds = first_wait_seconds
        self._stages: list[list[_Member]] = []

    def start(self, *programs: Program) -> None:
        """Start ``programs`` as one stage: they end together, before the stages that started earlier.

        Raises:
            core.errors.LaunchError: one of them cannot be started.
        """
        stage: list[_Member] = []
        self._stages.append(stage)
        for program in programs:
            log = home.log(self._folder, program.name)
            shown = log.stat().st_size if log.exists() else 0
            process = Process(program, folder=self._working, log=log)
            stage.append(_Member(program, process, time.monotonic(), shown=shown))

    def prove(self, *, but: str | None = None) -> None:
        """Note that all programs (but one) have worked: from now on they are started again when they end."""
        for member in self._members():
            if member.program.name != but:
                member.proven = True

    def watch(self, seconds: float) -> None:
        """Look after the programs for ``seconds``; this is how everybody here waits.

        Raises:
            StopAsked: at once, when a signal asks for it.
            core.errors.LaunchError: a program ended that has never worked.
        """
        until = time.monotonic() + seconds
        while True:
            if self._signals.stops:
                raise StopAsked
            for member in self._members():
                self._look_after(member)
            left = until - time.monotonic()
            if left <= 0:
                return
            self._signals.wait(min(left, _TICK_SECONDS))

    def stop(self) -> bool:
        """End all programs, stage by stage; return whether they were given their time.

        A further signal ends everything at once.
        """
        stops = self._signals.stops
        for stage in reversed(self._stages):
            for member in stage:
                member.process.terminate()
            until = time.monotonic() + max((m.program.stop_seconds for m in stage), default=0.0)
            while self._signals.stops == stops and time.monotonic() < until:
                if all(member.process.ended() is not None for member in stage):
                    break
                self._signals.wait(min(_TICK_SECONDS, until - time.monotonic()))
            for member in stage:
                member.process.kill()
                self._show_log(member)
        return self._signals.stops == stops

    def _members(self) -> list[_Member]:
        return [member for stage in self._stages for member in stage]

    def _look_after(self, member: _Member) -> None:
        self._show_log(member)
        if member.process.shorten_log():
            member.shown = 0
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
        if not member.proven:
            raise errors.LaunchError(
                f"{name} ended ({_status(status)}) before it was ready. Its log, {log}, ends with:\n"
                f"{member.process.last_words()}"
            )
        member.falls = 1 if now - member.started_at > _STEADY_SECONDS else member.falls + 1
        wait = min(_LONGEST_WAIT_SECONDS, self._first_wait_seconds * 2 ** (member.falls - 1))
        member.due_at = now + wait
        output.event(
            "warning",
            f"{name} ended ({_status(status)}); it starts again in {wait:.0f} s. Log: {log}",
        )

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
    """Return an exit status in words."""
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
