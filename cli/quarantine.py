"""``longlook quarantine``: images that crashed engines, for operators."""

from typing import Annotated

import typer

from cli import client, lists, names, output
from core.settings import Settings

app = typer.Typer(help="List and release images that crashed engines.", no_args_is_help=True)


@app.command("ls")
def ls(
    *,
    limit: lists.Limit = lists.PAGE,
    after: lists.After = None,
    as_json: output.AsJson = False,
) -> None:
    """List images in quarantine, newest first."""
    service = client.connect(Settings.read())
    last = names.find(service, "img", after) if after else None
    page = service.look("/v1/quarantine", limit=limit, after=last)
    if not output.for_people(as_json=as_json):
        output.as_json(page)
        return
    output.table(
        ("image", "account", "crashes", "last", "since"),
        map(row, page["data"]),
        whole=4,
        wide=("since",),
        ids=("image", "account"),
    )
    lists.more("quarantine ls", page, limit=limit)


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
