"""``longlook usage``: an account's usage and limits."""

from typing import Annotated

import typer

from cli import client, output
from core.settings import Settings


def usage(
    *,
    account: Annotated[
        str | None, typer.Option(help="Show another account; for operators.", show_default=False)
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Show the account's storage, its queued jobs, and its key's remaining requests."""
    state = client.connect(Settings.read()).look("/v1/usage", account=account)
    if not output.for_people(as_json=as_json):
        output.as_json(state)
        return
    for line in summary(state):
        output.line(line)


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
