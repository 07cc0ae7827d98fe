"""The engines that ``longlook up`` works with: which, whose, and whether they are ready."""

from __future__ import annotations

import shlex
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli import client, output
from cli.environments import build
from cli.environments import engine as environment
from cli.launch.engine import EngineRoom, Plan
from core import errors, profiles
from core.settings import Settings

TINY: Final = "tiny"
SCRIPTED: Final = "scripted"
SCRIPTED_URL: Final = "scripted:"

_PROBE_SECONDS: Final = 3.0
#: Between two lines that say an engine is still starting.
_PATIENCE_SECONDS: Final = 10.0
_OK: Final = 200


@dataclass(frozen=True)
class EngineProcesses:
    """What was asked for, worked out.

    Attributes:
        urls: where the workers find them.
        model: the name of the model they serve.
        plan: the command of an engine of our own; None when there is nothing to start.
    """

    urls: tuple[str, ...]
    model: str
    plan: Plan | None = None


def choose(requested: str | None, settings: Settings, *, room: EngineRoom) -> EngineProcesses:
    """Return the engines for ``--engine``: ``tiny``, ``scripted``, or URLs separated by commas.

    Without it those of ``LONGLOOK_ENGINE_URLS``, and without these tiny.

    Raises:
        core.errors.SettingsError: it is none of them.
        core.errors.LaunchError: tiny's environment is missing.
    """
    if requested is None and "engine_urls" in settings.model_fields_set:
        requested = ",".join(settings.engine_urls)
    if requested is None or requested == TINY:
        return _own(settings, room)
    if requested == SCRIPTED:
        requested = SCRIPTED_URL
    try:
        urls = Settings.read({}, engine_urls=requested).engine_urls
    except errors.SettingsError as error:
        raise errors.SettingsError(
            f"--engine: {requested!r} is neither `tiny`, `scripted`, nor URLs separated by commas"
        ) from error
    return EngineProcesses(urls=urls, model=_model(urls, settings))


def _own(settings: Settings, room: EngineRoom) -> EngineProcesses:
    """Return the tiny engine, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    plan = room.plan(settings, port)
    if plan.python is not None and not build.is_whole(plan.python):
        raise errors.LaunchError(
            f"The engine's environment is missing or unfinished ({plan.python}). "
            f"{_remedy(plan.python, settings)} Or try `longlook up --engine scripted`, which needs no model."
        )
    model = settings.model if "model" in settings.model_fields_set else profiles.TINY.name
    return EngineProcesses(urls=(f"http://127.0.0.1:{port}",), model=model, plan=plan)


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
    """Return the model's name: as it is set, else as the first engine that answers says."""
    served = [url for url in urls if url != SCRIPTED_URL]
    if "model" in settings.model_fields_set or not served:
        return settings.model
    for url in served:
        if name := served_model(url, settings):
            return name
    output.event(
        "warning",
        f"no engine answers yet, so the model's name is not known: taken for {settings.model}. "
        "LONGLOOK_MODEL sets it.",
    )
    return settings.model


def served_model(url: str, settings: Settings) -> str | None:
    """Return the name of the model that the engine at ``url`` serves, None when it does not say."""
    _, body = client.probe(f"{url}/v1/models", seconds=_PROBE_SECONDS, bearer=_bearer(settings))
    listed = body.get("data")
    return str(listed[0]["id"]) if isinstance(listed, list) and listed else None


class Readiness:
    """Watches for the engines to become ready, and says so once for each."""

    def __init__(self, engines: EngineProcesses, settings: Settings) -> None:
        self._engines = engines
        self._settings = settings
        self._waiting = list(engines.urls)
        self._began_at = time.monotonic()
        self._reported_at = self._began_at

    @property
    def any_ready(self) -> bool:
        """Whether jobs can be answered."""
        return len(self._waiting) < len(self._engines.urls)

    @property
    def all_ready(self) -> bool:
        """Whether there is nothing left to wait for."""
        return not self._waiting

    def look(self) -> None:
        """Ask the engines that are not ready yet."""
        for url in tuple(self._waiting):
            if url == SCRIPTED_URL:
                self._waiting.remove(url)
                output.event("engine ready", "scripted: its answers are made up, no model runs")
            elif self._healthy(url):
                self._waiting.remove(url)
                name = self._engines.model
                output.event("engine ready", f"{name} at {url} after {self._elapsed():.0f} s")
        if self._waiting and time.monotonic() - self._reported_at > _PATIENCE_SECONDS:
            self._reported_at = time.monotonic()
            output.event("engine", f"not ready after {self._elapsed():.0f} s; jobs wait for it")

    def _healthy(self, url: str) -> bool:
        status, _ = client.probe(
            f"{url}/health", seconds=_PROBE_SECONDS, bearer=_bearer(self._settings)
        )
        return status == _OK

    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at


def _bearer(settings: Settings) -> str | None:
    return settings.engine_api_key.get_secret_value() if settings.engine_api_key else None
