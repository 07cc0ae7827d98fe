"""``longlook jobs``: look at jobs, watch one, and cancel one."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from cli import client, job_output, output
from core.settings import Settings
from jobs.lifecycle import Status

app = typer.Typer(help="List, show, watch and cancel jobs.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="job_…", show_default=False)]

_LONGEST = 60


@app.command("ls")
def ls(
    query: Annotated[
        list[str] | None,
        typer.Argument(
            help="Such as: status:failed error:timeout 'created:<2h' meta.case:42 '\"six of them\"'.",
            show_default=False,
        ),
    ] = None,
    *,
    status: Annotated[
        list[Status] | None, typer.Option(help="May be repeated.", show_default=False)
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="May be repeated: jobs with all of them."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="img_…, or the sha256 of the file.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Jobs on the page.")] = 20,
    after: Annotated[
        str | None, typer.Option(help="Only jobs older than this one.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    filters = {
        f"metadata[{name}]": value for name, value in client.metadata(metadata or []).items()
    }
    page = client.connect(Settings.read()).jobs(
        {
            **filters,
            "q": " ".join(query) if query else None,
            "status": status,
            "image": image,
            "limit": limit,
            "after": after,
        }
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
        again = shlex.join(query or [])
        output.line(
            f"more: longlook jobs ls {again}{' ' if again else ''}--after {page['last_id']}"
        )


@app.command("show")
def show(
    job_id: JobId,
    *,
    trace: Annotated[bool, typer.Option("--trace", help="With the whole trace.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one job."""
    service = client.connect(Settings.read())
    job = service.job(job_id)
    stored = service.trace(job_id) if trace else None
    if not output.for_people(as_json=as_json):
        output.as_json(job if stored is None else job | {"trace": stored})
        return
    for name in ("id", "status", "attempt", "created_at", "started_at", "finished_at", "question"):
        if job.get(name):
            output.field(f"{name:<12} ", str(job[name]))
    if wanted := (job.get("options") or {}).get("answer_format"):
        output.field(f"{'format':<12} ", output.json_text(wanted))
    for sample in stored["samples"] if stored else []:
        output.line()
        output.line(f"attempt {sample['attempt']}, sample {sample['index']}:")
        output.quote(sample["text"])
    if client.finished(job):
        output.line()
        job_output.result(job)


@app.command("watch")
def watch(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Show a job's trace from its beginning, as it grows, and how it comes out. In a pipe: its events."""
    service = client.connect(Settings.read())
    people = output.for_people(as_json=as_json)
    job_output.show(job_output.follow(service, job_id, people=people), people=people)


@app.command("cancel")
def cancel(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Cancel a job: a queued one at once, a running one within a second or two."""
    job = client.connect(Settings.read()).cancel(job_id)
    if output.for_people(as_json=as_json):
        word = job["status"] if client.finished(job) else "being cancelled"
        output.line(f"{job['id']} is {word}")
    else:
        output.as_json(job)


def _outcome(job: output.Json) -> str:
    """Return the answer, or the code of what went wrong."""
    if job.get("answer"):
        return str(job["answer"]["text"])
    return str(job["error"]["code"]) if job.get("error") else ""


def _short(text: str) -> str:
    """Return ``text`` on one line that fits into a table."""
    flat = output.inline(" ".join(text.split()))
    return flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…"
