"""``longlook submit``: submit one question, or several about the same images, and wait for the answers on request."""

import itertools
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import client, job_options, job_output, job_waiting, output
from core import errors
from core.settings import Settings
from jobs.lifecycle import Priority, Status


def submit(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE... QUESTION...",
            help="Image files, then one or more questions about them. Each question becomes a job.",
            show_default=False,
        ),
    ],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Show the trace as it grows.")] = False,
    as_json: output.AsJson = False,
    detail: job_options.Detail = None,
    max_output_tokens: job_options.MaxOutputTokens = None,
    temperature: job_options.Temperature = None,
    top_p: Annotated[
        float | None, typer.Option(help="Nucleus sampling probability.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Sampling seed.", show_default=False)] = None,
    samples: job_options.Samples = None,
    answer_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Answer format: number, boolean, choice:red,green, json or json:@schema.json.",
            show_default=False,
        ),
    ] = None,
    priority: Annotated[
        Priority | None, typer.Option(help="Priority in the queue.", show_default=False)
    ] = None,
    deadline_seconds: Annotated[
        int | None,
        typer.Option(help="Seconds after which an unfinished job fails.", show_default=False),
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(help="Maximum number of attempts.", show_default=False)
    ] = None,
    guard: job_options.Guards = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Metadata of the job. Repeatable."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="A repeat with the same key returns the same job.", show_default=False),
    ] = None,
) -> None:
    """Submit a job, or several about the same images. Without --wait or --stream, return at once."""
    images, questions = _split(arguments)
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
        raise errors.InvalidRequest(
            "--stream takes one question; use --wait for several.", param="stream"
        )
    service = client.connect(Settings.read())
    people = output.for_people(as_json=as_json)
    if len(questions) > 1:
        group = service.submit_group(
            images, questions, options=requested, idempotency_key=idempotency_key
        )
        if people:
            job_output.warnings(group)
        if wait:
            group = job_waiting.wait_for_group(service, group, people=people)
        _show_group(group, people=people)
        return
    job = service.submit(images, questions[0], options=requested, idempotency_key=idempotency_key)
    if (wait or stream) and people:
        job_output.warnings(job)
    if stream:
        job = job_waiting.follow(service, str(job["id"]), people=people)
    elif wait:
        job = job_waiting.wait(service, job, people=people)
    job_output.show(job, people=people)


def _split(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return images and questions: the first argument and the existing files after it are images, the rest questions.

    Raises:
        core.errors.InvalidRequest: the question is missing, or looks like the name of a missing image.
    """
    further = list(itertools.takewhile(lambda argument: Path(argument).is_file(), arguments[1:]))
    questions = list(arguments[1 + len(further) :])
    if not questions:
        raise errors.InvalidRequest("The question is missing.", param="question")
    for question in questions:
        kind = mimetypes.guess_type(question)[0] or ""
        if kind.startswith("image/") and not any(char.isspace() for char in question):
            raise errors.InvalidRequest(f"There is no file {question}.", param="image")
    return [Path(image) for image in (arguments[0], *further)], questions


def _show_group(group: output.Json, *, people: bool) -> None:
    """Print a group; exit with code 1 if one of its jobs finished without success."""
    if not people:
        output.as_json(group)
    else:
        for job in group["jobs"]:
            output.field(f"{job['id']} is {job['status']}: ", str(job["question"]))
            if client.finished(job):
                job_output.result(job)
        output.line(f"longlook jobs ls group:{group['id']}")
    statuses = {job["status"] for job in group["jobs"] if client.finished(job)}
    if statuses - {Status.SUCCEEDED}:
        raise typer.Exit(output.Exit.FAILED)
