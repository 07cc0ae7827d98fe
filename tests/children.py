"""Real servers as children of a test run: they die with it, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
#: A unix socket's path has 107 bytes at the most.
_LONGEST_FOLDER = 60


def memory_folder() -> Path:
    """Return a new temporary folder in memory, if there is such a thing: a busy disk makes every commit wait."""
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="ll-", dir=parent))


def short_folder() -> Path:
    """Return a new temporary folder whose path leaves room for the name of a socket."""
    folder = tempfile.mkdtemp(prefix="ll-")
    if len(folder) > _LONGEST_FOLDER:
        Path(folder).rmdir()
        folder = tempfile.mkdtemp(prefix="ll-", dir="/tmp")
    return Path(folder)


def spawn(
    arguments: Sequence[str | Path],
    *,
    folder: Path,
    user: str | None = None,
    at_death: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a server in ``folder`` that gets ``at_death`` when this process is gone; it logs to ``folder/log``."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [str(argument) for argument in arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=user,
            extra_groups=None if user is None else [],
            preexec_fn=_prepared(die_with_parent(at_death)),  # noqa: PLW1509 - system calls, no locks
        )


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], *, log: Path, seconds: float = 120
) -> None:
    """Wait for a server that has just been started; its log is the error when it does not come up."""
    deadline = time.monotonic() + seconds
    while not ready():
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        stop(process, signal.SIGKILL)
        raise RuntimeError(f"a server did not come up:\n{log.read_text(errors='replace')}")


def stop(process: subprocess.Popen[bytes], kindly: signal.Signals, *, seconds: float = 10) -> None:
    """Stop a server, first ``kindly``; after ``seconds`` it is killed."""
    if process.poll() is None:
        process.send_signal(kindly)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def of(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started, directly or not. Linux only."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := _fields(folder):
            parents[int(folder.name)] = int(fields[1])
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        started = [child for child, its_parent in parents.items() if its_parent == parent]
        found += started
        waiting += started
    return found


def freeze(pid: int) -> None:
    """Stop a process until it gets SIGCONT; return when all its threads have stopped, or it has ended. Linux only."""
    os.kill(pid, signal.SIGSTOP)
    # The signal is sent to one thread, and each of the others stops when it runs the next time.
    while any(thread[0] not in "TtXZ" for thread in _threads(pid)):
        os.sched_yield()


def state(pid: int) -> str:
    """Return the state of a process as ``ps`` shows it, such as ``T`` for stopped. Linux only."""
    return (_fields(Path(f"/proc/{pid}")) or [""])[0]


def name(pid: int) -> str:
    """Return what a process is called, empty when it has ended. Linux only."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for_names(called: str, *, count: int, seconds: float = 60) -> None:
    """Wait until ``count`` of the processes that this one has started are called ``called``. Linux only."""
    deadline = time.monotonic() + seconds
    while sum(name(pid) == called for pid in of(os.getpid())) < count:
        if time.monotonic() > deadline:
            raise AssertionError(f"no {count} processes are called {called}")
        os.sched_yield()


def _fields(folder: Path) -> list[str]:
    """Return what the kernel tells of a process after the name of its program, nothing when it is gone."""
    try:
        # The name, in brackets, may hold anything.
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _threads(pid: int) -> list[list[str]]:
    """Return what the kernel tells of each thread of a process, as :func:`_fields` does."""
    folder = Path(f"/proc/{pid}/task")
    try:
        threads = list(folder.iterdir())
    except OSError:
        return []
    return [fields for thread in threads if (fields := _fields(thread))]


def _prepared(die_with_parent: Callable[[], None]) -> Callable[[], None]:
    """Return what a process calls before its program starts."""

    def prepare() -> None:
        # A shell may have started the tests in the background, where it ignores Ctrl-C for all of them.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        die_with_parent()

    return prepare


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Return what a process calls to get ``death_signal`` when its parent dies. Linux only."""
    if sys.platform != "linux":
        return lambda: None
    libc = ctypes.CDLL(None)  # Loaded before the fork: the child only calls it.

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))

    return ask
