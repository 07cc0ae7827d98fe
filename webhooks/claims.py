"""Claims the next attempts: with a lease, fairly between queues, a few at a time from each.

Each endpoint has a queue, and so has each origin of an account's job URLs. Queues take turns, so a long one does not
delay the others. A queue that failed several times in a row is slow: separate threads send its attempts. Of an origin,
each URL is judged for itself: one that failed several times gets a slow queue, and those of one origin take turns.
Queues that are unproven, because they are new or failed recently, share a part of the threads, and those of one account
a part of that. So an account that names thousands of silent receivers delays neither proven queues nor new queues of
others.

Within a queue, the oldest attempt is first, but a single one that a user requested goes before the backlog. After it,
the oldest one has its turn, so that requests, however many, leave the backlog half of the turns.

An attempt is claimed once. :mod:`webhooks.attempts` ends it.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.records.declarative import table
from jobs.records.timeline import OutboxEntry
from webhooks import policy
from webhooks.policy import AttemptKind, AttemptState, DeliveryStatus
from webhooks.tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookNotification,
    WebhookQueue,
    WebhookSecret,
)

_DUE: Final = WebhookAttempt.state == sa.literal(
    AttemptState.DUE, WebhookAttempt.state.type, literal_execute=True
)
_SENDING: Final = WebhookAttempt.state == sa.literal(
    AttemptState.SENDING, WebhookAttempt.state.type, literal_execute=True
)
#: The literals are those of the partial index.
_REQUESTED: Final = WebhookAttempt.kind.in_(
    sa.bindparam(
        None,
        policy.REQUESTED,
        WebhookAttempt.kind.type,
        expanding=True,
        literal_execute=True,
    )
)

_ENTRY: Final = table(OutboxEntry).c
#: By the order of the ids, which has an index.
_OLDEST_ENTRY: Final = sa.select(_ENTRY.at).order_by(_ENTRY.id).limit(1).scalar_subquery()

_PROVEN: Final = sa.and_(WebhookQueue.failures == 0, WebhookQueue.delivered_at.is_not(None))
_SLOW: Final = WebhookQueue.failures >= policy.TRIP
#: No queue has this id.
_NONE: Final = sa.literal(uuid.UUID(int=0), WebhookQueue.id.type)


@dataclass(frozen=True)
class DeliveryClaim:
    """An attempt that this owner makes now, with all that it needs.

    Attributes:
        secrets: the live ones, sealed, the newest first; empty if the account has no default secret yet.
        barred: why nothing must be sent (``endpoint_disabled``, ``endpoint_deleted``), or None.
    """

    attempt_id: uuid.UUID
    delivery_id: uuid.UUID
    event_id: uuid.UUID
    event_type: str
    account_id: uuid.UUID
    endpoint_id: uuid.UUID | None
    queue_id: uuid.UUID
    owner: str
    kind: AttemptKind
    number: int
    step: int
    url: str
    payload: bytes = field(repr=False)
    secrets: tuple[bytes, ...] = field(repr=False)
    barred: str | None

    @property
    def home_queue_id(self) -> uuid.UUID:
        """The queue of the endpoint, or of the URL's origin: the attempt may be in the queue of its URL."""
        return self.endpoint_id or policy.queue(self.account_id, self.url)[0]


@dataclass(frozen=True)
class Backlog:
    """What is still to be sent: pending deliveries and entries of the outbox, and the age of the oldest of them."""

    pending: int
    oldest: timedelta | None


def claim(
    database: Database, *, owner: str, lease: timedelta, limit: int, slow: bool
) -> list[DeliveryClaim]:
    """Claim up to ``limit`` due attempts, of slow queues or of the others; each queue gets one before any gets two."""
    with database.transaction("deliver") as transaction:
        taken: list[uuid.UUID] = []
        while len(taken) < limit:
            turn = _turn(transaction, owner=owner, lease=lease, limit=limit - len(taken), slow=slow)
            if not turn:
                break
            taken += turn
        return _claims(transaction, taken, owner=owner)


