"""The engines of ``longlook up``: which ones, whether to start one, and whether they are ready."""

import shlex
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli import output
from cli.engine_plan import plan
from cli.engine_plan.command import Plan
from cli.environments import build
from cli.environments import engine as environment
from core import errors, profiles
from core.settings import Settings
from worker.engines import pool

TINY: Final = "tiny"
SCRIPTED: Final = "scripted"
SCRIPTED_URL: Final = "scripted:"

#: Seconds between two messages that an engine is not ready.
_REPORT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class EngineProcesses:
    """The engines to use.

    Attributes:
        urls: their URLs, for the workers.
        model: name of the model that they serve.
        plan: command of the engine to start, or None if no engine must be started.
    """

    urls: tuple[str, ...]
    model: str
    plan: Plan | None = None


def choose(requested: str | None, settings: Settings) -> EngineProcesses:
    """Return the engines for ``--engine``: ``tiny``, ``scripted``, or comma-separated URLs.

    Without the option, ``LONGLOOK_ENGINE_URLS`` decides; without that setting, the engine is ``tiny``.

    Raises:
        core.errors.SettingsError: the value is not one of these.
        core.errors.LaunchError: the environment of ``tiny`` is missing.
    """
    if requested is None and "engine_urls" in settings.model_fields_set:
        requested = ",".join(settings.engine_urls)
    if requested is None or requested == TINY:
        return _tiny(settings)
    if requested == SCRIPTED:
        requested = SCRIPTED_URL
    try:
        urls = Settings.read({}, engine_urls=requested).engine_urls
    except errors.SettingsError as error:
        raise errors.SettingsError(
            f"--engine: {requested!r} must be `tiny`, `scripted`, or comma-separated URLs"
        ) from error
    return EngineProcesses(urls=urls, model=_model(urls, settings))


def _tiny(settings: Settings) -> EngineProcesses:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = plan.plan((), settings, host="127.0.0.1", port=port)
    if command.python is not None and not build.is_whole(command.python):
        raise errors.LaunchError(
            f"The engine's environment is missing or unfinished ({command.python}). "
            f"{_remedy(command.python, settings)} Or try `longlook up --engine scripted`, which needs no model."
        )
    model = settings.model if "model" in settings.model_fields_set else profiles.TINY.name
    return EngineProcesses(urls=(f"http://127.0.0.1:{port}",), model=model, plan=command)


def _remedy(python: Path, settings: Settings) -> str:
    """Return how the missing environment comes about; in a home directory of its own it needs ``--path``."""
    if settings.engine_python:
        return "Correct LONGLOOK_ENGINE_PYTHON, or unset it and run `longlook engine install`."
    default = environment.directory(Settings.read().home)
    path = (
        "" if python.is_relative_to(default) else f" --path {shlex.quote(str(python.parents[1]))}"
    )
    return f"Make it with `longlook engine install{path}` (some minutes, 3 GB)."


def _model(urls: tuple[str, ...], settings: Settings) -> str:
    """Return the model's name: the configured one, or else the one that the first responding engine serves."""
    served = [url for url in urls if not url.startswith(SCRIPTED_URL)]
    if "model" in settings.model_fields_set or not served:
        return settings.model
    for url in served:
        if name := served_model(url, settings):
            return name
    output.event(
        "warning",
        f"no engine responds yet, so the model's name is unknown; using {settings.model}. "
        "LONGLOOK_MODEL sets it.",
    )
    return settings.model


def served_model(url: str, settings: Settings) -> str | None:
    """Return the name of the model that the engine at ``url`` serves, or None if it does not respond."""
    facts = pool.check_url(url, settings).facts
    return None if facts is None else facts.model


class Readiness:
    """Checks whether the engines are ready, and reports each one once.

    Args:
        engines: the engines.
        settings: their keys and time limits.
        report_seconds: between two messages that an engine is not ready.
    """

    def __init__(
        self,
        engines: EngineProcesses,
        settings: Settings,
        *,
        report_seconds: float = _REPORT_SECONDS,
    ) -> None:
        self._report_seconds = report_seconds
        self._engines = engines
        self._settings = settings
        self._waiting = list(engines.urls)
        self._started_at = time.monotonic()
        self._reported_at = self._started_at
        #: Why the last engine that was checked is not ready.
        self._reason = ""

    @property
    def any_ready(self) -> bool:
        """Whether at least one engine is ready."""
        return len(self._waiting) < len(self._engines.urls)

    @property
    def all_ready(self) -> bool:
        """Whether all engines are ready."""
        return not self._waiting

    def check(self) -> None:
        """Check the engines that are not ready yet."""
        for url in tuple(self._waiting):
            if url.startswith(SCRIPTED_URL):
                self._waiting.remove(url)
                output.event("engine ready", "scripted: generates answers without a model")
            elif self._available(url):
                self._waiting.remove(url)
                name = self._engines.model
                output.event("engine ready", f"{name} at {url} after {self._elapsed():.0f} s")
        if self._waiting and time.monotonic() - self._reported_at > self._report_seconds:
            self._reported_at = time.monotonic()
            output.event(
                "engine",
                f"not ready after {self._elapsed():.0f} s: {self._reason} Jobs wait for it",
            )

    def _available(self, url: str) -> bool:
        """Whether a worker would send streams to the engine."""
        checked = pool.check_url(url, self._settings)
        self._reason = output.inline(checked.reason)
        return checked.facts is not None

    def _elapsed(self) -> float:
        return time.monotonic() - self._started_at
