"""Writes the pages of the documentation that come from the code: ``python -m tools.reference``.

A test compares the pages in the repository with what this module returns.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Final

import typer
from typer.cli import get_docs_for_click

from cli import config, main
from tools import openapi_pages, package_picture

ROOT: Final = Path(__file__).resolve().parent.parent
_TABLE: Final = re.compile(r"(<!-- settings -->\n).*?(\n<!-- /settings -->)", re.DOTALL)
_NOTE: Final = "This page is generated from the help texts of the commands.\n"


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
    text = get_docs_for_click(
        obj=command,
        ctx=typer.Context(command, info_name="longlook"),
        name="longlook",
        title="Command line",
    )
    heading, _, rest = text.partition("\n")
    lines = [line.rstrip() for line in f"{heading}\n\n{_NOTE}{rest}".splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip()) + "\n"


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
    sys.exit(write())
