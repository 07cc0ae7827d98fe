"""Typed streams and held responses through outages, deletions, and between two writes of the worker."""

from __future__ import annotations

import contextlib
import functools
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

from api.app import service_of
from api.openai.foreground import Failure
from api.openai.responses.schemas import ResponseObject
from api.openai.responses.streams import ResponseTranscript
from core import errors, ids
from core.database import Database, Transaction
from core.database_faults import DatabaseUnavailable
from core.settings import Settings
from jobs.events.live import Publisher
from jobs.records.jobs import Job
from jobs.store import accounts, commands, expiry, retention, settle
from tests import databases, factories
from tests.api import worker
from tests.api.conftest import Caller
from tests.api.test_streams import record, say, succeed
from tests.e2e.stack import eventually
from tests.fakes import RecordingPublisher, redis_prefix
from webhooks import purge

Json = dict[str, Any]
GRACE = 61


class Flickering(Database):
    """A database that can be away, wholly or for writes."""

    away = False
    read_only = False

    @contextlib.contextmanager
    def transaction(self, name: str = "") -> Iterator[Transaction]:
        if self.away or self.read_only:
            raise DatabaseUnavailable("It is away.")
        with super().transaction(name) as transaction:
            yield transaction

    @contextlib.contextmanager
    def reading(self, *, snapshot: bool = False) -> Iterator[Transaction]:
        if self.away:
            raise DatabaseUnavailable("It is away.")
        with super().reading(snapshot=snapshot) as transaction:
            yield transaction


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def database(database_url: str, clock: databases.Clock) -> Iterator[Flickering]:
    database = Flickering(database_url, clock=clock)
    yield database
    database.close()


def events(data: bytes) -> list[Json]:
    """Return the events in a stream."""
    return [orjson.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]


def frames(data: bytes) -> bytes:
    """Return a stream without its comments."""
    return data.replace(b":\n\n", b"")


class Reading:
    """A response that is read piece by piece."""

    def __init__(self, answer: TestResponse) -> None:
        assert answer.status_code == 200, answer.text
        self._answer = answer
        self._pieces: Iterator[bytes] = iter(answer.response)  # type: ignore[arg-type] # bytes, for us
        self.data = b""

    def next(self) -> bytes:
        """Read a piece."""
        piece = next(self._pieces)
        self.data += piece
        return piece

    def until(self, true: Callable[[], bool]) -> None:
        """Read until something is true."""
        while not true():
            self.next()

    def rest(self) -> bytes:
        """Read to the end, and return all data."""
        self.data += b"".join(self._pieces)
        self._answer.close()
        return self.data


def post(caller: Caller, path: str = "/v1/responses", **body: object) -> Reading:
    sent = {"input": "How many?"} if path == "/v1/responses" else CHAT
    return Reading(caller("POST", path, json=sent | body, buffered=False))


CHAT: Json = {"model": "tiny-qvq", "messages": [{"role": "user", "content": "How many?"}]}
PATHS = ["/v1/responses", "/v1/chat/completions"]


class TestTheHotPath:
    """Redis says whether a typed stream follows a job."""

    @pytest.fixture
    def settings(self, settings: Settings, redis_url: str) -> Settings:
        return settings.model_copy(update={"redis_url": redis_url, "redis_prefix": redis_prefix()})

    @pytest.fixture
    def publisher(self, redis_url: str) -> Iterator[Publisher]:
        publisher = Publisher(redis_url, redis_prefix)
        publisher.start()
        yield publisher
        publisher.stop()

    def test_text_that_a_typed_stream_follows_is_written_early(
        self, caller: Caller, database: Database, publisher: Publisher
    ) -> None:
        stream = post(caller, background=True, stream=True)
        stream.until(lambda: b"response.queued" in stream.data)
        claimed = factories.claim(database)
        recorder, live = record(database, claimed, publisher)
        told = []

        def watched() -> bool:
            live.add("I see ")
            recorder.tick()
            told.append(recorder.flush_watched())
            return told[-1]

        # No write of all text happens: this one is due each second.
        assert eventually(watched)
        stream.until(lambda: b"I see " in stream.data)
        succeed(database, claimed, recorder, live)
        whole = stream.rest()

        last = events(whole)[-1]["response"]
        again = Reading(caller("GET", f"/v1/responses/{last['id']}?stream=true")).rest()
        assert frames(again) == frames(whole)
        assert not recorder.flush_watched()


