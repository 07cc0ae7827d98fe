"""What happened is written down to be told, in the transaction in which it happens: the outbox.

Every change of a job comes through :func:`jobs.store.timeline.change`, which calls :func:`of_jobs`; so no door,
worker or sweeper can end a job untold. An event is written when somebody listens: an endpoint of the account that
has its type and is not disabled, or the job's own webhook. With it comes one delivery for each of those targets,
and for each delivery its first try, due at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import sqlalchemy as sa

from core import ids
from core.database import Transaction
from core.wakeup import Wakeup
from jobs import delivery
from jobs.delivery import AttemptKind, AttemptState, DeliveryStatus, EventType, Webhook
from jobs.lifecycle import Status
from jobs.outbox import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookNotification,
    WebhookQueue,
)
from jobs.records import Job, table

#: What a payload does without when it would be too long, in this order.
_OMITTED: Final = ("answer.value", "answer", "metadata")
#: An endpoint's id and the types that it is told of.
_Listener = tuple[uuid.UUID, list[str]]


@dataclass(frozen=True)
class DeliveriesDue:
    """Tries are due now, noted for those who ring once that is committed."""

    attempts: int


class WakeupOnCommit:
    """Rings once something to be told is committed: give it to :meth:`core.database.Database.listen`.

    A bell is lost when the answer to the commit is; whoever tells looks by himself every few seconds.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup

    def __call__(self, note: object) -> None:
        """Hear a note of a transaction."""
        if isinstance(note, DeliveriesDue):
            self._wakeup.notify()


@dataclass(frozen=True)
class NotificationTarget:
    """Who is told: an endpoint, or (``endpoint_id`` None) a job's own URL."""

    queue_id: uuid.UUID
    endpoint_id: uuid.UUID | None
    url: str = ""


_ENDPOINT = table(WebhookEndpoint).c


def listening() -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition of an endpoint that is told of events."""
    return (_ENDPOINT.disabled_at.is_(None), _ENDPOINT.deleted_at.is_(None))


def of_jobs(transaction: Transaction, moved: Sequence[sa.RowMapping], target: Status) -> None:
    """Write the events of jobs that have just moved to ``target``, for whoever listens.

    Args:
        transaction: the one that moved them.
        moved: of each job at least ``id``, ``account_id``, ``attempt``, ``webhook``.
        target: their state now.
    """
    event_type = delivery.TYPES.get(target)
    rows = [row for row in moved if target is not Status.RUNNING or row["attempt"] == 1]
    if event_type is None or not rows:
        return
    listeners = _listeners(transaction, {row["account_id"] for row in rows})
    reported: dict[uuid.UUID, list[NotificationTarget]] = {}
    for row in rows:
        account_id = row["account_id"]
        wanted = Webhook.of(row["webhook"])
        targets = _targets(account_id, wanted, listeners.get(account_id, []), event_type)
        if targets:
            reported[row["id"]] = targets
    if not reported:
        return
    _open_queues(transaction, moved, reported)
    # As they are now: the caller's rows have only what the timeline tells.
    jobs = transaction.session.scalars(
        sa.select(Job).where(Job.id.in_(reported)).execution_options(populate_existing=True)
    )
    for job in jobs:
        write(
            transaction,
            account_id=job.account_id,
            event_type=event_type,
            data=job_data(job),
            targets=reported[job.id],
            job_id=job.id,
        )


def of_account(
    transaction: Transaction,
    *,
    account_id: uuid.UUID,
    event_type: EventType,
    data: Mapping[str, Any],
) -> None:
    """Write an event of an account that belongs to no job, for its endpoints that listen."""
    listeners = _listeners(transaction, {account_id}).get(account_id, [])
    targets = _targets(account_id, None, listeners, event_type)
    if targets:
        write(
            transaction,
            account_id=account_id,
            event_type=event_type,
            data=data,
            targets=targets,
        )


def write(
    transaction: Transaction,
    *,
    account_id: uuid.UUID,
    event_type: str,
    data: Mapping[str, Any],
    targets: Sequence[NotificationTarget],
    job_id: uuid.UUID | None = None,
    kind: AttemptKind = AttemptKind.AUTOMATIC,
) -> list[uuid.UUID]:
    """Write an event with its deliveries and their first tries; return the deliveries' ids, as ``targets``."""
    event_id = ids.new()
    at: datetime = transaction.execute(sa.select(transaction.now())).scalar_one()
    transaction.execute(
        sa.insert(WebhookNotification).values(
            id=event_id,
            account_id=account_id,
            type=event_type,
            job_id=job_id,
            payload=payload(event_id, event_type, at, data),
            created_at=at,
        )
    )
    deliveries: list[dict[str, Any]] = [
        {
            "id": ids.new(),
            "notification_id": event_id,
            "queue_id": target.queue_id,
            "endpoint_id": target.endpoint_id,
            "url": target.url,
            "status": DeliveryStatus.PENDING,
            "attempt_count": 1,
            "created_at": at,
        }
        for target in targets
    ]
    transaction.execute(sa.insert(WebhookDelivery), deliveries)
    transaction.execute(
        sa.insert(WebhookAttempt),
        [
            {
                "id": ids.new(),
                "delivery_id": row["id"],
                "queue_id": row["queue_id"],
                "number": 1,
                "kind": kind,
                "step": 0,
                "state": AttemptState.DUE,
                "due_at": at,
            }
            for row in deliveries
        ],
    )
    transaction.notes.append(DeliveriesDue(len(deliveries)))
    return [row["id"] for row in deliveries]


