"""Foreground requests: the response is held open until the job has finished, as long as its client waits.

The response begins when the job is accepted, or earlier if that takes long, and carries filler while nothing else is to
be sent: clients and proxies give up on a connection without bytes. From then on, errors are in the body.

A request that ends before its job, because its client hangs up, its key is revoked or the service stops, cancels the
job: no client waits for the answer. With an idempotency key the client may send the request again and wait for the same
job: so the job is cancelled after a minute (:mod:`jobs.store.holds`), as it is if this process dies. If the service
stops, the connection breaks, so that clients send the request again.
"""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
from flask import Response

from api.auth import Caller
from api.openai.holds import HeldJobs
from api.openai.preparation import Preparation
from api.revocation import Revocation
from api.serving import current
from api.streams import frames
from api.streams.follow import Streams
from api.streams.stored import StoredStream
from api.streams.waits import Waits
from api.submission import Accepted
from core import errors, ids
from core.closing import Closing
from core.database import Database
from jobs.lifecycle import Status
from jobs.store import commands, history
from jobs.store.event_log import EventKind

_log = structlog.get_logger(__name__)

#: The longest silence of a response. Proxies and clients end connections after a minute or more without a byte.
_SILENCE_SECONDS: Final = 15.0
#: The longest wait for the job to be accepted before the response begins.
_PREPARATION_SECONDS: Final = 30.0
#: How long a result is read again that the database did not give, and the pause between two reads.
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.25
JSON: Final = "application/json"
#: White space before JSON means nothing.
_JSON_FILLER: Final = b" "
#: A comment and an empty line: nothing to decoders, and a whole block to those that wait for one.
_SSE_FILLER: Final = b":\n\n"
_HEADERS: Final = {"X-Accel-Buffering": "no"}
_GONE: Final = "The client has hung up."
_REVOKED: Final = "This API key was revoked or has expired."

Failure = errors.RequestError | errors.Unavailable


def replayed(accepted: Accepted) -> dict[str, str]:
    """Return the header that says whether an earlier request with the same key has created the job."""
    return {"Idempotent-Replayed": "true"} if accepted.replayed else {}


class HeldBody(Protocol):
    """The body of a held response in JSON, as a surface writes it."""

    def finished(self, job_id: uuid.UUID) -> bytes:
        """Return the body for a job that has finished."""

    def failed(self, error: Failure, job_id: uuid.UUID | None, /) -> bytes:
        """Return the body for an error after the response has begun, of an accepted job or (None) before that."""


class Transcript(Protocol):
    """The events of a held stream, as a surface writes them."""

    def begin(self, job_id: uuid.UUID) -> bytes:
        """Return what the stream begins with, once the job is accepted.

        An outage leaves the transcript unchanged, here and in :meth:`feed`: the call is repeated.
        """

    def feed(self, event: Mapping[str, Any]) -> bytes:
        """Return what the next native event adds; the last one is ``job.finished``."""

    def failed(self, error: Failure) -> bytes:
        """Return the end of the stream for an error."""


class StoredTranscript(Protocol):
    """The events of a held stream that shows only what is stored, as a surface writes them."""

    @property
    def over(self) -> bool:
        """Whether the last event was written."""

    def follow(self, job_id: uuid.UUID, stream: StoredStream) -> Iterator[bytes]:
        """Yield what is to be sent, up to the last event or until ``stream`` is ended."""

    def failed(self, error: Failure) -> bytes:
        """Return the end of the stream for an error."""


@dataclass(frozen=True)
class Hold:
    """How a response is held: the bytes that fill silence, and what follows once the job is accepted."""

    content_type: str
    filler: bytes
    follow: Callable[[uuid.UUID, HeldResponse], Iterator[bytes]] = field(repr=False)
    failed: Callable[[Failure, uuid.UUID | None], bytes] = field(repr=False)
    #: Whether the client can send the request again and get the same job.
    repeatable: bool


