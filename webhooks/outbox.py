"""Fans out the outbox: makes notifications of the moves of jobs, for the endpoints that listened at that time.

The jobs' own transactions only add entries (:mod:`jobs.store.outbox`). The delivery process reads them here. In one
transaction it writes the notifications with their deliveries and first attempts, and deletes the entries: if it dies,
another process finds either the entries or the deliveries.

The time of the move decides which endpoints get a notification. A transaction that changes what an endpoint listens to
therefore calls :func:`fan_out_account` first.
"""

import collections
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import sqlalchemy as sa
import structlog

from core import ids
from core.database import Database, Transaction
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.timeline import OutboxEntry
from jobs.store import contents
from webhooks import notifications, policy, thin_events
from webhooks.notifications import Listener, Notification, NotificationTarget
from webhooks.policy import EventType, Webhook

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_BATCH: Final = 100
#: Deliveries of a batch: an account that reaches its share leaves its other entries to a later batch.
_MOST_DELIVERIES: Final = 1_000
#: Accounts that share a batch.
_MOST_ACCOUNTS: Final = 20

_ENTRY = table(OutboxEntry).c
_JOB = table(Job).c


@dataclass(frozen=True)
class FanOut:
    """What a batch did: entries that it deleted, deliveries that it wrote."""

    entries: int = 0
    deliveries: int = 0
    #: Whether the outbox may have more entries.
    more: bool = False
    #: The last account of the batch: the next batch starts after it.
    account_id: uuid.UUID | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _Planned:
    """What becomes of an entry: the notifications of its move, by their types, with at least one target each."""

    entry: OutboxEntry
    targets: Mapping[EventType, Sequence[NotificationTarget]]

    @property
    def deliveries(self) -> int:
        return sum(map(len, self.targets.values()))


_ENTRIES = sa.select(OutboxEntry).order_by(OutboxEntry.id)
_CLAIMED = (
    _ENTRIES.where(OutboxEntry.account_id == sa.bindparam("account_id"))
    .limit(sa.bindparam("limit", type_=sa.Integer()))
    .with_for_update(skip_locked=True)
)
_OF_ACCOUNT = _ENTRIES.where(OutboxEntry.account_id == sa.bindparam("account_id")).with_for_update()
_WEBHOOKS = sa.select(_JOB.id, _JOB.webhook).where(
    _JOB.id.in_(sa.bindparam("ids", expanding=True)), _JOB.webhook.is_not(None)
)
_DELETE = sa.delete(table(OutboxEntry)).where(_ENTRY.id.in_(sa.bindparam("ids", expanding=True)))


