"""Processes, logs, the home directory, Redis and signals, with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.launch import home, redis, signals
from cli.launch.process import Process, Program
from cli.launch.rotation import Rotation
from core import errors, secret_files
from tests import children
from tests.e2e.stack import eventually, free_port

SLEEP = ("sleep", "60")
#: Ignores SIGTERM and has a child of its own; prints the child's id when both are up.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
time.sleep(60)
"""
#: A minimal supervisor: starts one program, prints its id, and waits to be killed.
SUPERVISOR = """
import os, sys, time
from pathlib import Path
from cli.launch.process import Process, Program
program = Program("sleep", ("sleep", "60"), dict(os.environ), 1.0)
print(Process(program, folder=Path("."), log=Path(sys.argv[1])).pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return children.state(pid) not in ("Z", "")


def start(tmp_path: Path, *command: str, **environment: str) -> Process:
    program = Program("program", command, {**os.environ, **environment}, stop_seconds=1)
    return Process(program, folder=tmp_path, log=tmp_path / "program.log")


def test_a_program_leads_its_own_session(tmp_path: Path) -> None:
    process = start(tmp_path, *SLEEP)
    try:
        assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
        assert process.ended() is None
    finally:
        process.kill()
    assert process.ended() == -signal.SIGKILL


def test_a_program_ends_on_sigterm(tmp_path: Path) -> None:
    process = start(tmp_path, *SLEEP)
    process.terminate()
    assert eventually(lambda: process.ended() == -signal.SIGTERM)
    process.terminate()
    process.kill()


def test_killing_a_program_kills_its_children(tmp_path: Path) -> None:
    process = start(tmp_path, sys.executable, "-c", STUBBORN)
    assert eventually(lambda: process.log.read_text().strip() != "")
    child = int(process.log.read_text())
    process.terminate()
    assert alive(child)
    process.kill()
    assert eventually(lambda: not alive(child))


def test_children_of_an_ended_program_are_killed(tmp_path: Path) -> None:
    process = start(tmp_path, "sh", "-c", "sleep 60 & echo $!")
    assert eventually(lambda: process.ended() == 0)
    child = int(process.log.read_text())
    assert eventually(lambda: not alive(child))


def test_a_program_dies_with_a_killed_supervisor(tmp_path: Path) -> None:
    command = (sys.executable, "-c", SUPERVISOR, str(tmp_path / "log"))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert alive(pid)
        supervisor.kill()
    assert eventually(lambda: not alive(pid))


def test_the_last_lines_are_readable_and_from_this_run(tmp_path: Path) -> None:
    (tmp_path / "program.log").write_text("of an earlier run\n")
    line = r'{"event": "start_failed", "exception": "Traceback\n  File\nValueError: no"}'
    process = start(tmp_path, "sh", "-c", 'printf "first\\n\\n%s\\n" "$LINE"', LINE=line)
    assert eventually(lambda: process.ended() == 0)
    assert process.last_lines() == "  first\n  start_failed: ValueError: no"
    assert process.last_lines(1) == "  start_failed: ValueError: no"


def test_a_missing_program_is_reported(tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="program cannot be started: /no/such"):
        start(tmp_path, "/no/such")


def test_only_the_owner_can_access_the_home_directory(tmp_path: Path) -> None:
    made = home.prepare(tmp_path / "a" / "home")
    assert made.stat().st_mode & 0o777 == 0o700
    assert home.prepare(made) == made


def test_a_home_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.LaunchError, match=r"cannot be created.*--home"):
        home.prepare(tmp_path / "file" / "home")


def test_a_home_directory_is_locked_once_and_the_holder_is_named(tmp_path: Path) -> None:
    with (
        home.locked(tmp_path),
        pytest.raises(errors.LaunchError, match=f"process {os.getpid()}"),
        home.locked(tmp_path),
    ):
        pass
    with home.locked(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_nearly_full_disk_is_reported(tmp_path: Path) -> None:
    home.check_space(tmp_path, floor_mb=0)
    with pytest.raises(errors.LaunchError, match=r"MiB are free.*LONGLOOK_DISK_FLOOR_MB"):
        home.check_space(tmp_path, floor_mb=2**40)


def test_a_socket_of_a_long_home_is_in_a_short_private_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with home.socket(deep) as path:
        assert len(os.fsencode(path)) <= 107
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


def test_a_socket_of_a_short_home_is_in_it(short_folder: Path) -> None:
    with home.socket(short_folder) as path:
        assert path == short_folder / "run" / "redis.sock"


def test_a_long_log_is_rotated(tmp_path: Path) -> None:
    logs = home.prepare(tmp_path) / "logs"
    (logs / "api.log").write_bytes(b"x" * (10 * 2**20 + 1))
    (logs / "redis.log").write_bytes(b"short")
    assert not home.log(tmp_path, "api").exists()
    assert (logs / "api.log.1").stat().st_size == 10 * 2**20
    assert home.log(tmp_path, "redis").exists()


def test_a_log_is_rotated_while_its_program_writes_it_and_the_oldest_is_deleted(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = Process(
        Program("program", ("cat", str(pipe)), dict(os.environ), stop_seconds=1),
        folder=tmp_path,
        log=tmp_path / "program.log",
        rotation=Rotation(max_bytes=1_000),
    )
    try:
        with pipe.open("w") as writer:
            for number in range(7):
                writer.write(f"{number}" * 1_001)
                writer.flush()
                assert eventually(lambda: process.log.stat().st_size == 1_001)
                assert process.rotate_log()
                assert process.log.read_bytes() == b""
                assert not process.rotate_log()
            writer.write("it continues\n")
        assert eventually(lambda: process.ended() == 0)
    finally:
        process.kill()

    files = {path.name: path.read_text()[:1] for path in tmp_path.glob("program.log*")}
    rotated = {f"program.log.{number}": f"{7 - number}" for number in range(1, 5)}
    assert files == {"program.log": "i", **rotated}
    assert process.last_lines() == "  it continues"


@pytest.mark.parametrize("open_", [False, True])
def test_what_a_program_writes_between_two_checks_does_not_exceed_the_bound(
    tmp_path: Path,
    open_: bool,  # noqa: FBT001 - a parameter
) -> None:
    log, rotation = tmp_path / "api.log", Rotation(max_bytes=10, files=3)
    for number in range(4):
        log.write_text(f"{number}" * 95 + "the end.")
        (rotation.rotate_open if open_ else rotation.rotate)(log)

    kept = {path.name: path.read_text() for path in tmp_path.iterdir() if path.stat().st_size}
    assert kept == {"api.log.1": "33the end.", "api.log.2": "22the end."}


def test_a_log_that_cannot_be_copied_is_truncated_anyway(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_text("more than ten bytes")
    # The copy cannot be written, as on a full disk.
    (tmp_path / "api.log.1").symlink_to("/dev/full")

    Rotation(files=1).rotate_open(log)

    assert log.read_bytes() == b""


def test_a_disk_that_fills_up_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(errors.LaunchError, match="No space is left"),
        home.reporting_full_disk(tmp_path),
    ):
        Path("/dev/full").write_text("x")
    with pytest.raises(FileNotFoundError), home.reporting_full_disk(tmp_path):
        (tmp_path / "nothing").read_text()


def test_only_the_owner_can_read_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    secret_files.write(path, "ll_old\n", replace=True)
    secret_files.write(path, "ll_new\n", replace=True)
    assert path.read_text() == "ll_new\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def listening_ports(pid: int) -> set[int]:
    """Return the TCP ports on which a process listens, as the kernel reports them."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # It may close a file at any moment.
        with contextlib.suppress(FileNotFoundError):
            links.append(str(entry.readlink()))
    own = {link.removeprefix("socket:[").rstrip("]") for link in links if "socket:" in link}
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        if (path := Path(f"/proc/{pid}/net/{table}")).exists()
        for row in path.read_text().splitlines()[1:]
    ]
    listening = "0A"  # TCP_LISTEN of the kernel.
    return {
        int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == listening and row[9] in own
    }


