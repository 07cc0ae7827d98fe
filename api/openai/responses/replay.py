"""Reads a response from the stored texts of its job, and its typed events from the stored events.

Only stored events count: what the live path of the native streams brings may be lost with its attempt, and then the
numbers of later events would depend on who followed the job, and when.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import orjson

from api import errors as problems
from api.openai.responses import output, response_object
from api.openai.responses.transcript import TypedTranscript
from core import escapes, ids
from core.database import Database
from core.shares import Shares
from jobs.answers import json_schema
from jobs.records.jobs import Job, ResponseEntry
from jobs.store import event_log, history, responses, sample_texts, traces
from jobs.store.event_log import EventKind
from jobs.store.images import ImageView

Json = dict[str, Any]
_NOUN: Final = "response"
#: How long a reader waits for its turn to read events.
_TURN_SECONDS: Final = 5.0


@dataclass(frozen=True)
class StoredResponse:
    """A job, and what the client sent with it."""

    job: Job
    entry: ResponseEntry | None
    #: The tokens that are of the answer alone, once the job has ended.
    answer_tokens: int = 0
    #: The images of the job, if they were asked for.
    images: tuple[ImageView, ...] = ()


def find(
    database: Database, job_id: uuid.UUID, *, scope: uuid.UUID | None, images: bool = False
) -> StoredResponse:
    """Return a response.

    Args:
        database: stores it.
        job_id: its job.
        scope: the account that it must belong to; None: any.
        images: whether to read the images of the job, too.

    Raises:
        core.errors.NotFound: it does not exist (in this account), or it was deleted.
    """
    job = problems.existing(history.job(database, job_id, account_id=scope), _NOUN)
    if job.data_removed_at is not None:
        raise problems.not_found(_NOUN)
    in_json = job.status.terminal and json_schema.is_json(job.options.get("answer_format"))
    tokens = traces.answer_tokens(database, job.id, job.attempt) if in_json else 0
    shown = history.images_of_job(database, job.id) if images else ()
    return StoredResponse(job, responses.get(database, job.id), tokens, shown)


def current(database: Database, stored: StoredResponse, *, turns: Shares | None = None) -> Json:
    """Return a response as it is now, as its last typed event has it.

    It costs as much as what it shows: the events are not read.

    Args:
        database: stores it.
        stored: the response, as read a moment ago.
        turns: limits how many read at once.

    Raises:
        core.errors.NotFound: it was deleted.
        core.errors.Unavailable: the database does not answer, or too many readers wait.
    """
    job = stored.job
    with _turn(turns, job.account_id):
        read = sample_texts.read(database, job.id)
    if read.removed and job.trace_removed_at is None:
        # Its text was removed since its row was read.
        stored = find(database, job.id, scope=None)
        job = stored.job
    summarized = response_object.wants_summary(stored.entry)
    return _shown(stored, output.of(job, read.samples, summarized=summarized))


def _turn(turns: Shares | None, account_id: uuid.UUID) -> AbstractContextManager[None]:
    return nullcontext() if turns is None else turns.hold(account_id, seconds=_TURN_SECONDS)


class ResponseReader:
    """Reads the typed events of one response, each once and in order.

    Args:
        database: stores them.
        stored: the response, as read at any time.
        turns: limits how many readers read at once.
        after: only events with larger numbers are encoded.
    """

    def __init__(
        self,
        database: Database,
        stored: StoredResponse,
        *,
        turns: Shares | None = None,
        after: int = -1,
    ) -> None:
        job = stored.job
        self._database = database
        self._turns = turns
        self._after = after
        self.job_id, self._account_id = job.id, job.account_id
        self._samples: dict[tuple[int, int], int] = {}
        #: The number of the last event of the job that was read.
        self.position = 0
        self._begun = False
        self._transcript = TypedTranscript(
            job.id.hex,
            response_object.queued(job, stored.entry),
            summarized=response_object.wants_summary(stored.entry),
        )
        #: Whether all events were read.
        self.over = False

    @property
    def next_number(self) -> int:
        """The number of the next event."""
        return self._transcript.next_number

    def pages(self) -> Iterator[bytes]:
        """Yield the frames of the events that are stored now and have not been read yet, page by page.

        Raises:
            core.errors.NotFound: the response was deleted.
            core.errors.Unavailable: the database does not answer, or too many readers wait; another call goes on.
        """
        more = not self.over
        while more:
            page = self._read()
            # All reads come first: a page is shown whole, or read again.
            samples = self._known_samples(page)
            ended = self._ended(page)
            self._samples = samples
            events = [] if self._begun else list(self._transcript.begin())
            self._begun = True
            for event in page.events:
                self.position = event.number
                if event.kind is not EventKind.FINISHED:
                    sample = self._sample(event)
                    events += self._transcript.feed(event, sample=sample)
            if ended is not None:
                events += self._end(ended)
            more = page.more
            if not more:
                self.position = max(self.position, page.through)
                self.over = page.finished
            if data := b"".join(map(frame, filter(self._wanted, events))):
                yield data

    def _read(self) -> event_log.EventPage:
        with _turn(self._turns, self._account_id):
            return event_log.read(self._database, self.job_id, after=self.position)

    def _known_samples(self, page: event_log.EventPage) -> dict[tuple[int, int], int]:
        places = {
            (event.attempt, event.generation)
            for event in page.events
            if event.attempt is not None and event.generation is not None
        }
        if places <= self._samples.keys():
            return self._samples
        return event_log.samples(self._database, self.job_id)

    def _ended(self, page: event_log.EventPage) -> StoredResponse | None:
        """Return the response as it has ended, if the page has its last event."""
        if not any(event.kind is EventKind.FINISHED for event in page.events):
            return None
        return find(self._database, self.job_id, scope=None)

    def _end(self, stored: StoredResponse) -> Iterator[Json]:
        job = stored.job
        return self._transcript.end(
            response_object.status(job),
            job.answer_text,
            lambda items: _shown(stored, items),
            attempt=job.attempt,
        )

    def _sample(self, event: event_log.JobEvent) -> int:
        if event.attempt is None or event.generation is None:
            return 0
        return self._samples.get((event.attempt, event.generation), event.generation)

    def _wanted(self, event: Json) -> bool:
        return bool(event["sequence_number"] > self._after)


def _shown(stored: StoredResponse, output: list[Json]) -> Json:
    return response_object.current(
        stored.job, stored.entry, output, answer_tokens=stored.answer_tokens
    )


def frame(event: Json) -> bytes:
    """Return an event as a frame, without an id: an id and a comment after it crash the Python client."""
    data = escapes.in_one_line(orjson.dumps(event))
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data)


@dataclass(frozen=True)
class Unread:
    """A response that its client waits for, and that cannot be shown: its job was not accepted, or cannot be read.

    Attributes:
        model: the served one.
        job_id: of the accepted job, which its client finds later under the id of the response; None before that.
    """

    model: str
    job_id: uuid.UUID | None = None

    def events(self, error: Json) -> list[Json]:
        """Return the events of its stream."""
        response = self.failed(error)
        created = response | {"status": response_object.QUEUED, "error": None}
        return [
            {"type": "response.created", "sequence_number": 0, "response": created},
            {"type": "response.failed", "sequence_number": 1, "response": response},
        ]

    def failed(self, error: Json) -> Json:
        """Return it as a failed response."""
        shown = self.job_id or ids.new()
        created = int(ids.moment(shown).timestamp())
        return response_object.bare(shown, model=self.model, created=created) | {
            "status": response_object.FAILED,
            "error": error,
        }
