"""The commands of ``longlook jobs`` that act on one job by its id, or on all jobs that a query matches."""

import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from cli import client, output
from core import errors, ids
from core.settings import Settings
from jobs.lifecycle import OperationAction, Status

#: An operation on more jobs than this must be confirmed.
_UNCONFIRMED: Final = 100
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


def rerun(
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
    """Run a job again, or all jobs that a query matches; each becomes a new job."""
    service = client.connect(Settings.read())
    if (job := _job(service, query)) is not None:
        key = idempotency_key or uuid.uuid4().hex
        new = service.act(f"/v1/jobs/{job}/rerun", key=key)
        _say(new, f"{job} runs again as {new['id']}", as_json=as_json)
        return
    selected = _Selection(
        action=OperationAction.RERUN,
        query=query,
        account=account,
        dry_run=dry_run,
        yes=yes,
        confirm=confirm,
    )
    _operate(service, selected, wait=wait, key=idempotency_key, as_json=as_json)


def cancel(
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
    """Cancel a job, or all jobs that a query matches. Queued jobs end at once, running ones within a few seconds."""
    service = client.connect(Settings.read())
    if len(query) == 1 and ":" not in query[0]:
        job = service.cancel(service.job_id(query[0]))
        word = job["status"] if client.finished(job) else "being cancelled"
        _say(job, f"{job['id']} is {word}", as_json=as_json)
        return
    selected = _Selection(
        action=OperationAction.CANCEL,
        query=query,
        account=account,
        dry_run=dry_run,
        yes=yes,
        confirm=confirm,
    )
    _operate(service, selected, wait=wait, key=idempotency_key, as_json=as_json)


def remove(
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
    """Delete the data of a finished job, or of all that a query matches: question, answer, traces, images."""
    service = client.connect(Settings.read())
    if (job := _job(service, query)) is not None:
        _say(service.remove(f"/v1/jobs/{job}"), f"the data of {job} is deleted", as_json=as_json)
        return
    selected = _Selection(
        action=OperationAction.DELETE,
        query=query,
        account=account,
        dry_run=dry_run,
        yes=yes,
        confirm=confirm,
    )
    _operate(service, selected, wait=wait, key=idempotency_key, as_json=as_json)


def run_now(
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
    """End a queued job's wait for its next attempt, or that of all jobs that a query matches."""
    service = client.connect(Settings.read())
    if (job := _job(service, query)) is not None:
        _say(service.act(f"/v1/jobs/{job}/run_now"), f"{job} can run now", as_json=as_json)
        return
    selected = _Selection(
        action=OperationAction.RUN_NOW,
        query=query,
        account=account,
        dry_run=dry_run,
        yes=yes,
        confirm=confirm,
    )
    _operate(service, selected, wait=wait, key=idempotency_key, as_json=as_json)


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
    service: client.Client, selected: _Selection, *, wait: bool, key: str | None, as_json: bool
) -> None:
    preview = service.act("/v1/operations", {**selected.body, "dry_run": True})
    matched = int(preview["matched"])
    if selected.dry_run or not matched:
        _say(preview, f"{matched} jobs match", as_json=as_json)
        return
    confirmed = _confirmed(selected, matched)
    operation = service.act(
        "/v1/operations",
        selected.body if confirmed is None else {**selected.body, "confirm": confirmed},
        key=key or uuid.uuid4().hex,
    )
    people = output.for_people(as_json=as_json)
    if people:
        output.note(f"{operation['id']}: {matched} jobs match; it continues after Ctrl-C")
    while wait and not Status(operation["status"]).terminal:
        time.sleep(_POLL_SECONDS)
        operation = service.look(f"/v1/operations/{operation['id']}")
        if people:
            output.note(progress(operation))
    _say(operation, progress(operation), as_json=as_json)
    if people and not wait:
        output.line(f"longlook operations show {operation['id']}")
    ended_badly = Status(operation["status"]) in (Status.FAILED, Status.CANCELLED)
    if wait and (operation["failed"] or ended_badly):
        raise typer.Exit(output.Exit.FAILED)


def _confirmed(selected: _Selection, matched: int) -> int | None:
    """Return the number of jobs to confirm to the API, after the user has typed it if necessary.

    Raises:
        core.errors.InvalidRequest: many jobs match, and they are not confirmed.
    """
    if selected.confirm is not None or matched <= _UNCONFIRMED:
        return selected.confirm
    if not selected.yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise errors.InvalidRequest(
                f"{matched} jobs match. Pass --yes, or --confirm with the most jobs that you expect.",
                param="confirm",
            )
        typed = typer.prompt(f"{matched} jobs match. Type their number to continue", default="")
        if typed.strip() != str(matched):
            raise errors.InvalidRequest("Not confirmed; nothing was changed.", param="confirm")
    return matched


def _job(service: client.Client, words: Sequence[str]) -> str | None:
    """Return the id of a job if that is all that was given: its id, its first characters, or @last."""
    if len(words) != 1:
        return None
    job = service.job_id(words[0])
    return job if ids.parse("job", job) else None


def _say(response: output.Json, text: str, *, as_json: bool) -> None:
    if output.for_people(as_json=as_json):
        output.line(text)
    else:
        output.as_json(response)
