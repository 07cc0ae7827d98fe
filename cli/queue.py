"""``longlook queue``: the state of the queue, the workers and the engines."""

from typing import Annotated

import typer

from cli import client, job_output, output
from core.settings import Settings


def queue(
    *,
    account: Annotated[
        str | None,
        typer.Option(help="Count only this account's jobs; for operators.", show_default=False),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Show the queue; operators also see workers and engines."""
    state = client.connect(Settings.read()).look("/v1/queue", account=account)
    if not output.for_people(as_json=as_json):
        output.as_json(state)
        return
    for line in summary(state):
        output.line(line)
    for lack in missing(state):
        output.line(f"warning  {lack}")
    if state["workers"]:
        output.line()
        output.table(
            ("worker", "state", "slots", "heartbeat", "version"), map(worker_row, state["workers"])
        )
    if state["engines"]:
        output.line()
        output.table(
            ("engine", "state", "window", "model", "version"), map(engine_row, state["engines"])
        )


def summary(state: output.Json) -> list[str]:
    """Return the state of the queue as lines of text."""
    oldest_job = state["oldest_age_seconds"]
    job_age = "" if oldest_job is None else f", the oldest for {oldest_job:.0f} s"
    deliveries = state["deliveries"]
    oldest_delivery = deliveries["oldest_age_seconds"]
    delivery_age = "" if oldest_delivery is None else f", the oldest for {oldest_delivery:.0f} s"
    return [
        f"queued   {state['depth']} ({state['due']} due{job_age})",
        f"running  {state['running']}",
        f"rate     {state['submitted_per_minute']:g} submitted, {state['finished_per_minute']:g} finished per minute",
        f"webhooks {deliveries['depth']} pending{delivery_age}",
    ]


def missing(state: output.Json) -> list[str]:
    """Return what is missing for jobs to run, as operators see it."""
    workers, engines = state["workers"], state["engines"]
    if workers is not None and not any(worker["state"] == "live" for worker in workers):
        return [job_output.LACKS["workers"]]
    if engines is not None and not any(engine["state"] == "ok" for engine in engines):
        return [job_output.LACKS["engines"]]
    return []


def worker_row(worker: output.Json) -> tuple[str, ...]:
    """Return the table row of a worker."""
    return (
        str(worker["id"]),
        str(worker["state"]),
        str(worker["slots"]),
        f"{worker['heartbeat_age_seconds']:.0f} s ago",
        str(worker["version"]),
    )


def engine_row(engine: output.Json) -> tuple[str, ...]:
    """Return the table row of an engine."""
    return (
        str(engine["url"]),
        str(engine["state"]),
        *(str(engine[name] or "") for name in ("window", "model", "version")),
    )
