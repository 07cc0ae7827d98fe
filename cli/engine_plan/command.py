"""The command that serves a model, with a reason for each flag. For SGLang 0.5.23."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from cli.engine_plan import launcher
from core import errors, profiles, settings

#: Streams that may wait in the engine. With more, SGLang's ``lpm`` policy falls back to first come, first served.
QUEUE = 128
#: Seconds until an idle connection is closed. SGLang's default of 5 races with workers that reuse connections.
KEEP_ALIVE = 75

#: While a grammar is compiled, SGLang's scheduler polls for it once a step, this long and this often.
GRAMMAR_POLL_SECONDS = 0.001
GRAMMAR_POLLS = 60_000

#: This flag would show the key to every user of the machine in the list of processes.
_KEY_FLAG = "--api-key"


@dataclass(frozen=True)
class FlagReason:
    """A flag or variable of the command, and the reason for it. A switch has no value."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class ServeOptions:
    """What to serve, and where.

    Attributes:
        name: name of the served model in jobs and answers.
        path: a directory, or a name on the Hugging Face Hub.
        extra: the caller's flags, which come last and override the others.
    """

    options: settings.Settings
    name: str
    profile: profiles.ModelProfile
    path: str
    host: str
    port: int
    extra: tuple[str, ...] = ()

    def value_of(self, *names: str) -> str | None:
        """Return the value of a flag, under any of its names, among the caller's flags."""
        for position, part in enumerate(self.extra):
            flag, _, value = part.partition("=")
            if flag in names:
                return value or next(iter(self.extra[position + 1 :]), "")
        return None


@dataclass(frozen=True)
class Plan:
    """A command that serves a model.

    Attributes:
        title: one line with the model and the devices.
        python: the interpreter, or None for the current one.
        variables: additions to the inherited environment.
        key: API key that clients must send; passed in the environment, never in the arguments.
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
        """The variables, including the key."""
        variables = {variable.name: variable.value for variable in self.variables}
        return variables | ({launcher.VARIABLE: self.key.get_secret_value()} if self.key else {})

    @property
    def _program(self) -> tuple[str, ...]:
        return (launcher.__file__,) if self.key else ("-m", "sglang.launch_server")

    def show(self, python: str) -> str:
        """Return the command as shell input with one flag per line, without the key."""
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


def common(serve: ServeOptions) -> list[FlagReason]:
    """Return the flags that every engine needs.

    Raises:
        core.errors.LaunchError: the caller's flags contain a key.
    """
    images = {"image": serve.options.max_images, "video": 0, "audio": 0}
    if serve.value_of(_KEY_FLAG) is not None:
        raise errors.LaunchError(
            f"{_KEY_FLAG} exposes the key in the list of processes: set {launcher.VARIABLE} instead."
        )
    return [
        FlagReason("--model-path", serve.path, "the checkpoint"),
        FlagReason("--served-model-name", serve.name, "name in jobs and answers (LONGLOOK_MODEL)"),
        FlagReason(
            "--host",
            serve.host,
            "must be private: SGLang opens files and URLs for every client",
        ),
        FlagReason("--port", str(serve.port), "the port in LONGLOOK_ENGINE_URLS"),
        FlagReason(
            "--context-length",
            str(serve.profile.context_tokens),
            "prompt plus answer; submissions are checked against the same number",
        ),
        FlagReason("--schedule-policy", "lpm", "questions about cached images run first"),
        FlagReason(
            "--max-queued-requests",
            str(QUEUE),
            "the queue is in the database; with more waiting, lpm falls back to first come, first served",
        ),
        FlagReason(
            "--sampling-defaults", "openai", "the checkpoint's own defaults are near-greedy"
        ),
        FlagReason("--enable-cache-report", "", "without it, usage reports 0 cached tokens"),
        FlagReason(
            "--constrained-json-disable-any-whitespace",
            "",
            "whitespace in a JSON answer could use up all tokens",
        ),
        FlagReason("--enable-metrics", "", "Prometheus metrics at /metrics"),
        FlagReason(
            "--limit-mm-data-per-request",
            json.dumps(images, separators=(",", ":")),
            "LONGLOOK_MAX_IMAGES; no video, no audio",
        ),
    ]


def keep_alive() -> FlagReason:
    """Return the variable that keeps idle connections open for the worker's pool."""
    return FlagReason(
        "SGLANG_TIMEOUT_KEEP_ALIVE",
        str(KEEP_ALIVE),
        "workers reuse idle connections; the default of 5 s closes some during a request",
    )


def grammar_polling() -> list[FlagReason]:
    """Return the variables that prevent one stream's grammar from slowing down all others."""
    return [
        FlagReason(
            "SGLANG_GRAMMAR_POLL_INTERVAL",
            f"{GRAMMAR_POLL_SECONDS:g}",
            "seconds that each step waits while a grammar is compiled; the default is 5 ms",
        ),
        FlagReason(
            "SGLANG_GRAMMAR_MAX_POLL_ITERATIONS",
            str(GRAMMAR_POLLS),
            "steps until the compilation of a grammar is given up: at least a minute",
        ),
    ]
