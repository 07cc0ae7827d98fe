"""Sums over the jobs of a query, by account, status, error, priority, model, hour or day."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cli import output


class By(enum.StrEnum):
    """What the sums are for."""

    ACCOUNT = "account"
    STATUS = "status"
    ERROR = "error"
    PRIORITY = "priority"
    MODEL = "model"
    HOUR = "hour"
    DAY = "day"


@dataclass
class _Sum:
    jobs: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    crashes: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    engine_seconds: float = 0.0
    waits: list[float] = field(default_factory=list)

    def add(self, job: output.Json) -> None:
        usage, timings = job.get("usage") or {}, job.get("timings") or {}
        self.jobs += 1
        self.statuses[job["status"]] = self.statuses.get(job["status"], 0) + 1
        self.crashes += job.get("crashes") or 0
        self.input_tokens += usage.get("input_tokens") or 0
        self.output_tokens += usage.get("output_tokens") or 0
        self.engine_seconds += usage.get("engine_seconds") or 0.0
        if timings.get("queued_seconds") is not None:
            self.waits.append(timings["queued_seconds"])


#: The values of a sum -> the heading of its column.
HEADINGS: Final = {
    "jobs": "jobs",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "crashes": "crashes",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    "engine_seconds": "engine s",
    "p50_queued_seconds": "p50 wait s",
    "p95_queued_seconds": "p95 wait s",
}
#: Columns that only `-o wide` shows, and those that a narrow terminal lacks too.
WIDE: Final = ("cancelled", "p50 wait s")
NARROW: Final = (*WIDE, "succeeded", "crashes", "tokens in")


def sums(jobs: Iterable[output.Json], by: By) -> list[output.Json]:
    """Return a sum for each value of ``by``: times in their order, others with the most engine seconds first."""
    groups: dict[str, _Sum] = {}
    for job in jobs:
        groups.setdefault(_group(job, by), _Sum()).add(job)
    listed = [{str(by): name, **_values(group)} for name, group in sorted(groups.items())]
    if by in (By.HOUR, By.DAY):
        return listed
    return sorted(listed, key=lambda row: (-row["engine_seconds"], -row["jobs"]))


def cell(name: str, value: float | None) -> str:
    """Return a value of a sum as text: seconds with one decimal."""
    if value is None:
        return ""
    return f"{value:.1f}" if name.endswith("_seconds") else str(value)


def _group(job: output.Json, by: By) -> str:
    created = str(job["created_at"])
    match by:
        case By.HOUR:
            return f"{created[:13]}:00Z"
        case By.DAY:
            return created[:10]
        case By.ERROR:
            return str((job.get("error") or {}).get("code") or "")
        case _:
            return str(job.get(by) or "")


def _values(group: _Sum) -> output.Json:
    counts = {name: group.statuses.get(name, 0) for name in ("succeeded", "failed", "cancelled")}
    return {
        "jobs": group.jobs,
        **counts,
        "crashes": group.crashes,
        "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens,
        "engine_seconds": round(group.engine_seconds, 3),
        "p50_queued_seconds": _percentile(group.waits, 50),
        "p95_queued_seconds": _percentile(group.waits, 95),
    }


def _percentile(values: list[float], percent: int) -> float | None:
    """Return the smallest value that at least ``percent`` of the values do not exceed; None without values."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None
