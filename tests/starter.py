"""Starts processes of the product quickly: they are forks of a process that has imported the product's modules.

Imports are most of what a start costs, and the tests start hundreds of processes. A fork differs from a new process in
nothing else that matters: its environment, folder, log, and arguments are its own, it reads the settings itself, and
it can be killed, stopped, and waited for. Tests of installations and of `longlook up` start programs as users do.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import importlib.metadata
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests import children

_ROOT: Final = Path(__file__).resolve().parent.parent
_PR_SET_NAME: Final = 15
_LONGEST_MESSAGE: Final = 2**17
#: None of them reads the settings when it is imported.
_IMPORTED: Final = (
    "api.app",
    "api.serving.worker",
    "celery.__main__",
    "celery.bin.worker",
    "celery.concurrency.thread",
    "celery.worker.worker",
    "gunicorn.app.wsgiapp",
    "scripted.server",
    "webhooks.runtime",
    "worker.runtime",
)


class Started(subprocess.Popen[bytes]):
    """A process that the starter has forked."""

    def __init__(self, starter: Starter, pid: int, arguments: Sequence[str]) -> None:
        # Nothing of the base class, which would start a process.
        self._starter = starter
        self._child_created = False
        self.pid = pid
        self.args = list(arguments)
        self.returncode: int | None = None
        self.stdin = self.stdout = self.stderr = None

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        if self.returncode is None:
            self.returncode = self._starter.poll(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it has not ended within ``timeout`` seconds.
        """
        if (status := self.poll()) is None:
            try:
                descriptor = os.pidfd_open(self.pid)
            except ProcessLookupError:  # Another thread has just called `poll`.
                return self.wait(timeout)
            try:
                select.select([descriptor], [], [], timeout)
            finally:
                os.close(descriptor)
            status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status


class Starter:
    """The process that forks; it dies with this one."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=_ROOT,
                stdin=theirs.fileno(),
                preexec_fn=children.die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one system call, no locks
            )

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        folder: Path,
        at_death: signal.Signals,
    ) -> Started:
        """Start a console script of an installed package; see :func:`tests.children.spawn`."""
        asked = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": str(folder),
            "at_death": int(at_death),
        }
        with (folder / "log").open("ab") as log:
            return Started(self, self._ask(asked, log.fileno()), arguments)

    def poll(self, pid: int) -> int | None:
        """Return the exit status of a process that this one has started, None while it runs."""
        status: int | None = self._ask({"poll": pid})
        return status

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait()

    def _ask(self, asked: dict[str, Any], *files: int) -> Any:  # noqa: ANN401 - JSON
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(asked).encode()], files)
            return json.loads(self._socket.recv(_LONGEST_MESSAGE))


@functools.cache
def the_starter() -> Starter:
    """Return the starter of this test run."""
    starter = Starter()
    atexit.register(starter.close)
    return starter


def spawn(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    at_death: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a console script with exactly this environment; otherwise as :func:`tests.children.spawn` does."""
    if sys.platform == "linux":
        return the_starter().start(arguments, environment, folder=folder, at_death=at_death)
    return spawn_new(arguments, environment, folder=folder, at_death=at_death)


def spawn_new(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    at_death: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a console script as a new process, with exactly this environment."""
    program = Path(sys.executable).parent / arguments[0]
    assignments = [f"{name}={value}" for name, value in environment.items()]
    command = ["env", "-i", *assignments, str(program), *arguments[1:]]
    return children.spawn(command, folder=folder, at_death=at_death)


def _serve() -> Callable[[], object]:
    """Fork until the other end is closed; return what this process has to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=os.dup(0))
    while True:
        message, files, *_ = socket.recv_fds(connection, _LONGEST_MESSAGE, 1)
        if not message:
            return lambda: None
        asked = json.loads(message)
        if "poll" in asked:
            ended, status = os.waitpid(asked["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif answer := os.fork():
            os.close(files[0])
        else:
            connection.close()
            return _become(log=files[0], **asked)
        connection.send(json.dumps(answer).encode())


def _become(
    arguments: list[str], environment: dict[str, str], folder: str, at_death: int, log: int
) -> Callable[[], object]:
    """Make this fork the process that was asked for, and return its program."""
    libc = ctypes.CDLL(None)
    children.die_with_parent(signal.Signals(at_death))()
    libc.prctl(_PR_SET_NAME, arguments[0].encode())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, log, log)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    scripts = Path(sys.executable).parent
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [str(scripts), *filter(None, paths)]
    sys.argv = [str(scripts / arguments[0]), *arguments[1:]]
    [script] = importlib.metadata.entry_points(group="console_scripts", name=arguments[0])
    gc.enable()
    program: Callable[[], object] = script.load()
    return program


def _main() -> None:
    gc.disable()
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    sys.exit(_serve()())  # type: ignore[arg-type] # None or a status


if __name__ == "__main__":
    _main()
