"""A worker without a fence: it writes to jobs that it has lost. The checks must detect it.

``celery -A tests.chaos.unfenced_worker worker``. Only this process has no fence, because it replaces
functions of the store: no setting of the service can disable the fence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.store import claims, settle, timeline, traces
from worker.app import app

__all__ = ["app"]

_change = timeline.change
_hold = traces.hold
_renew = claims.renew
_watch = claims.watch


#: Matches any attempt and any owner.
_FENCE = (table(Job).c.id == sa.bindparam("b_job"),)


def _change_anyway(
    transaction: Transaction,
    what: timeline.Change,
    *,
    actor: str,
    bound: Mapping[str, Any] = MappingProxyType({}),
    noted: Mapping[str, str] = MappingProxyType({}),
) -> list[timeline.Changed]:
    """Change a job in any state."""
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
    return _change(transaction, what, actor=actor, bound=bound, noted=noted)


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


# Plain assignments, because this is the start of the process and not a test.
settle._FENCE = _FENCE  # noqa: SLF001 - what is taken out
settle._FENCED = sa.select(table(Job).c.cancel_requested_at).where(*_FENCE).with_for_update()  # noqa: SLF001 - same
timeline.change = _change_anyway
traces.hold = _hold_all
claims.renew = _renew_all
claims.watch = _watch_all
