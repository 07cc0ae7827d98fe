"""A worker that never asks whether its jobs are still its own: the control that the checks have to catch.

``celery -A tests.chaos.unfenced_worker worker``. The fence is taken out of this process only, by putting
other functions in the place of the store's: nothing of the service can be set to do this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from jobs.database import Database, Transaction
from jobs.lifecycle import Status
from jobs.records import Job
from jobs.store import claims, outcomes, timeline, traces
from worker.app import app

__all__ = ["app"]

_change = timeline.change
_hold = traces.hold
_renew = claims.renew
_watch = claims.watch


def _fence(claim: claims.Claim) -> tuple[sa.ColumnElement[bool], ...]:
    """Any attempt, any owner."""
    return (Job.id == claim.job_id,)


def _change_anyway(
    transaction: Transaction,
    *,
    where: Iterable[sa.ColumnElement[bool]],
    source: Status,
    **rest: Any,  # noqa: ANN401 - passed through whole
) -> list[timeline.Changed]:
    """In any state."""
    if source is Status.RUNNING and rest["actor"].startswith("worker:"):
        transaction.execute(
            sa.update(Job)
            .where(*where)
            .values(
                status=Status.RUNNING,
                lease_owner="nobody",
                lease_expires_at=transaction.now(),
                finished_at=None,
            )
        )
    return _change(transaction, where=where, source=source, **rest)


def _hold_all(
    transaction: Transaction,
    owner: str,
    held: Iterable[traces.Holding],
    *,
    alone: bool = False,
) -> set[traces.Holding]:
    return _hold(transaction, owner, held, alone=alone) | set(held)


def _renew_all(
    database: Database,
    *,
    held: Iterable[traces.Holding],
    **rest: Any,  # noqa: ANN401 - same
) -> set[traces.Holding]:
    return _renew(database, held=held, **rest) | set(held)


def _watch_all(
    database: Database,
    *,
    held: Iterable[traces.Holding],
    **rest: Any,  # noqa: ANN401 - same
) -> dict[traces.Holding, claims.Flags]:
    calm = dict.fromkeys(held, claims.Flags(cancel=False, overdue=False))
    return calm | _watch(database, held=held, **rest)


# Assigned and not patched by a test: this is the process's own start.
outcomes._fence = _fence  # noqa: SLF001 - what is taken out
timeline.change = _change_anyway
traces.hold = _hold_all
claims.renew = _renew_all
claims.watch = _watch_all