@pytest.mark.parametrize(
    "server", [*redis.installed(), *redis.bundled()], ids=lambda path: path.parent.name
)
def test_redis_responds_on_its_socket_and_has_no_port(
    tmp_path: Path, short_folder: Path, server: Path
) -> None:
    path = short_folder / "redis.sock"
    process = start(tmp_path, *redis.command(server, path=path))
    try:
        assert eventually(lambda: redis.answers(path))
        assert listening_ports(process.pid) == set()
    finally:
        process.kill()
    assert not redis.answers(path)


def test_a_listening_port_would_be_detected(tmp_path: Path, short_folder: Path) -> None:
    path = short_folder / "redis.sock"
    port = free_port()
    server = next(redis.bundled())
    process = start(tmp_path, *redis.command(server, path=path), "--port", str(port))
    try:
        assert eventually(lambda: redis.answers(path))
        assert listening_ports(process.pid) == {port}
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["redis-server", "valkey-server"], "valkey-server"),
        (["redis-server"], "redis-server"),
        ([], None),
    ],
)
def test_a_server_in_path_takes_precedence_over_the_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], chosen: str | None
) -> None:
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = tmp_path / chosen if chosen else next(redis.bundled())
    assert redis.binary() == expected


def test_signals_are_counted_and_end_a_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with signals.handled() as stops:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        stops.wait(60)
        assert stops.stops == 2
    assert signal.getsignal(signal.SIGINT) is before
