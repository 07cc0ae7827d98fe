"""The supervisor with small programs: restarts, the stop order, and signals to the test's own process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.launch import home
from cli.launch.process import Program
from cli.launch.rotation import Rotation
from cli.launch.signals import SignalWait, handled
from cli.up.supervisor import StopRequested, Supervisor
from core import errors
from tests.e2e.stack import eventually

#: Appends its name to the file ENDS when it ends.
ORDERLY = """
import os, signal, sys, time
def end(*_):
    with open(os.environ["ENDS"], "a") as ends:
        ends.write(sys.argv[1] + " ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(60)
"""
STUBBORN = "trap '' TERM; echo up; while true; do sleep 0.05; done"


@pytest.fixture
def signals() -> Iterator[SignalWait]:
    with handled() as signals:
        yield signals


@pytest.fixture
def supervisor(tmp_path: Path, signals: SignalWait) -> Iterator[Supervisor]:
    home.prepare(tmp_path)
    supervisor = Supervisor(tmp_path, working=tmp_path, signals=signals, restart_seconds=0.05)
    yield supervisor
    supervisor.stop()


def shell(name: str, script: str, *, stop_seconds: float = 60) -> Program:
    return Program(name, ("sh", "-c", script), dict(os.environ), stop_seconds)


def words(tmp_path: Path, name: str) -> list[str]:
    return (tmp_path / "logs" / f"{name}.log").read_text().split()


def watch_until_printed(supervisor: Supervisor, tmp_path: Path, name: str, *, times: int) -> None:
    until = time.monotonic() + 60
    while len(words(tmp_path, name)) < times:
        assert time.monotonic() < until, "it printed too little in time"
        supervisor.watch(0.01)


def test_a_program_that_ends_before_it_is_ready_fails_the_start_with_its_last_lines(
    supervisor: Supervisor,
) -> None:
    supervisor.start(shell("engine", "echo no memory; exit 3"))
    with pytest.raises(errors.LaunchError, match=r"(?s)engine ended \(exit status 3\).*no memory"):
        supervisor.watch(60)


def test_a_ready_program_restarts_when_it_ends(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.start(shell("api", "echo up; sleep 0.05"))
    supervisor.mark_ready()
    watch_until_printed(supervisor, tmp_path, "api", times=3)
    assert "api ended (exit status 0); it restarts" in capsys.readouterr().out


def test_one_program_can_be_excluded_from_the_ready_ones(supervisor: Supervisor) -> None:
    supervisor.start(shell("engine", "exit 1"))
    supervisor.start(shell("api", "exit 1"))
    supervisor.mark_ready(except_for="engine")
    with pytest.raises(errors.LaunchError, match="engine ended"):
        supervisor.watch(60)


def test_stages_stop_in_reverse_order(supervisor: Supervisor, tmp_path: Path) -> None:
    environment = {**os.environ, "ENDS": str(tmp_path / "ends")}
    names = ("redis", "engine", "api", "worker")
    for name in names:
        command = (sys.executable, "-c", ORDERLY, name)
        supervisor.start(Program(name, command, environment, stop_seconds=60))
    for name in names:
        watch_until_printed(supervisor, tmp_path, name, times=1)
    assert supervisor.stop()
    assert (tmp_path / "ends").read_text().split() == list(reversed(names))


def test_a_program_that_ignores_sigterm_is_killed_after_its_stop_time(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.start(shell("engine", STUBBORN, stop_seconds=0.1))
    watch_until_printed(supervisor, tmp_path, "engine", times=1)
    assert supervisor.stop()


def test_a_signal_ends_the_supervision_and_a_second_one_the_graceful_stop(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.start(shell("worker", STUBBORN, stop_seconds=60))
    watch_until_printed(supervisor, tmp_path, "worker", times=1)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(StopRequested):
        supervisor.watch(60)
    # The next program stops first, and reacts to SIGTERM with a second Ctrl-C.
    supervisor.start(shell("api", f"trap 'kill -INT {os.getpid()}' TERM; echo up; sleep 60 & wait"))
    assert eventually(lambda: bool(words(tmp_path, "api")))
    assert not supervisor.stop()


def test_a_long_log_is_rotated_while_its_program_runs(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    supervisor.start(shell("api", f"head -c {Rotation().max_bytes + 1} /dev/zero; sleep 60"))
    until = time.monotonic() + 60
    while not (folder / "api.log.1").exists() and time.monotonic() < until:
        supervisor.watch(0.01)

    assert (folder / "api.log.1").stat().st_size == Rotation().max_bytes
    assert (folder / "api.log").stat().st_size == 0


def test_verbose_shows_the_logs(
    tmp_path: Path, signals: SignalWait, capsys: pytest.CaptureFixture[str]
) -> None:
    home.prepare(tmp_path)
    (tmp_path / "logs" / "api.log").write_text("of an earlier run\n")
    supervisor = Supervisor(tmp_path, working=tmp_path, signals=signals, verbose=True)
    supervisor.start(shell("api", "echo hello; sleep 60"))
    try:
        watch_until_printed(supervisor, tmp_path, "api", times=5)
        supervisor.watch(0)
    finally:
        supervisor.stop()
    assert capsys.readouterr().err == "api        hello\n"
