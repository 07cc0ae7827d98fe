"""SGLang's launcher and its key: real processes, with a stand-in for the package ``sglang``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from http import HTTPStatus
from pathlib import Path

import pytest
import urllib3

from cli.engine import inherited
from cli.engine_plan import launcher, plan
from cli.environments import engine as environment
from cli.launch.process import Process
from cli.up import programs
from core.settings import Settings
from tests import children
from tests.e2e.stack import free_port
from tests.real_engine import Missing

KEY = "a-long-secret-of-the-engine"
#: Prints its arguments and the command lines of itself and of a spawned child, which every user can read.
STAND_IN = """
import logging, multiprocessing, os, sys
from pathlib import Path

def look(kind):
    command = Path("/proc/self/cmdline").read_bytes().replace(b"\\0", b" ").decode()
    print(kind, "command:", command, flush=True)
    print(kind, "has the key:", "KEY" in sys.argv, "inherited:", "KEY" in os.environ.values(), flush=True)

if __name__ == "__main__":
    print("arguments:", sys.argv[3:])
    look("parent")
    child = multiprocessing.get_context("spawn").Process(target=look, args=("child",))
    child.start()
    child.join()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.warning("server_args=%d", sys.argv)
    logging.warning("%d of %d", 1)
    logging.warning("server_args=%s", sys.argv)
""".replace("KEY", KEY)


def launch(tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    package = tmp_path / "sglang"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "launch_server.py").write_text(STAND_IN)
    return subprocess.run(
        [sys.executable, launcher.__file__, "--port", "1"],
        env={"PATH": os.defpath, "PYTHONPATH": str(tmp_path), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("by_file", [False, True], ids=["variable", "file"])
def test_the_key_reaches_sglang_and_no_argument_of_a_process(
    tmp_path: Path, *, by_file: bool
) -> None:
    stored = tmp_path / "key"
    stored.write_text(f"{KEY}\n")
    given = {"_FILE": str(stored)} if by_file else {"": KEY}

    ended = launch(tmp_path, **{launcher.VARIABLE + name: value for name, value in given.items()})

    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "arguments: ['--port', '1']"
    assert [line for line in lines if "has the key" in line] == [
        "parent has the key: True inherited: False",
        "child has the key: True inherited: False",
    ]
    assert KEY not in ended.stdout + ended.stderr
    assert "server_args=" in lines[-1]


@pytest.mark.parametrize("environ", [{}, {launcher.VARIABLE + "_FILE": "/no/such"}])
def test_a_missing_key_is_reported(tmp_path: Path, environ: dict[str, str]) -> None:
    ended = launch(tmp_path, **environ)

    assert ended.returncode == 1
    assert launcher.VARIABLE in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_program_of_the_service_has_a_secret_among_its_arguments(tmp_path: Path) -> None:
    secrets = {
        "LONGLOOK_ENGINE_API_KEY": KEY,
        "LONGLOOK_PEPPER": "secret-pepper",
        "LONGLOOK_VAULT_KEY": "secret-vault-key",
        "LONGLOOK_DATABASE_URL": "postgresql://longlook:secret-password@db/longlook",
        "LONGLOOK_REDIS_URL": "redis://:secret-password@redis:6379/0",
        "LONGLOOK_BOOTSTRAP_KEY": "ll_" + "secret" * 8,
        "LONGLOOK_API_KEY": "secret-key",
    }
    environ = {"PATH": os.defpath, **secrets}
    settings = Settings.read(environ, home=tmp_path)
    context = programs.ProgramContext(
        settings=settings,
        redis_url=settings.redis_url,
        engine_urls=("http://127.0.0.1:1",),
        model="tiny-qvq",
        port=8700,
    )
    engine = plan.plan((), settings, host="127.0.0.1", port=30000)

    started = [
        programs.engine(engine, environ=environ),
        programs.api(context, listener=3, environ=environ),
        programs.worker(context, number=1, environ=environ),
        programs.delivery(context, environ=environ),
    ]

    assert [program.name for program in started if "secret" in " ".join(program.command)] == []


@pytest.mark.engine
def test_no_process_of_the_real_engine_shows_its_key(tmp_path: Path) -> None:
    if not environment.python(tmp_path).exists():
        if os.environ.get("CI"):
            raise Missing
        pytest.skip("no .venv-engine: `make engine` creates it")
    port = free_port()
    settings = Settings.read({"LONGLOOK_ENGINE_API_KEY": KEY})
    program = programs.engine(
        plan.plan((), settings, host="127.0.0.1", port=port), environ=inherited(os.environ)
    )
    engine = Process(program, folder=tmp_path, log=tmp_path / "log")
    try:
        until = time.monotonic() + 150
        while status(port, KEY) != HTTPStatus.OK:
            assert engine.ended() is None, engine.last_lines()
            assert time.monotonic() < until
            time.sleep(0.5)

        shown = {pid: command_line(pid) for pid in (engine.pid, *children.of(engine.pid))}
        assert len(shown) > 2
        assert {pid: command for pid, command in shown.items() if KEY in command} == {}
        assert status(port, "wrong") == HTTPStatus.UNAUTHORIZED
        assert KEY not in engine.log.read_text()
    finally:
        engine.kill()


def status(port: int, key: str) -> int:
    """Return the status of a request for the engine's models, or 0 without a response."""
    headers = {"Authorization": f"Bearer {key}"}
    try:
        return urllib3.request(
            "GET", f"http://127.0.0.1:{port}/v1/models", headers=headers, retries=False, timeout=5
        ).status
    except urllib3.exceptions.HTTPError:
        return 0


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
