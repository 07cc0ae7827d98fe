"""Typed streams and held responses through outages, deletions, and between two writes of the worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from werkzeug.test import TestResponse

from api.app import service_of
from core import ids
from core.database import Database, Transaction
from core.database_faults import DatabaseUnavailable
from core.settings import Settings
from jobs.events.live import Publisher
from jobs.store import retention
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
