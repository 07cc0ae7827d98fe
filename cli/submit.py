"""``longlook submit``: one question from the command line, waited for or watched, or several about the same images."""

from __future__ import annotations

import itertools
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import client, job_output, output
from core import errors, profiles
from core.settings import Settings
from jobs.lifecycle import Priority, Status


def submit(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE... QUESTION...",
            help="Files, and what to ask about them; each question is a job.",
            show_default=False,
        ),
    ],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Show the trace as it grows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")] = False,
    detail: Annotated[
        str | None, typer.Option(help=f"{', '.join(profiles.DETAIL_TOKENS)}.", show_default=False)
    ] = None,
    max_output_tokens: Annotated[int | None, typer.Option(show_default=False)] = None,
    temperature: Annotated[float | None, typer.Option(show_default=False)] = None,
    top_p: Annotated[float | None, typer.Option(show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(show_default=False)] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="So many vote on the answer, at most.", show_default=False),
    ] = None,
    answer_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Of the answer: number, boolean, choice:red,green or json:@schema.json.",
            show_default=False,
        ),
    ] = None,
    priority: Annotated[Priority | None, typer.Option(show_default=False)] = None,
    deadline_seconds: Annotated[int | None, typer.Option(show_default=False)] = None,
    max_attempts: Annotated[int | None, typer.Option(show_default=False)] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=on|off",
            help="loop, budget, convergence, language or verify. May be repeated.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key is the same job.", show_default=False)
    ] = None,
) -> None:
    """Submit a job, or several about the same images. Without --wait and --stream they come back at once."""
    images, questions = _distinct(given)
    options = {
        "detail": detail,
        "max_output_tokens": max_output_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "samples": samples,
        "answer_format": client.answer_format(answer_format) if answer_format else None,
        "priority": priority,
        "deadline_seconds": deadline_seconds,
        "max_attempts": max_attempts,
        "guards": client.switches(guard or []) or None,
        "metadata": client.metadata(metadata or []) or None,
    }
    requested = {name: value for name, value in options.items() if value is not None}
    if stream and len(questions) > 1:
        raise errors.InvalidRequest("--stream shows one trace; use --wait.", param="stream")
    service = client.connect(Settings.read())
    people = output.for_people(as_json=as_json)
    if len(questions) > 1:
        group = service.submit_group(
            images, questions, options=requested, idempotency_key=idempotency_key
        )
        if people:
            job_output.warnings(group)
        _show_group(_waited(service, group) if wait else group, people=people)
        return
    job = service.submit(images, questions[0], options=requested, idempotency_key=idempotency_key)
    if (wait or stream) and people:
        output.note(f"{job['id']} is {job['status']}; Ctrl-C leaves it to itself")
        job_output.warnings(job)
    if stream:
        job = job_output.follow(service, str(job["id"]), people=people)
    elif wait:
        job = service.wait(str(job["id"]))
    job_output.show(job, people=people)


def _distinct(given: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return images and questions: the first is an image, as are the files that follow it; the rest are questions.

    Raises:
        core.errors.InvalidRequest: there is no question, or one that looks like a file that is not there.
    """
    further = list(itertools.takewhile(lambda word: Path(word).is_file(), given[1:]))
    questions = list(given[1 + len(further) :])
    if not questions:
        raise errors.InvalidRequest("A question is missing.", param="question")
    for question in questions:
        kind = mimetypes.guess_type(question)[0] or ""
        if kind.startswith("image/") and not any(char.isspace() for char in question):
            raise errors.InvalidRequest(f"There is no file {question}.", param="image")
    return [Path(word) for word in (given[0], *further)], questions


def _waited(service: client.Client, group: output.Json) -> output.Json:
    """Return a group when all of its jobs have finished."""
    for job in group["jobs"]:
        service.wait(str(job["id"]))
    return service.group(str(group["id"]))


def _show_group(group: output.Json, *, people: bool) -> None:
    """Print a group as it is now; one in which a job did not succeed ends the command with an exit code of its own."""
    if not people:
        output.as_json(group)
    else:
        for job in group["jobs"]:
            output.field(f"{job['id']} is {job['status']}: ", str(job["question"]))
            if client.finished(job):
                job_output.result(job)
        output.line(f"longlook jobs ls group:{group['id']}")
    ends = {job["status"] for job in group["jobs"] if client.finished(job)}
    if ends - {Status.SUCCEEDED}:
        raise typer.Exit(output.Exit.FAILED)
