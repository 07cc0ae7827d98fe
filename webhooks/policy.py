"""How events are told: their types, the schedule of tries, and what an answer means. Pure: no SQL, no clock.

An event is told to each of its targets by a delivery; a delivery is made by tries (rows of
``webhook_attempts``). Automatic ones follow :data:`SCHEDULE`; the others come on top when people ask for them.

::

    delivery   pending ──2xx──> delivered
                  └── schedule used up, gone, endpoint disabled ──> failed ──2xx to a resend──> delivered
    try        due ──claim──> sending ──> ended
"""

from __future__ import annotations

import enum
import random
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self

from jobs.lifecycle import Status


class EventType(enum.StrEnum):
    """What can be told."""

    JOB_STARTED = "job.started"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    ENDPOINT_DISABLED = "endpoint.disabled"


class DeliveryStatus(enum.StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class AttemptKind(enum.StrEnum):
    """Why a try is made. Only automatic ones count for the health of an endpoint and move its schedule."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"
    RECOVER = "recover"
    TEST = "test"


class AttemptState(enum.StrEnum):
    """Where a try stands."""

    DUE = "due"
    SENDING = "sending"
    ENDED = "ended"


class AttemptOutcome(enum.StrEnum):
    """How a try ended."""

    #: A 2xx answer.
    DELIVERED = "delivered"
    FAILED = "failed"
    #: Its sender was gone before it wrote how it ended: another one takes its place.
    LOST = "lost"
    #: Nothing was sent: the endpoint is disabled or deleted.
    SKIPPED = "skipped"


#: What a job's own webhook hears of when it names no events: the ends.
ENDS: Final = (EventType.JOB_SUCCEEDED, EventType.JOB_FAILED, EventType.JOB_CANCELLED)
#: The event that a job's move into a state is; ``running`` only by its first attempt.
TYPES: Final[Mapping[Status, EventType]] = {
    Status.RUNNING: EventType.JOB_STARTED,
    Status.SUCCEEDED: EventType.JOB_SUCCEEDED,
    Status.FAILED: EventType.JOB_FAILED,
    Status.CANCELLED: EventType.JOB_CANCELLED,
}

#: The wait before each automatic try, from the end of the one before it.
SCHEDULE: Final = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
#: Each wait is longer or shorter by up to this share.
JITTER: Final = 0.2
#: A ``Retry-After`` beyond this is cut.
LONGEST_RETRY_AFTER: Final = timedelta(hours=24)
#: So many senders may be lost over a try and the next takes its place at once. With more of them it is the try.
LOSSES_WITHOUT_WAIT: Final = 5
#: The longest wait after that, as a place in the schedule.
_LONGEST_AFTER_LOSSES: Final = 5
#: An endpoint that only failed for so long is disabled.
PATIENCE: Final = timedelta(days=5)
#: When nothing was tried for so long, a failure begins the count anew: it takes more than two of them far apart.
PAUSE: Final = timedelta(days=2)
#: So many failures in a row, and a lane is slow: one try at a time, by threads of its own, with little patience.
TRIP: Final = 3
#: Tries at once in a lane whose last one was delivered; in any other it is one.
QUEUE_LIMIT: Final = 4
#: Tries at once of a process: to lanes that do well or are new, and to slow ones.
SLOTS: Final = 48
SLOW_SLOTS: Final = 16
#: Of these, to lanes that have proved nothing: of one account, and of all. The rest is for those that do well.
UNPROVEN_EACH: Final = 24
UNPROVEN: Final = 36
#: To one account's lanes that do well: they may all fall silent at the same time.
PROVEN_EACH: Final = 40
#: To slow lanes of one account.
SLOW_EACH: Final = 8
#: Bytes of an answer that are kept.
ANSWER_BYTES: Final = 16 * 1024
#: A payload has to be smaller.
PAYLOAD_BYTES: Final = 20_000

_GONE: Final = 410
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Webhook:
    """What a job itself asks to be told: where (a URL, or one of its account's endpoints), and of which events.

    Raises:
        ValueError: the URL cannot be read. It must not come as far as the end of the job.
    """

    url: str | None = None
    endpoint_id: uuid.UUID | None = None
    events: tuple[str, ...] = ENDS

    def __post_init__(self) -> None:
        if self.url is not None:
            origin(self.url)

    def plain(self) -> dict[str, Any]:
        """Return it as the job's row keeps it."""
        return {
            "url": self.url,
            "endpoint_id": self.endpoint_id and self.endpoint_id.hex,
            "events": [str(event) for event in self.events],
        }

    @classmethod
    def of(cls, row: Mapping[str, Any] | None) -> Self | None:
        """Return what a job's row keeps; None: nothing was asked for."""
        if row is None:
            return None
        endpoint_id = row["endpoint_id"]
        return cls(
            url=row["url"],
            endpoint_id=uuid.UUID(hex=endpoint_id) if endpoint_id else None,
            events=tuple(row["events"]),
        )


def wait(step: int, *, rng: random.Random, retry_after: timedelta | None = None) -> timedelta:
    """Return the wait before the automatic try number ``step`` (0 is the first), with jitter.

    A receiver that asks for a longer one (``retry_after``) gets it, up to :data:`LONGEST_RETRY_AFTER`; a
    shorter one is not for it to ask.
    """
    planned = SCHEDULE[step] * rng.uniform(1 - JITTER, 1 + JITTER)
    if retry_after is None:
        return planned
    return max(planned, min(retry_after, LONGEST_RETRY_AFTER))


def wait_after_losses(losses: int) -> timedelta:
    """Return the wait before a try takes the place of one that was lost, for the ``losses``-th time.

    Senders are restarted and killed, and that is no reason to wait. A try over which each of them is lost must not be
    made for ever without a pause, and leave a row every time.
    """
    over = losses - LOSSES_WITHOUT_WAIT
    return SCHEDULE[min(over + 1, _LONGEST_AFTER_LOSSES)] if over > 0 else timedelta()


def judge(status: int) -> tuple[AttemptOutcome, str | None]:
    """Return what an HTTP answer's status means, and the code of its fault."""
    if 200 <= status < 300:  # noqa: PLR2004 - the range that means success
        return AttemptOutcome.DELIVERED, None
    if status == _GONE:
        return AttemptOutcome.FAILED, "gone"
    if 300 <= status < 400:  # noqa: PLR2004 - likewise, elsewhere
        return AttemptOutcome.FAILED, "redirected"
    return AttemptOutcome.FAILED, "refused"


def queue(account_id: uuid.UUID, url: str) -> tuple[uuid.UUID, str]:
    """Return the lane of a job's own URL, and the origin it is named by: the same for all URLs of one origin."""
    found = origin(url)
    return uuid.uuid5(account_id, found), found


def origin(url: str) -> str:
    """Return scheme, host and port of ``url``: what can be shown of it without a secret in its path or query.

    Raises:
        ValueError: it is no URL of this kind.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname
    if not host or parts.scheme not in _PORTS:
        raise ValueError("this is not the URL of a receiver")
    shown = f"[{host}]" if ":" in host else host
    port = parts.port or _PORTS[parts.scheme]
    standard = port == _PORTS[parts.scheme]
    return f"{parts.scheme}://{shown}" + ("" if standard else f":{port}")