class Foreground:
    """Holds responses open until their jobs have finished.

    Args:
        database: stores jobs.
        waits: the waits for jobs.
        streams: the streams of jobs; their places are those of held responses too.
        revocation: ends the responses of revoked keys.
        silence_seconds: the longest time without a byte.
        preparation_seconds: the longest wait for a job to be accepted before the response begins.
    """

    def __init__(
        self,
        database: Database,
        *,
        waits: Waits,
        streams: Streams,
        revocation: Revocation,
        silence_seconds: float = _SILENCE_SECONDS,
        preparation_seconds: float = _PREPARATION_SECONDS,
    ) -> None:
        self._database = database
        self._waits = waits
        self._streams = streams
        self._revocation = revocation
        self.held = HeldJobs(database)
        self.silence_seconds = silence_seconds
        self.preparation_seconds = preparation_seconds

    def answer(
        self,
        caller: Caller,
        submit: Callable[[], Accepted],
        body: HeldBody,
        *,
        repeatable: bool = False,
    ) -> Response:
        """Submit a job and return the response that holds its result as JSON.

        Args:
            caller: whose place the response takes.
            submit: returns the accepted job, which must be held (:mod:`jobs.store.holds`); it runs in another thread,
                as a part of this request.
            body: writes the result.
            repeatable: whether the request has an idempotency key.

        Raises:
            core.errors.StreamsInUse: the account has no free place; nothing was submitted.
            core.errors.LonglookError: whatever ``submit`` raises before the response has to begin.
        """

        def follow(job_id: uuid.UUID, held: HeldResponse) -> Iterator[bytes]:
            return self._answer(job_id, held, caller, body)

        hold = Hold(JSON, _JSON_FILLER, follow, body.failed, repeatable)
        return self._held(caller, submit, hold)

    def stream(
        self,
        caller: Caller,
        submit: Callable[[], Accepted],
        transcript: Transcript,
        *,
        repeatable: bool = False,
    ) -> Response:
        """Submit a job and return the response that streams its events; see :meth:`answer`."""

        def follow(job_id: uuid.UUID, held: HeldResponse) -> Iterator[bytes]:
            return self._stream(job_id, held, caller, transcript)

        failed = _of_any_job(transcript.failed)
        hold = Hold(frames.CONTENT_TYPE, _SSE_FILLER, follow, failed, repeatable)
        return self._held(caller, submit, hold)

    def stream_stored(
        self,
        caller: Caller,
        submit: Callable[[], Accepted],
        transcript: StoredTranscript,
        *,
        repeatable: bool = False,
    ) -> Response:
        """Submit a job and return the response that streams its stored events; see :meth:`answer`."""

        def follow(job_id: uuid.UUID, held: HeldResponse) -> Iterator[bytes]:
            return self._stream_stored(job_id, held, caller, transcript)

        failed = _of_any_job(transcript.failed)
        hold = Hold(frames.CONTENT_TYPE, _SSE_FILLER, follow, failed, repeatable)
        return self._held(caller, submit, hold)

    def close(self) -> None:
        """Renew no holds any more. A signal handler may call it."""
        self.held.close()

    def _held(self, caller: Caller, submit: Callable[[], Accepted], hold: Hold) -> Response:
        self._streams.take(caller.account_id)
        held = HeldResponse(self, caller, submit, hold)
        headers = dict(_HEADERS)
        try:
            if held.preparation.over(self.preparation_seconds):
                headers |= replayed(held.preparation.accepted())
        except BaseException:
            held.close()
            raise
        return Response(held, headers=headers, content_type=hold.content_type)

    def _answer(
        self, job_id: uuid.UUID, held: HeldResponse, caller: Caller, body: HeldBody
    ) -> Iterator[bytes]:
        held.place_used = True
        with self._waits.hold(job_id, account_id=caller.account_id, ended=held.ended) as wait:
            while not wait.over(self.silence_seconds):
                yield _JSON_FILLER
            if held.dropped is None:
                yield from self._patiently(
                    held, _JSON_FILLER, lambda: self._result(job_id, held, body)
                )

    def _result(self, job_id: uuid.UUID, held: HeldResponse, body: HeldBody) -> bytes:
        if not self._finished(job_id):
            # The service stops.
            return b""
        data = body.finished(job_id)
        held.completed = True
        return data

    def _patiently(
        self, held: HeldResponse, filler: bytes, read: Callable[[], bytes]
    ) -> Iterator[bytes]:
        """Yield what ``read`` returns; during an outage, read again while the client waits, for up to a minute."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                data = read()
            except errors.Unavailable:
                if held.dropped is not None or time.monotonic() >= until:
                    raise
                _log.warning("result_not_read")
                yield filler
                held.pause()
            else:
                # An empty piece would end the body.
                yield data or filler
                return

    def _stream(
        self, job_id: uuid.UUID, held: HeldResponse, caller: Caller, transcript: Transcript
    ) -> Iterator[bytes]:
        held.place_used = True
        stream = self._streams.follow(
            job_id, account_id=caller.account_id, key_id=caller.key_id, after=0, taken=True
        )
        held.end_stream = stream.end
        if held.dropped is not None:
            stream.end()
        try:
            yield from self._patiently(held, _SSE_FILLER, lambda: transcript.begin(job_id))
            for data in stream:
                # The stream has said to the server whom to call when the client hangs up: itself.
                current.hold(held.hang_up)
                read = list(frames.read(data))
                new = [event for event in read if event["type"] != EventKind.FINISHED]
                yield b"".join(map(transcript.feed, new)) or _SSE_FILLER
                for last in read[len(new) :]:
                    end = functools.partial(transcript.feed, last)
                    yield from self._patiently(held, _SSE_FILLER, end)
                    held.completed = True
                    # Nothing may follow the last event, not even the filler for the end of the native stream.
                    return
        finally:
            stream.close()

    def _stream_stored(
        self, job_id: uuid.UUID, held: HeldResponse, caller: Caller, transcript: StoredTranscript
    ) -> Iterator[bytes]:
        held.place_used = True
        stream = self._streams.follow_stored(
            job_id, account_id=caller.account_id, key_id=caller.key_id, taken=True
        )
        stream.hung_up = held.hang_up
        held.end_stream = stream.end
        if held.dropped is not None:
            stream.end()
        with stream:
            yield from transcript.follow(job_id, stream)
            held.completed = transcript.over

    def _finished(self, job_id: uuid.UUID) -> bool:
        status = history.status(self._database, [job_id]).get(job_id)
        return status is not None and status.terminal

    def give_back(self, caller: Caller) -> None:
        """Give back the place of a response that waited for no job."""
        self._streams.give_back(caller.account_id)

    def watch(self, caller: Caller, end: Callable[[], None]) -> Closing:
        """Call ``end`` when the key of ``caller`` is revoked, until the watch is closed."""
        return self._revocation.watch(caller.key_id, end)

    def cancel(self, caller: Caller, accepted: Accepted) -> None:
        """Cancel a job whose request has ended; a finished one does not change."""
        job_id = accepted.job_id
        try:
            status = commands.cancel(
                self._database, job_id, account_id=caller.account_id, actor=caller.actor
            )
        except errors.Unavailable:
            _log.warning("dropped_job_not_cancelled", job_id=ids.show("job", job_id))
            return
        self.held.end(job_id)
        if status in (Status.CANCELLED, Status.RUNNING):
            _log.info("dropped_job_cancelled", job_id=ids.show("job", job_id))


def _of_any_job(
    failed: Callable[[Failure], bytes],
) -> Callable[[Failure, uuid.UUID | None], bytes]:
    """Return ``failed`` for a stream, whose transcript knows its job."""
    return lambda error, _: failed(error)


class HeldResponse(Closing):
    """The body of one response. Iterating blocks; closing it frees its place and cancels an unfinished job.

    Attributes:
        preparation: the submission of its job.
        ended: set when the wait for the job is over.
        end_stream: ends the stream of the job's events, if there is one.
        place_used: whether a wait or a stream has the place of the response, and gives it back.
        completed: whether the whole result was given to the server.
        dropped: why the response ends early; None: it does not.
    """

    def __init__(
        self, foreground: Foreground, caller: Caller, submit: Callable[[], Accepted], hold: Hold
    ) -> None:
        self._foreground = foreground
        self._caller = caller
        self._hold = hold
        self.ended = threading.Event()
        self.end_stream: Callable[[], None] = lambda: None
        self.place_used = False
        self.completed = False
        self.dropped: str | None = None
        self._closed = False
        self._job_id: uuid.UUID | None = None
        self._watch = foreground.watch(caller, self._revoked)
        self.preparation = Preparation(submit, discard=self._discard)

    def __iter__(self) -> Iterator[bytes]:
        # Sent at once, with the head of the response.
        yield self._hold.filler
        current.hold(self.hang_up)
        while not self.preparation.over(self._foreground.silence_seconds):
            yield self._hold.filler
        # The preparation may have taken a place among the threads again.
        current.hold(self.hang_up)
        try:
            accepted = self.preparation.accepted()
        except (errors.RequestError, errors.Unavailable) as error:
            self.completed = True
            yield self._hold.failed(error, None)
            return
        except Exception:  # noqa: BLE001 - the boundary: the status of the response is sent
            _log.exception("request_failed")
            self.completed = True
            yield self._hold.failed(errors.Unavailable("The service failed."), None)
            return
        self._job_id = accepted.job_id
        self._foreground.held.add(accepted.job_id, again=accepted.replayed)
        yield from self._follow(accepted.job_id)

    def _follow(self, job_id: uuid.UUID) -> Iterator[bytes]:
        try:
            yield from self._hold.follow(job_id, self)
        except (errors.RequestError, errors.Unavailable) as error:
            # For example, another request has deleted the job meanwhile.
            yield self._hold.failed(error, job_id)
            return
        if self.completed or self.dropped == _GONE:
            return
        if self.dropped is not None:
            yield self._hold.failed(errors.Unauthenticated(_REVOKED), job_id)
            return
        # The service stops. A client that sees a broken connection sends the request again.
        raise current.BrokenOff

    def pause(self) -> None:
        """Wait a moment, unless the response is to end early."""
        self.ended.clear()
        if self.dropped is None:
            self.ended.wait(_PAUSE_SECONDS)

    def hang_up(self) -> None:
        """End the response: its client has hung up. Any thread may call this; it does not block."""
        self._drop(_GONE)

    def _revoked(self) -> None:
        self._drop(_REVOKED)

    def _drop(self, reason: str) -> None:
        self.dropped = self.dropped or reason
        self.ended.set()
        self.end_stream()

    def _discard(self, accepted: Accepted) -> None:
        # A job that is held no more is cancelled later, unless the client comes back.
        if not self._hold.repeatable or self.dropped == _REVOKED:
            self._foreground.cancel(self._caller, accepted)

    def close(self) -> None:
        """Release everything. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._watch.close()
        if self._job_id is not None:
            self._foreground.held.remove(self._job_id)
            if self.completed:
                self._foreground.held.end(self._job_id)
        if not self.place_used:
            self._foreground.give_back(self._caller)
        if not self.completed:
            self.preparation.abandon()
