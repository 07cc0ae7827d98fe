"""The ``longlook`` command: which commands there are, and how faults end them."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import typer

from cli import output
from cli.engine import devices, plan
from cli.launch.engine import EngineRoom, Plan
from core import errors
from core.settings import Settings

#: Where each command is: a function, or an ``app`` with commands of its own. Only the one that is asked
#: for is imported; SQLAlchemy alone takes longer than `longlook submit` does.
COMMANDS: Final = {
    "up": "cli.up:up",
    "engine": "cli.engine:app",
    "submit": "cli.submit:submit",
    "jobs": "cli.jobs:app",
    "queue": "cli.queue:queue",
    "quarantine": "cli.quarantine:app",
    "usage": "cli.usage:usage",
    "accounts": "cli.accounts:app",
    "keys": "cli.keys:app",
    "webhooks": "cli.webhooks:app",
    "secrets": "cli.secrets:app",
    "traces": "cli.traces:app",
    "db": "cli.db:app",
    "doctor": "cli.doctor:doctor",
    "config": "cli.config:app",
    "openapi": "cli.openapi:openapi",
}


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: the entry point of ``longlook``. Ends the process with one of the exit codes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    wanted = [name for name in arguments[:1] if name in COMMANDS]
    try:
        make_app(wanted or COMMANDS)(args=arguments, prog_name="longlook")
    except errors.LonglookError as error:
        output.fault(reported(error))
        sys.exit(output.exit_code(error))
    except KeyboardInterrupt:
        # While the command was still being imported; from then on it is the command's own matter.
        sys.exit(output.Exit.INTERRUPTED)


def make_app(names: Iterable[str]) -> typer.Typer:
    """Return the command line with the commands called so."""
    app = typer.Typer(
        name="longlook",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_longlook)
    for name in names:
        module, _, attribute = COMMANDS[name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def reported(error: errors.LonglookError) -> str:
    """Return a fault as the terminal shows it, with the single faults that its sentence leaves out."""
    lines = [f"longlook: {error}"]
    faults = error.faults if isinstance(error, errors.RequestError) else ()
    lines += [
        f"  {fault.pointer}: {fault.detail}" for fault in faults if fault.detail not in str(error)
    ]
    return "\n".join(lines)


def _longlook(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Longlook: a long look at an image by a reasoning model, as a job.

    Exit codes: 0 done, 1 the job or the start failed, 2 wrong usage, 3 no answer, 4 wrong key, 130 Ctrl-C.
    """
    context.obj = EngineRoom(plan=_plan_small_engine, devices=devices.find)
    if version:
        output.line(importlib.metadata.version("longlook"))
        raise typer.Exit


def _plan_small_engine(settings: Settings, port: int) -> Plan:
    return plan.plan((), settings, host="127.0.0.1", port=port)
