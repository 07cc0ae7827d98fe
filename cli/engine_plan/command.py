"""The command that serves a model, flag by flag, each with its reason. For SGLang 0.5.23."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from cli.engine_plan import launcher
from core import errors, profiles, settings

#: Streams that may wait in the engine. Above it SGLang's ``lpm`` falls back to first come, first served.
QUEUE = 128
#: Seconds an idle connection is kept. SGLang's 5 race with a worker that sends on one it kept.
KEEP_ALIVE = 75

#: While a grammar is compiled SGLang's scheduler looks for it once a step, and waits for so long.
GRAMMAR_POLL_SECONDS = 0.001
GRAMMAR_POLLS = 60_000

#: The flag that shows a key to everybody who lists processes.
_KEY_FLAG = "--api-key"


@dataclass(frozen=True)
class FlagReason:
    """One part of the command, a flag or a variable, and why it is there. A switch has no value."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class ServeOptions:
    """What is to be served, and where.

    Attributes:
        name: the served model's name, as jobs and answers carry it.
        path: a folder, or a name on the hub.
        extra: flags of the caller's, which come last and so win.
    """

    options: settings.Settings
    name: str
    profile: profiles.ModelProfile
    path: str
    host: str
    port: int
    extra: tuple[str, ...] = ()

    def given(self, *names: str) -> str | None:
        """Return the value of a flag among the caller's own, under any of its names."""
        for position, part in enumerate(self.extra):
            flag, _, value = part.partition("=")
            if flag in names:
                return value or next(iter(self.extra[position + 1 :]), "")
        return None


@dataclass(frozen=True)
class Plan:
    """A command that serves a model.

    Attributes:
        title: what is served on what, in a line.
        python: the interpreter, None for the one that runs now.
        variables: what its environment needs beside what it inherits.
        key: what callers have to send; it is in the environment, and never in the arguments.
    """

    title: str
    python: Path | None
    flags: tuple[FlagReason, ...]
    variables: tuple[FlagReason, ...]
    extra: tuple[str, ...]
    key: SecretStr | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments after the interpreter."""
        flags = (part for flag in self.flags for part in (flag.name, flag.value) if part)
        return (*self._program, *flags, *self.extra)

    @property
    def environment(self) -> dict[str, str]:
        """The variables as a mapping, with the key."""
        given = {variable.name: variable.value for variable in self.variables}
        return given | ({launcher.VARIABLE: self.key.get_secret_value()} if self.key else {})

    @property
    def _program(self) -> tuple[str, ...]:
        return (launcher.__file__,) if self.key else ("-m", "sglang.launch_server")

    def show(self, python: str) -> str:
        """Return the command for a person, one flag a line, ready for a shell, without its key."""
        lines = [f"{variable.name}={shlex.quote(variable.value)}" for variable in self.variables]
        if self.key:
            lines.append(f'{launcher.VARIABLE}="${launcher.VARIABLE}"')
        lines.append(shlex.join([python, *self._program]))
        lines += [
            f"  {flag.name} {shlex.quote(flag.value)}" if flag.value else f"  {flag.name}"
            for flag in self.flags
        ]
        if self.extra:
            lines.append("  " + shlex.join(self.extra))
        return " \\\n".join(lines)


def common(order: ServeOptions) -> list[FlagReason]:
    """Return the flags that every engine of this service has.

    Raises:
        core.errors.LaunchError: the caller's own flags hold a key.
    """
    images = {"image": order.options.max_images, "video": 0, "audio": 0}
    if order.given(_KEY_FLAG) is not None:
        raise errors.LaunchError(
            f"{_KEY_FLAG} shows the key to everybody who lists processes: set {launcher.VARIABLE} instead."
        )
    return [
        FlagReason("--model-path", order.path, "the checkpoint"),
        FlagReason(
            "--served-model-name", order.name, "the name in jobs and answers (LONGLOOK_MODEL)"
        ),
        FlagReason(
            "--host",
            order.host,
            "SGLang opens files and URLs for whoever reaches it: keep it private",
        ),
        FlagReason("--port", str(order.port), "where LONGLOOK_ENGINE_URLS points"),
        FlagReason(
            "--context-length",
            str(order.profile.context_tokens),
            "prompt and answer together; submit counts with the same number",
        ),
        FlagReason("--schedule-policy", "lpm", "questions about an image that is cached go first"),
        FlagReason(
            "--max-queued-requests",
            str(QUEUE),
            "the real queue is the database; with more waiting, lpm turns itself off",
        ),
        FlagReason(
            "--sampling-defaults", "openai", "the checkpoint's own defaults are near-greedy"
        ),
        FlagReason("--enable-cache-report", "", "without it usage says 0 cached tokens"),
        FlagReason(
            "--constrained-json-disable-any-whitespace",
            "",
            "in a JSON answer it could use up all tokens",
        ),
        FlagReason("--enable-metrics", "", "Prometheus at /metrics"),
        FlagReason(
            "--limit-mm-data-per-request",
            json.dumps(images, separators=(",", ":")),
            "LONGLOOK_MAX_IMAGES; no video, no audio",
        ),
    ]


def keep_alive() -> FlagReason:
    """Return the variable that keeps connections open for the worker's pool."""
    return FlagReason(
        "SGLANG_TIMEOUT_KEEP_ALIVE",
        str(KEEP_ALIVE),
        "idle connections are pooled; the default of 5 s closes them under a request",
    )


def grammar_waits() -> list[FlagReason]:
    """Return the variables that keep one stream's grammar from slowing down all others."""
    return [
        FlagReason(
            "SGLANG_GRAMMAR_POLL_INTERVAL",
            f"{GRAMMAR_POLL_SECONDS:g}",
            "seconds that each step of all streams waits for grammars while any is compiled; by default 5 ms",
        ),
        FlagReason(
            "SGLANG_GRAMMAR_MAX_POLL_ITERATIONS",
            str(GRAMMAR_POLLS),
            "a grammar that takes longer than this many steps is given up: a minute at the least",
        ),
    ]
