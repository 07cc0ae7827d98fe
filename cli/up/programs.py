"""The programs of the service as ``longlook up`` starts them: commands, environments, time to stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.engine_plan.command import Plan
from cli.launch.process import Program
from core.settings import FILE_SUFFIX, PREFIX, Settings

#: Where the packages lie. Celery and gunicorn import from their working directory before all else.
ROOT: Final = Path(__file__).resolve().parents[2]

#: Secrets of the supervisor and of the command line, which no program needs.
_PRIVATE: Final = frozenset(
    f"{PREFIX}{name}{suffix}"
    for name in ("BOOTSTRAP_KEY", "API_KEY")
    for suffix in ("", FILE_SUFFIX.upper())
)
#: SGLang drains without limit on SIGTERM, so it is given a limit.
_ENGINE_STOP_SECONDS: Final = 10.0
_API_STOP_SECONDS: Final = 15.0
_REDIS_STOP_SECONDS: Final = 5.0
#: What a worker has beside its drain, to give back what did not finish.
_WORKER_SPARE_SECONDS: Final = 15.0
#: What the delivery process has beside the time-out of its last try, to write how that ended.
_DELIVERY_SPARE_SECONDS: Final = 5.0
_CELERY_FLAGS: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat")


@dataclass(frozen=True)
class ProgramContext:
    """What every program of the service has to know: the settings as they came out, and where the rest is."""

    settings: Settings
    redis_url: str
    engine_urls: tuple[str, ...]
    model: str
    port: int

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the API and the workers: the supervisor's, made definite, without its secrets."""
        reported = {
            "HOME": str(self.settings.home),
            "DATABASE_URL": self.settings.database,
            "REDIS_URL": self.redis_url,
            "ENGINE_URLS": ",".join(self.engine_urls),
            "MODEL": self.model,
            "HOST": self.settings.host,
            "PORT": str(self.port),
            "LOG_FORMAT": "json",
            "FLUSH_SECONDS": str(self.settings.flush_seconds),
            "WEBHOOK_ALLOW": ",".join(self.settings.webhook_allow),
        }
        # What is told here is not read from a file once more.
        dropped = _PRIVATE | {f"{PREFIX}{name}{FILE_SUFFIX.upper()}" for name in reported}
        stored = {name: value for name, value in environ.items() if name not in dropped}
        return stored | {f"{PREFIX}{name}": value for name, value in reported.items()}


def foreign(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program that is not ours: none of our settings, which include secrets."""
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)}


def redis(command: tuple[str, ...], *, environ: Mapping[str, str]) -> Program:
    """Return the doorbell's server."""
    return Program(
        name="redis",
        command=command,
        environment=foreign(environ),
        stop_seconds=_REDIS_STOP_SECONDS,
    )


def engine(plan: Plan, *, environ: Mapping[str, str]) -> Program:
    """Return an engine of our own."""
    return Program(
        name="engine",
        command=(str(plan.python or sys.executable), *plan.arguments),
        environment=foreign(environ) | plan.environment,
        stop_seconds=_ENGINE_STOP_SECONDS,
    )


def api(wiring: ProgramContext, *, listener: int, environ: Mapping[str, str]) -> Program:
    """Return the API on a socket that listens already: callers of a restart wait instead of being refused."""
    return Program(
        name="api",
        command=(
            *(sys.executable, "-m", "gunicorn", "--config", "python:api.server"),
            *("--bind", f"fd://{listener}", "--no-control-socket", "api.app:create_app()"),
        ),
        environment=wiring.environment(environ),
        stop_seconds=_API_STOP_SECONDS,
        descriptors=(listener,),
    )


def worker(wiring: ProgramContext, *, number: int, environ: Mapping[str, str]) -> Program:
    """Return one of the workers; ``number`` tells them apart in the logs."""
    return Program(
        name=f"worker-{number}",
        command=(
            *(sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-P", "threads"),
            *_CELERY_FLAGS,
            *("--hostname", f"worker-{number}@{os.uname().nodename}"),
        ),
        environment=wiring.environment(environ),
        stop_seconds=wiring.settings.drain_seconds + _WORKER_SPARE_SECONDS,
    )


def delivery(wiring: ProgramContext, *, environ: Mapping[str, str]) -> Program:
    """Return the process that tells receivers of what happened."""
    return Program(
        name="delivery",
        command=(
            *(sys.executable, "-m", "celery", "-A", "webhooks.app", "worker"),
            *("-P", "threads", *_CELERY_FLAGS, "--hostname", f"delivery@{os.uname().nodename}"),
        ),
        # Its metrics would take the port of the worker's.
        environment=wiring.environment(environ) | {f"{PREFIX}METRICS_PORT": "0"},
        stop_seconds=wiring.settings.webhook_seconds + _DELIVERY_SPARE_SECONDS,
    )
