"""The worker class that gunicorn starts: one loop for connections, and threads for requests."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Final

import structlog
from gunicorn.config import Config
from gunicorn.workers import base

from api.serving import heads, limits
from api.serving.loop import Loop
from core.settings import Settings
from core.spool import Spool

_log = structlog.get_logger(__name__)

_BAD_SETTINGS: Final = 2
#: Paths with threads of their own: orchestrators kill processes that do not answer them.
_APART: Final = ("/livez", "/readyz")


class LoopWorker(base.Worker):  # type: ignore[misc] # gunicorn has no types
    """Serves connections in one process."""

    #: The application's folder for large bodies; set before :meth:`run`.
    spool: Spool | None = None
    _loop: Loop | None = None

    @classmethod
    def check_config(cls, cfg: Config, _log: object) -> None:
        """Refuse settings of gunicorn that would have no effect."""
        if cfg.is_ssl:
            sys.stderr.write("The API does not support TLS: put a reverse proxy in front of it.\n")
            sys.exit(_BAD_SETTINGS)

    def run(self) -> None:
        """Serve until a signal arrives or gunicorn's main process ends."""
        settings = Settings.read()
        connections = limits.connections(settings.max_connections)
        if connections < settings.max_connections:
            _log.warning("too_few_files", connections=connections, wanted=settings.max_connections)
        self._loop = Loop(
            self.sockets,
            self.wsgi,
            cfg=self.cfg,
            limits=limits.ServerLimits.of(
                settings,
                connections=connections,
                idle_seconds=self.cfg.keepalive,
                # gunicorn would fail on paths without it, such as those of health checks.
                prefix=heads.valid_prefix(os.environ.pop("SCRIPT_NAME", "")),
            ),
            apart=_APART,
            wakes=(self.PIPE[0], self.PIPE[1]),
            spool=self.spool,
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
