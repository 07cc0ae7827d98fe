"""``longlook jobs``: list, show, watch, rerun, cancel, delete and erase jobs."""

import shlex
from typing import Annotated

import typer

from cli import bulk, client, job_output, output
from core.settings import Settings
from jobs.lifecycle import Status

app = typer.Typer(
    help="List, show, watch, rerun, cancel, delete and erase jobs.", no_args_is_help=True
)

JobId = Annotated[str, typer.Argument(metavar="ID", help="job_…", show_default=False)]

_MAX_CELL = 60


@app.command("ls")
def ls(
    query: Annotated[
        list[str] | None,
        typer.Argument(
            help="Query, such as: status:failed error:timeout 'created:<2h' meta.case:42 '\"six of them\"'.",
            show_default=False,
        ),
    ] = None,
    *,
    status: Annotated[
        list[Status] | None,
        typer.Option(help="Only jobs with this status. Repeatable.", show_default=False),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Only jobs with this metadata. Repeatable; all must match."
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Only jobs about this image: img_…, or the SHA-256 of the file.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Jobs per page.")] = 20,
    after: Annotated[
        str | None, typer.Option(help="Only jobs older than this job.", show_default=False)
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """List jobs, newest first."""
    filters = {
        f"metadata[{name}]": value for name, value in client.metadata(metadata or []).items()
    }
    page = client.connect(Settings.read()).look(
        "/v1/jobs",
        **filters,
        q=" ".join(query) if query else None,
        status=status,
        image=image,
        limit=limit,
        after=after,
    )
    if not output.for_people(as_json=as_json):
        output.as_json(page)
        return
    output.table(
        ("id", "status", "created", "question", "answer"),
        [
            (
                str(job["id"]),
                str(job["status"]),
                str(job["created_at"])[5:16].replace("T", " "),
                _short(str(job["question"])),
                _short(_outcome(job)),
            )
            for job in page["data"]
        ],
        whole=3,
    )
    if page.get("has_more"):
        repeated = shlex.join(query or [])
        output.line(
            f"more: longlook jobs ls {repeated}{' ' if repeated else ''}--after {page['last_id']}"
        )


@app.command("show")
def show(
    job_id: JobId,
    *,
    trace: Annotated[bool, typer.Option("--trace", help="Include the whole trace.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Show one job."""
    service = client.connect(Settings.read())
    job = service.job(job_id)
    full_trace = service.trace(job_id) if trace else None
    if not output.for_people(as_json=as_json):
        output.as_json(job if full_trace is None else job | {"trace": full_trace})
        return
    for name in ("id", "status", "attempt", "created_at", "started_at", "finished_at", "question"):
        if job.get(name):
            output.field(f"{name:<12} ", str(job[name]))
    if answer_format := (job.get("options") or {}).get("answer_format"):
        output.field(f"{'format':<12} ", output.json_text(answer_format))
    for generation in full_trace["generations"] if full_trace else []:
        output.line()
        output.line(f"attempt {generation['attempt']}, sample {generation['index']}:")
        output.quote(generation["text"])
    if client.finished(job):
        output.line()
        job_output.result(job)


@app.command("watch")
def watch(job_id: JobId, *, as_json: output.AsJson = False) -> None:
    """Show a job's trace from the beginning as it grows, then the result. In a pipe: the job's events as JSON lines."""
    service = client.connect(Settings.read())
    people = output.for_people(as_json=as_json)
    job_output.show(job_output.follow(service, job_id, people=people), people=people)


app.command("rerun")(bulk.rerun)
app.command("cancel")(bulk.cancel)
app.command("rm")(bulk.remove)
app.command("run-now")(bulk.run_now)


def _outcome(job: output.Json) -> str:
    """Return the answer, or the error code."""
    if job.get("answer"):
        return str(job["answer"]["text"])
    return str(job["error"]["code"]) if job.get("error") else ""


def _short(text: str) -> str:
    """Return ``text`` on one line, cut to the width of a table cell."""
    flat = output.inline(" ".join(text.split()))
    return flat if len(flat) <= _MAX_CELL else f"{flat[: _MAX_CELL - 1]}…"


@app.command("erase")
def erase(
    query: Annotated[
        str,
        typer.Argument(
            help="Query, as for `jobs ls`: meta.customer:42 'created:<30d'.", show_default=False
        ),
    ],
    *,
    account: Annotated[
        str | None,
        typer.Option(help="Only jobs of this account, by name.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the jobs.")] = False,
    confirm: Annotated[
        str | None,
        typer.Option(help="Number of jobs, as --dry-run shows it; otherwise you type it."),
    ] = None,
) -> None:
    """Erase the content of all finished jobs that match, directly in the database.

    Question, answer, traces, metadata, and the copies in webhooks and the search index are removed, and images that no
    other job needs. Usage and times remain. An interrupted command continues when you repeat it.
    """
    from cli import job_erasure  # noqa: PLC0415 - SQLAlchemy's import takes longer than the other commands

    job_erasure.erase(query, account=account, dry_run=dry_run, confirmed=confirm)
