"""``longlook config``: the effective settings, and the reference of all settings."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Final

import typer
from pydantic import SecretStr

from cli import formats, output
from cli.formats import Format
from core import errors
from core.settings import FILE_SUFFIX, PREFIX, Settings

app = typer.Typer(help="Show the settings.", no_args_is_help=True)

#: The sections of the settings, each with its first setting; they are the comments in :mod:`core.settings`.
SECTIONS: Final[Mapping[str, str]] = {
    "home": "Locations",
    "pepper": "Secrets and access",
    "url": "The command line as a client",
    "host": "The API",
    "model": "The model",
    "engine_urls": "The worker",
    "metrics_public": "Metrics",
    "engine_python": "Starting an engine",
    "queued_jobs_per_account": "Admission, retention, history",
    "webhook_allow": "Webhooks and outgoing requests",
    "cors_origins": "The live trace and its guards",
}
#: From this width on, a terminal has room for a table with the purposes.
_ROOMY: Final = 120
#: A password in a URL: everything between the user name and the host, or a parameter of the query.
_PASSWORD = re.compile(r"(://[^:/@]*:).*(?=@)|([?&](?:ssl)?password=)[^&]*")
#: Defaults that depend on the machine, as the reference writes them.
_DOCUMENTED_DEFAULTS = {"home": "`~/.longlook`"}


@dataclass(frozen=True)
class SettingRow:
    """One setting: its variable, its value (secrets are masked), where that comes from, its purpose and section."""

    variable: str
    value: str
    source: str
    description: str
    section: str


@app.callback()
def main() -> None:
    """Show the settings."""


@app.command("show")
def show(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILTER]...",
            help="Parts of names, such as webhook, or of sections, such as 'the api'. All must match.",
            show_default=False,
        ),
    ] = None,
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference as a Markdown table.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Show settings: the value of each, the source of the value, and its purpose."""
    if markdown:
        output.lines(documentation())
        return
    rows = matching(effective(os.environ), words or ())
    if not rows:
        raise errors.InvalidRequest(
            f"No setting and no section matches {' '.join(words or ())}. The sections are: "
            f"{'; '.join(SECTIONS.values())}.",
            param="filter",
        )
    if not output.for_people(as_json=as_json):
        output.as_json({row.variable: asdict(row) for row in rows})
        return
    limit = output.width()
    if limit is not None and limit < _ROOMY and formats.chosen() is Format.TABLE:
        _print_blocks(rows)
        return
    output.table(
        ("section", "variable", "value", "source", "purpose"),
        [(row.section, row.variable, row.value, row.source, row.description) for row in rows],
        wide={"section"},
    )


def matching(rows: Sequence[SettingRow], words: Sequence[str]) -> list[SettingRow]:
    """Return the settings whose variable or section contains each of ``words``, in any case."""
    wanted = [word.lower() for word in words]
    return [
        row
        for row in rows
        if all(word in row.variable.lower() or word in row.section.lower() for word in wanted)
    ]


def _print_blocks(rows: Sequence[SettingRow]) -> None:
    """Print settings for a narrow terminal: sections, variables, and purposes on lines of their own."""
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            output.event(section)
        source = "" if row.source == "default" else f"  ({row.source})"
        output.line(f"{row.variable}={row.value}{source}")
        output.field("    ", row.description)


def effective(environ: Mapping[str, str]) -> list[SettingRow]:
    """Return every setting for the environment ``environ``.

    Raises:
        core.errors.SettingsError: a setting is unknown or invalid.
    """
    settings = Settings.read(environ)
    section_of, section = {}, ""
    for name in Settings.model_fields:
        section = SECTIONS.get(name, section)
        section_of[name] = section
    return [
        SettingRow(
            variable=f"{PREFIX}{name.upper()}",
            value=_shown(getattr(settings, name)),
            source=_source(name, settings, environ),
            description=field.description or "",
            section=section_of[name],
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
