"""Worker processes and their heartbeats."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from jobs.database import Database
from jobs.records import Worker


@dataclass(frozen=True)
class Presence:
    """A worker process as it presents itself."""

    id: str
    host: str
    pid: int
    version: str
    slots: int
    draining: bool = False


@dataclass(frozen=True)
class Workforce:
    """The workers alive."""

    processes: int
    slots: int


def beat(database: Database, presence: Presence, *, alive: timedelta) -> Workforce:
    """Say that ``presence`` lives; return the workforce, it included, that was seen within ``alive``."""
    with database.transaction() as transaction:
        row = transaction.insert(Worker).values(
            id=presence.id,
            host=presence.host,
            pid=presence.pid,
            version=presence.version,
            slots=presence.slots,
            started_at=transaction.now(),
            seen_at=transaction.now(),
            draining=presence.draining,
        )
        transaction.execute(
            row.on_conflict_do_update(
                index_elements=["id"],
                set_={"seen_at": row.excluded.seen_at, "draining": row.excluded.draining},
            )
        )
        counted = transaction.execute(_alive(transaction.now(-alive))).one()
        return Workforce(processes=counted.processes, slots=counted.slots)


def workforce(database: Database, *, alive: timedelta) -> Workforce:
    """Return the workers that were seen within ``alive`` and still take jobs."""
    with database.reading() as transaction:
        counted = transaction.execute(_alive(transaction.now(-alive))).one()
        return Workforce(processes=counted.processes, slots=counted.slots)


def retire(database: Database, worker_id: str) -> None:
    """Forget a worker that has stopped by itself."""
    with database.transaction() as transaction:
        transaction.execute(sa.delete(Worker).where(Worker.id == worker_id))


def forget(database: Database, *, silent: timedelta) -> None:
    """Forget workers that have been silent for long."""
    with database.transaction() as transaction:
        transaction.execute(sa.delete(Worker).where(Worker.seen_at < transaction.now(-silent)))


def _alive(since: sa.ColumnElement[datetime]) -> sa.Select[int, int]:
    return sa.select(
        sa.func.count(Worker.id).label("processes"),
        sa.func.coalesce(sa.func.sum(Worker.slots), 0).label("slots"),
    ).where(Worker.seen_at > since, Worker.draining.is_(False))