def pause(database: Database) -> timedelta | None:
    """Return how long it is until there is work: an attempt that is due, or an entry of the outbox.

    It is 0 or negative when there is some, and None if nothing is pending.
    """
    with database.reading() as transaction:
        due = sa.select(sa.func.min(WebhookAttempt.due_at)).where(_DUE).scalar_subquery()
        row = transaction.execute(
            sa.select(
                transaction.now().label("now"), due.label("due"), _OLDEST_ENTRY.label("moved")
            )
        ).one()
        first = min((at for at in (row.due, row.moved) if at is not None), default=None)
        return first - row.now if first is not None else None


def backlog(database: Database, *, account_id: uuid.UUID | None = None) -> Backlog:
    """Return what is still to be sent by all processes together, of one account or (None) of all.

    It takes a share of the searches.
    """
    deliveries = sa.select(
        sa.func.count().label("pending"), sa.func.min(WebhookDelivery.created_at).label("first")
    ).where(
        WebhookDelivery.status
        == sa.literal(DeliveryStatus.PENDING, WebhookDelivery.status.type, literal_execute=True)
    )
    entries = sa.select(
        sa.func.count().label("pending"), sa.func.min(_ENTRY.at).label("first")
    ).select_from(table(OutboxEntry))
    if account_id is not None:
        deliveries = deliveries.join(
            WebhookQueue, WebhookQueue.id == WebhookDelivery.queue_id
        ).where(WebhookQueue.account_id == account_id)
        entries = entries.where(_ENTRY.account_id == account_id)
    with database.searching(account_id) as transaction:
        now = transaction.scalar(sa.select(transaction.now()))
        rows = [transaction.execute(statement).one() for statement in (entries, deliveries)]
    first = min((row.first for row in rows if row.first is not None), default=None)
    return Backlog(sum(row.pending for row in rows), None if first is None else now - first)


def _turn(
    transaction: Transaction, *, owner: str, lease: timedelta, limit: int, slow: bool
) -> list[uuid.UUID]:
    """Claim the first due attempt of each queue that has room, beginning with the queue that has waited longest."""
    queues = transaction.session.scalars(
        _queues(transaction, owner=owner, slow=slow)
        .limit(limit)
        # A transaction that writes a delivery refers to the queue: a lock of the key would make it wait.
        .with_for_update(of=WebhookQueue, skip_locked=True, key_share=True)
    ).all()
    if not queues:
        return []
    oldest = _due_of(WebhookQueue.id, transaction)
    first, requested = (
        one.limit(1).correlate(WebhookQueue).scalar_subquery()
        for one in (oldest, oldest.where(_REQUESTED))
    )
    # By their ids: with a sub-query PostgreSQL may read all attempts that ever existed.
    chosen = transaction.session.scalars(
        sa.select(sa.func.coalesce(sa.case((~WebhookQueue.requested_last, requested)), first))
        .select_from(WebhookQueue)
        .where(WebhookQueue.id.in_(queues))
    ).all()
    taken = transaction.session.execute(
        sa.update(WebhookAttempt)
        .where(WebhookAttempt.id.in_(chosen), WebhookAttempt.state == AttemptState.DUE)
        .values(
            state=AttemptState.SENDING,
            owner=owner,
            lease_expires_at=transaction.now(lease),
            started_at=transaction.now(),
        )
        .returning(WebhookAttempt.id, WebhookAttempt.queue_id, WebhookAttempt.kind),
        execution_options={"synchronize_session": False},
    ).all()
    requested_of = [row.queue_id for row in taken if row.kind in policy.REQUESTED]
    transaction.update(
        WebhookQueue,
        WebhookQueue.id.in_(queues),
        served_at=transaction.now(),
        requested_last=WebhookQueue.id.in_(requested_of),
    )
    return [row.id for row in taken]


