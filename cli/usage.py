"""``longlook usage``: what an account uses of what it may use."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import client, output
from core.settings import Settings


def usage(
    *,
    account: Annotated[
        str | None, typer.Option(help="Another account's; for operators.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")] = False,
) -> None:
    """Show what the account stores, its queue, and what its key may send."""
    reported = client.connect(Settings.read()).usage(account=account)
    if not output.for_people(as_json=as_json):
        output.as_json(reported)
        return
    for line in summary(reported):
        output.line(line)


def summary(reported: output.Json) -> list[str]:
    """Return an account's usage in lines for people."""
    stored = reported["storage"]
    limit = stored["limit_bytes"]
    quota = "no quota" if limit is None else f"of {output.size(limit)}"
    kinds = ", ".join(
        f"{kind} {output.size(stored[f'{kind}_bytes'])}"
        for kind in ("images", "traces", "jobs", "records", "deliveries")
    )
    requests = reported["requests"]
    return [
        f"storage  {output.size(stored['total_bytes'])} {quota} ({kinds})",
        f"queued   {reported['queue']['queued']} of {reported['queue']['limit']}",
        f"requests {requests['remaining']} left, {requests['limit_per_minute']} a minute",
    ]
