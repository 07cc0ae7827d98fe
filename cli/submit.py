"""``longlook submit``: one job from the command line, waited for or watched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import client, output, view
from jobs import profiles
from jobs.lifecycle import Priority
from jobs.settings import Settings


def submit(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="One or more pictures.")],
    question: Annotated[str, typer.Argument(help="What to ask about them.", show_default=False)],
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
    priority: Annotated[Priority | None, typer.Option(show_default=False)] = None,
    deadline_seconds: Annotated[int | None, typer.Option(show_default=False)] = None,
    max_attempts: Annotated[int | None, typer.Option(show_default=False)] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key is the same job.", show_default=False)
    ] = None,
) -> None:
    """Submit a job. Without --wait and --stream its id comes back at once."""
    options = {
        "detail": detail,
        "max_output_tokens": max_output_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "priority": priority,
        "deadline_seconds": deadline_seconds,
        "max_attempts": max_attempts,
        "metadata": client.metadata(metadata or []) or None,
    }
    service = client.connect(Settings.read())
    job = service.submit(
        images,
        question,
        options={name: value for name, value in options.items() if value is not None},
        idempotency_key=idempotency_key,
    )
    people = output.for_people(as_json=as_json)
    if (wait or stream) and people:
        output.note(f"{job['id']} is {job['status']}; Ctrl-C leaves it to itself")
    if stream:
        job = view.follow(service, str(job["id"]), people=people)
    elif wait:
        job = service.wait(str(job["id"]))
    view.tell(job, people=people)
