"""The commands of ``longlook jobs`` that act on one job by its id, or on all jobs that a query matches."""

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from cli import client, names, output, waiting
from core import errors
from core.settings import Settings
from jobs.lifecycle import OperationAction, Status

_POLL_SECONDS: Final = 1.0

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="ID|QUERY...",
        help="A job, or a query as in `longlook jobs ls`, such as: status:failed rerun:none 'created:<2h'.",
        show_default=False,
    ),
]
Account = Annotated[
    str | None,
    typer.Option(help="Only jobs of this account; for operators.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count the jobs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask, however many jobs match.")]
Confirm = Annotated[
    int | None,
    typer.Option(min=0, help="Do not ask if at most this many jobs match.", show_default=False),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the operation has ended.")]
Key = Annotated[
    str | None,
    typer.Option(help="A repeat with the same key returns the same operation.", show_default=False),
]

#: Acts on one job: its id, and an Idempotency-Key. Returns the response, and what to say of it.
_One = Callable[[client.Client, str, str], tuple[output.Json, str]]


def _rerun(service: client.Client, job: str, key: str) -> tuple[output.Json, str]:
    """Run a job again, or all jobs that a query matches; each becomes a new job."""
    new = service.act(f"/v1/jobs/{job}/rerun", key=key)
    return new, f"{job} runs again as {new['id']}"


def _cancel(service: client.Client, job: str, _: str) -> tuple[output.Json, str]:
    """Cancel a job, or all jobs that a query matches. Queued jobs end at once, running ones within a few seconds."""
    cancelled = service.cancel(job)
    word = cancelled["status"] if client.finished(cancelled) else "being cancelled"
    return cancelled, f"{job} is {word}"


def _remove(service: client.Client, job: str, _: str) -> tuple[output.Json, str]:
    """Delete the data of a finished job, or of all that a query matches: question, answer, traces, images."""
    return service.remove(f"/v1/jobs/{job}"), f"the data of {job} is deleted"


def _run_now(service: client.Client, job: str, _: str) -> tuple[output.Json, str]:
    """End a queued job's wait for its next attempt, or that of all jobs that a query matches."""
    return service.act(f"/v1/jobs/{job}/run_now"), f"{job} can run now"


def _command(action: OperationAction, one: _One) -> Callable[..., None]:
    """Return the command of an action: on one job by ``one``, whose docstring is its help, or by an operation."""

    def command(
        query: Words,
        *,
        account: Account = None,
        dry_run: DryRun = False,
        yes: Yes = False,
        confirm: Confirm = None,
        wait: Wait = False,
        idempotency_key: Key = None,
        as_json: output.AsJson = False,
    ) -> None:
        service = client.connect(Settings.read())
        key = idempotency_key or uuid.uuid4().hex
        if names.is_job(query):
            job = names.find(service, "job", query[0])
            if dry_run:
                _say(service.job(job), f"1 job matches: {job}", as_json=as_json)
                return
            _say(*one(service, job, key), as_json=as_json)
            return
        selected = _Selection(
            action=action,
            query=query,
            account=account,
            dry_run=dry_run,
            yes=yes,
            confirm=confirm,
        )
        _operate(service, selected, wait=wait, key=key, as_json=as_json)

    command.__doc__ = one.__doc__
    return command


#: The commands by name.
COMMANDS: Final = {
    "rerun": _command(OperationAction.RERUN, _rerun),
    "cancel": _command(OperationAction.CANCEL, _cancel),
    "rm": _command(OperationAction.DELETE, _remove),
    "run-now": _command(OperationAction.RUN_NOW, _run_now),
}


def progress(operation: output.Json) -> str:
    """Return how far an operation is, as one line."""
    total = operation["total"]
    reached = operation["done"] + operation["skipped"] + operation["failed"]
    text = f"{operation['id']} is {operation['status']}: "
    text += "collecting jobs" if total is None else f"{reached} of {total} jobs"
    text += (
        f", {operation['done']} done, {operation['skipped']} skipped, {operation['failed']} failed"
    )
    if operation["reasons"]:
        reasons = ", ".join(f"{name} {count}" for name, count in operation["reasons"].items())
        text += f" ({reasons})"
    if operation["waiting_for"]:
        text += f"; waiting: {operation['waiting_for']}"
    if operation["error"]:
        text += f"; {operation['error']['message']}"
    return text


@dataclass(frozen=True, kw_only=True)
class _Selection:
    """What to do, with which jobs, and whether to ask first."""

    action: OperationAction
    query: Sequence[str]
    account: str | None
    dry_run: bool
    yes: bool
    confirm: int | None

    @property
    def body(self) -> output.Json:
        """The body of the request."""
        body = {"action": str(self.action), "query": " ".join(self.query)}
        return body if self.account is None else {**body, "account": self.account}


def _operate(
    service: client.Client, selected: _Selection, *, wait: bool, key: str, as_json: bool
) -> None:
    preview = service.act("/v1/operations", {**selected.body, "dry_run": True})
    matched = int(preview["matched"])
    if selected.dry_run or not matched:
        _say(preview, f"{matched} jobs match", as_json=as_json)
        return
    confirmed = _confirmed(selected, preview)
    operation = service.act(
        "/v1/operations",
        selected.body if confirmed is None else {**selected.body, "confirm": confirmed},
        key=key,
    )
    people = output.for_people(as_json=as_json)
    if wait:
        operation = _ended(service, operation, matched=matched, people=people)
    _say(operation, progress(operation), as_json=as_json)
    if people and not wait:
        output.line(f"longlook operations show {operation['id']}")
    ended_badly = Status(operation["status"]) in (Status.FAILED, Status.CANCELLED)
    if wait and (operation["failed"] or ended_badly):
        raise typer.Exit(output.Exit.FAILED)


def _ended(
    service: client.Client, operation: output.Json, *, matched: int, people: bool
) -> output.Json:
    """Return an operation once it has ended; show its progress."""
    back = f"longlook operations show {operation['id']}"
    with waiting.wait_for(f"{operation['id']} ({matched} jobs)", back=back, people=people) as shown:
        while not Status(operation["status"]).terminal:
            shown.show(progress(operation))
            time.sleep(_POLL_SECONDS)
            operation = service.look(f"/v1/operations/{operation['id']}")
    return operation


def _confirmed(selected: _Selection, preview: output.Json) -> int | None:
    """Return the number of jobs to confirm to the API, after the user has typed it if necessary.

    Raises:
        core.errors.InvalidRequest: the jobs must be confirmed, and are not.
    """
    matched = int(preview["matched"])
    if selected.confirm is not None or not preview["confirmation_required"]:
        return selected.confirm
    if not selected.yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise errors.InvalidRequest(
                f"{matched} jobs match. Pass --yes, or --confirm with the most jobs that you expect.",
                param="confirm",
            )
        output.note(f"{selected.action} by the query: {' '.join(selected.query)}")
        typed = typer.prompt(f"{matched} jobs match. Type their number to continue", default="")
        if typed.strip() != str(matched):
            raise errors.InvalidRequest("Not confirmed; nothing was changed.", param="confirm")
    return matched


def _say(response: output.Json, text: str, *, as_json: bool) -> None:
    if output.for_people(as_json=as_json):
        output.line(text)
    else:
        output.as_json(response)
