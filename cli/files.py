"""``longlook files``: list and remove files."""

import urllib.parse
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli import client, lists, output
from core.settings import Settings

app = typer.Typer(
    help="List and remove files: inputs and results of batches, and images.", no_args_is_help=True
)


@app.command("ls")
def ls(
    *,
    purpose: Annotated[
        str | None,
        typer.Option(help="Only of this purpose, such as batch_output.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Entries per page.")] = lists.PAGE,
    after: lists.After = None,
    as_json: output.AsJson = False,
) -> None:
    """List files, newest first."""
    page = client.connect(Settings.read()).look(
        "/v1/files", purpose=purpose, limit=limit, after=after
    )
    if not output.for_people(as_json=as_json):
        output.as_json(page)
        return
    output.table(
        ("file", "purpose", "size", "created", "name"),
        map(_row, page["data"]),
        whole=4,
        wide=("created",) if output.narrow() else (),
        ids=("file",),
    )
    chosen = {} if purpose is None else {"--purpose": [purpose]}
    lists.more("files ls", page, limit=limit, options=chosen)


@app.command("rm")
def rm(
    file_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="file-…", show_default=False)
    ],
    *,
    as_json: output.AsJson = False,
) -> None:
    """Remove files. The input file of a batch that has not ended stays."""
    service = client.connect(Settings.read())
    for file_id in file_ids:
        removed = service.remove(f"/v1/files/{urllib.parse.quote(file_id, safe='')}")
        if output.for_people(as_json=as_json):
            output.line(f"removed {removed['id']}")
        else:
            output.json_line(removed)


def _shown(seconds: int | None) -> str:
    """Return a Unix time as text, empty without one."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ").removesuffix("+00:00")


def _row(file: output.Json) -> tuple[str, ...]:
    return (
        file["id"],
        file["purpose"],
        output.size(file["bytes"]),
        _shown(file["created_at"]),
        file["filename"],
    )
