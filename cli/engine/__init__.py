"""``longlook engine``: start the engine that fits this machine, and say why each flag; install what it needs."""

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
from cli.engine import install
from cli.engine_plan import devices, plan
from cli.engine_plan.command import Plan
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
        str,
        typer.Option(
            help="Checkpoint: a directory, or a name on the Hugging Face Hub.", show_default=False
        ),
    ] = "",
    host: Annotated[
        str, typer.Option(help="Address to listen on. It must be private.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 30000,
    use_scripted: Annotated[
        bool,
        typer.Option(
            "--scripted",
            help="Start the scripted engine instead, which needs neither a model nor SGLang.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the command without running it.")
    ] = False,
) -> None:
    """Start SGLang with flags that fit this machine, and explain each flag.

    With NVIDIA GPUs it serves QVQ-72B-Preview, without them the small tiny-qvq on the CPU.

    FLAGS are for SGLang, and win over ours. For the scripted engine they are NAME=VALUE.
    """
    if context.invoked_subcommand:
        return
    options = settings.Settings.read()
    if use_scripted:
        refuse_busy(host, port)
        serve_scripted(options, host, port, context.args)
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
    """Print the command and the reason for each of its flags and variables."""
    output.line(chosen.title)
    parts = (*chosen.flags, *chosen.variables)
    output.table(("flag", "reason"), [(part.name, part.reason) for part in parts])
    output.line()
    output.lines(chosen.show(python))
    output.line()


def refuse_missing(python: Path | None, options: settings.Settings) -> None:
    """Refuse to start where SGLang is not installed.

    Raises:
        core.errors.LaunchError: it is not installed; the message contains the remedy.
    """
    if python is None:
        if importlib.util.find_spec("sglang") is None:
            raise errors.LaunchError(
                "SGLang is not installed: run `pip install 'longlook[engine]'`, or set "
                "LONGLOOK_ENGINE_PYTHON to a Python that has it."
            )
        return
    executable = shutil.which(python)
    if executable is None or not build.is_whole(Path(executable)):
        remedy = (
            "LONGLOOK_ENGINE_PYTHON names it."
            if options.engine_python
            else "`longlook engine install` makes it (2.6 GB, two minutes)."
        )
        raise errors.LaunchError(
            f"The engine's Python is missing or unfinished: {python}. {remedy}"
        )


def refuse_busy(host: str, port: int) -> None:
    """Refuse to start on a port that is in use, which SGLang would notice half a minute later.

    Raises:
        core.errors.LaunchError: the port is in use, or the address does not belong to this machine.
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


def serve_scripted(
    options: settings.Settings, host: str, port: int, arguments: Sequence[str]
) -> None:
    """Serve the scripted engine over HTTP until SIGTERM, with options such as ``behavior=verbatim_loop``.

    Raises:
        core.errors.SettingsError: an option is unknown, or its value is invalid.
    """
    logs.configure(options, service="engine")
    key = options.engine_api_key
    query = "&".join((f"max_images={options.max_images}", *arguments))
    server.serve(
        host,
        port,
        options=scripted.ScriptedOptions.parse(f"scripted:?{query}"),
        profile=options.profile,
        model=options.model,
        api_key=key.get_secret_value() if key else None,
    )


def start(chosen: Plan, python: str) -> None:
    """Replace this process by SGLang, without the service's settings: SGLang needs none, and some are secrets."""
    sys.stdout.flush()
    environment = inherited(os.environ) | chosen.environment
    os.execvpe(python, [python, *chosen.arguments], environment)  # noqa: S606 - no shell is needed


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that SGLang inherits."""
    return {name: value for name, value in environ.items() if not name.startswith(settings.PREFIX)}