@pytest.mark.parametrize("background", [True, False])
def test_an_outage_delays_the_events_of_a_stream(
    caller: Caller,
    database: Flickering,
    background: bool,  # noqa: FBT001 - a parameter
) -> None:
    stream = post(caller, background=background, stream=True)
    stream.until(lambda: b"response.queued" in stream.data)
    claimed = factories.claim(database)
    recorder, live = record(database, claimed, RecordingPublisher())
    say(recorder, live, "I see ")
    recorder.flush()
    stream.until(lambda: b"I see " in stream.data)
    say(recorder, live, "six.")
    succeed(database, claimed, recorder, live)
    # A write wakes the reader, which then finds no database.
    database.away = True
    for _ in range(3):
        assert stream.next() == b":\n\n"
    database.away = False
    whole = stream.rest()

    found = events(whole)
    assert found[-1]["type"] == "response.completed"
    again = Reading(caller("GET", f"/v1/responses/{found[-1]['response']['id']}?stream=true"))
    assert frames(again.rest()) == frames(whole)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_content_that_cannot_be_removed_now_is_left_to_the_sweep(
    caller: Caller,
    database: Flickering,
    age: databases.Age,
    path: str,
    stream: bool,  # noqa: FBT001 - a parameter
) -> None:
    service_of(caller.client.application).foreground.silence_seconds = 0.01
    answer = post(caller, path, stream=stream, store=False)
    for _ in range(2):
        answer.next()
    worker.finish(database)
    database.read_only = True
    whole = answer.rest()
    database.read_only = False

    assert b'"6"' in whole
    assert b'"error":{' not in whole
    job_id = newest(caller)
    assert factories.get_job(database, job_id).job.answer_text == "6"
    age(GRACE)
    removed = retention.discard(database, actor="sweeper:test", remove_copies=purge.reduce_jobs)
    assert removed == 1
    assert factories.get_job(database, job_id).job.answer_text is None


def newest(caller: Caller) -> Any:  # noqa: ANN401 - an id
    """Return the id of the newest job."""
    [job] = caller("GET", "/v1/jobs?limit=1").get_json()["data"]
    return ids.parse("job", job["id"])