def _open_queues(
    transaction: Transaction,
    moved: Iterable[sa.RowMapping],
    reported: Mapping[uuid.UUID, Sequence[NotificationTarget]],
) -> None:
    """Make the lanes of the jobs' own URLs, in one order, so that no two transactions wait for each other.

    A transaction that calls this more than once has to keep to the order of :func:`own_lane` over all calls.
    """
    queues = {
        target.queue_id: (row["account_id"], delivery.origin(target.url))
        for row in moved
        for target in reported.get(row["id"], ())
        if target.endpoint_id is None
    }
    for queue_id, (account_id, origin) in sorted(queues.items()):
        open_queue(transaction, queue_id, account_id=account_id, origin=origin)


def own_queue(row: sa.RowMapping) -> uuid.UUID:
    """Return the lane of a job's own URL, by its ``account_id`` and ``webhook``; without a URL one before all."""
    webhook = Webhook.of(row["webhook"])
    if webhook is None or webhook.url is None:
        return uuid.UUID(int=0)
    return delivery.queue(row["account_id"], webhook.url)[0]


def open_queue(
    transaction: Transaction, queue_id: uuid.UUID, *, account_id: uuid.UUID, origin: str
) -> None:
    """Make a lane if it is not there yet."""
    transaction.execute(
        transaction.insert(WebhookQueue)
        .values(id=queue_id, account_id=account_id, origin=origin, failures=0)
        .on_conflict_do_nothing(index_elements=["id"])
    )


