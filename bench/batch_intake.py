"""Batches of 50,000 lines and of 200 MB: how long they are read and cancelled, and with how much memory.

    python -m bench.batch_intake [--lines 50000] [--database sqlite]

No worker runs. Each batch is read completely and then cancelled; the last one has a fault in each line. Memory is that
of the processes that serve requests: after the start, and its peak while the batch is uploaded, read, and cancelled.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Final

import orjson

from bench import batches, figures, service

_POLL_SECONDS: Final = 0.1
#: So that 50,000 lines are about 200 MB.
_LONG: Final = "x" * 3_900
_KINDS: Final[dict[str, Callable[[int], bytes]]] = {
    "short": batches.line,
    "long": lambda number: batches.line(number, input=_LONG),
    "faulty": lambda number: batches.line(number, temperature=9),
}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--database", default="sqlite", choices=("sqlite", "postgresql", "both"))
    options = parser.parse_args()
    rows: list[list[str]] = []
    with (
        service.ground("") as ground,
        service.databases(ground, options.database) as makers,
    ):
        for name, make in makers.items():
            with service.running(ground, make()) as running:
                for kind, line in _KINDS.items():
                    lines = b"".join(line(number) for number in range(options.lines))
                    rows.append([kind, *_row(running, lines), name])
    figures.show(
        f"Batches of {options.lines:,} lines, {figures.machine()}",
        (
            *("lines", "MB", "upload s", "read s", "lines/s", "status", "faults shown of all"),
            *("cancel s", "API MiB", "database"),
        ),
        rows,
    )


def _row(running: service.Service, lines: bytes) -> list[str]:
    caller = running.caller()
    before = peak = figures.resident_mib(running.api.pid)
    began = time.perf_counter()
    batch = batches.create(caller, lines)
    uploaded = time.perf_counter()

    def wait(*states: str) -> str:
        nonlocal peak
        while True:
            peak = max(peak, figures.resident_mib(running.api.pid))
            status = str(caller.get(f"/v1/batches/{batch}")["status"])
            if status not in states:
                return status
            time.sleep(_POLL_SECONDS)

    status = wait("validating")
    read = time.perf_counter()
    shown = caller.get(f"/v1/batches/{batch}")
    cancelled = "-"
    if status != "failed":
        caller.post(f"/v1/batches/{batch}/cancel", orjson.dumps({}))
        wait("in_progress", "cancelling")
        cancelled = f"{time.perf_counter() - read:.1f}"
    faults = shown["errors"] or {"data": (), "total": 0}
    return [
        f"{len(lines) / 1e6:.0f}",
        f"{uploaded - began:.1f}",
        f"{read - uploaded:.1f}",
        f"{shown['request_counts']['total'] / (read - uploaded):.0f}",
        status,
        f"{len(faults['data']):,} of {faults['total']:,}",
        cancelled,
        f"{before:.0f} → {peak:.0f}",
    ]


if __name__ == "__main__":
    main()
