"""Which tries are next: claimed with a lease, fair between lanes, few at once in each.

A lane is what an endpoint's tries queue up in (of a job's own URLs: those of one origin). Lanes have their turns one
after the other, so that one with a long queue takes nothing from the others. One that failed several times in a row
is slow: it is claimed for separately, by threads that nobody else needs. Those that have proved nothing, because they
are new or failed lately, share a part of the threads, and one account's have a part of that: whoever names thousands
of receivers that never answer keeps neither those that do well waiting, nor another account's new ones.

A try is claimed once. How it ends is in :mod:`webhooks.attempts`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs import delivery
from jobs.delivery import AttemptKind, AttemptState, DeliveryStatus
from jobs.outbox import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    WebhookQueue,
    WebhookSecret,
)

_DUE: Final = WebhookAttempt.state == sa.literal(
    AttemptState.DUE, WebhookAttempt.state.type, literal_execute=True
)
_SENDING: Final = WebhookAttempt.state == sa.literal(
    AttemptState.SENDING, WebhookAttempt.state.type, literal_execute=True
)

_PROVEN: Final = sa.and_(WebhookQueue.failures == 0, WebhookQueue.delivered_at.is_not(None))
_SLOW: Final = WebhookQueue.failures >= delivery.TRIP


@dataclass(frozen=True)
class DeliveryClaim:
    """A try that this owner makes now, with all it needs.

    Attributes:
        secrets: sealed, of those that sign the newest first; empty: the account has no default secret yet.
        barred: why nothing may be sent (``endpoint_disabled``, ``endpoint_deleted``), or None.
    """

    attempt_id: uuid.UUID
    delivery_id: uuid.UUID
    event_id: uuid.UUID
    event_type: str
    account_id: uuid.UUID
    endpoint_id: uuid.UUID | None
    lane_id: uuid.UUID
    owner: str
    kind: AttemptKind
    number: int
    step: int
    url: str
    payload: bytes = field(repr=False)
    secrets: tuple[bytes, ...] = field(repr=False)
    barred: str | None


@dataclass(frozen=True)
class Backlog:
    """What is still to be told: deliveries that are pending, and the age of the oldest of them."""

    pending: int
    oldest: timedelta | None


def claim(
    database: Database, *, owner: str, lease: timedelta, limit: int, slow: bool
) -> list[DeliveryClaim]:
    """Claim up to ``limit`` due tries, of slow lanes or of the others; each lane gets its turn before any gets two."""
    with database.transaction("deliver") as transaction:
        taken: list[uuid.UUID] = []
        while len(taken) < limit:
            turn = _turn(transaction, owner=owner, lease=lease, limit=limit - len(taken), slow=slow)
            if not turn:
                break
            taken += turn
        return _claims(transaction, taken, owner=owner)


def pause(database: Database) -> timedelta | None:
    """Return how long it is until a try is due, negative when one is; None when none ever will be."""
    with database.reading() as transaction:
        now = transaction.now()
        first = sa.select(sa.func.min(WebhookAttempt.due_at)).where(_DUE).scalar_subquery()
        row = transaction.execute(sa.select(now.label("now"), first.label("first"))).one()
        return row.first - row.now if row.first is not None else None


def backlog(database: Database, *, account_id: uuid.UUID | None = None) -> Backlog:
    """Return what is still to be told by all processes together, of one account or (None) of all.

    It takes a share of the searches.
    """
    pending = WebhookDelivery.status == sa.literal(
        DeliveryStatus.PENDING, WebhookDelivery.status.type, literal_execute=True
    )
    with database.searching(account_id) as transaction:
        statement = sa.select(
            sa.func.count().label("pending"),
            sa.func.min(WebhookDelivery.created_at).label("first"),
            transaction.now().label("now"),
        ).where(pending)
        if account_id is not None:
            statement = statement.join(
                WebhookQueue, WebhookQueue.id == WebhookDelivery.lane_id
            ).where(WebhookQueue.account_id == account_id)
        row = transaction.execute(statement).one()
        return Backlog(row.pending, row.now - row.first if row.first is not None else None)


def _turn(
    transaction: Transaction, *, owner: str, lease: timedelta, limit: int, slow: bool
) -> list[uuid.UUID]:
    """Take the first due try of each lane that has one and has room, those first whose last turn is longest ago."""
    queues = transaction.session.scalars(
        _queues(transaction, owner=owner, slow=slow)
        .limit(limit)
        # Whoever writes an event refers to the lane: a lock of the key itself would make jobs wait.
        .with_for_update(of=WebhookQueue, skip_locked=True, key_share=True)
    ).all()
    if not queues:
        return []
    first = _due_of(WebhookQueue.id, transaction).limit(1).correlate(WebhookQueue).scalar_subquery()
    # By their ids, not by a sub-query: with that PostgreSQL may read all tries that ever were.
    chosen = transaction.session.scalars(
        sa.select(first).select_from(WebhookQueue).where(WebhookQueue.id.in_(queues))
    ).all()
    taken = transaction.session.scalars(
        sa.update(WebhookAttempt)
        .where(WebhookAttempt.id.in_(chosen), WebhookAttempt.state == AttemptState.DUE)
        .values(
            state=AttemptState.SENDING,
            owner=owner,
            lease_expires_at=transaction.now(lease),
            started_at=transaction.now(),
        )
        .returning(WebhookAttempt.id),
        execution_options={"synchronize_session": False},
    ).all()
    transaction.execute(
        sa.update(WebhookQueue)
        .where(WebhookQueue.id.in_(queues))
        .values(served_at=transaction.now())
    )
    return list(taken)


def _queues(transaction: Transaction, *, owner: str, slow: bool) -> sa.Select[uuid.UUID]:
    """Return lanes with a due try and room for it. Only those with something to do are looked at."""
    busy = _queues_with_attempts()
    sending = (
        sa.select(sa.func.count())
        .select_from(WebhookAttempt)
        .where(WebhookAttempt.lane_id == WebhookQueue.id, _SENDING)
        .correlate(WebhookQueue)
        .scalar_subquery()
    )
    room = sa.case((_PROVEN, delivery.QUEUE_LIMIT), else_=1)
    due = _due_of(WebhookQueue.id, transaction).correlate(WebhookQueue)
    held = _held(owner=owner, slow=slow)
    longest_ago = (WebhookQueue.served_at.asc().nulls_first(), WebhookQueue.id)
    ready = (
        sa.select(
            WebhookQueue.id,
            _PROVEN.label("proven"),
            # Its place among the account's, behind those that are being sent to.
            (
                sa.func.coalesce(held.c.attempts, 0)
                + sa.func.row_number().over(
                    partition_by=(WebhookQueue.account_id, _PROVEN), order_by=longest_ago
                )
            ).label("place"),
        )
        .join(busy, busy.c.lane_id == WebhookQueue.id)
        .outerjoin(
            held,
            sa.and_(held.c.account_id == WebhookQueue.account_id, held.c.proven == _PROVEN),
        )
        .where(_SLOW if slow else ~_SLOW, sa.exists(due), sending < room)
        .subquery("ready")
    )
    ranked = sa.select(
        ready,
        sa.func.row_number()
        .over(partition_by=ready.c.proven, order_by=(ready.c.place, ready.c.id))
        .label("rank"),
    ).subquery("ranked")
    held_by_all = (
        sa.select(sa.func.coalesce(sa.func.sum(held.c.attempts), 0))
        .where(~held.c.proven)
        .scalar_subquery()
    )
    each, all_together = (
        (delivery.SLOW_EACH, delivery.SLOW_SLOTS)
        if slow
        else (delivery.UNPROVEN_EACH, delivery.UNPROVEN)
    )
    return (
        sa.select(WebhookQueue.id)
        .join(ranked, ranked.c.id == WebhookQueue.id)
        .where(
            sa.or_(
                sa.and_(ranked.c.proven, ranked.c.place <= delivery.PROVEN_EACH),
                sa.and_(
                    ~ranked.c.proven,
                    ranked.c.place <= each,
                    ranked.c.rank + held_by_all <= all_together,
                ),
            )
        )
        .order_by(*longest_ago)
    )


def _held(*, owner: str, slow: bool) -> sa.Subquery:
    """Return how many tries a process makes, of slow lanes or of the others, by account and whether they do well."""
    return (
        sa.select(WebhookQueue.account_id, _PROVEN.label("proven"), sa.func.count().label("attempts"))
        .join(WebhookAttempt, WebhookAttempt.lane_id == WebhookQueue.id)
        .where(_SENDING, WebhookAttempt.owner == owner, _SLOW if slow else ~_SLOW)
        .group_by(WebhookQueue.account_id, _PROVEN)
        .subquery("held")
    )


def _due_of(
    lane_id: sa.orm.InstrumentedAttribute[uuid.UUID], transaction: Transaction
) -> sa.Select[uuid.UUID]:
    return (
        sa.select(WebhookAttempt.id)
        .where(
            WebhookAttempt.lane_id == lane_id,
            _DUE,
            WebhookAttempt.due_at <= transaction.now(),
        )
        .order_by(WebhookAttempt.due_at, WebhookAttempt.id)
    )


def _queues_with_attempts() -> sa.CTE:
    """Return the lanes that have tries waiting, by hopping from one to the next in the index.

    A DISTINCT would read the whole backlog.
    """
    first = (
        sa.select(WebhookAttempt.lane_id)
        .where(_DUE)
        .order_by(WebhookAttempt.lane_id)
        .limit(1)
        .subquery("first")
    )
    found = sa.select(first.c.lane_id).cte("busy", recursive=True)
    following = (
        sa.select(WebhookAttempt.lane_id)
        .where(_DUE, WebhookAttempt.lane_id > found.c.lane_id)
        .order_by(WebhookAttempt.lane_id)
        .limit(1)
        .correlate(found)
        .scalar_subquery()
    )
    return found.union_all(sa.select(following).where(found.c.lane_id.is_not(None)))


def _claims(transaction: Transaction, taken: list[uuid.UUID], *, owner: str) -> list[DeliveryClaim]:
    if not taken:
        return []
    rows = transaction.execute(
        sa.select(
            WebhookAttempt,
            WebhookDelivery,
            WebhookEvent,
            WebhookEndpoint,
            WebhookSecret,
            transaction.now().label("now"),
        )
        .join(WebhookDelivery, WebhookDelivery.id == WebhookAttempt.delivery_id)
        .join(WebhookEvent, WebhookEvent.id == WebhookDelivery.event_id)
        .outerjoin(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .outerjoin(WebhookSecret, WebhookSecret.account_id == WebhookEvent.account_id)
        .where(WebhookAttempt.id.in_(taken))
    )
    found = {}
    for row in rows:
        attempt, endpoint = row.WebhookAttempt, row.WebhookEndpoint
        found[attempt.id] = DeliveryClaim(
            attempt_id=attempt.id,
            delivery_id=attempt.delivery_id,
            event_id=row.WebhookEvent.id,
            event_type=row.WebhookEvent.type,
            account_id=row.WebhookEvent.account_id,
            endpoint_id=row.WebhookDelivery.endpoint_id,
            lane_id=attempt.lane_id,
            owner=owner,
            kind=attempt.kind,
            number=attempt.number,
            step=attempt.step,
            url=row.WebhookDelivery.url if endpoint is None else endpoint.url,
            payload=row.WebhookEvent.payload,
            secrets=_live(row.WebhookSecret if endpoint is None else endpoint, row.now),
            barred=_barred(endpoint, attempt.kind),
        )
    return [found[attempt_id] for attempt_id in taken]


def _live(holder: WebhookEndpoint | WebhookSecret | None, now: datetime) -> tuple[bytes, ...]:
    """Return the sealed secrets that sign now, the newest first."""
    if holder is None or holder.secret is None:
        return ()
    previous, expires = holder.previous_secret, holder.previous_expires_at
    if previous is None or expires is None or expires <= now:
        return (holder.secret,)
    return (holder.secret, previous)


def _barred(endpoint: WebhookEndpoint | None, kind: AttemptKind) -> str | None:
    """Return why nothing may be sent. What people ask for goes to a disabled endpoint too."""
    if endpoint is None:
        return None
    if endpoint.deleted_at is not None:
        return "endpoint_deleted"
    if endpoint.disabled_at is not None and kind is AttemptKind.AUTOMATIC:
        return "endpoint_disabled"
    return None
