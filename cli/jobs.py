"""``longlook jobs``: list, show, watch, rerun, cancel, delete and erase jobs; their timelines, attempts and images."""

import csv
import enum
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cli import bulk, client, job_output, job_stats, job_waiting, lists, names, output
from core import errors
from core.settings import Settings
from jobs.lifecycle import Status

app = typer.Typer(
    help="List, show, watch, rerun, cancel, delete and erase jobs.", no_args_is_help=True
)

JobId = Annotated[
    str,
    typer.Argument(metavar="ID", help="job_…, its first characters, or @last.", show_default=False),
]

_EXPORT_PAGE: Final = 100


class ExportFormat(enum.StrEnum):
    """The format of an export."""

    CSV = "csv"
    JSONL = "jsonl"


Query = Annotated[
    list[str] | None,
    typer.Argument(
        help="Query, such as: status:failed error:timeout crashes:>0 'created:<2h' meta.case:42 '\"six of them\"'.",
        show_default=False,
    ),
]


@app.command("ls")
def ls(
    query: Query = None,
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
    account: Annotated[
        str | None,
        typer.Option(help="Only jobs of this account; for operators.", show_default=False),
    ] = None,
    limit: lists.Limit = lists.PAGE,
    after: Annotated[
        str | None, typer.Option(help="Only jobs after this one in the list.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All pages.")] = False,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest jobs first.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """List jobs, newest first, or with --oldest the other way round."""
    pairs = client.metadata(metadata or [])
    service = client.connect(Settings.read())
    pages = service.pages(
        "/v1/jobs",
        **{f"metadata[{name}]": value for name, value in pairs.items()},
        q=" ".join(query) if query else None,
        status=status,
        image=image,
        account=account,
        limit=limit,
        after=names.find(service, "job", after) if after else None,
        order="asc" if oldest else None,
    )
    page = next(pages)
    if every:
        further = [job for other in pages for job in other["data"]]
        page = page | {"data": page["data"] + further, "has_more": False}
    if not output.for_people(as_json=as_json):
        output.as_json(page)
        return
    job_output.table(page["data"])
    chosen = {
        "--status": [str(entry) for entry in status or []],
        "--metadata": metadata or [],
        "--image": [image] if image else [],
        "--account": [account] if account else [],
    }
    command = "jobs ls --oldest" if oldest else "jobs ls"
    lists.more(command, page, limit=limit, options=chosen, words=query or [])


@app.command("show")
def show(
    job_id: JobId,
    *,
    trace: Annotated[bool, typer.Option("--trace", help="Include the whole trace.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Show one job: its state, its attempts, its images and its result."""
    service = client.connect(Settings.read())
    job_id = names.find(service, "job", job_id)
    job = service.job(job_id)
    full_trace = service.trace(job_id) if trace else None
    if not output.for_people(as_json=as_json):
        output.as_json(job if full_trace is None else job | {"trace": full_trace})
        return
    attempts = service.look(f"{client.job_path(job_id)}/attempts")["data"] if job["attempt"] else []
    job_output.facts(job, attempts)
    for generation in full_trace["generations"] if full_trace else []:
        output.line()
        output.line(f"attempt {generation['attempt']}, sample {generation['index']}:")
        output.quote(generation["text"])
    if client.finished(job):
        output.line()
        job_output.result(job)
        if remedy := job_output.remedy(job):
            output.line(f"-> {remedy}")


@app.command("timeline")
def timeline(job_id: JobId, *, as_json: output.AsJson = False) -> None:
    """Show a job's changes, oldest first: who made each one, and when."""
    service = client.connect(Settings.read())
    path = f"{client.job_path(names.find(service, 'job', job_id))}/timeline"
    entries = [entry for page in service.pages(path) for entry in page["data"]]
    if not output.for_people(as_json=as_json):
        output.as_json({"object": "list", "data": entries})
        return
    output.table(
        ("at", "action", "status", "actor", "changes", "actor id"),
        [
            (
                entry["at"],
                entry["action"],
                str(entry["changes"].get("status") or ""),
                f"key:{entry['actor_name']}" if entry.get("actor_name") else entry["actor"],
                output.json_text(entry["changes"]),
                entry["actor"],
            )
            for entry in entries
        ],
        whole=3,
        wide={"actor id"},
    )


@app.command("attempts")
def attempts(job_id: JobId, *, as_json: output.AsJson = False) -> None:
    """Show a job's attempts: worker, engine and outcome of each."""
    service = client.connect(Settings.read())
    page = service.look(f"{client.job_path(names.find(service, 'job', job_id))}/attempts")
    if output.for_people(as_json=as_json):
        output.table(
            job_output.ATTEMPTS,
            map(job_output.attempt_row, page["data"]),
            whole=2,
            wide=("claimed",),
        )
    else:
        output.as_json(page)


@app.command("image")
def image(
    job_id: JobId,
    *,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Which of its images.")] = 1,
    target: Annotated[
        Path, typer.Option("-o", "--to", metavar="FILE", help="File to write; - is stdout.")
    ],
) -> None:
    """Save an image of a job, as the model sees it."""
    service = client.connect(Settings.read())
    job = service.job(names.find(service, "job", job_id))
    if number > len(job["images"]):
        raise errors.NotFound(
            f"{job['id']} has no image {number}: its images are numbered from 1 to {len(job['images'])}."
        )
    chosen = job["images"][number - 1]["id"]
    data = service.content(f"/v1/images/{chosen}/content")
    if str(target) == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        target.write_bytes(data)
    except OSError as error:
        raise errors.InvalidRequest(
            f"{target} cannot be written: {error.strerror}.", param="to"
        ) from error
    output.note(f"{chosen}: {output.size(len(data))} in {target}")


@app.command("export")
def export(
    query: Query = None,
    *,
    form: Annotated[
        ExportFormat, typer.Option("--format", help="One job per line, or per row.")
    ] = ExportFormat.JSONL,
    account: Annotated[
        str | None,
        typer.Option(help="Only jobs of this account; for operators.", show_default=False),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(help="Continue an export: its last job.", show_default=False),
    ] = None,
) -> None:
    """Print all fields of all jobs of a query, newest first, page by page.

    If it is interrupted, a line on stderr names the `--after` that continues it; a continued CSV has no header.
    """
    service = client.connect(Settings.read())
    last = names.find(service, "job", after) if after else None
    pages = service.pages(
        "/v1/jobs",
        q=" ".join(query) if query else None,
        account=account,
        limit=_EXPORT_PAGE,
        after=last,
    )
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if form is ExportFormat.CSV and not after:
        rows.writerow(job_output.FIELDS)
    try:
        for page in pages:
            for job in page["data"]:
                if form is ExportFormat.CSV:
                    rows.writerow(job_output.cells(job))
                else:
                    output.json_line(job)
                last = str(job["id"])
            sys.stdout.flush()
    except (errors.LonglookError, KeyboardInterrupt):
        if last is not None:
            output.note(f"interrupted; continue with: --after {last}")
        raise


@app.command("stats")
def stats(
    query: Query = None,
    *,
    by: Annotated[
        job_stats.By, typer.Option(help="What the sums are for; hour and day are of the creation.")
    ] = job_stats.By.ACCOUNT,
    account: Annotated[
        str | None,
        typer.Option(help="Only jobs of this account; for operators.", show_default=False),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Sum up the jobs of a query: counts, tokens, engine seconds and waits. It reads them page by page."""
    pages = client.connect(Settings.read()).pages(
        "/v1/jobs", q=" ".join(query) if query else None, account=account, limit=_EXPORT_PAGE
    )
    sums = job_stats.sums((job for page in pages for job in page["data"]), by)
    if not output.for_people(as_json=as_json):
        output.as_json({"object": "list", "data": sums})
        return
    output.table(
        (str(by), *job_stats.HEADINGS.values()),
        [
            (row[by], *(job_stats.cell(name, row[name]) for name in job_stats.HEADINGS))
            for row in sums
        ],
        wide=job_stats.NARROW if output.narrow() else job_stats.WIDE,
        ids=(str(by),) if by is job_stats.By.ACCOUNT else (),
    )


@app.command("watch")
def watch(job_id: JobId, *, as_json: output.AsJson = False) -> None:
    """Show a job's trace from the beginning as it grows, then the result. With --json: its events as JSON lines."""
    service = client.connect(Settings.read())
    people = output.for_people(as_json=as_json)
    job = job_waiting.follow(service, names.find(service, "job", job_id), people=people)
    job_output.show(job, people=people)


for _name, _command in bulk.COMMANDS.items():
    app.command(_name)(_command)


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
