"""``longlook queue``: the state of the queue, the workers and the engines; pause and resume the queue."""

from typing import Annotated

import typer

from cli import client, job_waiting, output
from core.settings import Settings
from jobs.lifecycle import Priority

app = typer.Typer(
    help="Show the queue; pause and resume it.", invoke_without_command=True, no_args_is_help=False
)

Account = Annotated[
    str | None,
    typer.Option(help="Only this account's jobs; the default is all.", show_default=False),
]
Class = Annotated[
    Priority | None,
    typer.Option("--priority", "--class", help="Only jobs of this priority.", show_default=False),
]


@app.callback()
def queue(
    context: typer.Context,
    *,
    account: Annotated[
        str | None,
        typer.Option(help="Count only this account's jobs; for operators.", show_default=False),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Show the queue; operators also see workers and engines. Operators can pause and resume it."""
    if context.invoked_subcommand is not None:
        return
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
            ("worker", "state", "slots", "heartbeat", "version"),
            map(worker_row, state["workers"]),
            whole=2,
        )
    if state["engines"]:
        output.line()
        output.table(
            ("engine", "state", "window", "model", "version"),
            map(engine_row, state["engines"]),
            whole=2,
            wide=("version",) if output.narrow() else (),
        )


@app.command("pause")
def pause(
    *,
    account: Account = None,
    priority: Class = None,
    reason: Annotated[
        str | None, typer.Option(help="Shown wherever the pause is.", show_default=False)
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Let workers claim no more jobs: of all, of an account, of a priority, or of both. Running jobs continue."""
    body = _scope(account, priority) | ({} if reason is None else {"reason": reason})
    paused = client.connect(Settings.read()).act("/v1/queue/pause", body)
    if output.for_people(as_json=as_json):
        output.line(pause_line(paused))
    else:
        output.as_json(paused)


@app.command("resume")
def resume(
    *, account: Account = None, priority: Class = None, as_json: output.AsJson = False
) -> None:
    """End the pause of exactly these jobs."""
    resumed = client.connect(Settings.read()).act("/v1/queue/resume", _scope(account, priority))
    if output.for_people(as_json=as_json):
        output.line("resumed")
    else:
        output.as_json(resumed)


def _scope(account: str | None, priority: Priority | None) -> output.Json:
    named = {"account": account, "priority": None if priority is None else str(priority)}
    return {name: value for name, value in named.items() if value is not None}


def pause_line(pause: output.Json) -> str:
    """Return a pause as a line of text."""
    parts = [f"{name} {pause[name]}" for name in ("account", "priority") if pause[name]]
    text = f"paused   {', '.join(parts) or 'all jobs'} since {pause['paused_at']}"
    if pause["paused_by"]:
        text += f" by {pause['paused_by_name'] or pause['paused_by']}"
    return text + (f": {pause['reason']}" if pause["reason"] else "")


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
        *map(pause_line, state["pauses"]),
    ]


def missing(state: output.Json) -> list[str]:
    """Return what is missing for jobs to run, as operators see it."""
    workers, engines = state["workers"], state["engines"]
    away = [
        f"{engine['url']} is away: {engine['reason']}"
        for engine in engines or ()
        if engine.get("reason")
    ]
    if workers is not None and not any(worker["state"] == "live" for worker in workers):
        return [job_waiting.LACKS["workers"], *away]
    if engines is not None and not any(engine["state"] == "ok" for engine in engines):
        return [job_waiting.LACKS["engines"], *away]
    return away


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
        f"{engine['state']}, cordoned" if engine.get("cordoned") else str(engine["state"]),
        *(str(engine[name] or "") for name in ("window", "model", "version")),
    )