def fan_out(
    database: Database,
    *,
    after: uuid.UUID | None = None,
    limit: int = _BATCH,
    most_deliveries: int = _MOST_DELIVERIES,
) -> FanOut:
    """Fan out a batch: the oldest entries of a few accounts, which share it equally.

    Any number of processes may do so at once: each skips what another one holds.

    Args:
        database: where the outbox is.
        after: the last account of the previous batch; the accounts take turns.
        limit: the entries of the batch; each account has one at least.
        most_deliveries: the deliveries of the batch; each account may exceed its share by those of one entry.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer.
    """
    with database.reading() as transaction:
        accounts = _accounts(transaction, after)
    if not accounts:
        return FanOut()
    share, most = max(1, limit // len(accounts)), most_deliveries // len(accounts)
    with database.transaction("fanout") as transaction:
        claimed = {
            account_id: transaction.session.scalars(
                _CLAIMED, {"account_id": account_id, "limit": share}
            ).all()
            for account_id in accounts
        }
        planned: list[_Planned] = []
        deliveries: collections.Counter[uuid.UUID] = collections.Counter()
        for one in _plan(transaction, list(itertools.chain(*claimed.values()))):
            account_id = one.entry.account_id
            if deliveries[account_id] < max(1, most):
                planned.append(one)
                deliveries[account_id] += one.deliveries
        _write(transaction, planned)
        more = (
            len(planned) < sum(map(len, claimed.values()))
            or any(len(entries) == share for entries in claimed.values())
            or len(accounts) == _MOST_ACCOUNTS
        )
        return FanOut(len(planned), deliveries.total(), more, accounts[-1])


def _accounts(transaction: Transaction, after: uuid.UUID | None) -> list[uuid.UUID]:
    """Return the next few accounts with entries, from the one after ``after`` on and then from the first one."""
    accounts: list[uuid.UUID] = []
    for bound in (after, uuid.UUID(int=0)) if after is not None else (uuid.UUID(int=0),):
        rows = transaction.execute(_ACCOUNTS, {"after": bound}).scalars()
        accounts += [account_id for account_id in rows if account_id not in accounts]
    return accounts[:_MOST_ACCOUNTS]


def _next_account(after: sa.ColumnElement[uuid.UUID]) -> sa.Select[uuid.UUID]:
    return (
        sa.select(_ENTRY.account_id)
        .where(_ENTRY.account_id > after)
        .order_by(_ENTRY.account_id)
        .limit(1)
    )


def _accounts_after() -> sa.Select[uuid.UUID]:
    """Return the accounts with entries, by skipping from one to the next in the index.

    A DISTINCT would read the whole backlog.
    """
    first = _next_account(sa.bindparam("after", type_=_ENTRY.account_id.type)).subquery("first")
    busy = sa.select(first.c.account_id).cte("busy", recursive=True)
    following = _next_account(busy.c.account_id).correlate(busy).scalar_subquery()
    busy = busy.union_all(sa.select(following).where(busy.c.account_id.is_not(None)))
    return sa.select(busy.c.account_id).where(busy.c.account_id.is_not(None)).limit(_MOST_ACCOUNTS)


_ACCOUNTS = _accounts_after()


def fan_out_account(transaction: Transaction, account_id: uuid.UUID) -> None:
    """Fan out all entries of an account, before the same transaction changes one of its endpoints.

    It waits for a process that holds some of them. All are locked before anything is written: a process that waits
    for a queue of this transaction must not hold an entry that this one waits for.
    """
    entries = transaction.session.scalars(_OF_ACCOUNT, {"account_id": account_id})
    _write(transaction, _plan(transaction, entries.all()))


def _plan(transaction: Transaction, entries: Sequence[OutboxEntry]) -> list[_Planned]:
    """Return entries with their targets, by the time of the move: clocks of the hosts that made the ids may differ."""
    if not entries:
        return []
    accounts = {entry.account_id for entry in entries}
    since = min(entry.at for entry in entries)
    listeners = notifications.listeners(transaction, accounts, since=since)
    webhooks = {
        row.id: _webhook(row)
        for batch in _batches(entries)
        for row in transaction.execute(_WEBHOOKS, {"ids": [entry.job_id for entry in batch]})
    }
    responses = _responses(transaction, entries, listeners)
    planned = []
    for entry in sorted(entries, key=lambda entry: (entry.at, entry.id)):
        existing = [
            listener
            for listener in listeners.get(entry.account_id, ())
            if listener.existed(entry.at)
        ]
        targets = {
            policy.TYPES[entry.status]: _targets(entry, webhooks.get(entry.job_id), existing)
        }
        if entry.status.terminal and entry.job_id in responses:
            event_type = responses[entry.job_id]
            targets[event_type] = _subscribed(event_type, existing)
        planned.append(_Planned(entry, {kind: them for kind, them in targets.items() if them}))
    return planned


def _responses(
    transaction: Transaction,
    entries: Sequence[OutboxEntry],
    listeners: Mapping[uuid.UUID, Sequence[Listener]],
) -> dict[uuid.UUID, EventType]:
    """Return the event types of the ends of responses that an endpoint of their account subscribes to, by job."""
    subscribed = {
        account_id
        for account_id, endpoints in listeners.items()
        if any(not policy.RESPONSES.isdisjoint(endpoint.event_types) for endpoint in endpoints)
    }
    ended = [
        entry.job_id
        for entry in entries
        if entry.status.terminal and entry.account_id in subscribed
    ]
    types: dict[uuid.UUID, EventType] = {}
    for batch in _batches(ended):
        types |= thin_events.response_types(transaction, batch)
    return types


def _webhook(row: sa.Row[Any]) -> Webhook | None:
    """Return a job's own webhook. An invalid one, which the API accepts from no caller, must not stop the others."""
    try:
        return Webhook.of(row.webhook)
    except (ValueError, LookupError, TypeError):
        _log.exception("webhook_invalid", job_id=ids.show("job", row.id))
        return None


def _targets(
    entry: OutboxEntry, webhook: Webhook | None, listeners: Sequence[Listener]
) -> list[NotificationTarget]:
    """Return the targets of the job's own event, each once: endpoints that listened, and the job's own webhook."""
    event_type = policy.TYPES[entry.status]
    own = webhook if webhook is not None and event_type in webhook.events else None
    named = own.endpoint_id if own is not None else None
    targets = _subscribed(event_type, listeners, named=named)
    if own is not None and own.url is not None:
        queue_id, _ = policy.queue(entry.account_id, own.url)
        targets.append(NotificationTarget(queue_id=queue_id, endpoint_id=None, url=own.url))
    return targets


def _subscribed(
    event_type: EventType, listeners: Sequence[Listener], *, named: uuid.UUID | None = None
) -> list[NotificationTarget]:
    """Return the endpoints that listen to an event type, and the one that is named."""
    return [
        NotificationTarget(queue_id=listener.id, endpoint_id=listener.id)
        for listener in listeners
        if event_type in listener.event_types or listener.id == named
    ]


def _write(transaction: Transaction, planned: Sequence[_Planned]) -> None:
    """Write the notifications of entries, and delete the entries."""
    notified = [one for one in planned if one.targets]
    notifications.open_queues(
        transaction,
        (
            (one.entry.account_id, target)
            for one in notified
            for targets in one.targets.values()
            for target in targets
        ),
    )
    for batch in _batches(notified):
        jobs = _jobs(transaction, [one.entry.job_id for one in batch])
        notifications.write(
            transaction,
            [
                _notification(
                    one.entry,
                    event_type,
                    jobs[one.entry.job_id],
                    targets,
                    base=transaction.public_url,
                )
                for one in batch
                for event_type, targets in one.targets.items()
            ],
        )
    for batch in _batches(planned):
        transaction.execute(_DELETE, {"ids": [one.entry.id for one in batch]})
        contents.forget_webhooks(transaction, {one.entry.job_id for one in batch})


def _jobs(transaction: Transaction, job_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Job]:
    """Return jobs. Until the commit no transaction can remove their answers, which the payloads have."""
    rows = transaction.session.scalars(
        sa.select(Job)
        .where(Job.id.in_(job_ids))
        .order_by(Job.id)
        .with_for_update(read=True, key_share=True)
        .execution_options(populate_existing=True)
    )
    return {job.id: job for job in rows}


def _notification(
    entry: OutboxEntry,
    event_type: EventType,
    job: Job,
    targets: Sequence[NotificationTarget],
    *,
    base: str,
) -> Notification:
    data = (
        thin_events.response_data(job.id)
        if event_type in policy.RESPONSES
        else notifications.job_data(job, entry.status, base=base)
    )
    return Notification(
        account_id=entry.account_id,
        type=event_type,
        at=entry.at,
        data=data,
        targets=targets,
        job_id=entry.job_id,
        reduced_at=notifications.answer_removed_at(job),
    )


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
