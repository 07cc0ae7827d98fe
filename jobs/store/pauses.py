"""Pauses of the queue: of all jobs, of an account, of a priority, or of both. A claim takes no paused job.

A paused job stays queued, and its deadline still counts. Ended pauses stay stored: who paused, who resumed, and when.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from core import ids
from core.database import Database, Now, Transaction
from jobs.lifecycle import Priority
from jobs.records.accounts import Account
from jobs.records.declarative import table
from jobs.records.queue import QueuePause

_PAUSE = table(QueuePause).c
_ACTIVE = _PAUSE.resumed_at.is_(None)
_ONE = sa.literal_column("1", sa.Integer())


@dataclass(frozen=True)
class PauseView:
    """A pause. Without an account and a priority it is of the whole queue."""

    id: uuid.UUID
    account_id: uuid.UUID | None
    account: str | None
    priority: Priority | None
    paused_at: datetime
    paused_by: str
    reason: str | None
    resumed_at: datetime | None
    resumed_by: str | None

    def covers(self, account_id: uuid.UUID, priority: Priority) -> bool:
        """Whether the queued jobs of an account at a priority are paused by it."""
        return self.account_id in (None, account_id) and self.priority in (None, priority)

    @property
    def scope(self) -> str:
        """What is paused, such as ``account acme, priority low``."""
        parts = [f"account {self.account}"] if self.account is not None else []
        parts += [f"priority {self.priority}"] if self.priority is not None else []
        return ", ".join(parts) or "all jobs"


def free(
    account_id: sa.ColumnElement[uuid.UUID], priority: sa.ColumnElement[Priority]
) -> sa.ColumnElement[bool]:
    """Return the condition that no pause is active for an account and a priority, which are columns of a query."""
    # A subquery with a limit: as NOT EXISTS it could become a join, which loses the order of the turns.
    return (
        sa.select(_PAUSE.id)
        .where(
            _ACTIVE,
            sa.or_(_PAUSE.account_id.is_(None), _PAUSE.account_id == account_id),
            sa.or_(_PAUSE.priority.is_(None), _PAUSE.priority == priority),
        )
        .limit(_ONE)
        .correlate_except(table(QueuePause))
        .scalar_subquery()
    ).is_(None)


_ANY = sa.select(_PAUSE.id).where(_ACTIVE).limit(_ONE)


def any_active(transaction: Transaction) -> bool:
    """Return whether any pause is active."""
    return transaction.execute(_ANY).first() is not None


_VIEWS = sa.select(
    *(_PAUSE[name] for name in PauseView.__dataclass_fields__ if name != "account"),
    table(Account).c.name.label("account"),
).outerjoin_from(table(QueuePause), table(Account), table(Account).c.id == _PAUSE.account_id)
_ACTIVE_VIEWS = _VIEWS.where(_ACTIVE).order_by(_PAUSE.id)


def active_in(transaction: Transaction) -> list[PauseView]:
    """Return the active pauses, the oldest first."""
    return [PauseView(**row) for row in transaction.execute(_ACTIVE_VIEWS).mappings()]


def active(database: Database) -> list[PauseView]:
    """Return the active pauses, the oldest first."""
    with database.reading() as transaction:
        return active_in(transaction)


def page(
    database: Database, *, limit: int, after: uuid.UUID | None
) -> tuple[list[PauseView], bool]:
    """Return up to ``limit`` pauses beyond ``after``, ended ones too, newest first, and whether there are more."""
    wanted = _VIEWS.order_by(_PAUSE.id.desc()).limit(limit + 1)
    if after is not None:
        wanted = wanted.where(_PAUSE.id < after)
    with database.reading() as transaction:
        rows = [PauseView(**row) for row in transaction.execute(wanted).mappings()]
        return rows[:limit], len(rows) > limit


def _scope(account_id: uuid.UUID | None, priority: Priority | None) -> str:
    """Return the text that is unique among active pauses."""
    account = "*" if account_id is None else ids.show("acct", account_id)
    return f"{account} {priority or '*'}"


def pause(
    database: Database,
    *,
    account_id: uuid.UUID | None,
    priority: Priority | None,
    actor: str,
    reason: str | None,
) -> PauseView:
    """Pause the queued jobs of an account (None: of all) at a priority (None: at all); return the pause.

    If exactly these jobs are paused already, nothing changes.
    """
    scope = _scope(account_id, priority)
    with database.transaction() as transaction:
        transaction.execute(
            transaction.insert(QueuePause)
            .values(
                id=ids.new(),
                scope=scope,
                account_id=account_id,
                priority=priority,
                paused_at=transaction.now(),
                paused_by=actor,
                reason=reason,
            )
            # It changes nothing, but locks the pause that is there: a resume cannot end it before it is read.
            .on_conflict_do_update(
                index_elements=["scope"],
                index_where=sa.text("resumed_at IS NULL"),
                set_={"scope": scope},
            )
        )
        row = transaction.execute(_ACTIVE_VIEWS.where(_PAUSE.scope == scope)).mappings().one()
        return PauseView(**row)


def resume(
    database: Database,
    *,
    account_id: uuid.UUID | None,
    priority: Priority | None,
    actor: str,
) -> bool:
    """End the pause of exactly these jobs; return False without one."""
    with database.transaction() as transaction:
        ended = transaction.execute(
            sa.update(table(QueuePause))
            .where(_ACTIVE, _PAUSE.scope == _scope(account_id, priority))
            .values(resumed_at=Now(), resumed_by=actor)
            .returning(_PAUSE.id)
        )
        return ended.first() is not None
