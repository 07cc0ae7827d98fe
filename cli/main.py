"""The ``longlook`` command: its subcommands, and the exit codes of errors."""

import gc
import importlib
import importlib.metadata
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import typer

from cli import formats, output
from core import errors

#: Each command's module and its function or ``app``. Only the requested command is imported: SQLAlchemy alone
#: takes longer to import than `longlook submit` takes to run.
COMMANDS: Final = {
    "up": "cli.up:up",
    "engine": "cli.engine:app",
    "submit": "cli.submit:submit",
    "eval": "cli.evaluation:evaluate",
    "jobs": "cli.jobs:app",
    "batches": "cli.batches:app",
    "files": "cli.files:app",
    "operations": "cli.operations:app",
    "queue": "cli.queue:app",
    "engines": "cli.fleet:engines",
    "workers": "cli.fleet:workers",
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
    """Run the command line (the entry point of ``longlook``) and exit with one of the exit codes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    requested = [name for name in arguments[:1] if name in COMMANDS]
    try:
        # A collection of garbage looks through all that was imported so far, again and again.
        gc.disable()
        try:
            app = make_app(requested or COMMANDS)
        finally:
            gc.enable()
        app(args=arguments, prog_name="longlook")
    except errors.LonglookError as error:
        output.fault(fault_text(error))
        sys.exit(output.exit_code(error))
    except KeyboardInterrupt:
        # Pressed during the import of the command; later the command handles it.
        sys.exit(output.Exit.INTERRUPTED)


def make_app(names: Iterable[str]) -> typer.Typer:
    """Return the command line with the named commands."""
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
    return formats.with_formats(app)


def fault_text(error: errors.LonglookError) -> str:
    """Return an error as the terminal shows it, with the faults that its message does not contain."""
    lines = [f"longlook: {error}"]
    faults = error.faults if isinstance(error, errors.RequestError) else ()
    lines += [
        f"  {fault.pointer}: {fault.detail}" for fault in faults if fault.detail not in str(error)
    ]
    return "\n".join(lines)


def _show_version(shown: bool) -> None:  # noqa: FBT001 - called by the library
    if shown:
        output.line(importlib.metadata.version("longlook"))
        raise typer.Exit


def _longlook(
    *,
    version: Annotated[
        bool,
        # Eager: no command follows it.
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Longlook: questions about images, answered by a reasoning model in asynchronous jobs.

    Exit codes: 0 success, 1 the job or the start failed, 2 invalid usage, 3 no response, 4 invalid key, 130 Ctrl-C.
    """
