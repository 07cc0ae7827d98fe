"""``python -m tests.chaos``: random faults in the whole service, statistics, and violated invariants."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.chaos.figures import Figures
from tests.chaos.run import Plan, run


def main() -> int:
    """Run with the arguments of the command line; return 0 if every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument(
        "--control", action="store_true", help="run without the fence; this run must fail"
    )
    parser.add_argument("--logs", type=Path, help="folder for the logs of all processes")
    given = parser.parse_args()
    plan = Plan(
        database=given.database,
        seconds=given.minutes * 60,
        seed=given.seed,
        fenced=not given.control,
        logs=given.logs,
    )
    report = run(plan)
    title = f"{plan.database}, seed {plan.seed}, {plan.seconds:g} s of faults"
    _print(
        title,
        *_lines(report.figures),
        f"calm                  after {report.calm:.1f} s",
        f"longest wait          {report.slowest}",
        f"unrequested exits     {report.unasked}",
    )
    _print(f"{len(report.wrong)} violations", *report.wrong)
    return 1 if report.wrong else 0


def _lines(figures: Figures) -> list[str]:
    lines = [
        f"jobs                  {figures.statuses.total()} {dict(figures.statuses)}",
        f"attempts              {figures.outcomes.total()} {dict(figures.outcomes)}",
        f"attempts above one    {figures.repeated} jobs",
        f"late writes refused   {figures.refused}",
        f"faults                {figures.faults.total()}",
    ]
    for kind, count in sorted(figures.faults.items()):
        spread = figures.recovery.get(kind)
        suffix = f", {spread.jobs} jobs continued after {_spread(kind, figures)}" if spread else ""
        lines.append(f"  {kind:<32}{count}{suffix}")
    if "all" in figures.recovery:
        lines.append(f"recovery              {_spread('all', figures)}")
    return lines


def _spread(kind: str, figures: Figures) -> str:
    recovery = figures.recovery[kind]
    return f"p50 {recovery.median:.1f} s, p99 {recovery.p99:.1f} s"


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
