"""Measurements: reads ``/proc``, computes percentiles, prints one table. Linux only."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

_WIDTH = 120
_TICKS = os.sysconf("SC_CLK_TCK")


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that ``share`` (0 to 1) of ``values`` do not exceed, by the nearest rank."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of ``pid`` and of all its descendants, including ended ones.

    From ``/proc/PID/stat`` (proc(5)): user and system time of a process and of its reaped children, in
    hundredths of a second.
    """
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field, the name, may contain spaces and parentheses.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(path.parent.name)
        children[int(fields[1])].append(number)
        ticks[number] = sum(map(int, fields[11:15]))
    family, found = [pid], 0
    for member in family:
        found += ticks.get(member, 0)
        family += children[member]
    return found / _TICKS


def resident_mib(pid: int) -> float:
    """Return the resident memory of ``pid`` and of all its descendants, in MiB."""
    children: dict[int, list[int]] = defaultdict(list)
    pages: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            pages[int(folder.name)] = int((folder / "statm").read_text().split()[1])
        except OSError:
            continue
        children[int(fields[1])].append(int(folder.name))
    family, found = [pid], 0
    for member in family:
        found += pages.get(member, 0)
        family += children[member]
    return found * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib(pid: int) -> float:
    """Return the peak resident memory of the process ``pid``, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"the system reports no peak memory of process {pid}")


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print one table: words left-aligned, figures right-aligned."""
    stored = [list(row) for row in rows]
    table = Table(title=title)
    for index, column in enumerate(columns):
        words = any(row[index][:1].isalpha() for row in stored)
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    for row in stored:
        table.add_row(*row)
    console = Console()
    # A file has no width, but these tables need one.
    (console if console.is_terminal else Console(width=_WIDTH)).print(table)


def machine() -> str:
    """Return the description of this machine for titles."""
    return f"{os.cpu_count()} cores"