def _queues(transaction: Transaction, *, owner: str, slow: bool) -> sa.Select[uuid.UUID]:
    """Return queues with a due attempt and room for it. It reads only queues that have attempts."""
    busy = _queues_with_attempts()
    sending = (
        sa.select(sa.func.count())
        .select_from(WebhookAttempt)
        .where(WebhookAttempt.queue_id == WebhookQueue.id, _SENDING)
        .correlate(WebhookQueue)
        .scalar_subquery()
    )
    room = sa.case(
        (sa.and_(_PROVEN, WebhookQueue.origin_queue_id.is_(None)), policy.QUEUE_LIMIT), else_=1
    )
    due = _due_of(WebhookQueue.id, transaction).correlate(WebhookQueue)
    held = _held(owner=owner, slow=slow)
    longest_ago = (WebhookQueue.served_at.asc().nulls_first(), WebhookQueue.id)
    # The slow URLs of one origin take turns: one of them has an attempt at a time.
    siblings = _sending_urls()
    turns = (
        sa.select(
            WebhookQueue.id,
            WebhookQueue.account_id,
            WebhookQueue.served_at,
            _PROVEN.label("proven"),
            sa.func.row_number()
            .over(
                partition_by=sa.func.coalesce(WebhookQueue.origin_queue_id, WebhookQueue.id),
                order_by=longest_ago,
            )
            .label("turn"),
        )
        .join(busy, busy.c.queue_id == WebhookQueue.id)
        .where(
            _SLOW if slow else ~_SLOW,
            sa.exists(due),
            sending < room,
            sa.func.coalesce(WebhookQueue.origin_queue_id, _NONE).not_in(siblings),
        )
        .subquery("turns")
    )
    waited = (turns.c.served_at.asc().nulls_first(), turns.c.id)
    ready = (
        sa.select(
            turns.c.id,
            turns.c.proven,
            # Its position among the account's queues, after those that have attempts under way.
            (
                sa.func.coalesce(held.c.attempts, 0)
                + sa.func.row_number().over(
                    partition_by=(turns.c.account_id, turns.c.proven), order_by=waited
                )
            ).label("position"),
        )
        .outerjoin(
            held,
            sa.and_(held.c.account_id == turns.c.account_id, held.c.proven == turns.c.proven),
        )
        .where(turns.c.turn == 1)
        .subquery("ready")
    )
    ranked = sa.select(
        ready,
        sa.func.row_number()
        .over(partition_by=ready.c.proven, order_by=(ready.c.position, ready.c.id))
        .label("rank"),
    ).subquery("ranked")
    held_by_all = (
        sa.select(sa.func.coalesce(sa.func.sum(held.c.attempts), 0))
        .where(~held.c.proven)
        .scalar_subquery()
    )
    each, all_together = (
        (policy.SLOW_EACH, policy.SLOW_SLOTS) if slow else (policy.UNPROVEN_EACH, policy.UNPROVEN)
    )
    return (
        sa.select(WebhookQueue.id)
        .join(ranked, ranked.c.id == WebhookQueue.id)
        .where(
            sa.or_(
                sa.and_(ranked.c.proven, ranked.c.position <= policy.PROVEN_EACH),
                sa.and_(
                    ~ranked.c.proven,
                    ranked.c.position <= each,
                    ranked.c.rank + held_by_all <= all_together,
                ),
            )
        )
        .order_by(*longest_ago)
    )


def _sending_urls() -> sa.Select[uuid.UUID | None]:
    """Return the queues of the origins of which a slow URL has an attempt under way."""
    return (
        sa.select(WebhookQueue.origin_queue_id)
        .join(WebhookAttempt, WebhookAttempt.queue_id == WebhookQueue.id)
        .where(_SENDING, WebhookQueue.origin_queue_id.is_not(None))
    )


def _held(*, owner: str, slow: bool) -> sa.Subquery:
    """Return how many attempts a process makes, of slow queues or of the others, by account and by proven or not."""
    return (
        sa.select(
            WebhookQueue.account_id, _PROVEN.label("proven"), sa.func.count().label("attempts")
        )
        .join(WebhookAttempt, WebhookAttempt.queue_id == WebhookQueue.id)
        .where(_SENDING, WebhookAttempt.owner == owner, _SLOW if slow else ~_SLOW)
        .group_by(WebhookQueue.account_id, _PROVEN)
        .subquery("held")
    )


