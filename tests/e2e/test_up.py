"""``longlook up`` as a real process: its processes, refusals, output, and clean exit."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.client import KEY_FILE, Client
from cli.launch import redis as launch
from cli.up import demo
from tests.e2e.stack import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LONGLOOK = Path(sys.executable).parent / "longlook"
BOOTSTRAP = "ll_" + "b" * 43
IMAGE, QUESTION = demo.sample().image, demo.sample().question
#: Its answer falls silent if the engine obeys markers: the job runs until it is stopped.
SILENT = f"{QUESTION} [[behavior:silent]]"
MARKERS = ("--engine", "scripted:?markers=true")


def processes() -> dict[int, tuple[int, int]]:
    """Return parent and session of every process that is not a zombie."""
    by_pid = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                by_pid[int(stat.parent.name)] = (int(parent), int(session))
    return by_pid


def descendants(pid: int) -> set[int]:
    """Return the processes below ``pid``."""
    parents = {child: parent for child, (parent, _) in processes().items()}
    pids: set[int] = set()
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in pids | {pid}} - pids
        grown = bool(more)
        pids |= more
    return pids


def known_of(pid: int, name: str) -> bytes:
    """Return what the kernel tells of a process in a file, nothing if the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def plain_environment(**more: str) -> dict[str, str]:
    """Return this environment without settings of the service, plus ``more``."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("LONGLOOK_")
    }
    return environment | more


class Up:
    """A running ``longlook up``."""

    def __init__(self, folder: Path, *flags: str, **environment: str) -> None:
        self.home = folder / "home"
        self._output = folder / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [LONGLOOK, "up", "--home", self.home, *(flags or ("--engine", "scripted"))],
                env=plain_environment(**{"LONGLOOK_PORT": "0", **environment}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._output.read_text()

    @property
    def url(self) -> str:
        """The URL of the API according to its output."""
        line = re.search(r"^ready +(http\S+)", self.output, re.MULTILINE)
        assert line, self.output
        return line[1]

    def says(self, words: str, *, seconds: float = 60) -> bool:
        """Whether it prints ``words`` in time, before it exits."""
        over = self.process.poll
        return (
            eventually(lambda: words in self.output or over() is not None, seconds=seconds)
            and words in self.output
        )

    def ends(self, seconds: float = 60) -> int:
        """Wait for its exit, and return the exit code."""
        return self.process.wait(seconds)

    def children(self) -> set[int]:
        """Return all of its descendants."""
        return descendants(self.process.pid)

    @property
    def client(self) -> Client:
        """A client with the key from the home directory."""
        return Client(self.url, key=(self.home / KEY_FILE).read_text().strip())

    def submit(self, question: str = QUESTION) -> str:
        """Submit the sample image; return the job's id."""
        return str(self.client.submit([IMAGE], question)["id"])

    def comes_to(self, job_id: str, status: str) -> bool:
        """Whether a job gets ``status`` in time."""
        client = self.client
        return eventually(lambda: bool(client.job(job_id)["status"] == status))

    def longlook(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the product against it."""
        return subprocess.run(
            [LONGLOOK, *words],
            env=plain_environment(LONGLOOK_HOME=str(self.home), LONGLOOK_URL=self.url),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def end(self) -> None:
        """End it in any state."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(folder: Path, *flags: str, **environment: str) -> Iterator[Up]:
    """Run ``longlook up`` and wait until it accepts jobs."""
    up = Up(folder, *flags, **environment)
    try:
        assert up.says("ready        http://"), up.output
        yield up
    finally:
        up.end()


def nothing_left(children: set[int], sessions: set[int]) -> bool:
    """Whether all ``children`` and all processes in their ``sessions`` end in time."""
    return eventually(
        lambda: (
            not any(
                pid in children or session in sessions for pid, (_, session) in processes().items()
            )
        )
    )


def sessions_of(children: set[int]) -> set[int]:
    """Return the session ids of processes."""
    by_pid = processes()
    return {by_pid[pid][1] for pid in children if pid in by_pid}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Return a ``longlook up`` shared by all tests that do not stop it."""
    folder = tmp_path_factory.mktemp("up")
    with running(folder, *MARKERS, LONGLOOK_BOOTSTRAP_KEY=BOOTSTRAP) as up:
        yield up


def test_a_job_is_answered(up: Up) -> None:
    done = up.longlook("submit", str(IMAGE), QUESTION, "--wait", "--json")
    job = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert job["status"] == "succeeded"
    assert job["answer"]["text"]
    trace = json.loads(up.longlook("jobs", "show", job["id"], "--trace", "--json").stdout)["trace"]
    assert trace["complete"]
    assert trace["generations"][0]["text"]


def test_a_job_is_listed_and_cancelled_while_it_runs(up: Up) -> None:
    job_id = up.submit(SILENT)
    assert up.comes_to(job_id, "running")
    listed = json.loads(up.longlook("jobs", "ls", "--limit", "1", "--json").stdout)
    assert [job["id"] for job in listed["data"]] == [job_id]
    assert up.longlook("jobs", "cancel", job_id).returncode == 0
    assert up.comes_to(job_id, "cancelled")


def test_a_terminal_shows_the_growing_trace(up: Up) -> None:
    words = [str(LONGLOOK), "submit", str(IMAGE), QUESTION, "--stream"]
    reader, terminal = pty.openpty()
    command = subprocess.Popen(
        words,
        env=plain_environment(LONGLOOK_HOME=str(up.home), LONGLOOK_URL=up.url),
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    chunks: list[str] = []
    # Reading from a terminal whose other side is closed raises an error instead of returning the end of the file.
    with contextlib.suppress(OSError):
        while chunk := os.read(reader, 65536):
            chunks.append(chunk.decode(errors="replace"))
    os.close(reader)
    assert command.wait(30) == 0
    shown = "".join(chunks)
    assert "answer:" in shown
    assert "tokens in" in shown
    assert shown.count("\x1b[2m") > 3


def test_no_child_knows_the_bootstrap_key(up: Up) -> None:
    environments = {pid: known_of(pid, "environ") for pid in up.children()}
    assert len(environments) >= 4
    assert not [pid for pid, content in environments.items() if BOOTSTRAP.encode() in content]
    assert (up.home / "admin.key").read_text().strip() == BOOTSTRAP
    assert BOOTSTRAP not in up.output


def test_the_home_directory_is_for_its_owner_only(up: Up) -> None:
    def is_open(path: Path) -> bool:
        try:
            return bool(path.stat().st_mode & 0o077)
        except FileNotFoundError:
            # The running service removes files, too.
            return False

    paths = [up.home, *up.home.rglob("*")]
    assert len(paths) > 3
    assert not [path for path in paths if is_open(path)]


def test_a_second_one_on_the_same_home_is_refused(up: Up, tmp_path: Path) -> None:
    second = Up(tmp_path, "--home", str(up.home), "--engine", "scripted")
    assert second.ends() == 1
    assert f"(process {up.process.pid})" in second.output
    assert up.process.poll() is None


def test_a_busy_port_is_reported_before_anything_starts(up: Up, tmp_path: Path) -> None:
    port = up.url.rpartition(":")[2]
    second = Up(tmp_path, "--port", port, "--engine", "scripted")
    assert second.ends() == 1
    assert f"port {port}: Address already in use" in second.output
    assert "--port" in second.output
    assert list((second.home / "logs").iterdir()) == []


def test_the_doctor_reports_success(up: Up) -> None:
    result = up.longlook("doctor", "--json")
    verdicts = {entry["check"]: entry["verdict"] for entry in json.loads(result.stdout)}
    assert result.returncode == 0
    assert verdicts["API"] == verdicts["database"] == "ok"


def test_each_kind_of_fault_has_its_exit_code(up: Up) -> None:
    def ended(**environment: str) -> int:
        return subprocess.run(
            [LONGLOOK, "jobs", "ls"],
            env=plain_environment(**{"LONGLOOK_URL": up.url, **environment}),
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode

    assert ended(LONGLOOK_API_KEY=BOOTSTRAP) == 0
    assert ended(LONGLOOK_API_KEY=BOOTSTRAP, LONGLOOK_PROT="1") == 2
    assert ended(LONGLOOK_API_KEY=BOOTSTRAP, LONGLOOK_URL="http://127.0.0.1:1") == 3
    assert ended(LONGLOOK_API_KEY="ll_" + "x" * 43) == 4


def test_a_worker_that_died_restarts_and_claims_jobs(tmp_path: Path) -> None:
    with running(tmp_path, LONGLOOK_LEASE_SECONDS="2") as up:
        # Not one of its own children.
        [worker] = [
            pid
            for pid, (parent, _) in processes().items()
            if parent == up.process.pid and b"worker.app" in known_of(pid, "cmdline")
        ]
        os.kill(worker, signal.SIGKILL)
        assert up.says("worker-1 ended (killed by signal 9); it restarts")
        assert up.longlook("submit", str(IMAGE), QUESTION, "--wait").returncode == 0


def test_ctrl_c_ends_everything_cleanly_and_in_time(tmp_path: Path) -> None:
    with running(tmp_path, "--engine", "scripted", "--workers", "2") as up:
        children = up.children()
        sessions = sessions_of(children)
        assert len(sessions) == 5
        os.kill(up.process.pid, signal.SIGINT)
        assert up.ends() == 0
        assert "stopped" in up.output
    assert nothing_left(children, sessions)


def test_a_worker_lets_its_running_job_end_before_it_exits(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        job_id = up.submit()
        assert up.comes_to(job_id, "running")
        os.kill(up.process.pid, signal.SIGTERM)
        assert up.ends() == 0
    with running(tmp_path) as again:
        job = again.client.job(job_id)
        assert (job["status"], job["attempt"]) == ("succeeded", 1)
        assert "admin key" not in again.output


def test_a_second_ctrl_c_ends_everything_at_once(tmp_path: Path) -> None:
    with running(tmp_path, *MARKERS) as up:
        assert up.comes_to(up.submit(SILENT), "running")
        children = up.children()
        sessions = sessions_of(children)
        os.kill(up.process.pid, signal.SIGINT)
        assert up.says("stopping")
        os.kill(up.process.pid, signal.SIGINT)
        assert up.ends() == 130
    assert nothing_left(children, sessions)


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        children = up.children()
        sessions = sessions_of(children)
        assert len(children) >= 4
        up.process.kill()
        up.process.wait()
    assert nothing_left(children, sessions)


def test_after_a_kill_of_the_supervisor_the_jobs_of_its_workers_run_at_once(
    tmp_path: Path, database_url: str
) -> None:
    # No lease expires within this test.
    settings = {"LONGLOOK_DATABASE_URL": database_url, "LONGLOOK_LEASE_SECONDS": "3600"}
    slow = "scripted:?tokens_per_second=1"
    with running(tmp_path, "--engine", slow, "--workers", "2", **settings) as up:
        jobs = [up.submit() for _ in range(2)]
        assert all(up.comes_to(job_id, "running") for job_id in jobs)
    with running(tmp_path, **settings) as again:
        assert all(again.comes_to(job_id, "succeeded") for job_id in jobs)
        assert [again.client.job(job_id)["attempt"] for job_id in jobs] == [2, 2]
        alive = [path.name for path in (again.home / "workers").iterdir()]
        assert len(alive) == 1


def test_a_redis_that_answers_and_takes_no_work_is_not_ready(tmp_path: Path) -> None:
    server = tmp_path / "bin" / "valkey-server"
    server.parent.mkdir()
    bundled = next(launch.bundled())
    server.write_text(f'#!/bin/sh\nexec {bundled} "$@" --maxmemory 1\n')
    server.chmod(0o755)

    up = Up(tmp_path, PATH=f"{server.parent}:{os.environ['PATH']}")
    try:
        assert up.ends() == 1
    finally:
        up.end()

    assert "Redis is not ready after 10 s: It is out of memory" in up.output
    assert "ready  " not in up.output


def test_an_engine_that_does_not_start_ends_everything_with_its_last_output(tmp_path: Path) -> None:
    engine = tmp_path / "python"
    engine.write_text("#!/bin/sh\necho no room for the model >&2\nexit 7\n")
    engine.chmod(0o755)
    up = Up(tmp_path, "--engine", "tiny", LONGLOOK_ENGINE_PYTHON=str(engine))
    assert up.ends() == 1
    assert "engine ended (exit status 7) before it was ready" in up.output
    assert "no room for the model" in up.output
    assert nothing_left(descendants(up.process.pid), set())


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LONGLOOK_ENGINE_PYTHON": "/no/such/python"}, "longlook engine install"),
        ({"LONGLOOK_DISK_FLOOR_MB": "999999999"}, "MiB are free"),
        (
            {"LONGLOOK_HOST": "no-such-host.invalid"},
            "Choose another port with --port, or another address",
        ),
        ({"LONGLOOK_BOOTSTRAP_KEY": "password"}, "LONGLOOK_BOOTSTRAP_KEY: must be"),
        ({"LONGLOOK_LEASE": "1", "LONGLOOK_PORT": "x"}, "LONGLOOK_LEASE: no such setting"),
        ({"LONGLOOK_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "127.0.0.1:1/x cannot be used"),
    ],
)
def test_a_fault_is_reported_in_one_line(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    engine = "tiny" if "LONGLOOK_ENGINE_PYTHON" in environment else "scripted"
    up = Up(tmp_path, "--engine", engine, **environment)
    assert up.ends() in {1, 2}
    assert message in up.output
    assert "Traceback" not in up.output
    assert "Unknown error" not in up.output
    assert "ready" not in up.output.replace("before it was ready", "")


@pytest.mark.engine
def test_the_demo_answers_correctly_and_shows_the_use_of_the_cache(tmp_path: Path) -> None:
    with running(tmp_path, "--demo") as up:
        assert up.says("The service runs until you press Ctrl-C", seconds=180), up.output
        shown = up.output
        answers = re.findall(r"^answer: (.+)$", shown, re.MULTILINE)
        shares = [int(share) for share in re.findall(r"cached \((\d+)%\)", shown)]
        children = up.children()
        sessions = sessions_of(children)
        os.kill(up.process.pid, signal.SIGINT)
        assert up.ends() == 0
    assert answers[0] == demo.sample().truth
    assert shares[1] > 80
    assert nothing_left(children, sessions)


def test_a_copy_sends_no_webhooks_and_says_when_its_schema_is_upgraded(tmp_path: Path) -> None:
    home = {"LONGLOOK_HOME": str(tmp_path / "home")}
    for words in (("upgrade",), ("downgrade", "0100", "--confirm", "0100")):
        subprocess.run(
            [LONGLOOK, "db", *words], env=plain_environment(**home), check=True, capture_output=True
        )
    up = Up(tmp_path, "--engine", "scripted", "--no-worker", "--no-delivery")
    try:
        assert up.says("ready"), up.output
        assert "schema upgraded from 0100 to" in up.output
        assert "no webhook is sent" in up.output
        commands = [known_of(pid, "cmdline").decode().replace("\0", " ") for pid in up.children()]
        assert any("gunicorn" in command for command in commands)
        assert not any("webhooks.app" in command for command in commands)
    finally:
        up.process.send_signal(signal.SIGTERM)
        up.ends()
