"""The output format of a command: its options, and the format that the running command uses."""

import contextvars
import enum
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from core import errors


class Format(enum.StrEnum):
    """How a command prints data."""

    #: Columns, cut to the width of a terminal; in a pipe, nothing is cut.
    TABLE = "table"
    #: As ``table`` with all columns, and no cell is cut.
    WIDE = "wide"
    #: One JSON document, as the API returns it.
    JSON = "json"
    #: One JSON document per entry of a list, or per event.
    JSONL = "jsonl"
    #: All columns, separated by tabs.
    TSV = "tsv"


#: The option ``--json`` of a command. :func:`with_formats` gives each command that has it the option ``-o``.
AsJson = Annotated[bool, typer.Option("--json", help="Short for `-o json`.")]

_Option = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="Format of the output; default: table, also in a pipe."),
]
_JSON_PARAMETER: Final = "as_json"
_PARAMETER: Final = "output_format"

_chosen: contextvars.ContextVar[Format] = contextvars.ContextVar("format", default=Format.TABLE)


def chosen() -> Format:
    """Return the format of the running command."""
    return _chosen.get()


def choose(requested: Format | None, *, as_json: bool = False) -> None:
    """Set the format of the running command.

    Raises:
        core.errors.InvalidRequest: ``--json`` contradicts ``-o``.
    """
    if as_json and requested not in (None, Format.JSON):
        raise errors.InvalidRequest(
            f"--json and -o {requested} contradict each other.", param="output"
        )
    _chosen.set(Format.JSON if as_json else requested or Format.TABLE)


def with_formats(app: typer.Typer) -> typer.Typer:
    """Give each command with the option ``--json``, in ``app`` and below it, the option ``-o``; return ``app``."""
    for group in app.registered_groups:
        if group.typer_instance is not None:
            with_formats(group.typer_instance)
    # A group can be a command, too, such as `longlook queue`.
    own = app.registered_callback
    if own is not None and own.callback is not None:
        own.callback = _formatted(own.callback)
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _formatted(command.callback)
    return app


def _formatted(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``command`` with the option ``-o``, if it has ``--json`` and does not have ``-o`` yet."""
    signature = inspect.signature(command, eval_str=True)
    parameters = dict(signature.parameters)
    if _JSON_PARAMETER not in parameters or _PARAMETER in parameters:
        return command

    @functools.wraps(command)
    def choosing(*values: Any, **named: Any) -> Any:  # noqa: ANN401 - of any command
        choose(named.pop(_PARAMETER), as_json=bool(named[_JSON_PARAMETER]))
        return command(*values, **named)

    option = inspect.Parameter(
        _PARAMETER, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Option
    )
    ordered = []
    for name, parameter in parameters.items():
        ordered += [option, parameter] if name == _JSON_PARAMETER else [parameter]
    vars(choosing)["__signature__"] = signature.replace(parameters=ordered)
    return choosing
