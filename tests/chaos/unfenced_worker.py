"""A worker that never asks whether its jobs are still its own: the control that the checks have to catch.

``celery -A tests.chaos.unfenced_worker worker``. The fence is taken out of this process only, by putting
other functions in the place of the store's: nothing of the service can be set to do this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.lifecycle import Status
from jobs.records import Job, table
from jobs.store import claims, settle, timeline, traces
from worker.app import app

__all__ = ["app"]

_change = timeline.change
_hold = traces.hold
_renew = claims.renew
_watch = claims.watch


#: Any attempt, any owner.
_FENCE = (table(Job).c.id == sa.bindparam("b_job"),)


def _change_anyway(
    transaction: Transaction,
    what: timeline.Change,
    *,
    actor: str,
    bound: Mapping[str, Any] = MappingProxyType({}),
) -> list[timeline.Changed]:
    """In any state."""
    if what.source is Status.RUNNING and actor.startswith("worker:"):
        transaction.execute(
            sa.update(Job)
            .where(Job.id == bound["b_job"])
            .values(
                status=Status.RUNNING,
                lease_owner="nobody",
                lease_expires_at=transaction.now(),
                finished_at=None,
            )
        )
    return _change(transaction, what, actor=actor, bound=bound)


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
) -> dict[traces.Holding, claims.StopFlags]:
    calm = dict.fromkeys(held, claims.StopFlags(cancel=False, overdue=False))
    return calm | _watch(database, held=held, **rest)


# Assigned and not patched by a test: this is the process's own start.
settle._FENCE = _FENCE  # noqa: SLF001 - what is taken out
settle._FENCED = sa.select(table(Job).c.cancel_requested_at).where(*_FENCE).with_for_update()  # noqa: SLF001 - same
timeline.change = _change_anyway
traces.hold = _hold_all
claims.renew = _renew_all
claims.watch = _watch_all
