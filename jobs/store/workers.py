"""Worker processes and their heartbeats."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.records.fleet import EngineCordon, Worker


@dataclass(frozen=True)
class EngineState:
    """An engine as a worker sees it.

    Attributes:
        state: ``ok``; ``resting`` after a fault; ``away`` when it does not answer.
        model: the model that it serves; None while it is away, as the next two.
        version: the engine's version.
        window: generations that it runs at once.
        reason: why it is away.
        cordoned: whether the worker gives it no new jobs, because of a cordon.
        running: streams that the worker runs on it.
    """

    url: str
    state: Literal["ok", "resting", "away"]
    model: str | None = None
    version: str | None = None
    window: int | None = None
    reason: str | None = None
    cordoned: bool = False
    running: int = 0


@dataclass(frozen=True)
class WorkerOrders:
    """What operators want of a worker: no new jobs on these engines, or no new jobs at all.

    Attributes:
        cordoned: URLs of the engines.
        drain: whether it takes no more jobs; None while it has no row, so that it continues as before.
    """

    cordoned: frozenset[str]
    drain: bool | None


@dataclass(frozen=True)
class WorkerHeartbeat:
    """A worker process, as it describes itself."""

    id: str
    host: str
    pid: int
    version: str
    slots: int
    draining: bool = False
    engines: tuple[EngineState, ...] | None = None


@dataclass(frozen=True)
class WorkerStatus:
    """A worker and its last heartbeat.

    Attributes:
        heartbeat: as the worker describes itself.
        started_at: the first heartbeat.
        age: of the last heartbeat.
        alive: whether it is recent.
        drain_requested_at: since when an operator wants it to take no more jobs; None: no operator does.
        drain_requested_by: the actor.
    """

    heartbeat: WorkerHeartbeat
    started_at: datetime
    age: timedelta
    alive: bool
    drain_requested_at: datetime | None = None
    drain_requested_by: str | None = None


@dataclass(frozen=True)
class LiveWorkers:
    """The number of live workers, and of their slots."""

    processes: int
    slots: int


def beat(database: Database, heartbeat: WorkerHeartbeat, *, alive: timedelta) -> LiveWorkers:
    """Store a heartbeat; return the workers, including this one, that were seen within ``alive``."""
    with database.transaction() as transaction:
        row = transaction.insert(Worker).values(
            **(vars(heartbeat) | {"engines": _plain(heartbeat.engines)}),
            started_at=transaction.now(),
            seen_at=transaction.now(),
            # A worker that was silent for so long that its row was removed stays drained.
            drain_requested_at=transaction.now() if heartbeat.draining else None,
        )
        transaction.execute(
            row.on_conflict_do_update(
                index_elements=["id"],
                set_={name: row.excluded[name] for name in ("seen_at", "draining", "engines")},
            )
        )
        return _count(transaction, alive)


def workforce(database: Database, *, alive: timedelta) -> LiveWorkers:
    """Return the workers that were seen within ``alive`` and still take jobs."""
    with database.reading() as transaction:
        return _count(transaction, alive)


def seen(database: Database, *, alive: timedelta) -> list[WorkerStatus]:
    """Return all workers with a row, the one that started first at the front."""
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
                drain_requested_at=row.Worker.drain_requested_at,
                drain_requested_by=row.Worker.drain_requested_by,
            )
            for row in rows
        ]


def engines(workers: Iterable[WorkerStatus]) -> list[EngineState]:
    """Return the engines that live workers report, by URL; of several states of one engine the best.

    An engine is cordoned when all of them report it so; its streams are counted together.
    """
    by_url: dict[str, EngineState] = {}
    order = ("ok", "resting", "away")
    for worker in workers:
        for engine in (worker.heartbeat.engines or ()) if worker.alive else ():
            known = by_url.get(engine.url)
            if known is None:
                by_url[engine.url] = engine
                continue
            by_url[engine.url] = dataclasses.replace(
                min(known, engine, key=lambda seen: order.index(seen.state)),
                cordoned=known.cordoned and engine.cordoned,
                running=known.running + engine.running,
            )
    return [by_url[url] for url in sorted(by_url)]


def last_seen(transaction: Transaction, worker: str) -> datetime | None:
    """Return when a worker was last seen, None when it has stopped or is forgotten."""
    seen_at = sa.select(Worker.seen_at).where(Worker.id == worker)
    return transaction.execute(seen_at).scalar_one_or_none()


def orders(database: Database, worker_id: str) -> WorkerOrders:
    """Return what operators want of a worker."""
    with database.reading() as transaction:
        urls = transaction.session.scalars(sa.select(EngineCordon.url))
        row = transaction.execute(
            sa.select(Worker.drain_requested_at).where(Worker.id == worker_id)
        ).one_or_none()
        drain = None if row is None else row.drain_requested_at is not None
        return WorkerOrders(frozenset(urls), drain)


def cordons(database: Database) -> dict[str, EngineCordon]:
    """Return the cordons, by the URL of the engine."""
    with database.reading() as transaction:
        return {
            cordon.url: cordon for cordon in transaction.session.scalars(sa.select(EngineCordon))
        }


def cordon(database: Database, url: str, *, actor: str, reason: str | None) -> None:
    """Let workers give an engine no new jobs, from their next heartbeats on. If it is cordoned, nothing changes."""
    with database.transaction() as transaction:
        transaction.execute(
            transaction.insert(EngineCordon)
            .values(url=url, cordoned_at=transaction.now(), cordoned_by=actor, reason=reason)
            .on_conflict_do_nothing(index_elements=["url"])
        )


def uncordon(database: Database, url: str) -> bool:
    """Remove the cordon of an engine; return False without one."""
    with database.transaction() as transaction:
        removed = sa.delete(EngineCordon).where(EngineCordon.url == url)
        return transaction.execute(removed.returning(EngineCordon.url)).first() is not None


def request_drain(database: Database, worker_id: str, *, actor: str) -> bool:
    """Let a worker take no more jobs, from its next heartbeat on; return False when it does not exist."""
    with database.transaction() as transaction:
        requested = (
            sa.update(Worker)
            .where(Worker.id == worker_id)
            .values(
                drain_requested_at=sa.func.coalesce(Worker.drain_requested_at, transaction.now()),
                drain_requested_by=sa.func.coalesce(Worker.drain_requested_by, actor),
            )
        )
        return transaction.execute(requested.returning(Worker.id)).first() is not None


def undrain(database: Database, worker_id: str) -> bool:
    """Let a worker take jobs again, from its next heartbeat on; return False when no operator has drained it."""
    with database.transaction() as transaction:
        ended = (
            sa.update(Worker)
            .where(Worker.id == worker_id, Worker.drain_requested_at.is_not(None))
            .values(drain_requested_at=None, drain_requested_by=None)
        )
        return transaction.execute(ended.returning(Worker.id)).first() is not None


def retire(database: Database, worker_id: str) -> None:
    """Delete the row of a worker that stops."""
    with database.transaction() as transaction:
        transaction.delete(Worker, Worker.id == worker_id)


def forget(database: Database, *, silent: timedelta) -> None:
    """Delete the rows of workers without a heartbeat for the time ``silent``."""
    with database.transaction() as transaction:
        transaction.delete(Worker, Worker.seen_at < transaction.now(-silent))


def _plain(engines: Iterable[EngineState] | None) -> list[dict[str, Any]] | sa.Null:
    return sa.null() if engines is None else [dataclasses.asdict(engine) for engine in engines]


def _heartbeat(row: Worker) -> WorkerHeartbeat:
    columns = {
        field.name: getattr(row, field.name) for field in dataclasses.fields(WorkerHeartbeat)
    }
    if row.engines is not None:
        columns["engines"] = tuple(EngineState(**engine) for engine in row.engines)
    return WorkerHeartbeat(**columns)


def _count(transaction: Transaction, alive: timedelta) -> LiveWorkers:
    counted = transaction.execute(
        sa.select(
            sa.func.count(Worker.id).label("processes"),
            sa.func.coalesce(sa.func.sum(Worker.slots), 0).label("slots"),
        ).where(Worker.seen_at > transaction.now(-alive), Worker.draining.is_(False))
    ).one()
    return LiveWorkers(processes=counted.processes, slots=counted.slots)
