"""``longlook engine``: start the engine that fits this machine, and say why each flag; install what it needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import scripted
from cli import output
from cli.engine import devices, install, plan
from cli.engine.command import Plan
from cli.environments import build
from core import errors, logs, settings
from scripted import server


class EngineGroup(TyperGroup):
    """``longlook engine`` with its commands. Without one it starts the engine, and other words are flags for SGLang."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer keeps the type to itself
        """Parse ``args``; those that neither are options nor follow a command stay in ``ctx.args``."""
        if args and args[0] in self.commands:
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = True
        return super(TyperGroup, self).parse_args(ctx, args)


app = typer.Typer(
    cls=EngineGroup,
    invoke_without_command=True,
    subcommand_metavar="[-- FLAGS] | COMMAND [ARGS]...",
)
app.command("install")(install.install)


@app.callback()
def engine(
    context: typer.Context,
    *,
    model_path: Annotated[
        str, typer.Option(help="Checkpoint: a folder, or a name on the hub.", show_default=False)
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; keep it private.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 30000,
    made_up: Annotated[
        bool, typer.Option("--scripted", help="Serve made-up answers instead: no model, no SGLang.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the command only.")] = False,
) -> None:
    """Start SGLang with the flags that fit this machine, and say why each.

    With NVIDIA GPUs it serves QVQ-72B-Preview, without them the small tiny-qvq on the CPU.

    FLAGS are for SGLang, and win over ours. For the scripted engine they are NAME=VALUE.
    """
    if context.invoked_subcommand:
        return
    options = settings.Settings.read()
    if made_up:
        refuse_busy(host, port)
        serve_script(options, host, port, context.args)
        return
    chosen = plan.plan(
        devices.find(os.environ),
        options,
        host=host,
        port=port,
        model_path=model_path,
        extra=context.args,
    )
    python = str(chosen.python or sys.executable)
    explain(chosen, python)
    if dry_run:
        return
    refuse_missing(chosen.python, options)
    refuse_busy(host, port)
    start(chosen, python)


def explain(chosen: Plan, python: str) -> None:
    """Print the command and why each of its parts is there."""
    output.line(chosen.title)
    parts = (*chosen.flags, *chosen.variables)
    output.table(("flag", "why"), [(part.name, part.why) for part in parts])
    output.line()
    output.lines(chosen.show(python))
    output.line()


def refuse_missing(python: Path | None, options: settings.Settings) -> None:
    """Refuse to start where SGLang is not installed.

    Raises:
        core.errors.LaunchError: with the command that installs it.
    """
    if python is None:
        if importlib.util.find_spec("sglang") is None:
            raise errors.LaunchError(
                "SGLang is not installed here: pip install 'longlook[engine]', or let "
                "LONGLOOK_ENGINE_PYTHON name the Python that has it."
            )
        return
    found = shutil.which(python)
    if found is None or not build.is_whole(Path(found)):
        remedy = (
            "LONGLOOK_ENGINE_PYTHON names it."
            if options.engine_python
            else "`longlook engine install` makes it (2.6 GB, two minutes)."
        )
        raise errors.LaunchError(
            f"The engine's Python is missing or unfinished: {python}. {remedy}"
        )


def refuse_busy(host: str, port: int) -> None:
    """Refuse to start on a port that is taken: SGLang would notice half a minute later.

    Raises:
        core.errors.LaunchError: it is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise errors.LaunchError(
                f"The engine cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}."
            ) from error


def serve_script(options: settings.Settings, host: str, port: int, given: Sequence[str]) -> None:
    """Serve the scripted engine over HTTP until SIGTERM, with options such as ``persona=loop``.

    Raises:
        core.errors.SettingsError: an option that is not known, or a value it cannot have.
    """
    logs.configure(options, service="engine")
    key = options.engine_api_key
    query = "&".join((f"max_images={options.max_images}", *given))
    server.serve(
        host,
        port,
        options=scripted.ScriptedOptions.parse(f"scripted:?{query}"),
        profile=options.profile,
        model=options.model,
        api_key=key.get_secret_value() if key else None,
    )


def start(chosen: Plan, python: str) -> None:
    """Become SGLang. It gets none of the service's settings: it needs none, and some are secrets."""
    sys.stdout.flush()
    environment = inherited(os.environ) | chosen.environment
    os.execvpe(python, [python, *chosen.arguments], environment)  # noqa: S606 - no shell is wanted


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that SGLang may see."""
    return {name: value for name, value in environ.items() if not name.startswith(settings.PREFIX)}
