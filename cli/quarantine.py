"""``longlook quarantine``: images over which engines died, for operators."""

from __future__ import annotations

import urllib.parse
from typing import Annotated

import typer

from cli import client, output
from jobs.settings import Settings

app = typer.Typer(help="Images that took engines down.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")]


@app.command("ls")
def ls(*, as_json: AsJson = False) -> None:
    """List the images that are refused."""
    held = client.connect(Settings.read()).look("/v1/quarantine")
    if not output.for_people(as_json=as_json):
        output.as_json(held)
        return
    output.table(("image", "account", "deaths", "last", "since"), map(row, held["data"]))


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
        str(held["deaths"]),
        held["died_at"],
        held["quarantined_at"],
    )
