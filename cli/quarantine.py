"""``longlook quarantine``: images over which engines died, for operators."""

from __future__ import annotations

import urllib.parse
from typing import Annotated

import typer

from cli import client, output
from core.settings import Settings

app = typer.Typer(help="Images that took engines down.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")]


@app.command("ls")
def ls(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Images on the page.")] = 20,
    after: Annotated[
        str | None, typer.Option(help="Only images older than this one.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the images that are refused, newest first."""
    beyond = {} if after is None else {"after": after}
    held = client.connect(Settings.read()).look("/v1/quarantine", limit=limit, **beyond)
    if not output.for_people(as_json=as_json):
        output.as_json(held)
        return
    output.table(("image", "account", "crashes", "last", "since"), map(row, held["data"]))
    if held["has_more"]:
        output.note(f"More: longlook quarantine ls --after {held['last_id']}")


@app.command("release")
def release(
    *, image: Annotated[str, typer.Argument(metavar="IMAGE", help="img_…")], as_json: AsJson = False
) -> None:
    """Let an image be asked about again."""
    quoted = urllib.parse.quote(image, safe="")
    released = client.connect(Settings.read()).act(f"/v1/quarantine/{quoted}/release")
    if output.for_people(as_json=as_json):
        output.event("ok", f"{image} may be asked about again")
    else:
        output.as_json(released)


def row(held: output.Json) -> tuple[str, ...]:
    """Return an image's row of the table."""
    return (
        held["image_id"],
        held["account_id"],
        str(held["crashes"]),
        held["last_crashed_at"],
        held["quarantined_at"],
    )