def payload(event_id: uuid.UUID, event_type: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """Return an event as receivers get it, below 20 kB: what does not fit is left out, and ``omitted`` names it."""
    stored = dict(data)
    envelope = {
        "id": ids.show("evt", event_id),
        "object": "event",
        "created_at": int(at.timestamp()),
        "timestamp": _shown(at),
        "type": event_type,
        "data": stored,
    }
    text = orjson.dumps(envelope)
    for name in _OMITTED:
        if len(text) < delivery.PAYLOAD_BYTES:
            break
        if _omit(stored, name):
            text = orjson.dumps(envelope)
    return text


def _omit(data: dict[str, Any], name: str) -> bool:
    """Leave a member, or a member of one, out of ``data`` and say so; False when there is none."""
    whole, _, part = name.partition(".")
    held = data.get(whole)
    if not held or (part and held.get(part) is None):
        return False
    data[whole] = held | {part: None} if part else None
    reported = [one for one in data["omitted"] if not one.startswith(f"{whole}.")]
    data["omitted"] = [*reported, name]
    return True


def job_data(job: Job) -> dict[str, Any]:
    """Return what an event tells of a job: all but its question and its trace, which are links."""
    shown = ids.show("job", job.id)
    failed = job.error_code is not None
    usage = ("input_tokens", "cached_tokens", "image_tokens", "output_tokens", "engine_seconds")
    return {
        "id": shown,
        "object": "job",
        "status": job.status,
        "model": job.model,
        "attempt": job.attempt,
        "answer": None
        if job.answer_text is None
        else {
            "text": job.answer_text,
            "value": job.answer_value,
            "rule": job.answer_rule,
            "confidence": job.confidence,
        },
        "finish_reason": job.finish_reason,
        "error": {
            "code": job.error_code,
            "message": job.error_message,
            "retryable": bool(job.error_retryable),
        }
        if failed
        else None,
        "usage": {name: getattr(job, name) for name in usage}
        if job.output_tokens is not None
        else None,
        "metadata": job.metadata_,
        "rerun_of": job.rerun_of and ids.show("job", job.rerun_of),
        "created_at": _shown(job.created_at),
        "started_at": job.started_at and _shown(job.started_at),
        "finished_at": job.finished_at and _shown(job.finished_at),
        "omitted": [],
        "urls": {"self": f"/v1/jobs/{shown}", "trace": f"/v1/jobs/{shown}/trace"},
    }


def reduce(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Take the answers of jobs out of the payloads of their events, and what receivers said, who may have echoed them.

    What is still to be told is told without its answer.
    """
    rows = transaction.session.scalars(
        sa.select(WebhookNotification)
        .where(WebhookNotification.job_id.in_(job_ids), WebhookNotification.reduced_at.is_(None))
        .with_for_update(key_share=True)
    )
    for event in rows.all():
        reported = orjson.loads(event.payload)
        _omit(reported["data"], "answer")
        transaction.execute(
            sa.update(WebhookNotification)
            .where(WebhookNotification.id == event.id)
            .values(payload=orjson.dumps(reported), reduced_at=transaction.now())
        )
    transaction.execute(
        sa.update(WebhookAttempt)
        .where(WebhookAttempt.delivery_id.in_(_deliveries_of(job_ids)))
        .values(response_body=None)
    )


def reported_out() -> sa.ColumnElement[bool]:
    """Return the condition of a job of which nothing is still to be told."""
    pending = (
        sa.select(WebhookDelivery.id)
        .join(WebhookNotification, WebhookNotification.id == WebhookDelivery.notification_id)
        .where(WebhookNotification.job_id == Job.id, _open_deliveries())
    )
    return ~sa.exists(pending.correlate(Job))


def held_reported_out(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return those jobs of which nothing is to be told, and let nothing be until the commit.

    Whoever sends again meanwhile comes first, and then the job is not among them; or waits, and finds nothing to send.
    """
    _hold(transaction, WebhookDelivery.id.in_(_deliveries_of(job_ids)))
    held = sa.select(Job.id).where(Job.id.in_(job_ids), reported_out())
    return set(transaction.session.scalars(held))


def _hold(transaction: Transaction, condition: sa.ColumnElement[bool]) -> None:
    """Lock deliveries, in the order in which whoever sends several of them again does."""
    transaction.execute(
        sa.select(WebhookDelivery.id)
        .where(condition)
        .order_by(WebhookDelivery.id)
        .with_for_update()
    )


def forget(transaction: Transaction, events: Collection[uuid.UUID]) -> None:
    """Remove events with their deliveries and tries."""
    theirs = sa.select(WebhookDelivery.id).where(WebhookDelivery.notification_id.in_(events))
    transaction.execute(sa.delete(WebhookAttempt).where(WebhookAttempt.delivery_id.in_(theirs)))
    transaction.execute(
        sa.delete(WebhookDelivery).where(WebhookDelivery.notification_id.in_(events))
    )
    transaction.execute(sa.delete(WebhookNotification).where(WebhookNotification.id.in_(events)))


def forget_jobs(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove all events of jobs that :func:`held_told_out` has returned."""
    found = transaction.session.scalars(
        sa.select(WebhookNotification.id).where(WebhookNotification.job_id.in_(job_ids))
    )
    forget(transaction, found.all())


def forget_others(
    transaction: Transaction, *, before: sa.ColumnElement[datetime], limit: int
) -> int:
    """Remove up to ``limit`` told-out events that belong to no job and are older; return how many."""
    pending = sa.select(WebhookDelivery.id).where(
        WebhookDelivery.notification_id == WebhookNotification.id, _open_deliveries()
    )
    reported_out = ~sa.exists(pending.correlate(WebhookNotification))
    chosen = transaction.session.scalars(
        sa.select(WebhookNotification.id)
        .where(
            WebhookNotification.job_id.is_(None),
            WebhookNotification.created_at < before,
            reported_out,
        )
        .order_by(WebhookNotification.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    # Again, as for jobs: somebody may have sent one of them again meanwhile.
    _hold(transaction, WebhookDelivery.notification_id.in_(chosen))
    found = transaction.session.scalars(
        sa.select(WebhookNotification.id).where(WebhookNotification.id.in_(chosen), reported_out)
    ).all()
    forget(transaction, found)
    return len(found)


def _open_deliveries() -> sa.ColumnElement[bool]:
    """Return the condition of a delivery that is not over: pending, or with a resend under way."""
    attempts = sa.select(WebhookAttempt.id).where(
        WebhookAttempt.delivery_id == WebhookDelivery.id, WebhookAttempt.state != AttemptState.ENDED
    )
    return sa.or_(WebhookDelivery.status == DeliveryStatus.PENDING, sa.exists(attempts))


def _deliveries_of(job_ids: Collection[uuid.UUID]) -> sa.Select[uuid.UUID]:
    return (
        sa.select(WebhookDelivery.id)
        .join(WebhookNotification, WebhookNotification.id == WebhookDelivery.notification_id)
        .where(WebhookNotification.job_id.in_(job_ids))
    )


_LISTENERS = sa.select(_ENDPOINT.id, _ENDPOINT.account_id, _ENDPOINT.event_types).where(
    _ENDPOINT.account_id.in_(sa.bindparam("accounts", expanding=True)), *listening()
)


def _listeners(
    transaction: Transaction, accounts: Collection[uuid.UUID]
) -> dict[uuid.UUID, list[_Listener]]:
    """Return the endpoints that are told of events, by account."""
    found: dict[uuid.UUID, list[_Listener]] = {}
    for row in transaction.execute(_LISTENERS, {"accounts": list(accounts)}):
        found.setdefault(row.account_id, []).append((row.id, row.event_types))
    return found


def _targets(
    account_id: uuid.UUID,
    wanted: Webhook | None,
    listeners: Iterable[_Listener],
    event_type: EventType,
) -> list[NotificationTarget]:
    """Return who is told, each once."""
    requested = wanted if wanted is not None and event_type in wanted.events else None
    named = requested.endpoint_id if requested is not None else None
    targets = [
        NotificationTarget(queue_id=endpoint_id, endpoint_id=endpoint_id)
        for endpoint_id, event_types in listeners
        if event_type in event_types or endpoint_id == named
    ]
    if requested is not None and requested.url is not None:
        queue_id, _ = delivery.queue(account_id, requested.url)
        targets.append(NotificationTarget(queue_id=queue_id, endpoint_id=None, url=requested.url))
    return targets


def _shown(moment: datetime) -> str:
    """Return a time as the API shows it."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
