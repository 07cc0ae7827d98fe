"""The one way to change a job: a guarded UPDATE and an entry in the append-only timeline, in one transaction."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from core.database import Database, Now, Transaction
from jobs import lifecycle
from jobs.lifecycle import Priority, Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.timeline import TimelineEntry
from jobs.store import outbox, turns

#: The columns that the timeline records: a job's history can be rebuilt from them. Leases are renewed too often.
REPORTED = (
    "status",
    "attempt",
    "crashes",
    "failures",
    "not_before",
    "cancel_requested_at",
    "engine_stopped_at",
    "error_code",
    "data_removed_at",
    "images_released_at",
    "trace_removed_at",
    "answer_removed_at",
    "timeline_removed_at",
)

_JOB = table(Job).c


def standing(status: Status) -> sa.ColumnElement[bool]:
    """Return the condition of having ``status``.

    The value is written out: bound as a parameter it would hide the partial indexes from a prepared plan.
    """
    return _JOB.status == sa.literal_column(f"'{status.value}'", _JOB.status.type)


@dataclass(frozen=True)
class Move:
    """A change of a job: a note for the metrics, counted after the commit. ``source`` None: the job was submitted."""

    action: str
    source: Status | None
    target: Status
    at: datetime
    priority: Priority
    attempt: int
    created_at: datetime
    started_at: datetime | None = None
    error_code: str | None = None


@dataclass(frozen=True)
class Changed:
    """A job that an UPDATE has changed, as it is now."""

    id: uuid.UUID
    status: Status
    attempt: int
    values: Mapping[str, Any]


_RETURNED = (
    *REPORTED,
    "last_sequence_number",
    "account_id",
    "lease_owner",
    "deadline_at",
    "request_id",
    "group_id",
    "priority",
    "created_at",
    "started_at",
)


class Change:
    """A change of jobs: their transition from one status to another, which may be the same.

    To build the statement takes longer than to run it, so frequent changes are module constants with parameters. The
    conditions name columns of the bare table (:func:`jobs.records.declarative.table`).

    Args:
        action: the action in the timeline, one word in the past tense.
        source: the status that the jobs must have.
        target: the status that they get; the transition must be in :data:`jobs.lifecycle.TRANSITIONS`.
        where: further conditions, such as the fence ``attempt = n AND lease_owner = w``.
        values: columns of ``jobs`` to set, by name, except those that are bound later.
        numbers: how many sequence numbers to reserve in addition to the transition's own.
        shown: further columns to return, with their new values.

    Raises:
        ValueError: the transition is not allowed.
    """

    def __init__(
        self,
        action: str,
        *,
        source: Status,
        target: Status,
        where: Iterable[sa.ColumnElement[bool]],
        values: Mapping[str, Any] = MappingProxyType({}),
        numbers: int = 0,
        shown: Iterable[str] = (),
    ) -> None:
        if target is not source and target not in lifecycle.TRANSITIONS[source]:
            raise ValueError(f"no job goes from {source} to {target}")
        full = dict(values)
        if target is not source:
            full["status"] = target
            if target.terminal:
                full["finished_at"] = Now()
            else:
                full["last_sequence_number"] = _JOB.last_sequence_number + 1 + numbers
        if source is Status.RUNNING and target is not Status.RUNNING:
            full |= {"lease_owner": None, "lease_expires_at": None}
        self.action = action
        self.source = source
        self.target = target
        self.numbers = numbers
        #: The columns that it sets, except those that are bound.
        self.names = frozenset(full)
        self.statement = (
            sa.update(table(Job))
            .where(standing(source), *where)
            .values(full)
            .returning(_JOB.id, Now().label("at"), *(_JOB[name] for name in (*_RETURNED, *shown)))
        )


def change(
    transaction: Transaction,
    what: Change,
    *,
    actor: str,
    bound: Mapping[str, Any] = MappingProxyType({}),
    noted: Mapping[str, str] = MappingProxyType({}),
) -> list[Changed]:
    """Do ``what`` to the jobs that it matches, and tell it.

    It appends to the timeline, and to the outbox (:mod:`jobs.store.outbox`) if receivers may want to know.

    Args:
        transaction: the open transaction.
        what: the change.
        actor: the actor of the timeline's entries.
        bound: the parameters of ``what``, and values of further columns by name.
        noted: what else the timeline says of the change, such as the operation that caused it.

    Returns:
        The changed jobs; none when the race was lost.
    """
    rows = transaction.execute(what.statement, dict(bound)).mappings().all()
    reported = [name for name in REPORTED if name in what.names or name in bound]
    numbered = "last_sequence_number" in what.names
    record(
        transaction,
        [
            {
                "job_id": row["id"],
                "at": row["at"],
                "actor": actor,
                "action": what.action,
                "changes": plain({name: row[name] for name in reported}) | dict(noted),
                "sequence_number": row["last_sequence_number"] - what.numbers if numbered else None,
            }
            for row in rows
        ],
    )
    if what.target is not what.source:
        outbox.add(transaction, rows, what.target)
        if what.target is Status.QUEUED:
            turns.enter_all(transaction, ((row["account_id"], row["priority"]) for row in rows))
    transaction.notes += [
        Move(
            action=what.action,
            source=what.source,
            target=what.target,
            **{name: row[name] for name in _NOTED},
        )
        for row in rows
    ]
    return [
        Changed(id=row["id"], status=row["status"], attempt=row["attempt"], values=dict(row))
        for row in rows
    ]


_NOTED = ("at", "priority", "attempt", "created_at", "started_at", "error_code")


_ENTRY = sa.insert(table(TimelineEntry))


def record(transaction: Transaction, entries: Sequence[Mapping[str, Any]]) -> None:
    """Append ``entries``, each with the columns of :class:`jobs.records.timeline.TimelineEntry`, to the timeline."""
    if entries:
        transaction.execute(_ENTRY, entries)


def plain(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of a job as the timeline stores their changes: as JSON."""
    return {
        name: value.astimezone(UTC).isoformat(timespec="microseconds")
        if isinstance(value, datetime)
        else value
        for name, value in columns.items()
    }


def read(
    database: Database, job_id: uuid.UUID, *, limit: int, after: int = 0
) -> tuple[list[TimelineEntry], bool]:
    """Return up to ``limit`` entries of a job after the entry ``after``, oldest first, and whether there are more."""
    with database.reading() as transaction:
        entries = transaction.session.scalars(
            sa.select(TimelineEntry)
            .where(TimelineEntry.job_id == job_id, TimelineEntry.id > after)
            .order_by(TimelineEntry.id)
            .limit(limit + 1)
        ).all()
        return list(entries[:limit]), len(entries) > limit
