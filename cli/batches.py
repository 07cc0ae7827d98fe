"""``longlook batches``: list, show, cancel and repeat batches, and print their results."""

import urllib.parse
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli import client, lists, output
from core.settings import Settings

app = typer.Typer(
    help="List, show, cancel and repeat batches, and print their results.", no_args_is_help=True
)

BatchId = Annotated[str, typer.Argument(metavar="ID", help="batch_…", show_default=False)]
_PAGE = 100


@app.command("ls")
def ls(
    *,
    limit: lists.Limit = lists.PAGE,
    after: lists.After = None,
    as_json: output.AsJson = False,
) -> None:
    """List batches, newest first."""
    page = client.connect(Settings.read()).look("/v1/batches", limit=limit, after=after)
    if not output.for_people(as_json=as_json):
        output.as_json(page)
        return
    output.table(
        ("batch", "status", "completed", "failed", "total", "endpoint", "created"),
        map(_row, page["data"]),
        whole=5,
        wide=("created",) if output.narrow() else (),
        ids=("batch",),
    )
    lists.more("batches ls", page, limit=limit)


@app.command("show")
def show(batch_id: BatchId, *, as_json: output.AsJson = False) -> None:
    """Show a batch: its progress, its files, and the faults of its input file."""
    _print(client.connect(Settings.read()).look(_path(batch_id)), as_json=as_json)


@app.command("cancel")
def cancel(batch_id: BatchId, *, as_json: output.AsJson = False) -> None:
    """Cancel a batch; the results so far are kept."""
    _print(client.connect(Settings.read()).act(f"{_path(batch_id)}/cancel"), as_json=as_json)


@app.command("retry")
def retry(batch_id: BatchId, *, as_json: output.AsJson = False) -> None:
    """Run the failed lines of a batch that has ended again, as a new batch."""
    _print(client.connect(Settings.read()).act(f"{_path(batch_id)}/retry"), as_json=as_json)


@app.command("results")
def results(
    batch_id: BatchId,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only failed lines.")] = False,
) -> None:
    """Print the results of a batch so far, one line of JSON for each; at any time."""
    service = client.connect(Settings.read())
    status = "failed" if failed else None
    for page in service.pages(f"{_path(batch_id)}/results", status=status, limit=_PAGE):
        for result in page["data"]:
            output.json_line(result)


def _print(batch: output.Json, *, as_json: bool) -> None:
    if not output.for_people(as_json=as_json):
        output.as_json(batch)
        return
    counts = batch["request_counts"]
    progress = f"{counts['completed']} completed, {counts['failed']} failed of {counts['total']}"
    waiting = f" (waits: {batch['waiting_for']})" if batch["waiting_for"] else ""
    output.field("batch    ", batch["id"])
    output.field("status   ", f"{batch['status']}{waiting}")
    output.field("lines    ", progress)
    for label, name in (
        ("endpoint ", "endpoint"),
        ("input    ", "input_file_id"),
        ("output   ", "output_file_id"),
        ("errors   ", "error_file_id"),
        ("retry of ", "retry_of"),
    ):
        if batch[name]:
            output.field(label, batch[name])
    faults = batch["errors"] or {"data": [], "total": 0}
    for fault in faults["data"]:
        place = "file" if fault["line"] is None else f"line {fault['line']}"
        output.line(f"{place}: {fault['param'] or fault['code']}: {fault['message']}")
    left_out = faults["total"] - len(faults["data"])
    if left_out > 0:
        output.note(f"{left_out} more faults")


def _row(batch: output.Json) -> tuple[str, ...]:
    counts = batch["request_counts"]
    created = datetime.fromtimestamp(batch["created_at"], UTC).isoformat(sep=" ")
    return (
        batch["id"],
        batch["status"],
        *(str(counts[name]) for name in ("completed", "failed", "total")),
        batch["endpoint"],
        created.removesuffix("+00:00"),
    )


def _path(batch_id: str) -> str:
    return f"/v1/batches/{urllib.parse.quote(batch_id, safe='')}"
