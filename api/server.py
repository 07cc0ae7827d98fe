"""gunicorn's configuration: ``gunicorn --config python:api.server 'api.app:create_app()'``.

One process with threads: some for requests, and one more for each open stream or wait. gunicorn listens, starts the
process and forwards signals; :mod:`api.serving` serves the connections. gunicorn reads the names in this module that
are its own settings; what depends on Longlook's settings is set when it starts.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

import core.startup
from api.app import service_of
from core import errors, logs, process, redis_check
from core.redis_prefix import RedisPrefix
from core.redis_url import RedisURL
from core.settings import Settings
from core.spool import Spool
from jobs.store import accounts

core.startup.finish()

_BAD_SETTINGS = 2
#: For one answer of Redis, which may also come later.
_REDIS_SECONDS = 3


class GunicornLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    """Sends gunicorn's log lines through Longlook's logging, without access lines: the application logs requests."""

    def setup(self, cfg: Config) -> None:
        """Replace gunicorn's handlers."""
        self.cfg = cfg
        with _exit_on_bad_settings():
            logs.configure(Settings.read(), service="api")
        self.error_log.propagate = True

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        """Log a traceback, with URLs without their query, which may contain a token."""
        super().exception(msg, *map(_without_query, args), **kwargs)


logger_class = GunicornLogger
worker_class = "api.serving.worker.LoopWorker"
workers = 1
graceful_timeout = 10
keepalive = 75
# The strict parser, even if a faster one is installed.
http_parser = "python"
# No header changes the scheme or the path of a request; see `LONGLOOK_TRUSTED_PROXIES`.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
control_socket_disable = True


def on_starting(server: Arbiter) -> None:
    """Apply Longlook's settings before gunicorn listens. An address on the command line takes precedence."""
    with _exit_on_bad_settings():
        settings = Settings.read()
        accounts.pepper(settings)
        with RedisURL.parse(settings.redis_url).client(seconds=_REDIS_SECONDS) as client:
            redis_check.refuse_cluster(client, RedisPrefix(settings))
        Spool.of(settings).clear()
    if server.cfg.bind == server.cfg.settings["bind"].default:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        server.cfg.set("bind", f"{host}:{settings.port}")


def post_fork(_server: Arbiter, _worker: Worker) -> None:
    """Set how the process frees memory, before it allocates much."""
    process.return_large_blocks()


def post_worker_init(worker: Worker) -> None:
    """Give the server the folder for large bodies, and end all waits and streams on SIGTERM for a quick stop.

    The threads of the application start here: in the process that serves.
    """
    service = service_of(worker.wsgi)
    service.start()
    worker.spool = service.spool
    stop = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: FrameType | None) -> None:
        service.drain()
        if callable(stop):
            stop(number, frame)

    signal.signal(signal.SIGTERM, drain)


def worker_exit(_server: Arbiter, worker: Worker) -> None:
    """Close the resources of the application, its decoding processes above all."""
    if worker.wsgi is not None:
        service_of(worker.wsgi).close()


def _without_query(value: object) -> object:
    return value.partition("?")[0] if isinstance(value, str) else value


@contextlib.contextmanager
def _exit_on_bad_settings() -> Iterator[None]:
    """Exit with a clear message if the settings are invalid."""
    try:
        yield
    except errors.SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_BAD_SETTINGS)
