"""Statistics of a run: jobs, faults, refusals, and how soon jobs continued after each fault."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from jobs.lifecycle import Outcome, Status
from tests.chaos.checks import Life
from tests.chaos.storm import Fault


@dataclass(frozen=True)
class Recovery:
    """The time that jobs took to continue after faults, in seconds."""

    jobs: int
    median: float
    p99: float


@dataclass(frozen=True)
class Figures:
    """The statistics of a run.

    Attributes:
        statuses: number of jobs by final status.
        outcomes: number of attempts by outcome.
        repeated: number of jobs with more than one attempt.
        refused: number of writes of workers that had lost their job.
        faults: number of faults by kind.
        recovery: by kind, for faults that interrupted jobs.
    """

    statuses: Counter[str]
    outcomes: Counter[str]
    repeated: int
    refused: int
    faults: Counter[str]
    recovery: dict[str, Recovery]


def figures(lives: Iterable[Life], faults: Iterable[Fault], *, refused: int) -> Figures:
    """Return the statistics of a run."""
    known, done = list(lives), list(faults)
    waits: dict[str, list[float]] = {}
    for fault in done:
        delays = [seconds for life in known if (seconds := _recovered(life, fault)) is not None]
        waits.setdefault(fault.kind, []).extend(delays)
    waits["all"] = [seconds for delays in waits.values() for seconds in delays]
    return Figures(
        statuses=Counter(str(life.job.status) for life in known),
        outcomes=Counter(str(attempt.outcome) for life in known for attempt in life.attempts),
        repeated=sum(life.job.attempt > 1 for life in known),
        refused=refused,
        faults=Counter(fault.kind for fault in done),
        recovery={kind: _spread(delays) for kind, delays in waits.items() if delays},
    )


def _spread(seconds: list[float]) -> Recovery:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return Recovery(jobs=len(ordered), median=statistics.median(ordered), p99=p99)


def _recovered(life: Life, fault: Fault) -> float | None:
    """Return the seconds from ``fault`` to the job's next start or end; None if the fault did not affect the job."""
    before = [entry for entry in life.moves if entry.at <= fault.at]
    if not before or Status(before[-1].changes["status"]).terminal:
        return None
    if fault.pid is not None and not _held(before[-1].actor, fault.pid):
        return None
    waits_until = before[-1].changes.get("not_before")
    if waits_until is not None and datetime.fromisoformat(waits_until) > fault.at:
        return None  # The job was waiting in any case.
    return next(
        (
            (entry.at - fault.at).total_seconds()
            for entry in life.moves
            if _goes_on(entry.action, entry.at, since=fault.at)
        ),
        None,
    )


def _goes_on(event: str, at: datetime, *, since: datetime) -> bool:
    return at > since and event not in (Outcome.LOST, Outcome.RELEASED, Outcome.RETRIED)


def _held(actor: str, pid: int) -> bool:
    """Whether ``actor`` is the worker process ``pid``; the form of its name is ``worker:host:pid:random``."""
    return actor.startswith("worker:") and actor.split(":")[-2] == str(pid)