class Endings:
    """What happens to a job while a typed stream follows it."""

    def __init__(self, database: Database, age: databases.Age) -> None:
        self.database = database
        self.age = age

    def run(self, ending: str, stream: Reading) -> None:
        """Run the job, and let the stream follow it piece by piece."""
        if ending == "cancelled in the queue":
            [job_id] = unfinished(self.database)
            commands.cancel(self.database, job_id, account_id=None, actor="key:test")
            return
        claimed = factories.claim(self.database)
        recorder, live = record(self.database, claimed, RecordingPublisher())
        fault = settle.Failure("engine_rejected", "The engine cannot take this.")
        if ending == "failed before any output":
            assert settle.fail(self.database, claimed, fault, generation=None)
            return
        say(recorder, live, "I see ", "圆 🟢")
        recorder.flush()
        stream.until(lambda: "🟢".encode() in stream.data)
        if ending == "the worker is killed":
            # This text is lost with the worker.
            say(recorder, live, "or seven")
            self.age(61)
            expiry.sweep(self.database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
            self.age(10)
            stream.until(lambda: b"response.output_item.done" in stream.data)
            claimed = factories.claim(self.database)
            recorder, live = record(self.database, claimed, RecordingPublisher())
            say(recorder, live, "It is ", "6.")
            succeed(self.database, claimed, recorder, live)
            return
        if ending == "cancelled":
            commands.cancel(self.database, claimed.job_id, account_id=None, actor="key:test")
        recorder.close(live)
        ended = factories.make_ended(live.text(), event_index=live.event_index)
        end = settle.stop if ending == "cancelled" else functools.partial(settle.fail, fault=fault)
        assert end(self.database, claimed, generation=ended)


def unfinished(database: Database) -> list[Any]:
    """Return the ids of the jobs that have not ended."""
    with database.reading() as transaction:
        wanted = sa.select(Job.id).where(Job.finished_at.is_(None))
        return list(transaction.execute(wanted).scalars())


ENDINGS: dict[str, tuple[str, list[str]]] = {
    "cancelled in the queue": ("cancelled", []),
    "failed before any output": ("failed", []),
    "cancelled": ("cancelled", ["incomplete"]),
    "failed": ("failed", ["incomplete"]),
    "the worker is killed": ("completed", ["incomplete", "completed", "completed"]),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stream_that_was_followed_is_the_same_later_from_every_number(
    caller: Caller, database: Database, age: databases.Age, ending: str
) -> None:
    last, items = ENDINGS[ending]
    stream = post(caller, background=True, stream=True, reasoning={"summary": "auto"})
    stream.until(lambda: b"response.queued" in stream.data)
    Endings(database, age).run(ending, stream)
    whole = frames(stream.rest())

    found = events(whole)
    end = found[-1]["response"]
    assert end["status"] == last
    assert found[-1]["type"] == f"response.{LAST.get(last, last)}"
    assert [item["status"] for item in end["output"]] == items
    assert caller("GET", f"/v1/responses/{end['id']}").get_json() == end
    pieces = [data + b"\n\n" for data in without_times(whole).split(b"\n\n")[:-1]]
    assert len(pieces) == len(found)
    for number in range(-1, len(found) + 2):
        path = f"/v1/responses/{end['id']}?stream=true&starting_after={number}"
        rest = without_times(frames(Reading(caller("GET", path)).rest()))
        assert rest == b"".join(pieces[number + 1 :])


LAST = {"cancelled": "incomplete"}


def without_times(data: bytes) -> bytes:
    """Return a stream without the times of its job, which ``age`` moves on PostgreSQL."""
    return re.sub(rb'"(created|completed)_at":\d+', b"", data)


@pytest.mark.parametrize("number", ["-2", "x", "1.5", "", str(2**63)])
def test_an_invalid_number_is_refused_with_its_name(caller: Caller, number: str) -> None:
    created = caller("POST", "/v1/responses", json={"input": "x", "background": True}).get_json()
    path = f"/v1/responses/{created['id']}?stream=true&starting_after={number}"
    answer = caller("GET", path)

    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"] == "starting_after"


def test_a_stream_without_a_place_is_refused_before_it_creates_a_response(
    caller: Caller, database: Database
) -> None:
    body = {"input": "How many?", "background": True, "stream": True}
    answers = [caller("POST", "/v1/responses", json=body, buffered=False) for _ in range(20)]

    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < len(answers)
    for answer in refused:
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "streams_in_use")
        assert answer.headers["Retry-After"]
    # The client sends the request again.
    assert len(unfinished(database)) == len(answers) - len(refused)
    for answer in answers:
        answer.close()
    post(caller, background=True, stream=True).next()


def test_a_revoked_key_ends_its_response_with_the_id_of_its_job(
    caller: Caller, database: Database, settings: Settings
) -> None:
    response = post(caller)
    response.until(lambda: bool(unfinished(database)))
    [job_id] = unfinished(database)
    [key] = accounts.keys(database)
    accounts.revoke_key(database, key.key_id)

    shown = orjson.loads(response.rest())
    assert (shown["id"], shown["status"]) == (ids.show("resp", job_id), "failed")
    assert (shown["model"], shown["created_at"] > 0) == (settings.model, True)
    assert "revoked" in shown["error"]["message"]
    # Also that of a failure that no job has is a response as the clients' types say.
    Response.model_validate(shown, strict=True)
    assert (shown["error"]["code"], shown["error"]["type"]) == ("invalid_prompt", "invalid_api_key")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Unavailable("Later."), "server_error"),
        (errors.QueueFull("Later."), "rate_limit_exceeded"),
        (errors.InvalidRequest("No.", code="context_length_exceeded"), "invalid_prompt"),
        (errors.ImageQuarantined("No."), "invalid_prompt"),
        (errors.ImageRejected("No.", code="image_file_too_large"), "image_file_too_large"),
        (errors.StorageQuotaExceeded("No."), "invalid_prompt"),
        (errors.NotFound("No."), "invalid_prompt"),
        (errors.IdempotencyInProgress("Later."), "server_error"),
    ],
)
def test_a_refusal_after_the_response_has_begun_is_a_whole_response_with_a_known_code(
    error: Failure, code: str, settings: Settings
) -> None:
    transcript = ResponseTranscript(lambda _: pytest.fail("no job"), model=settings.model)
    created, failed = events(transcript.failed(error))
    for event in (created, failed):
        TypeAdapter(ResponseStreamEvent).validate_python(event, strict=True)
        assert event["response"].keys() == ResponseObject.model_fields.keys()
    native = getattr(error, "specific_code", error.code)
    assert failed["response"]["error"] == {
        "code": code, "type": native, "message": error.message, "param": None,
    }  # fmt: skip


@pytest.mark.parametrize("background", [True, False])
def test_a_stream_whose_response_is_deleted_ends_with_an_error(
    caller: Caller,
    database: Database,
    background: bool,  # noqa: FBT001 - a parameter
) -> None:
    stream = post(caller, background=background, stream=True)
    stream.until(lambda: b"response.queued" in stream.data)
    response_id = events(stream.data)[0]["response"]["id"]
    worker.finish(database)
    assert caller("DELETE", f"/v1/responses/{response_id}").status_code == 200

    found = events(stream.rest())

    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert (found[-1]["type"], found[-1]["code"]) == ("error", "not_found")
    assert b"It is 6." not in stream.data
