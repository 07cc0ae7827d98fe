"""``longlook usage``: an account's usage and limits, and what jobs used."""

import enum
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from cli import client, job_stats, output, times
from core import errors
from core.settings import Settings


class UsageBy(enum.StrEnum):
    """What makes a row of the report."""

    DAY = "day"
    MODEL = "model"
    ACCOUNT = "account"


#: The values of a row of the report -> the heading of its column.
_VALUES: Final = {
    "jobs": "jobs",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "input_tokens": "tokens in",
    "cached_tokens": "cached",
    "image_tokens": "of images",
    "output_tokens": "tokens out",
    "engine_seconds": "engine s",
}
#: Columns that only `-o wide` shows, and those that a narrow terminal lacks too.
_WIDE: Final = ("of images",)
_NARROW: Final = (*_WIDE, "succeeded", "cancelled", "cached")


def usage(
    *,
    since: Annotated[
        str | None,
        typer.Option(
            help="Report the jobs that were submitted since then: 2h or 7d ago, or a date or time in UTC.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="The end of the report; default: now.", show_default=False)
    ] = None,
    by: Annotated[
        list[UsageBy] | None,
        typer.Option(help="What makes a row of the report; default: day. Repeatable."),
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Show another account; for operators.", show_default=False)
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Show the account's storage, its queued jobs, and its key's remaining requests; with --since, what jobs used.

    The report of an operator is about all accounts, unless --account names one.
    """
    if since is None and (until is not None or by):
        raise errors.InvalidRequest("--until and --by need --since.", param="since")
    state = client.connect(Settings.read()).look(
        "/v1/usage",
        account=account,
        since=None if since is None else times.moment(since),
        until=None if until is None else times.moment(until),
        by=by or None,
    )
    if not output.for_people(as_json=as_json):
        output.as_json(state)
    elif since is None:
        for line in summary(state):
            output.line(line)
    else:
        _show_report(state["report"])


def summary(state: output.Json) -> list[str]:
    """Return an account's usage as lines of text."""
    stored = state["storage"]
    limit = stored["limit_bytes"]
    quota = "without a quota" if limit is None else f"of {output.size(limit)}"
    kinds = ", ".join(
        f"{kind} {output.size(stored[f'{kind}_bytes'])}"
        for kind in ("images", "traces", "jobs", "records", "files", "deliveries")
    )
    requests = state["requests"]
    return [
        f"storage  {output.size(stored['total_bytes'])} {quota} ({kinds})",
        f"queued   {state['queue']['queued']} of {state['queue']['limit']}",
        f"requests {requests['remaining']} left of {requests['limit_per_minute']} per minute",
    ]


def row(used: output.Json, by: Sequence[str]) -> tuple[str, ...]:
    """Return the table row of a row of the report; an account has its name there.

    Args:
        used: the row.
        by: what makes a row.
    """
    shown = {**used, "account": used["account_name"] or used["account"]}
    return (
        *(str(shown[name] or "") for name in by),
        *(job_stats.cell(name, used[name]) for name in _VALUES),
    )


def _show_report(report: output.Json) -> None:
    by = [str(name) for name in report["by"]]
    output.table(
        (*by, *_VALUES.values()),
        [row(used, by) for used in report["data"]],
        whole=len(by),
        wide=_NARROW if output.narrow() else _WIDE,
    )
