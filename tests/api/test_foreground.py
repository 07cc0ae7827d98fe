"""Foreground requests: their response is held until the job has finished, and ends with it or with its client."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from flask import Response
from werkzeug.test import TestResponse

from api.app import service_of
from api.auth import Caller as Principal
from api.auth import Right
from api.framework import ResponseSpec, Router, route
from api.openai.foreground import Failure, Foreground
from api.serving import current
from api.streams import frames
from api.submission import Accepted
from core import errors
from core.database import Database
from core.settings import Settings
from jobs.records.jobs import HeldJob
from jobs.store import accounts, history, holds
from tests import databases, factories
from tests.api import wire, worker
from tests.api.conftest import Caller

#: Seconds for which a job is held that no process renews.
LEASE = holds.LEASE.total_seconds()
_ANSWERS = {200: ResponseSpec(None, "")}


@dataclass
class Surface:
    """A surface that shows the status of a job, or its events one for one, and submits what a test says."""

    foreground: Foreground
    database: Database
    submit: Callable[[Principal], uuid.UUID]
    submitted: list[uuid.UUID] = field(default_factory=list)
    repeatable: bool = False
    #: How many reads find no database.
    outages: int = 0

    TAG = "test"

    @route.post("/test/answer", operation_id="answer", guard=Right.SUBMIT, answers=_ANSWERS)
    def answer(self, caller: Principal) -> Response:
        """Hold."""
        return self.foreground.answer(
            caller, lambda: self._accepted(caller), self, repeatable=self.repeatable
        )

    @route.post("/test/stream", operation_id="stream", guard=Right.SUBMIT, answers=_ANSWERS)
    def stream(self, caller: Principal) -> Response:
        """Stream."""
        return self.foreground.stream(caller, lambda: self._accepted(caller), self)

    def _accepted(self, caller: Principal) -> Accepted:
        # Without its row, as the job of an earlier request.
        self.submitted.append(self.submit(caller))
        return Accepted(self.submitted[-1])

    def finished(self, job_id: uuid.UUID) -> bytes:
        """Show the status."""
        self._read()
        return orjson.dumps({"status": history.status(self.database, [job_id])[job_id]})

    def failed(self, error: Failure, _: uuid.UUID | None = None) -> bytes:
        """Show the error."""
        return b'data: {"error":"%b"}\n\n' % error.message.encode()

    def begin(self, job_id: uuid.UUID) -> bytes:
        """Show the job."""
        self._read()
        return b'data: {"type":"begun","job":"%b"}\n\n' % str(job_id).encode()

    def feed(self, event: Mapping[str, Any]) -> bytes:
        """Show the type."""
        if event["type"] == "job.finished":
            self._read()
        return b"data: %b\n\n" % orjson.dumps({"type": event["type"]})

    def _read(self) -> None:
        if self.outages:
            self.outages -= 1
            raise errors.Unavailable("The database is away.")

    @property
    def held(self) -> int:
        """The number of held jobs."""
        with self.database.reading() as transaction:
            return transaction.scalar(sa.select(sa.func.count()).select_from(HeldJob))

    @property
    def status(self) -> str:
        """The status of the last job."""
        return history.status(self.database, [self.submitted[-1]])[self.submitted[-1]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_streams": 1})


@pytest.fixture
def surface(app: Router, database: Database) -> Surface:
    foreground = service_of(app).foreground
    foreground.silence_seconds = 0.01

    def submit(caller: Principal) -> uuid.UUID:
        return factories.make_job(database, caller.account_id, held=True)

    surface = Surface(foreground, database, submit)
    app.include(surface)
    return surface


def post(caller: Caller, path: str = "/test/answer") -> TestResponse:
    """Begin a held request; what it sends is read piece by piece."""
    answer = caller("POST", path, buffered=False)
    assert answer.status_code == 200, answer.text
    return answer


def pieces(answer: TestResponse) -> Iterator[bytes]:
    """Return what a response sends, piece by piece."""
    return iter(answer.response)  # type: ignore[arg-type] # bytes, for us


def events(data: bytes) -> list[str]:
    """Return the types in a stream."""
    return [event["type"] for event in frames.read(data)]


class TestJson:
    def test_the_body_follows_white_space_that_fills_the_silence(
        self, caller: Caller, surface: Surface
    ) -> None:
        answer = post(caller)
        read = pieces(answer)
        assert [next(read) for _ in range(5)] == [b" "] * 5
        worker.finish(surface.database)
        assert orjson.loads(b"".join(read)) == {"status": "succeeded"}
        answer.close()
        assert surface.status == "succeeded"

    def test_a_result_that_an_outage_hides_is_read_again(
        self, caller: Caller, surface: Surface
    ) -> None:
        answer = post(caller)
        read = pieces(answer)
        next(read)
        surface.outages = 2
        worker.finish(surface.database)
        assert orjson.loads(b"".join(read)) == {"status": "succeeded"}
        assert surface.outages == 0
        answer.close()

    def test_a_client_that_hangs_up_in_an_outage_is_not_waited_for(
        self, caller: Caller, surface: Surface
    ) -> None:
        request = wire.Held()
        with current.running(request):
            answer = post(caller)
            read = pieces(answer)
            next(read)
            surface.outages = 1_000_000
            worker.finish(surface.database)
            next(read)
            request.hang_up()
            rest = b"".join(read)
        assert b"succeeded" not in rest
        answer.close()

    def test_a_client_that_hangs_up_cancels_its_job(self, caller: Caller, surface: Surface) -> None:
        request = wire.Held()
        with current.running(request):
            answer = post(caller)
            read = pieces(answer)
            assert [next(read) for _ in range(5)] == [b" "] * 5
            assert surface.status == "queued"
            request.hang_up()
            assert b"".join(read).strip() == b""
            answer.close()
        assert (surface.status, surface.held) == ("cancelled", 0)

    def test_a_client_that_can_come_back_leaves_its_job_for_a_minute(
        self, caller: Caller, surface: Surface, clock: databases.Clock
    ) -> None:
        surface.repeatable = True
        first = post(caller)
        next(pieces(first))
        first.close()
        assert surface.status == "queued"
        clock.advance(LEASE + 1)
        job_id = surface.submitted[0]
        surface.submit = lambda _: job_id
        second = post(caller)
        read = pieces(second)
        next(read)
        next(read)
        clock.advance(LEASE / 2)
        assert holds.lapse(surface.database, actor="sweeper:test") == 0
        worker.finish(surface.database)
        assert orjson.loads(b"".join(read)) == {"status": "succeeded"}
        second.close()
        assert surface.held == 0

    def test_a_client_that_does_not_come_back_has_its_job_cancelled_by_a_sweep(
        self, caller: Caller, surface: Surface, clock: databases.Clock
    ) -> None:
        surface.repeatable = True
        post(caller).close()
        clock.advance(LEASE + 1)
        assert holds.lapse(surface.database, actor="sweeper:test") == 1
        assert (surface.status, surface.held) == ("cancelled", 0)

    def test_a_client_that_hung_up_before_the_job_was_accepted_cancels_it(
        self, caller: Caller, surface: Surface
    ) -> None:
        request = wire.Held()
        request.hang_up()
        with current.running(request):
            answer = post(caller)
            assert b"".join(pieces(answer)).strip() == b""
            answer.close()
        assert surface.status == "cancelled"

    def test_a_response_that_is_never_sent_cancels_the_job(
        self, caller: Caller, surface: Surface
    ) -> None:
        post(caller).close()
        assert surface.status == "cancelled"

    def test_the_worker_of_a_running_job_is_asked_to_stop(
        self, caller: Caller, surface: Surface
    ) -> None:
        answer = post(caller)
        read = pieces(answer)
        next(read)
        claimed = worker.start(surface.database, text="I see")
        answer.close()
        view = history.get(surface.database, claimed.job_id, account_id=None)
        assert view is not None
        assert view.job.cancel_requested_at is not None

    def test_a_refused_job_has_its_own_status_and_leaves_the_place(
        self, caller: Caller, surface: Surface
    ) -> None:
        good, surface.submit = surface.submit, refuse
        refused = caller("POST", "/test/answer")
        assert refused.status_code == 429
        assert refused.get_json()["error"]["code"] == "queue_full"
        surface.submit = good
        post(caller).close()

    def test_without_a_place_nothing_is_submitted(self, caller: Caller, surface: Surface) -> None:
        first = post(caller)
        second = caller("POST", "/test/answer")
        assert (second.status_code, second.get_json()["error"]["code"]) == (503, "streams_in_use")
        assert len(surface.submitted) == 1
        first.close()
        post(caller).close()

    def test_a_service_that_stops_breaks_the_connection(
        self, app: Router, caller: Caller, surface: Surface
    ) -> None:
        answer = post(caller)
        read = pieces(answer)
        next(read)
        service_of(app).drain()
        with pytest.raises(current.BrokenOff):
            list(read)
        answer.close()
        assert surface.status == "cancelled"

    def test_a_revoked_key_ends_its_response_with_an_error(
        self, caller: Caller, surface: Surface
    ) -> None:
        answer = post(caller)
        read = pieces(answer)
        next(read)
        [key] = accounts.keys(surface.database)
        accounts.revoke_key(surface.database, key.key_id)
        assert b"This API key was revoked or has expired." in b"".join(read)
        answer.close()
        assert surface.status == "cancelled"


def refuse(_: Principal) -> uuid.UUID:
    """Accept no job."""
    raise errors.QueueFull("The queue is full.", retry_after=5)


class TestPreparation:
    """A job whose preparation takes long, as downloads of images do."""

    @pytest.fixture
    def gate(self, surface: Surface) -> Iterator[threading.Event]:
        """Return what the preparation waits for."""
        gate, submit = threading.Event(), surface.submit

        def late(caller: Principal) -> uuid.UUID:
            assert gate.wait(60)
            return submit(caller)

        surface.submit = late
        surface.foreground.preparation_seconds = 0.01
        yield gate
        gate.set()

    def test_the_response_begins_before_the_job_is_accepted(
        self, caller: Caller, surface: Surface, gate: threading.Event
    ) -> None:
        answer = post(caller)
        read = pieces(answer)
        assert [next(read) for _ in range(5)] == [b" "] * 5
        assert not surface.submitted
        gate.set()
        while not surface.submitted:
            assert next(read) == b" "
        worker.finish(surface.database)
        assert orjson.loads(b"".join(read)) == {"status": "succeeded"}

    def test_a_later_refusal_is_in_the_body(
        self, caller: Caller, surface: Surface, gate: threading.Event
    ) -> None:
        def late(caller: Principal) -> uuid.UUID:
            assert gate.wait(60)
            return refuse(caller)

        surface.submit = late
        answer = post(caller)
        read = pieces(answer)
        next(read)
        gate.set()
        assert b"The queue is full." in b"".join(read)

    def test_a_client_that_is_gone_by_then_cancels_the_job(
        self, caller: Caller, surface: Surface, gate: threading.Event
    ) -> None:
        ended = threading.Event()
        cancel = surface.foreground.cancel

        def cancelled(caller: Principal, accepted: Accepted) -> None:
            cancel(caller, accepted)
            ended.set()

        surface.foreground.cancel = cancelled  # type: ignore[method-assign] # reports its call
        post(caller).close()
        gate.set()
        assert ended.wait(60)
        assert surface.status == "cancelled"


class TestStream:
    def test_events_follow_until_the_job_has_finished(
        self, caller: Caller, surface: Surface
    ) -> None:
        answer = post(caller, "/test/stream")
        read = pieces(answer)
        received = next(read)
        while "job.queued" not in events(received):
            received += next(read)
        worker.finish(surface.database)
        received += b"".join(read)
        answer.close()
        kinds = events(received)
        assert kinds[0] == "begun"
        assert kinds[1:3] == ["job.queued", "job.started"]
        assert kinds[-1] == "job.finished"
        assert received.endswith(b'data: {"type":"job.finished"}\n\n')
        assert surface.status == "succeeded"

    def test_a_client_that_hangs_up_cancels_its_job(self, caller: Caller, surface: Surface) -> None:
        request = wire.Held()
        with current.running(request):
            answer = post(caller, "/test/stream")
            read = pieces(answer)
            received = next(read)
            while "job.queued" not in events(received):
                received += next(read)
            request.hang_up()
            list(read)
            answer.close()
        assert surface.status == "cancelled"

    def test_what_an_outage_hides_follows_later(self, caller: Caller, surface: Surface) -> None:
        answer = post(caller, "/test/stream")
        read = pieces(answer)
        surface.outages = 2
        received = b""
        while "job.queued" not in events(received):
            received += next(read)
        worker.finish(surface.database)
        surface.outages = 2
        received += b"".join(read)
        answer.close()
        kinds = events(received)
        assert (kinds[0], kinds[-1]) == ("begun", "job.finished")
        assert len(kinds) == len(set(kinds))
        assert "error" not in received.decode()

    def test_a_place_is_given_back(self, caller: Caller, surface: Surface) -> None:
        for _ in range(2):
            answer = post(caller, "/test/stream")
            next(pieces(answer))
            answer.close()
            assert surface.status == "cancelled"
        assert service_of(caller.client.application).streams.open == 0
