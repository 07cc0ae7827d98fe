"""Writes the pages of the documentation that come from the code: ``python -m tools.reference``.

A test compares the pages in the repository with what this module returns.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from cli import config, main
from tools import openapi_pages, package_picture

ROOT: Final = Path(__file__).resolve().parent.parent
_TABLE: Final = re.compile(r"(<!-- settings -->\n).*?(\n<!-- /settings -->)", re.DOTALL)
#: Options that every command, or every program made with Typer, has.
_COMMON: Final = {"--help", "--install-completion", "--show-completion"}
_NOTE: Final = (
    "This page is generated from the help texts of the commands. Every command has `--help`."
)


def pages() -> dict[Path, str]:
    """Return the text of each generated page by its path in the repository."""
    document = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    reference = Path("docs", "reference")
    return {
        reference / "api.md": openapi_pages.operations_page(document),
        reference / "schemas.md": openapi_pages.schemas_page(document),
        reference / "cli.md": command_line(),
        reference / "settings.md": settings(reference / "settings.md"),
        Path("docs", "explanation", "rooms.svg"): package_picture.draw(
            project["tool"]["importlinter"]["contracts"]
        ),
    }


def command_line() -> str:
    """Return the page of all commands."""
    command = typer.main.get_command(main.make_app(main.COMMANDS))
    return "\n\n".join(["# Command line", _NOTE, *_command(command, "longlook", level=1)]) + "\n"


def _command(command: Any, name: str, *, level: int) -> Iterator[str]:  # noqa: ANN401 - Typer's own classes are private
    """Return the blocks of a command and of those below it."""
    context = typer.Context(command, info_name=name)
    if level > 1:
        yield f"{'#' * level} {name}"
    yield str(command.help or "")
    yield f"```console\n$ {' '.join([name, *command.collect_usage_pieces(context)])}\n```"
    records = [
        record
        for parameter in command.get_params(context)
        if _COMMON.isdisjoint(parameter.opts) and (record := parameter.get_help_record(context))
    ]
    if records:
        yield "\n".join(
            f"- `{parameter}`: {' '.join(text.split())}".removesuffix(": ")
            for parameter, text in records
        )
    for child, below in getattr(command, "commands", {}).items():
        yield from _command(below, f"{name} {child}", level=level + 1)


def settings(page: Path) -> str:
    """Return the page of the settings with its table as the settings are now."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return _TABLE.sub(lambda found: f"{found[1]}{config.documentation()}{found[2]}", text)


def write() -> None:
    """Write every page that has changed."""
    for path, text in pages().items():
        target = ROOT / path
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            print(f"Wrote {path}")


if __name__ == "__main__":
    write()
