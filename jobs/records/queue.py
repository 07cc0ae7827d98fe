"""The tables of the queue's order and of its pauses."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.lifecycle import Priority
from jobs.records.declarative import KEY_IS_TABLE, Record


class QueueTurn(Record):
    """The turn of an account at one priority of the queue; see :mod:`jobs.store.turns`."""

    __tablename__ = "queue_turns"
    __table_args__ = (
        sa.Index("ix_queue_turns_next", "next_turn", "step", "account_id"),
        KEY_IS_TABLE,
    )

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    priority: Mapped[Priority] = mapped_column(primary_key=True)
    #: How far a claim moves the turn, see :data:`jobs.lifecycle.TURN_STEP`.
    step: Mapped[int]
    #: The number at which its next job is claimed; the lowest number is first.
    next_turn: Mapped[int] = mapped_column(sa.BigInteger())
    #: The number at which its last job was claimed, or at which the row was inserted.
    served_turn: Mapped[int] = mapped_column(sa.BigInteger())


class QueuePause(Record):
    """A pause of the queue, which claims respect; see :mod:`jobs.store.pauses`."""

    __tablename__ = "queue_pauses"
    __table_args__ = (
        sa.Index(
            "uq_queue_pauses_active",
            "scope",
            unique=True,
            postgresql_where=sa.text("resumed_at IS NULL"),
            sqlite_where=sa.text("resumed_at IS NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    #: The account and the priority as one text, so that an active pause of both, or of neither, is unique.
    scope: Mapped[str]
    #: None: of all accounts.
    account_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("accounts.id"))
    #: None: of all priorities.
    priority: Mapped[Priority | None]
    paused_at: Mapped[datetime]
    #: An actor, as in :class:`jobs.records.timeline.TimelineEntry`; so is ``resumed_by``.
    paused_by: Mapped[str]
    reason: Mapped[str | None]
    resumed_at: Mapped[datetime | None]
    resumed_by: Mapped[str | None]
