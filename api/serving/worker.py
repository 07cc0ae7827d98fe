"""The worker class that gunicorn starts: one loop for connections, and threads for requests."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Final

import structlog
from gunicorn.config import Config
from gunicorn.workers import base

from api.serving import limits
from api.serving.loop import Loop
from core.settings import Settings

_log = structlog.get_logger(__name__)

_BAD_SETTINGS: Final = 2
#: The longest time that a thread which computes keeps Python from the others. With CPython's own 5 ms a short request
#: waits for all threads that run, each time it has read something.
_SWITCH_SECONDS: Final = 0.0005
#: These are answered whatever else happens: orchestrators kill what does not answer.
_APART: Final = ("/livez", "/readyz")


class LoopWorker(base.Worker):  # type: ignore[misc] # gunicorn has no types
    """Serves in one process."""

    _loop: Loop | None = None

    @classmethod
    def check_config(cls, cfg: Config, _log: object) -> None:
        """Refuse settings of gunicorn that would be believed to be in force."""
        if cfg.is_ssl:
            sys.stderr.write("TLS is not spoken here: put a reverse proxy in front of the API.\n")
            sys.exit(_BAD_SETTINGS)

    def run(self) -> None:
        """Serve until a signal or the end of gunicorn itself."""
        settings = Settings.read()
        sys.setswitchinterval(_SWITCH_SECONDS)
        connections = limits.connections(settings.max_connections)
        if connections < settings.max_connections:
            _log.warning("too_few_files", connections=connections, wanted=settings.max_connections)
        self._loop = Loop(
            self.sockets,
            self.wsgi,
            cfg=self.cfg,
            limits=limits.ServerLimits.of(
                settings, connections=connections, idle_seconds=self.cfg.keepalive
            ),
            apart=_APART,
            wakes=(self.PIPE[0], self.PIPE[1]),
        )
        self._loop.run(
            alive=self._is_alive, beat=self.notify, grace=float(self.cfg.graceful_timeout)
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, on SIGTERM."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.wake()

    def _is_alive(self) -> bool:
        return bool(self.alive) and self.ppid == os.getppid()
