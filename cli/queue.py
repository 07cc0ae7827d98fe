"""``longlook queue``: how the queue, the workers and the engines do."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import client, output
from core.settings import Settings


def queue(
    *,
    account: Annotated[
        str | None,
        typer.Option(help="Only this account's jobs; for operators.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")] = False,
) -> None:
    """Show the queue, and to operators its workers and engines."""
    state = client.connect(Settings.read()).queue(account=account)
    if not output.for_people(as_json=as_json):
        output.as_json(state)
        return
    for line in summary(state):
        output.line(line)
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
    """Return what people read first of a queue."""
    oldest = state["oldest_age_seconds"]
    age = "" if oldest is None else f", the first of them for {oldest:.0f} s"
    reported = state["deliveries"]
    waits = reported["oldest_age_seconds"]
    since = "" if waits is None else f" (the first of them for {waits:.0f} s)"
    return [
        f"queued   {state['depth']} ({state['due']} due{age})",
        f"running  {state['running']}",
        f"a minute {state['submitted_per_minute']:g} in, {state['finished_per_minute']:g} out",
        f"webhooks {reported['depth']} to be told{since}",
    ]


def worker_row(worker: output.Json) -> tuple[str, ...]:
    """Return a worker's row of the table."""
    return (
        str(worker["id"]),
        str(worker["state"]),
        str(worker["slots"]),
        f"{worker['heartbeat_age_seconds']:.0f} s ago",
        str(worker["version"]),
    )


def engine_row(engine: output.Json) -> tuple[str, ...]:
    """Return an engine's row of the table."""
    return (
        str(engine["url"]),
        str(engine["state"]),
        *(str(engine[name] or "") for name in ("window", "model", "version")),
    )
