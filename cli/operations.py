"""``longlook operations``: list, show and cancel operations on many jobs."""

from typing import Annotated, Final

import typer

from cli import bulk, client, lists, names, output
from core.settings import Settings

_LEFT_PAGE: Final = 100

app = typer.Typer(
    help="List, show and cancel operations on many jobs; `longlook jobs rerun QUERY` starts one.",
    no_args_is_help=True,
)

OperationId = Annotated[
    str, typer.Argument(metavar="ID", help="op_…, or its first characters.", show_default=False)
]


@app.command("ls")
def ls(
    *,
    limit: lists.Limit = lists.PAGE,
    after: lists.After = None,
    as_json: output.AsJson = False,
) -> None:
    """List operations, newest first."""
    service = client.connect(Settings.read())
    last = names.find(service, "op", after) if after else None
    page = service.look("/v1/operations", limit=limit, after=last)
    if not output.for_people(as_json=as_json):
        output.as_json(page)
        return
    output.table(
        ("operation", "action", "status", "done", "skipped", "failed", "total", "key", "query"),
        map(row, page["data"]),
        whole=7,
        wide=("skipped", "key"),
        ids=("operation",),
    )
    lists.more("operations ls", page, limit=limit)


@app.command("show")
def show(
    operation_id: OperationId,
    *,
    left: Annotated[
        bool, typer.Option("--left", help="List the jobs that were skipped or failed.")
    ] = False,
    after: Annotated[
        str | None, typer.Option(help="With --left: only jobs after this one.", show_default=False)
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Show an operation and its progress."""
    service = client.connect(Settings.read())
    operation_id = names.find(service, "op", operation_id)
    path = names.path("/v1/operations", operation_id)
    operation = service.look(path)
    last = names.find(service, "job", after) if after else None
    jobs: output.Json = {"data": []}
    if left:
        jobs = service.look(f"{path}/jobs", left="true", limit=_LEFT_PAGE, after=last)
    if not output.for_people(as_json=as_json):
        output.as_json({**operation, "left": jobs["data"]} if left else operation)
        return
    for name in ("action", "query", "key_name", "created_at", "finished_at"):
        if operation[name]:
            output.field(f"{name:<12} ", str(operation[name]))
    output.line(bulk.progress(operation))
    for job in jobs["data"]:
        output.line(f"{job['job_id']}  {job['result']}  {job['reason']}")
    if jobs.get("has_more"):
        options = {"--after": [str(jobs["last_id"])]}
        output.hint(f"operations show {operation_id} --left", options)


@app.command("cancel")
def cancel(operation_id: OperationId, *, as_json: output.AsJson = False) -> None:
    """Cancel an operation: it changes no further job."""
    service = client.connect(Settings.read())
    path = names.path("/v1/operations", names.find(service, "op", operation_id))
    operation = service.act(f"{path}/cancel")
    if output.for_people(as_json=as_json):
        output.line(bulk.progress(operation))
    else:
        output.as_json(operation)


def row(operation: output.Json) -> tuple[str, ...]:
    """Return the table row of an operation."""
    names = ("id", "action", "status", "done", "skipped", "failed", "total", "key_name", "query")
    return tuple("" if operation[name] is None else str(operation[name]) for name in names)
