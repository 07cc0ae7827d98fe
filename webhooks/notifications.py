"""Writes notifications: a row with the payload, and for each target a delivery with its first attempt.

A delivery attempt is due at once. The payload is the same bytes for all targets and attempts.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
import sqlalchemy as sa

from core import ids, ordered_ids
from core.database import Transaction
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.store.outbox import NotificationsDue
from webhooks import policy
from webhooks.policy import AttemptKind, AttemptState, DeliveryStatus, EventType
from webhooks.tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookNotification,
    WebhookQueue,
)

#: What a payload that would be too long leaves out, in this order.
_OMITTED: Final = ("answer.value", "answer.tex", "answer", "metadata")

_ENDPOINT = table(WebhookEndpoint).c


@dataclass(frozen=True)
class NotificationTarget:
    """Where a notification goes: to an endpoint, or (``endpoint_id`` None) to a job's own URL."""

    queue_id: uuid.UUID
    endpoint_id: uuid.UUID | None
    url: str = ""


@dataclass(frozen=True)
class Notification:
    """Something that happened, and where to send it.

    Attributes:
        at: when it happened.
        data: the payload's ``data``.
        reduced_at: when the answer of its job was removed, if it was.
    """

    account_id: uuid.UUID
    type: str
    at: datetime
    data: Mapping[str, Any] = field(repr=False)
    targets: Sequence[NotificationTarget]
    job_id: uuid.UUID | None = None
    kind: AttemptKind = AttemptKind.AUTOMATIC
    reduced_at: datetime | None = None


@dataclass(frozen=True)
class Listener:
    """An endpoint, as far as it decides what the endpoint is notified of."""

    id: uuid.UUID
    event_types: Collection[str]
    created_at: datetime
    disabled_at: datetime | None
    deleted_at: datetime | None

    def existed(self, at: datetime) -> bool:
        """Whether the endpoint existed and was enabled at a time."""
        return self.created_at <= at and all(
            end is None or end > at for end in (self.disabled_at, self.deleted_at)
        )


_LISTENERS = sa.select(
    _ENDPOINT.id,
    _ENDPOINT.account_id,
    _ENDPOINT.event_types,
    _ENDPOINT.created_at,
    _ENDPOINT.disabled_at,
    _ENDPOINT.deleted_at,
).where(
    _ENDPOINT.account_id.in_(sa.bindparam("accounts", expanding=True)),
    *(
        sa.or_(end.is_(None), end > sa.bindparam("since", type_=end.type))
        for end in (_ENDPOINT.disabled_at, _ENDPOINT.deleted_at)
    ),
)


def listeners(
    transaction: Transaction, accounts: Collection[uuid.UUID], *, since: datetime
) -> dict[uuid.UUID, list[Listener]]:
    """Return the endpoints of accounts, by account, but for those that were disabled or deleted before ``since``."""
    endpoints: dict[uuid.UUID, list[Listener]] = {}
    for row in transaction.execute(_LISTENERS, {"accounts": list(accounts), "since": since}):
        endpoints.setdefault(row.account_id, []).append(
            Listener(row.id, row.event_types, row.created_at, row.disabled_at, row.deleted_at)
        )
    return endpoints


def of_account(
    transaction: Transaction,
    *,
    account_id: uuid.UUID,
    event_type: EventType,
    data: Mapping[str, Any],
) -> None:
    """Write a notification that belongs to no job, for the account's endpoints that listen now."""
    at = now(transaction)
    targets = [
        NotificationTarget(queue_id=listener.id, endpoint_id=listener.id)
        for listener in listeners(transaction, [account_id], since=at).get(account_id, [])
        if listener.existed(at) and event_type in listener.event_types
    ]
    if targets:
        write(transaction, [Notification(account_id, event_type, at, data, targets)])


def write(transaction: Transaction, notifications: Sequence[Notification]) -> list[uuid.UUID]:
    """Write notifications with their deliveries and first attempts; return the ids of the deliveries, in order."""
    events: list[dict[str, Any]] = []
    deliveries: list[dict[str, Any]] = []
    attempts: list[dict[str, Any]] = []
    targets = [target for notification in notifications for target in notification.targets]
    slow = _slow_urls(transaction, targets)
    for notification in notifications:
        event = _event(notification)
        events.append(event)
        for target in notification.targets:
            delivery = _delivery(event, target, ordered_ids.new(transaction))
            deliveries.append(delivery)
            queue_id = slow.get((target.queue_id, target.url), target.queue_id)
            attempts.append(_attempt(delivery, notification.kind, queue_id))
    if deliveries:
        transaction.execute(sa.insert(table(WebhookNotification)), events)
        transaction.execute(sa.insert(table(WebhookDelivery)), deliveries)
        transaction.execute(sa.insert(table(WebhookAttempt)), attempts)
        transaction.notes.append(NotificationsDue())
    return [delivery["id"] for delivery in deliveries]


