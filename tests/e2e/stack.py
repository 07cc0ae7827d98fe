"""The service as real processes: API, workers, Redis, and an engine over HTTP, on either database."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from cli.client import Client
from core.database import Database
from jobs.lifecycle import Role
from jobs.store import accounts
from tests import children, starter

BIN = Path(sys.executable).parent
PEPPER = "the pepper of the tests"
VAULT_KEY = "the vault's key in tests"
#: Short, so that the service detects a lost worker within a test.
LEASE_SECONDS = 3
WAIT_SECONDS = 60
_FIRST_EPHEMERAL_PORT = 32_768
#: Not seeded: processes that run tests at the same time must not find the same ports.
_RANDOM = random.SystemRandom()


def free_port() -> int:
    """Return a port that is currently free.

    It is below those that the system gives to connections and to servers that name none: of them, another process
    could get it at any moment.
    """
    while True:
        port = _RANDOM.randrange(10_000, _FIRST_EPHEMERAL_PORT)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def eventually(
    what: Callable[[], bool], *, seconds: float = WAIT_SECONDS, every: float = 0.05
) -> bool:
    """Whether ``what`` becomes true within ``seconds``; ``every`` is the time between two calls."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not what():
        if time.monotonic() > deadline:
            return False
        pause.wait(every)
    return True


@dataclass
class Stack:
    """The running service. All processes that it starts die with :meth:`close`, and with the test run.

    Attributes:
        in_namespaces: whether processes start in the namespaces of the thread that starts them. Otherwise they are
            forks of a process that has imported their modules, which saves most of the time of a start.
    """

    folder: Path
    database_url: str
    redis_url: str
    engine_urls: str
    variables: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    url: str = ""
    in_namespaces: bool = False

    def __post_init__(self) -> None:
        self.key = accounts.new_key()
        self.other_key = accounts.new_key()
        database = Database(self.database_url)
        for key, account in ((self.key, "default"), (self.other_key, "other")):
            accounts.create_key(
                database,
                key,
                pepper=PEPPER.encode(),
                account=account,
                role=Role.SUBMIT,
                name="test",
            )
        database.close()

    @property
    def environment(self) -> dict[str, str]:
        """The settings of every process."""
        return {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "LONGLOOK_HOME": str(self.folder),
            "LONGLOOK_DATABASE_URL": self.database_url,
            "LONGLOOK_REDIS_URL": self.redis_url,
            "LONGLOOK_ENGINE_URLS": self.engine_urls,
            "LONGLOOK_PEPPER": PEPPER,
            "LONGLOOK_LOG_FORMAT": "json",
            "LONGLOOK_LEASE_SECONDS": str(LEASE_SECONDS),
            "LONGLOOK_DRAIN_SECONDS": "20",
            "LONGLOOK_DISK_FLOOR_MB": "0",
            "LONGLOOK_WORKER_SLOTS": "8",
            "LONGLOOK_SANDBOX_PROCESSES": "1",
            **self.variables,
        }

    def start_api(self) -> Client:
        """Start the API and wait until it is ready; return a client of it."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._serve()
        return Client(self.url, key=self.key)

    def restart_api(self) -> None:
        """Kill the API and start it again on the same port."""
        # Its workers too, which would keep the port until they see that their parent is gone.
        workers = children.of(self.api.pid)
        children.stop(self.api, signal.SIGKILL)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._serve()

    def _serve(self) -> None:
        self.api = self.spawn_api(self.port)
        children.wait_until(self.ready, self.api, log=self.folder / "api" / "log")

    def spawn_api(self, port: int) -> subprocess.Popen[bytes]:
        """Start an API process on ``port`` and return at once."""
        command = "gunicorn --config python:api.server api.app:create_app()"
        return self.spawn("api", command.split(), LONGLOOK_PORT=str(port))

    def start_worker(self, name: str = "worker", **more: str) -> subprocess.Popen[bytes]:
        """Start a worker process; it claims jobs as soon as it is up."""
        command = (
            "celery -A worker.app worker --without-gossip --without-mingle --without-heartbeat"
        )
        process = self.spawn(name, command.split(), **more)
        self.workers.append(process)
        return process

    def start_delivery(self, name: str = "delivery", **more: str) -> subprocess.Popen[bytes]:
        """Start the webhook sender; it may connect to receivers on this host."""
        flags = "--without-gossip --without-mingle --without-heartbeat"
        command = f"celery -A webhooks.app worker {flags}".split()
        allowed = {"LONGLOOK_WEBHOOK_ALLOW": "127.0.0.0/8", "LONGLOOK_VAULT_KEY": VAULT_KEY}
        return self.spawn(name, command, **allowed, **more)

    def stop_workers(self) -> None:
        """Kill the workers, and keep the other processes."""
        for process in self.workers:
            children.stop(process, signal.SIGKILL)
        self.workers.clear()

    def log(self, name: str) -> str:
        """Return the log of a process."""
        return (self.folder / name / "log").read_text()

    def close(self) -> None:
        """Kill everything."""
        for process in self.processes:
            children.stop(process, signal.SIGKILL)

    def spawn(self, name: str, command: list[str], **more: str) -> subprocess.Popen[bytes]:
        """Start a program with the common settings and ``more``; its log file has its name."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        start = starter.spawn_new if self.in_namespaces else starter.spawn
        process = start(command, self.environment | more, folder=folder)
        self.processes.append(process)
        return process

    def ready(self) -> bool:
        """Whether the API accepts jobs."""
        try:
            answer = urllib3.request("GET", f"{self.url}/readyz", retries=False, timeout=5)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200


def running(engine_url: str) -> int:
    """Return the number of generations that an engine currently runs."""
    answer = urllib3.request("GET", f"{engine_url}/v1/loads", timeout=5)
    loads: list[dict[str, Any]] = answer.json()["loads"]
    return sum(int(load["num_running_reqs"]) for load in loads)
