"""Liveness locks: which workers of a host are dead, by locks of real processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.liveness import LivenessLock, kernel_id

_HOLD = (
    "import sys, pathlib; from worker.liveness import LivenessLock;"
    "lock = LivenessLock(pathlib.Path(sys.argv[1]), owner=sys.argv[2], kernel='k');"
    "lock.acquire(); print(lock.held, flush=True); sys.stdin.read(); lock.release()"
)


@pytest.fixture
def holders() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def hold(holders: list[subprocess.Popen[str]], folder: Path, owner: str) -> subprocess.Popen[str]:
    """Start a process that holds the lock of ``owner`` until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, folder, owner],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    holders.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def dead(
    folder: Path, owner: str = "host:1:me", *, kernel: str = "k", done: bool = True
) -> list[str]:
    """Return the workers that ``owner`` finds dead; ``done``: whether nothing is left to do for them."""
    found: list[str] = []

    def end(name: str) -> bool:
        found.append(name)
        return done

    LivenessLock(folder, owner=owner, kernel=kernel).for_each_dead(end)
    return found


def test_a_worker_is_dead_once_its_process_is_killed(
    tmp_path: Path, holders: list[subprocess.Popen[str]]
) -> None:
    victim, survivor = (hold(holders, tmp_path, f"host:{number}:x") for number in (2, 3))
    assert dead(tmp_path) == []

    victim.send_signal(signal.SIGSTOP)
    assert dead(tmp_path) == []
    victim.kill()
    victim.wait()

    # What is not done, or was interrupted, is done again.
    assert dead(tmp_path, done=False) == ["host:2:x"]
    assert dead(tmp_path) == ["host:2:x"]
    assert dead(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["host:3:x@k"]
    survivor.communicate()
    assert dead(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_worker_runs_without_a_lock_where_the_file_system_has_none(tmp_path: Path) -> None:
    def none(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    lock = LivenessLock(tmp_path, owner="host:2:x", kernel="k", lock=none)
    lock.acquire()

    assert not lock.held
    # Another worker must not take it for dead.
    assert list(tmp_path.iterdir()) == []
    lock.for_each_dead(lambda _name: pytest.fail("a lock that cannot be taken proves nothing"))
    lock.release()


def test_an_error_while_it_ends_leases_keeps_the_file(tmp_path: Path) -> None:
    (tmp_path / "host:2:x@k").touch()

    def fails(_: str) -> bool:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        LivenessLock(tmp_path, owner="host:1:me", kernel="k").for_each_dead(fails)
    assert dead(tmp_path) == ["host:2:x"]


def test_workers_of_other_hosts_are_not_judged(tmp_path: Path) -> None:
    for name in ("other:2:x@k", "host2:2:x@k", "host", "host:2:x"):
        (tmp_path / name).touch()

    assert dead(tmp_path) == []


def test_a_host_with_the_same_name_and_another_kernel_judges_no_lock_that_it_cannot_see(
    tmp_path: Path, holders: list[subprocess.Popen[str]]
) -> None:
    """A file whose lock is free for this kernel, as on a network file system that does not share locks."""
    victim = hold(holders, tmp_path, "host:2:x")
    victim.kill()
    victim.wait()

    assert dead(tmp_path, kernel="other") == []
    assert dead(tmp_path) == ["host:2:x"]


def test_files_of_a_kernel_that_is_gone_are_removed_after_a_week_without_a_judgement(
    tmp_path: Path,
) -> None:
    old, new = (tmp_path / f"host:{number}:x@before" for number in (2, 3))
    for path, days in ((old, 8), (new, 6)):
        path.touch()
        then = time.time() - days * 86_400
        os.utime(path, (then, then))

    assert dead(tmp_path) == []
    assert list(tmp_path.iterdir()) == [new]


def test_all_processes_under_a_kernel_have_the_same_identity_of_it() -> None:
    script = "from worker.liveness import kernel_id; print(kernel_id())"
    other = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == kernel_id() != ""


def test_a_worker_whose_new_file_is_taken_away_gets_another_one(
    tmp_path: Path, holders: list[subprocess.Popen[str]]
) -> None:
    # Another worker finds the file before its lock.
    (tmp_path / "host:2:x@k").touch()
    lock = LivenessLock(tmp_path, owner="host:2:x", kernel="k")
    assert dead(tmp_path) == ["host:2:x"]

    lock.acquire()

    assert lock.held
    assert dead(tmp_path) == []
    assert hold(holders, tmp_path, "host:3:x").poll() is None
    lock.release()
    lock.release()
    assert [path.name for path in tmp_path.iterdir()] == ["host:3:x@k"]


def test_without_the_folder_there_are_no_locks(tmp_path: Path) -> None:
    lock = LivenessLock(tmp_path / "missing", owner="host:1:me", kernel="k")
    lock.acquire()

    assert not lock.held
    assert dead(tmp_path / "missing") == []
    lock.release()