def _event(notification: Notification) -> dict[str, Any]:
    event_id = ids.new()
    return {
        "id": event_id,
        "account_id": notification.account_id,
        "type": notification.type,
        "job_id": notification.job_id,
        "payload": payload(event_id, notification.type, notification.at, notification.data),
        "created_at": notification.at,
        "reduced_at": notification.reduced_at,
    }


def _delivery(
    event: Mapping[str, Any], target: NotificationTarget, delivery_id: uuid.UUID
) -> dict[str, Any]:
    return {
        "id": delivery_id,
        "notification_id": event["id"],
        "queue_id": target.queue_id,
        "endpoint_id": target.endpoint_id,
        "url": target.url,
        "status": DeliveryStatus.PENDING,
        "attempt_count": 1,
        "created_at": event["created_at"],
    }


def _attempt(delivery: Mapping[str, Any], kind: AttemptKind, queue_id: uuid.UUID) -> dict[str, Any]:
    return {
        "id": ids.new(),
        "delivery_id": delivery["id"],
        "queue_id": queue_id,
        "number": 1,
        "kind": kind,
        "step": 0,
        "state": AttemptState.DUE,
        "due_at": delivery["created_at"],
    }


def now(transaction: Transaction) -> datetime:
    """Return the database's time."""
    return transaction.scalar(sa.select(transaction.now()))


def attempt_again(
    transaction: Transaction,
    delivery_id: uuid.UUID,
    *,
    kind: AttemptKind,
    step: int = 0,
    wait: timedelta = timedelta(0),
) -> tuple[uuid.UUID, datetime]:
    """Write one more attempt of a delivery; return its id, and when it is due."""
    delivery = transaction.execute(
        sa.update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id)
        .values(attempt_count=WebhookDelivery.attempt_count + 1)
        .returning(
            WebhookDelivery.attempt_count,
            WebhookDelivery.queue_id,
            WebhookDelivery.endpoint_id,
            WebhookDelivery.url,
        )
    ).one()
    target = NotificationTarget(delivery.queue_id, delivery.endpoint_id, delivery.url)
    slow = _slow_urls(transaction, [target])
    attempt_id = ids.new()
    due_at = transaction.scalar(
        sa.insert(WebhookAttempt)
        .values(
            id=attempt_id,
            delivery_id=delivery_id,
            queue_id=slow.get((target.queue_id, target.url), target.queue_id),
            number=delivery.attempt_count,
            kind=kind,
            step=step,
            state=AttemptState.DUE,
            due_at=transaction.now(wait),
        )
        .returning(WebhookAttempt.due_at)
    )
    return attempt_id, due_at


def _slow_urls(
    transaction: Transaction, targets: Iterable[NotificationTarget]
) -> dict[tuple[uuid.UUID, str], uuid.UUID]:
    """Return the queues of those URLs, given with the queue of their origin, that are slow.

    Their keys stay locked until the attempts are written: a purge removes none of them meanwhile.
    """
    own = {
        (target.queue_id, target.url): policy.url_queue(target.queue_id, target.url)
        for target in targets
        if target.endpoint_id is None
    }
    if not own:
        return {}
    slow = set(
        transaction.execute(
            sa.select(WebhookQueue.id)
            .where(WebhookQueue.id.in_(set(own.values())), WebhookQueue.failures >= policy.TRIP)
            .with_for_update(read=True, key_share=True)
        ).scalars()
    )
    return {target: queue_id for target, queue_id in own.items() if queue_id in slow}


def open_queues(
    transaction: Transaction, targets: Iterable[tuple[uuid.UUID, NotificationTarget]]
) -> None:
    """Make the queues of jobs' own URLs, given with the accounts of the jobs.

    They are made in the order of their ids, so that two transactions that make the same ones cannot deadlock. A
    transaction must therefore call this once.
    """
    queues = {
        target.queue_id: (account_id, policy.origin(target.url))
        for account_id, target in targets
        if target.endpoint_id is None
    }
    for queue_id, (account_id, origin) in sorted(queues.items()):
        open_queue(transaction, queue_id, account_id=account_id, origin=origin)


