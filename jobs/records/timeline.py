"""The tables of the changes of jobs, and of those that receivers have not been notified of."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.lifecycle import Status
from jobs.records.declarative import SERIAL, Record


class TimelineEntry(Record):
    """A change of a job and who made it. Append-only; a lease renewal adds no entry."""

    __tablename__ = "timeline"
    __table_args__ = (sa.Index(None, "job_id", "id"),)

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True, autoincrement=True)
    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"))
    at: Mapped[datetime]
    #: ``key:key_…``, ``worker:…``, ``sweeper:…`` or ``operator:…``.
    actor: Mapped[str]
    #: One word in the past tense, such as ``claimed``.
    action: Mapped[str]
    #: The columns that changed, with their new values.
    changes: Mapped[dict[str, Any]]
    #: The number of the event that streams show for it, when it changed the status; see :mod:`jobs.store.event_log`.
    sequence_number: Mapped[int | None] = mapped_column(sa.BigInteger())


class OutboxEntry(Record):
    """A move of a job that receivers have not been notified of yet; see :mod:`jobs.store.outbox`."""

    __tablename__ = "outbox"
    __table_args__ = (sa.Index(None, "account_id", "id"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    #: The state that the job moved to.
    status: Mapped[Status]
    #: When it moved.
    at: Mapped[datetime]
