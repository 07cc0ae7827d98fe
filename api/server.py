"""gunicorn's configuration: ``gunicorn --config python:api.server 'api.app:create_app()'``.

One process with threads: some for requests, one more for each that may be held open. gunicorn listens, starts it
and passes signals on; connections are served by :mod:`api.serving`. gunicorn reads the names in here that are
settings of its own; what depends on our settings is worked out when it starts.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from api.app import service_of
from core import errors, logs
from core.settings import Settings
from jobs.store import accounts

_BAD_SETTINGS = 2


class GunicornLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's own lines, through the pipe of all others. It writes no line for each request: we do."""

    def setup(self, cfg: Config) -> None:
        """Take the place of gunicorn's handlers."""
        self.cfg = cfg
        with _reported():
            logs.configure(Settings.read(), service="api")
        self.error_log.propagate = True

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        """Log a traceback. An address goes without its query, which may hold a token."""
        super().exception(msg, *map(_without_query, args), **kwargs)


logger_class = GunicornLogger
worker_class = "api.serving.worker.LoopWorker"
workers = 1
graceful_timeout = 10
keepalive = 75
# The strict parser, whatever else is installed.
http_parser = "python"
# No header changes what a request is, from wherever it comes; see `LONGLOOK_TRUSTED_PROXIES`.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
control_socket_disable = True


def on_starting(server: Arbiter) -> None:
    """Set what our settings say, before gunicorn listens. An address on the command line wins."""
    with _reported():
        settings = Settings.read()
        accounts.pepper(settings)
    if server.cfg.bind == server.cfg.settings["bind"].default:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        server.cfg.set("bind", f"{host}:{settings.port}")


def post_worker_init(worker: Worker) -> None:
    """Let all go who wait when SIGTERM comes, so that a stop need not wait for them."""
    service = service_of(worker.wsgi)
    stop = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: FrameType | None) -> None:
        service.drain()
        if callable(stop):
            stop(number, frame)

    signal.signal(signal.SIGTERM, drain)


def worker_exit(_server: Arbiter, worker: Worker) -> None:
    """Close what the application holds, its decoding processes above all."""
    if worker.wsgi is not None:
        service_of(worker.wsgi).close()


def _without_query(value: object) -> object:
    return value.partition("?")[0] if isinstance(value, str) else value


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """End with one clear message when the environment is not usable."""
    try:
        yield
    except errors.SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_BAD_SETTINGS)
