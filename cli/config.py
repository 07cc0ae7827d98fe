"""``longlook config``: the settings in effect, and the documentation of all of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer
from pydantic import SecretStr

from cli import output
from core.settings import FILE_SUFFIX, PREFIX, Settings

app = typer.Typer(help="Show the settings.", no_args_is_help=True)

#: A password in a URL: between a user's name and the host, whatever it holds, or in the query.
_PASSWORD = re.compile(r"(://[^:/@]*:).*(?=@)|([?&](?:ssl)?password=)[^&]*")
#: Settings whose default belongs to the machine it is shown on, as the documentation says it.
_OWN_WORDS = {"home": "`~/.longlook`"}


@dataclass(frozen=True)
class Row:
    """One setting: its variable, the value in effect with secrets masked, where that is from, what it is for."""

    variable: str
    value: str
    source: str
    description: str


@app.callback()
def main() -> None:
    """Show the settings."""


@app.command("show")
def show(
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The table of the README: defaults and descriptions.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")] = False,
) -> None:
    """Show every setting: its value, where that comes from, what it is for."""
    if markdown:
        output.lines(documentation())
        return
    rows = effective(os.environ)
    if not output.for_people(as_json=as_json):
        output.as_json({row.variable: vars(row) for row in rows})
        return
    output.table(
        ("variable", "value", "source", "what for"),
        [
            (
                row.variable,
                row.value,
                row.source,
                row.description,
            )
            for row in rows
        ],
    )


def effective(environ: Mapping[str, str]) -> list[Row]:
    """Return every setting as ``environ`` makes it.

    Raises:
        core.errors.SettingsError: the environment is not usable.
    """
    settings = Settings.read(environ)
    return [
        Row(
            variable=f"{PREFIX}{name.upper()}",
            value=_shown(getattr(settings, name)),
            source=_source(name, settings, environ),
            description=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def _source(name: str, settings: Settings, environ: Mapping[str, str]) -> str:
    if name not in settings.model_fields_set:
        return "default"
    return "file" if environ.get(f"{PREFIX}{name + FILE_SUFFIX}".upper()) else "environment"


def documentation() -> str:
    """Return the table of all settings in Markdown, the same on every machine."""
    defaults = Settings.read({})
    lines = ["| Variable | Default | What for |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        value = _shown(getattr(defaults, name))
        default = _OWN_WORDS.get(name) or (f"`{value}`" if value else "")
        text = str(field.description).replace("|", "\\|")
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {text} |")
    return "\n".join(lines)


def _shown(value: object) -> str:
    """Return a value as its variable would be written; of a secret only that there is one."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "(set)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else _PASSWORD.sub(r"\1\2***", str(value))
