"""``longlook config``: the effective settings, and the reference of all settings."""

import os
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Annotated

import typer
from pydantic import SecretStr

from cli import output
from core.settings import FILE_SUFFIX, PREFIX, Settings

app = typer.Typer(help="Show the settings.", no_args_is_help=True)

#: A password in a URL: everything between the user name and the host, or a parameter of the query.
_PASSWORD = re.compile(r"(://[^:/@]*:).*(?=@)|([?&](?:ssl)?password=)[^&]*")
#: Defaults that depend on the machine, as the reference writes them.
_DOCUMENTED_DEFAULTS = {"home": "`~/.longlook`"}


@dataclass(frozen=True)
class SettingRow:
    """One setting: its variable, its effective value (secrets are masked), the source of the value, and its purpose."""

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
        bool, typer.Option("--markdown", help="Print the reference as a Markdown table.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Show every setting: its value, the source of the value, and its purpose."""
    if markdown:
        output.lines(documentation())
        return
    rows = effective(os.environ)
    if not output.for_people(as_json=as_json):
        output.as_json({row.variable: vars(row) for row in rows})
        return
    output.table(
        ("variable", "value", "source", "purpose"),
        map(astuple, rows),
        whole=1,
        wide=("source",) if output.narrow() else (),
    )


def effective(environ: Mapping[str, str]) -> list[SettingRow]:
    """Return every setting for the environment ``environ``.

    Raises:
        core.errors.SettingsError: a setting is unknown or invalid.
    """
    settings = Settings.read(environ)
    return [
        SettingRow(
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
    """Return a Markdown table of all settings, identical on every machine."""
    defaults = Settings.read({})
    lines = ["| Variable | Default | What for |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        value = _shown(getattr(defaults, name))
        default = _DOCUMENTED_DEFAULTS.get(name) or (f"`{value}`" if value else "")
        text = str(field.description).replace("|", "\\|")
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {text} |")
    return "\n".join(lines)


def _shown(value: object) -> str:
    """Return ``value`` in the form of its variable; a secret is "(set)"."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "(set)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else _PASSWORD.sub(r"\1\2***", str(value))
