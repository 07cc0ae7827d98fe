"""``longlook quarantine``: images that crashed engines, for operators."""

from typing import Annotated

import typer

from cli import client, names, output
from core.settings import Settings

app = typer.Typer(help="List and release images that crashed engines.", no_args_is_help=True)


@app.command("ls")
def ls(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Images per page.")] = 20,
    after: Annotated[
        str | None, typer.Option(help="Only images older than this image.", show_default=False)
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """List images in quarantine, newest first."""
    page = client.connect(Settings.read()).look("/v1/quarantine", limit=limit, after=after)
    if not output.for_people(as_json=as_json):
        output.as_json(page)
        return
    output.table(("image", "account", "crashes", "last", "since"), map(row, page["data"]))
    if page["has_more"]:
        output.note(f"More: longlook quarantine ls --after {page['last_id']}")


@app.command("release")
def release(
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="img_…, or its first characters.")],
    as_json: output.AsJson = False,
) -> None:
    """Release an image, so that new jobs may use it."""
    service = client.connect(Settings.read())
    image = names.find(service, "img", image)
    released = service.act(f"{names.path('/v1/quarantine', image)}/release")
    if output.for_people(as_json=as_json):
        output.event("ok", f"{image} is released")
    else:
        output.as_json(released)


def row(image: output.Json) -> tuple[str, ...]:
    """Return the table row of an image."""
    columns = ("image_id", "account_id", "crashes", "last_crashed_at", "quarantined_at")
    return tuple(str(image[name]) for name in columns)
