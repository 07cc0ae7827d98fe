"""The outbox: the moves of jobs that receivers may want to know of, until :mod:`webhooks` has read them.

:func:`jobs.store.timeline.change` calls :func:`add` in the transaction that moves a job. So no move can be lost, and
the end of a job reads nothing about receivers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from core import ids
from core.database import Transaction
from core.wakeup import Wakeup
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.timeline import OutboxEntry


@dataclass(frozen=True)
class NotificationsDue:
    """A note that the delivery process has work to do, once the transaction is committed."""


class WakeupOnCommit:
    """Wakes the delivery process after a commit: pass it to :meth:`core.database.Database.listen`.

    The wakeup is lost if the reply to the commit is lost; the delivery process also polls every few seconds.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup

    def __call__(self, note: object) -> None:
        """Handle a note of a committed transaction."""
        if isinstance(note, NotificationsDue):
            self._wakeup.notify()


_ENTRY = sa.insert(table(OutboxEntry))


def add(transaction: Transaction, moved: Sequence[sa.RowMapping], target: Status) -> None:
    """Add an entry for each job that has just moved to ``target``, if receivers can be notified of that move.

    These are the ends, and the start of a first attempt.

    Args:
        transaction: the one that moved the jobs.
        moved: of each job at least ``id``, ``account_id``, ``attempt``, and ``at``, the time of the move.
        target: their new state.
    """
    if not (target.terminal or target is Status.RUNNING):
        return
    entries = [
        {
            "id": ids.new(),
            "job_id": row["id"],
            "account_id": row["account_id"],
            "status": target,
            "at": row["at"],
        }
        for row in moved
        if target.terminal or row["attempt"] == 1
    ]
    if entries:
        transaction.execute(_ENTRY, entries)
        transaction.notes.append(NotificationsDue())
