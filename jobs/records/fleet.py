"""The tables of worker processes, of engines, and of the installation."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.records.declarative import JSON, Record


class Worker(Record):
    """A worker process and its heartbeat."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    slots: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime] = mapped_column(index=True)
    draining: Mapped[bool]
    #: The engines as this worker sees them (url, state, model, version, window); None before it has asked them.
    engines: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)
    #: When an operator told it to take no more jobs, and the actor.
    drain_requested_at: Mapped[datetime | None]
    drain_requested_by: Mapped[str | None]


class EngineCordon(Record):
    """An engine that gets no new jobs, until an operator removes the cordon."""

    __tablename__ = "engine_cordons"

    url: Mapped[str] = mapped_column(primary_key=True)
    cordoned_at: Mapped[datetime]
    #: An actor, as in :class:`jobs.records.timeline.TimelineEntry`.
    cordoned_by: Mapped[str]
    reason: Mapped[str | None]


class Installation(Record):
    """The only row is about this database itself; see :mod:`core.redis_prefix`."""

    __tablename__ = "installation"
    __table_args__ = (sa.CheckConstraint("number = 1", name="single"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    #: 12 hexadecimal digits: part of the prefix of all keys in Redis.
    id: Mapped[str]