def _due_of(
    queue_id: sa.orm.InstrumentedAttribute[uuid.UUID], transaction: Transaction
) -> sa.Select[uuid.UUID]:
    return (
        sa.select(WebhookAttempt.id)
        .where(
            WebhookAttempt.queue_id == queue_id,
            _DUE,
            WebhookAttempt.due_at <= transaction.now(),
        )
        .order_by(WebhookAttempt.due_at, WebhookAttempt.id)
    )


def _queues_with_attempts() -> sa.CTE:
    """Return the queues that have due or later attempts, by skipping from one to the next in the index.

    A DISTINCT would read the whole backlog.
    """
    first = (
        sa.select(WebhookAttempt.queue_id)
        .where(_DUE)
        .order_by(WebhookAttempt.queue_id)
        .limit(1)
        .subquery("first")
    )
    busy = sa.select(first.c.queue_id).cte("busy", recursive=True)
    following = (
        sa.select(WebhookAttempt.queue_id)
        .where(_DUE, WebhookAttempt.queue_id > busy.c.queue_id)
        .order_by(WebhookAttempt.queue_id)
        .limit(1)
        .correlate(busy)
        .scalar_subquery()
    )
    return busy.union_all(sa.select(following).where(busy.c.queue_id.is_not(None)))


def _claims(transaction: Transaction, taken: list[uuid.UUID], *, owner: str) -> list[DeliveryClaim]:
    if not taken:
        return []
    rows = transaction.execute(
        sa.select(
            WebhookAttempt,
            WebhookDelivery,
            WebhookNotification,
            WebhookEndpoint,
            WebhookSecret,
            transaction.now().label("now"),
        )
        .join(WebhookDelivery, WebhookDelivery.id == WebhookAttempt.delivery_id)
        .join(WebhookNotification, WebhookNotification.id == WebhookDelivery.notification_id)
        .outerjoin(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .outerjoin(WebhookSecret, WebhookSecret.account_id == WebhookNotification.account_id)
        .where(WebhookAttempt.id.in_(taken))
    )
    claimed = {}
    for row in rows:
        attempt, endpoint = row.WebhookAttempt, row.WebhookEndpoint
        claimed[attempt.id] = DeliveryClaim(
            attempt_id=attempt.id,
            delivery_id=attempt.delivery_id,
            event_id=row.WebhookNotification.id,
            event_type=row.WebhookNotification.type,
            account_id=row.WebhookNotification.account_id,
            endpoint_id=row.WebhookDelivery.endpoint_id,
            queue_id=attempt.queue_id,
            owner=owner,
            kind=attempt.kind,
            number=attempt.number,
            step=attempt.step,
            url=row.WebhookDelivery.url if endpoint is None else endpoint.url,
            payload=row.WebhookNotification.payload,
            secrets=_live(row.WebhookSecret if endpoint is None else endpoint, row.now),
            barred=_barred(endpoint, attempt.kind),
        )
    return [claimed[attempt_id] for attempt_id in taken]


def _live(holder: WebhookEndpoint | WebhookSecret | None, now: datetime) -> tuple[bytes, ...]:
    """Return the sealed secrets that sign now, the newest first."""
    if holder is None or holder.secret is None:
        return ()
    previous, expires = holder.previous_secret, holder.previous_expires_at
    if previous is None or expires is None or expires <= now:
        return (holder.secret,)
    return (holder.secret, previous)


def _barred(endpoint: WebhookEndpoint | None, kind: AttemptKind) -> str | None:
    """Return why nothing must be sent. What users request is sent to a disabled endpoint, too."""
    if endpoint is None:
        return None
    if endpoint.deleted_at is not None:
        return "endpoint_deleted"
    if endpoint.disabled_at is not None and kind is AttemptKind.AUTOMATIC:
        return "endpoint_disabled"
    return None