def open_queue(
    transaction: Transaction, queue_id: uuid.UUID, *, account_id: uuid.UUID, origin: str
) -> None:
    """Make a queue if it does not exist."""
    transaction.execute(
        transaction.insert(WebhookQueue)
        .values(id=queue_id, account_id=account_id, origin=origin, failures=0)
        .on_conflict_do_nothing(index_elements=["id"])
    )


def payload(event_id: uuid.UUID, event_type: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """Return the JSON that receivers get, below 20 kB: it leaves out what does not fit, and ``omitted`` says what."""
    shortened = dict(data)
    envelope = {
        "id": ids.show("evt", event_id),
        "object": "event",
        "created_at": int(at.timestamp()),
        "timestamp": _shown(at),
        "type": event_type,
        "data": shortened,
    }
    text = orjson.dumps(envelope)
    for name in _OMITTED:
        if len(text) < policy.PAYLOAD_BYTES:
            break
        if _omit(shortened, name):
            text = orjson.dumps(envelope)
    return text


def without_content(message: bytes) -> bytes:
    """Return a payload of :func:`payload` without its answer and its metadata."""
    envelope = orjson.loads(message)
    for name in ("answer", "metadata"):
        _omit(envelope["data"], name)
    return orjson.dumps(envelope)


def _omit(data: dict[str, Any], name: str) -> bool:
    """Remove a (nested) member of ``data`` and add it to ``omitted``; return False if it does not exist."""
    whole, _, part = name.partition(".")
    value = data.get(whole)
    if not value or (part and value.get(part) is None):
        return False
    data[whole] = value | {part: None} if part else None
    others = [omitted for omitted in data.get("omitted", ()) if not omitted.startswith(f"{whole}.")]
    data["omitted"] = [*others, name]
    return True


def job_data(job: Job, status: Status, *, base: str) -> dict[str, Any]:
    """Return the ``data`` of a notification that ``job`` moved to ``status``.

    It has neither question nor trace, but links. What the move had not decided yet is None: the job of ``job.started``
    may have ended since. An answer that was removed since is None, too, and ``omitted`` names it.

    Args:
        job: the job.
        status: the state that it moved to.
        base: what stands before the paths in its links.
    """
    shown = ids.show("job", job.id)
    path = f"{base}/v1/jobs/{shown}"
    data = {
        "id": shown,
        "object": "job",
        "status": status,
        "model": job.model,
        "attempt": job.attempt if status.terminal else 1,
        "answer": None,
        "finish_reason": None,
        "error": None,
        "usage": None,
        "metadata": job.metadata_,
        "rerun_of": job.rerun_of and ids.show("job", job.rerun_of),
        "created_at": _shown(job.created_at),
        "started_at": job.started_at and _shown(job.started_at),
        "finished_at": None,
        "omitted": [],
        "urls": {"self": path, "trace": f"{path}/trace"},
    }
    return data | _end(job) if status.terminal else data


def _end(job: Job) -> dict[str, Any]:
    usage = ("input_tokens", "cached_tokens", "image_tokens", "output_tokens", "engine_seconds")
    error = {
        "code": job.error_code,
        "message": job.error_message,
        "retryable": bool(job.error_retryable),
    }
    answer = {
        "text": job.answer_text,
        "tex": job.answer_tex,
        "value": job.answer_value,
        "rule": job.answer_rule,
        "confidence": job.confidence,
    }
    removed = answer_removed_at(job) is not None and job.status is Status.SUCCEEDED
    return {
        "answer": answer if job.answer_text is not None else None,
        "finish_reason": job.finish_reason,
        "error": error if job.error_code is not None else None,
        "usage": {name: getattr(job, name) for name in usage}
        if job.output_tokens is not None
        else None,
        "finished_at": job.finished_at and _shown(job.finished_at),
        "omitted": ["answer"] if removed else [],
    }


def answer_removed_at(job: Job) -> datetime | None:
    """Return when the job's answer was removed, None if it was not."""
    return job.data_removed_at or job.answer_removed_at


def _shown(moment: datetime) -> str:
    """Return a time as the API shows it."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
