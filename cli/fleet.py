"""``longlook engines`` and ``longlook workers``: list them, and stop giving them new jobs."""

import time
from collections.abc import Callable
from typing import Annotated, Final

import typer

from cli import client, output, waiting
from core.settings import Settings

_POLL_SECONDS: Final = 1.0

engines = typer.Typer(help="List, cordon and drain engines, for operators.", no_args_is_help=True)
workers = typer.Typer(help="List, drain and undrain workers, for operators.", no_args_is_help=True)

Url = Annotated[str, typer.Argument(metavar="ENGINE", help="Its URL.", show_default=False)]
Reason = Annotated[
    str | None, typer.Option(help="Shown wherever the cordon is.", show_default=False)
]


@engines.command("ls")
def list_engines(*, as_json: output.AsJson = False) -> None:
    """List engines, their cordons, and the streams that run on them."""
    listed = client.connect(Settings.read()).look("/v1/engines")
    _show_engines(listed, as_json=as_json)


@engines.command("cordon")
def cordon(url: Url, *, reason: Reason = None, as_json: output.AsJson = False) -> None:
    """Give an engine no new jobs. Jobs that run on it finish there."""
    listed = _cordon(client.connect(Settings.read()), url, reason)
    _show_engines(listed, as_json=as_json)


@engines.command("uncordon")
def uncordon(url: Url, *, as_json: output.AsJson = False) -> None:
    """Give an engine new jobs again."""
    listed = client.connect(Settings.read()).act("/v1/engines/uncordon", {"url": url})
    _show_engines(listed, as_json=as_json)


@engines.command("drain")
def drain_engine(url: Url, *, reason: Reason = None, as_json: output.AsJson = False) -> None:
    """Cordon an engine, and wait until nothing runs on it."""
    service = client.connect(Settings.read())
    listed = _cordon(service, url, reason)

    def left() -> str:
        nonlocal listed
        listed = service.look("/v1/engines")
        [engine] = [engine for engine in listed["data"] if engine["url"] == url]
        if not engine["cordoned"]:
            return f"{url}: workers have not reported the cordon yet"
        return f"{url}: {engine['running']} streams run" if engine["running"] else ""

    people = output.for_people(as_json=as_json)
    _wait(left, f"The cordon of {url}", back="longlook engines ls", people=people)
    _show_engines(listed, as_json=as_json)


@workers.command("ls")
def list_workers(*, as_json: output.AsJson = False) -> None:
    """List worker processes, and how many jobs each runs."""
    listed = client.connect(Settings.read()).look("/v1/workers")
    _show_workers(listed, as_json=as_json)


@workers.command("drain")
def drain_worker(
    worker: Annotated[str, typer.Argument(metavar="WORKER", show_default=False)],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until its jobs have ended.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Let a worker take no more jobs; those that it runs finish. Stop or restart the process afterwards."""
    service = client.connect(Settings.read())
    listed = service.act("/v1/workers/drain", {"worker": worker})

    def left() -> str:
        nonlocal listed
        listed = service.look("/v1/workers")
        for shown in listed["data"]:
            if shown["id"] == worker and (shown["state"] == "live" or shown["running"]):
                return f"{worker} is {_worker_state(shown)}, {shown['running']} jobs run"
        return ""

    if wait:
        people = output.for_people(as_json=as_json)
        _wait(left, f"The drain of {worker}", back="longlook workers ls", people=people)
    _show_workers(listed, as_json=as_json)


@workers.command("undrain")
def undrain_worker(
    worker: Annotated[str, typer.Argument(metavar="WORKER", show_default=False)],
    *,
    as_json: output.AsJson = False,
) -> None:
    """Let a drained worker take jobs again."""
    listed = client.connect(Settings.read()).act("/v1/workers/undrain", {"worker": worker})
    _show_workers(listed, as_json=as_json)


def engine_row(engine: output.Json) -> tuple[str, ...]:
    """Return the table row of an engine."""
    state = str(engine["state"])
    if engine["cordoned_at"]:
        state += ", cordoned" if engine["cordoned"] else ", cordon not reported by all workers"
    return (
        str(engine["url"]),
        state,
        str(engine["running"]),
        str(engine["reason"] or ""),
        str(engine["cordoned_by"] or ""),
        str(engine["cordoned_at"] or ""),
    )


def worker_row(worker: output.Json) -> tuple[str, ...]:
    """Return the table row of a worker."""
    return (
        str(worker["id"]),
        _worker_state(worker),
        f"{worker['running']} of {worker['slots']}",
        str(worker["version"]),
        str(worker["drain_requested_by"] or ""),
        str(worker["drain_requested_at"] or ""),
    )


def _worker_state(worker: output.Json) -> str:
    state = str(worker["state"])
    requested = worker["drain_requested_at"] is not None
    if state == "live" and requested:
        return "live, drain not reported yet"
    if state == "draining" and not requested:
        # It stops, or its next heartbeat is that of a live worker.
        return "draining, undrained or stopping"
    return state


def _cordon(service: client.Client, url: str, reason: str | None) -> output.Json:
    body = {"url": url} if reason is None else {"url": url, "reason": reason}
    return service.act("/v1/engines/cordon", body)


def _wait(left: Callable[[], str], what: str, *, back: str, people: bool) -> None:
    """Return once ``left`` returns nothing; until then, show what it returns."""
    with waiting.wait_for(what, back=back, people=people) as line:
        while text := left():
            line.show(text)
            time.sleep(_POLL_SECONDS)


def _show_engines(listed: output.Json, *, as_json: bool) -> None:
    if output.for_people(as_json=as_json):
        output.table(
            ("engine", "state", "running", "reason", "cordoned by", "since"),
            map(engine_row, listed["data"]),
            whole=1,
            wide=("cordoned by", "since"),
        )
    else:
        output.as_json(listed)


def _show_workers(listed: output.Json, *, as_json: bool) -> None:
    if output.for_people(as_json=as_json):
        output.table(
            ("worker", "state", "running", "version", "drained by", "since"),
            map(worker_row, listed["data"]),
            whole=1,
            wide=("drained by", "since"),
        )
    else:
        output.as_json(listed)
