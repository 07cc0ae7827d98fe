"""The programs that ``longlook up`` starts: their commands, environments and stop time-outs."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.engine_plan.command import Plan
from cli.launch.process import Program
from core.settings import FILE_SUFFIX, PREFIX, Settings

#: Directory of the packages. Celery and gunicorn import from their working directory first.
ROOT: Final = Path(__file__).resolve().parents[2]

#: Secrets of the supervisor and of the command line that no program needs.
_PRIVATE: Final = frozenset(
    f"{PREFIX}{name}{suffix}"
    for name in ("BOOTSTRAP_KEY", "API_KEY")
    for suffix in ("", FILE_SUFFIX.upper())
)
#: SGLang waits for its streams without a limit on SIGTERM, so it gets one here.
_ENGINE_STOP_SECONDS: Final = 10.0
_API_STOP_SECONDS: Final = 15.0
_REDIS_STOP_SECONDS: Final = 5.0
#: Time for a worker after its drain to release unfinished jobs.
_WORKER_EXTRA_SECONDS: Final = 15.0
#: Time for the delivery process after the time-out of its last attempt to store the result.
_DELIVERY_EXTRA_SECONDS: Final = 5.0
_CELERY_FLAGS: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat")


@dataclass(frozen=True)
class ProgramContext:
    """What every program of the service needs: the effective settings and the addresses of the other programs."""

    settings: Settings
    redis_url: str
    engine_urls: tuple[str, ...]
    model: str
    port: int

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of API and workers: the supervisor's, with effective values, without secrets."""
        effective = {
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
        # The variable of a file would conflict with the effective value.
        dropped = _PRIVATE | {f"{PREFIX}{name}{FILE_SUFFIX.upper()}" for name in effective}
        inherited = {name: value for name, value in environ.items() if name not in dropped}
        return inherited | {f"{PREFIX}{name}": value for name, value in effective.items()}


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a third-party program: without this service's settings, which include secrets."""
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)}


def redis(command: tuple[str, ...], *, environ: Mapping[str, str]) -> Program:
    """Return the Redis server."""
    return Program(
        name="redis",
        command=command,
        environment=without_settings(environ),
        stop_seconds=_REDIS_STOP_SECONDS,
    )


def engine(plan: Plan, *, environ: Mapping[str, str]) -> Program:
    """Return the engine."""
    return Program(
        name="engine",
        command=(str(plan.python or sys.executable), *plan.arguments),
        environment=without_settings(environ) | plan.environment,
        stop_seconds=_ENGINE_STOP_SECONDS,
    )


def api(context: ProgramContext, *, listener: int, environ: Mapping[str, str]) -> Program:
    """Return the API on a listening socket: during a restart, clients wait instead of being refused."""
    return Program(
        name="api",
        command=(
            *(sys.executable, "-m", "gunicorn", "--config", "python:api.server"),
            *("--bind", f"fd://{listener}", "--no-control-socket", "api.app:create_app()"),
        ),
        environment=context.environment(environ),
        stop_seconds=_API_STOP_SECONDS,
        descriptors=(listener,),
    )


def worker(context: ProgramContext, *, number: int, environ: Mapping[str, str]) -> Program:
    """Return one of the workers; ``number`` identifies it in the logs."""
    return Program(
        name=f"worker-{number}",
        command=(
            *(sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-P", "threads"),
            *_CELERY_FLAGS,
            *("--hostname", f"worker-{number}@{os.uname().nodename}"),
        ),
        environment=context.environment(environ),
        stop_seconds=context.settings.drain_seconds + _WORKER_EXTRA_SECONDS,
    )


def delivery(context: ProgramContext, *, environ: Mapping[str, str]) -> Program:
    """Return the process that sends webhooks."""
    return Program(
        name="delivery",
        command=(
            *(sys.executable, "-m", "celery", "-A", "webhooks.app", "worker"),
            *("-P", "threads", *_CELERY_FLAGS, "--hostname", f"delivery@{os.uname().nodename}"),
        ),
        # Its metrics must not use the port of the worker's metrics.
        environment=context.environment(environ) | {f"{PREFIX}METRICS_PORT": "0"},
        stop_seconds=context.settings.webhook_seconds + _DELIVERY_EXTRA_SECONDS,
    )
