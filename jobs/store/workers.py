"""Worker processes and their heartbeats."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from core.database import Database
from jobs.records import Worker


@dataclass(frozen=True)
class EngineState:
    """An engine as a worker sees it.

    Attributes:
        state: ``ok``; ``resting`` after a fault; ``away`` when it does not answer.
        model: what it serves; None while it is away, as the two below.
        version: its own.
        window: streams that it runs at once.
    """

    url: str
    state: Literal["ok", "resting", "away"]
    model: str | None = None
    version: str | None = None
    window: int | None = None


@dataclass(frozen=True)
class WorkerHeartbeat:
    """A worker process as it presents itself."""

    id: str
    host: str
    pid: int
    version: str
    slots: int
    draining: bool = False
    engines: tuple[EngineState, ...] | None = None


@dataclass(frozen=True)
class WorkerStatus:
    """A worker as its heartbeats tell of it; ``alive`` when the last one is recent, ``age`` is how old that one is."""

    heartbeat: WorkerHeartbeat
    started_at: datetime
    age: timedelta
    alive: bool


@dataclass(frozen=True)
class LiveWorkers:
    """The workers alive."""

    processes: int
    slots: int


def beat(database: Database, heartbeat: WorkerHeartbeat, *, alive: timedelta) -> LiveWorkers:
    """Say that ``heartbeat`` lives; return the workforce, it included, that was seen within ``alive``."""
    with database.transaction() as transaction:
        row = transaction.insert(Worker).values(
            id=heartbeat.id,
            host=heartbeat.host,
            pid=heartbeat.pid,
            version=heartbeat.version,
            slots=heartbeat.slots,
            started_at=transaction.now(),
            seen_at=transaction.now(),
            draining=heartbeat.draining,
            engines=_plain(heartbeat.engines),
        )
        transaction.execute(
            row.on_conflict_do_update(
                index_elements=["id"],
                set_={
                    "seen_at": row.excluded.seen_at,
                    "draining": row.excluded.draining,
                    "engines": row.excluded.engines,
                },
            )
        )
        counted = transaction.execute(_alive(transaction.now(-alive))).one()
        return LiveWorkers(processes=counted.processes, slots=counted.slots)


def workforce(database: Database, *, alive: timedelta) -> LiveWorkers:
    """Return the workers that were seen within ``alive`` and still take jobs."""
    with database.reading() as transaction:
        counted = transaction.execute(_alive(transaction.now(-alive))).one()
        return LiveWorkers(processes=counted.processes, slots=counted.slots)


def seen(database: Database, *, alive: timedelta) -> list[WorkerStatus]:
    """Return all workers that are not yet forgotten, the longest at work first."""
    with database.reading() as transaction:
        now = transaction.now()
        rows = transaction.execute(
            sa.select(Worker, now.label("now")).order_by(Worker.started_at, Worker.id)
        ).all()
        return [
            WorkerStatus(
                heartbeat=_heartbeat(row.Worker),
                started_at=row.Worker.started_at,
                age=row.now - row.Worker.seen_at,
                alive=row.now - row.Worker.seen_at < alive,
            )
            for row in rows
        ]


def engines(workers: Iterable[WorkerStatus]) -> list[EngineState]:
    """Return the engines that live workers tell of, by URL; of several views of one the best."""
    found: dict[str, EngineState] = {}
    order = ("ok", "resting", "away")
    for worker in workers:
        for engine in (worker.heartbeat.engines or ()) if worker.alive else ():
            known = found.get(engine.url, engine)
            found[engine.url] = min(known, engine, key=lambda one: order.index(one.state))
    return [found[url] for url in sorted(found)]


def retire(database: Database, worker_id: str) -> None:
    """Forget a worker that has stopped by itself."""
    with database.transaction() as transaction:
        transaction.execute(sa.delete(Worker).where(Worker.id == worker_id))


def forget(database: Database, *, silent: timedelta) -> None:
    """Forget workers that have been silent for long."""
    with database.transaction() as transaction:
        transaction.execute(sa.delete(Worker).where(Worker.seen_at < transaction.now(-silent)))


def _plain(engines: Iterable[EngineState] | None) -> list[dict[str, Any]] | sa.Null:
    return sa.null() if engines is None else [dataclasses.asdict(engine) for engine in engines]


def _heartbeat(row: Worker) -> WorkerHeartbeat:
    return WorkerHeartbeat(
        id=row.id,
        host=row.host,
        pid=row.pid,
        version=row.version,
        slots=row.slots,
        draining=row.draining,
        engines=None
        if row.engines is None
        else tuple(EngineState(**engine) for engine in row.engines),
    )


def _alive(since: sa.ColumnElement[datetime]) -> sa.Select[int, int]:
    return sa.select(
        sa.func.count(Worker.id).label("processes"),
        sa.func.coalesce(sa.func.sum(Worker.slots), 0).label("slots"),
    ).where(Worker.seen_at > since, Worker.draining.is_(False))
