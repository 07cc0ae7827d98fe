"""The API under gunicorn, as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests import children, factories, starter

_LISTENING = re.compile(r"Listening at: (http://127\.0\.0\.1:\d+)")


class GunicornServer:
    """A running API. Its log is in ``folder``."""

    def __init__(
        self, folder: Path, *, database_url: str, redis_url: str, **variables: str
    ) -> None:
        self._folder = folder
        self._variables = {
            "LONGLOOK_HOME": str(folder),
            "LONGLOOK_DATABASE_URL": database_url,
            "LONGLOOK_REDIS_URL": redis_url,
            "LONGLOOK_PEPPER": factories.PEPPER.decode(),
            "LONGLOOK_PORT": "0",
            "LONGLOOK_LOG_FORMAT": "json",
            "LONGLOOK_MAX_BODY_MB": "4",
            "LONGLOOK_DISK_FLOOR_MB": "0",
            # On a busy machine many images wait long for the decoders.
            "LONGLOOK_SANDBOX_SECONDS": "60",
            **variables,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it and return its URL."""
        command = ["gunicorn", "--config", "python:api.server", "api.app:create_app()"]
        environment = {**os.environ, **self._variables}
        self.process = starter.spawn(
            command, environment, folder=self._folder, at_death=signal.SIGTERM
        )
        children.wait_until(
            lambda: "Booting worker" in self.log,
            self.process,
            log=self._folder / "log",
        )
        found = _LISTENING.search(self.log)
        assert found is not None
        return found[1]

    @property
    def log(self) -> str:
        """Everything it has written."""
        return (self._folder / "log").read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log, each line as the JSON it has to be."""
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.log.splitlines()]
        return lines

    @property
    def family(self) -> list[int]:
        """File descriptors of all processes below it; one can be read from when its process has ended."""
        assert self.process is not None
        family = []
        for pid in _below(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                family.append(os.pidfd_open(pid))
        return family

    def stop(self, kindly: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and return its exit code."""
        assert self.process is not None
        children.stop(self.process, kindly, seconds=60)
        return int(self.process.returncode)


def ended(family: list[int], *, seconds: float = 30) -> bool:
    """Whether all processes of a family end within ``seconds``."""
    try:
        return all(bool(select.select([one], [], [], seconds)[0]) for one in family)
    finally:
        for one in family:
            os.close(one)


def _below(pid: int) -> list[int]:
    # A child belongs to the thread that started it.
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        # Threads and processes may end at any moment.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in task.read_text().split()]
    return found + [deeper for child in found for deeper in _below(child)]
