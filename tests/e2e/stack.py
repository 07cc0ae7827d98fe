"""The service as real processes: API, workers, Redis, and an engine over HTTP, on either database."""

from __future__ import annotations

import contextlib
import json
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
#: Those from which the kernel chooses, as two numbers.
_EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT, _LAST_PORT = 10_000, 65_535
#: Sockets whose names tell other test runs on this machine which ports are taken.
_reservations: list[socket.socket] = []


def free_port() -> int:
    """Return a port on which nobody listens, and which nobody but the caller gets while this process lives.

    The kernel gives it to no connection and to no server that lets it choose, and no other test run takes it.
    """
    lowest, highest = map(int, _EPHEMERAL_PORTS.read_text().split())
    others = [*range(_FIRST_PORT, lowest), *range(highest + 1, _LAST_PORT + 1)]
    candidates = others or [*range(_FIRST_PORT, _LAST_PORT + 1)]
    port: int
    for port in random.sample(candidates, len(candidates)):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0longlook-test-port-{port}")
            socket.create_server(("", port)).close()
        except OSError:
            reservation.close()
        else:
            _reservations.append(reservation)
            return port
    raise RuntimeError("no port is free")


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
        kill(self.api)
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
            kill(process)
        self.workers.clear()

    def log(self, name: str) -> str:
        """Return the log of a process."""
        return (self.folder / name / "log").read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events in the log of a process: its lines of JSON that have been written to their ends."""
        lines = self.log(name).splitlines(keepends=True)
        return [json.loads(line) for line in lines if line[0] == "{" and line[-1] == "\n"]

    def close(self) -> None:
        """Kill everything."""
        for process in self.processes:
            kill(process)

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


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it has started.

    Workers of gunicorn would keep the port, and use the database, until they see that their parent is gone.
    """
    if process.poll() is not None:
        return
    below = children.of(process.pid)
    children.stop(process, signal.SIGKILL)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def running(engine_url: str) -> int:
    """Return the number of generations that an engine currently runs."""
    answer = urllib3.request("GET", f"{engine_url}/v1/loads", timeout=5)
    loads: list[dict[str, Any]] = answer.json()["loads"]
    return sum(int(load["num_running_reqs"]) for load in loads)
