"""What a worker does to jobs, without one."""

from __future__ import annotations

from collections.abc import Iterable

from core.database import Database
from jobs.answers.extraction import Answer
from jobs.answers.votes import Tally
from jobs.findings import Finding
from jobs.store import claims, settle, traces
from tests import factories, webhooks


def start(database: Database, *, text: str = "") -> claims.Claim:
    """Claim the next job and begin its stream, with ``text`` as far as it got."""
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    if text:
        piece = factories.make_piece(claimed, text)
        assert not traces.append(database, owner=claimed.owner, pieces=[piece])
    return claimed


def end(
    database: Database,
    claimed: claims.Claim,
    *,
    text: str = "It is 6.",
    answer: str = "6",
    forced: bool = False,
    found: Iterable[Finding] = (),
    tally: Tally | None = None,
) -> None:
    """Finish a job that was started, and do what the delivery process does first."""
    assert settle.succeed(
        database,
        claimed,
        answer=Answer(text=answer, rule="heading"),
        generation=factories.make_ended(text),
        forced=forced,
        guard_findings=found,
        tally=tally,
    )
    webhooks.fan_out(database)


def finish(database: Database, *, text: str = "It is 6.", answer: str = "6") -> None:
    """Run the next job to its end."""
    end(database, start(database), text=text, answer=answer)


def fail(database: Database) -> None:
    """Run the next job into an error that is its own fault."""
    claimed = start(database)
    fault = settle.Failure("engine_rejected", "The engine cannot take this.", retryable=False)
    assert settle.fail(database, claimed, fault, generation=factories.make_ended("I see"))
