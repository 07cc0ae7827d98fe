"""The rules of webhooks: event types, the schedule of attempts, and what a response means. Pure: no SQL, no clock.

A notification has one delivery for each of its targets. A delivery has attempts (rows of ``webhook_attempts``).
Automatic attempts follow :data:`SCHEDULE`; users can request more of them.

::

    delivery   pending ──2xx──> delivered
                  └── schedule used up, gone, endpoint disabled ──> failed ──2xx to a resend──> delivered
    attempt    due ──claim──> sending ──> ended
"""

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
    """What a notification can be about."""

    JOB_STARTED = "job.started"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    ENDPOINT_DISABLED = "endpoint.disabled"
    RESPONSE_COMPLETED = "response.completed"
    RESPONSE_FAILED = "response.failed"
    RESPONSE_CANCELLED = "response.cancelled"
    RESPONSE_INCOMPLETE = "response.incomplete"
    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"


class DeliveryStatus(enum.StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class AttemptKind(enum.StrEnum):
    """Why an attempt is made. Only automatic ones advance the schedule and count as failures of a receiver.

    One of any kind that is delivered proves that the receiver works.
    """

    AUTOMATIC = "automatic"
    MANUAL = "manual"
    RECOVER = "recover"
    TEST = "test"


class AttemptState(enum.StrEnum):
    """The state of an attempt."""

    DUE = "due"
    SENDING = "sending"
    ENDED = "ended"


class AttemptOutcome(enum.StrEnum):
    """How an attempt ended."""

    #: The receiver responded with 2xx.
    DELIVERED = "delivered"
    FAILED = "failed"
    #: Its sender died before it wrote the outcome; another attempt replaces it.
    LOST = "lost"
    #: Nothing was sent: the endpoint is disabled or deleted.
    SKIPPED = "skipped"


#: The events of a job's own webhook that names none: the ends.
ENDS: Final = (EventType.JOB_SUCCEEDED, EventType.JOB_FAILED, EventType.JOB_CANCELLED)
#: The event type of a job's move to a state; ``running`` only for the first attempt of the job.
TYPES: Final[Mapping[Status, EventType]] = {
    Status.RUNNING: EventType.JOB_STARTED,
    Status.SUCCEEDED: EventType.JOB_SUCCEEDED,
    Status.FAILED: EventType.JOB_FAILED,
    Status.CANCELLED: EventType.JOB_CANCELLED,
}
#: The event types of OpenAI's responses.
RESPONSES: Final = frozenset(
    {
        EventType.RESPONSE_COMPLETED,
        EventType.RESPONSE_FAILED,
        EventType.RESPONSE_CANCELLED,
        EventType.RESPONSE_INCOMPLETE,
    }
)

#: The wait before each automatic attempt, from the end of the previous one.
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
#: Each wait is randomly longer or shorter by up to this share.
JITTER: Final = 0.2
#: A longer ``Retry-After`` is cut to this.
LONGEST_RETRY_AFTER: Final = timedelta(hours=24)
#: Lost senders after which an attempt is still replaced at once. After more of them the attempt itself is the cause.
LOSSES_WITHOUT_WAIT: Final = 5
#: The longest wait after that, as an index into the schedule.
_LONGEST_AFTER_LOSSES: Final = 5
#: An endpoint that has only failed for this long is disabled.
PATIENCE: Final = timedelta(days=5)
#: After this long without an attempt a failure starts the count again: two failures far apart prove nothing.
PAUSE: Final = timedelta(days=2)
#: Failures in a row after which a queue is slow: one attempt at a time, by separate threads. Its timeout is the same:
#: a receiver that needs all of it can recover.
TRIP: Final = 3
#: Concurrent attempts of a queue whose last one was delivered; any other queue has one.
QUEUE_LIMIT: Final = 4
#: Concurrent attempts of a process: of healthy and new queues, and of slow queues.
SLOTS: Final = 48
SLOW_SLOTS: Final = 16
#: Of these, attempts of unproven queues: per account, and in total. The rest is for proven queues.
UNPROVEN_EACH: Final = 24
UNPROVEN: Final = 36
#: Attempts of one account's proven queues: their receivers may all become silent at the same time.
PROVEN_EACH: Final = 40
#: Attempts of one account's slow queues.
SLOW_EACH: Final = 8
#: Bytes of a response that are stored.
RESPONSE_BYTES: Final = 16 * 1024
#: A payload must be smaller.
PAYLOAD_BYTES: Final = 20_000

_GONE: Final = 410
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Webhook:
    """A job's own webhook: where it goes (a URL, or one of the account's endpoints), and for which events.

    Raises:
        ValueError: the URL is invalid. It must not get as far as the end of the job.
    """

    url: str | None = None
    endpoint_id: uuid.UUID | None = None
    events: tuple[str, ...] = ENDS

    def __post_init__(self) -> None:
        if self.url is not None:
            origin(self.url)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON for the job's row."""
        return {
            "url": self.url,
            "endpoint_id": self.endpoint_id and self.endpoint_id.hex,
            "events": [str(event) for event in self.events],
        }

    @classmethod
    def of(cls, row: Mapping[str, Any] | None) -> Self | None:
        """Return the webhook in a job's row, None if the job has none."""
        if row is None:
            return None
        endpoint_id = row["endpoint_id"]
        return cls(
            url=row["url"],
            endpoint_id=uuid.UUID(hex=endpoint_id) if endpoint_id else None,
            events=tuple(row["events"]),
        )


def wait(step: int, *, rng: random.Random, retry_after: timedelta | None = None) -> timedelta:
    """Return the wait before the automatic attempt number ``step`` (0 is the first), with jitter.

    A receiver can ask for a longer wait (``retry_after``), up to :data:`LONGEST_RETRY_AFTER`, but for no shorter one.
    """
    planned = SCHEDULE[step] * rng.uniform(1 - JITTER, 1 + JITTER)
    if retry_after is None:
        return planned
    return max(planned, min(retry_after, LONGEST_RETRY_AFTER))


def wait_after_losses(losses: int) -> timedelta:
    """Return the wait before a lost attempt is replaced, for the ``losses``-th time.

    Senders restart and crash, which is no reason to wait. But an attempt that crashes every sender must not be repeated
    without a pause, as each repetition leaves a row.
    """
    over = losses - LOSSES_WITHOUT_WAIT
    return SCHEDULE[min(over + 1, _LONGEST_AFTER_LOSSES)] if over > 0 else timedelta()


def judge(status: int) -> tuple[AttemptOutcome, str | None]:
    """Return the outcome of an HTTP status, and its error code if it is not a success."""
    if 200 <= status < 300:  # noqa: PLR2004 - the range that means success
        return AttemptOutcome.DELIVERED, None
    if status == _GONE:
        return AttemptOutcome.FAILED, "gone"
    if 300 <= status < 400:  # noqa: PLR2004 - the range that redirects
        return AttemptOutcome.FAILED, "redirected"
    return AttemptOutcome.FAILED, "refused"


def queue(account_id: uuid.UUID, url: str) -> tuple[uuid.UUID, str]:
    """Return the id of the queue of a job's own URL, and its origin. All URLs of an account and an origin share one."""
    name = origin(url)
    return uuid.uuid5(account_id, name), name


def url_queue(origin_queue_id: uuid.UUID, url: str) -> uuid.UUID:
    """Return the id of the queue of one URL of an origin, whatever its query, which has one after a failure."""
    return uuid.uuid5(origin_queue_id, without_query(url))


def without_query(url: str) -> str:
    """Return ``url`` without its query and fragment, which may differ from job to job."""
    return url.partition("#")[0].partition("?")[0]


def origin(url: str) -> str:
    """Return scheme, host and port of ``url``: the part without the secrets that path and query may have.

    Raises:
        ValueError: it is not an http or https URL with a host.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname
    if not host or parts.scheme not in _PORTS:
        raise ValueError("a webhook URL must be an http or https URL with a host")
    shown = f"[{host}]" if ":" in host else host
    port = parts.port or _PORTS[parts.scheme]
    standard = port == _PORTS[parts.scheme]
    return f"{parts.scheme}://{shown}" + ("" if standard else f":{port}")
