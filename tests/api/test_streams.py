"""``GET /v1/jobs/{id}/events``: live or replayed, from any number, and never more of them than may be."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from werkzeug.test import TestResponse

from api.app import create_app, service_of
from api.framework import Router
from api.revocation import Revocation
from api.serving import current
from api.streams.follow import Streams
from core import ids
from core.database import Database
from core.settings import Settings
from core.shares import Shares
from jobs import findings
from jobs.answers.extraction import Answer
from jobs.events.live import Publisher, Subscriber
from jobs.images import ImageReader
from jobs.records.attempts import FindingEntry
from jobs.store import accounts, claims, expiry, retention, settle
from jobs.store import findings as stored
from tests import databases, factories
from tests.api import following, wire, worker
from tests.api.conftest import Caller
from tests.api.following import Follower
from tests.e2e.stack import eventually
from tests.fakes import RecordingPublisher, RecordingWakeup, redis_prefix
from worker.run.trace_buffer import EventSink as Tells
from worker.run.trace_buffer import TraceBuffer, TraceWriter

Follow = Callable[..., Follower]


def opened(answer: TestResponse) -> Follower:
    """Follow the stream of an answer."""
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "text/event-stream; charset=utf-8"
    return Follower(answer.response, close=answer.close)  # type: ignore[arg-type] # bytes, for us


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_streams": 3})


@pytest.fixture
def follow(caller: Caller) -> Iterator[Follow]:
    """Return a function that follows a job; the end of the test closes all followers."""
    followers: list[Follower] = []

    def begin(job: dict[str, Any], query: str = "", **headers: str) -> Follower:
        answer = caller("GET", f"{job['urls']['events']}{query}", headers=headers, buffered=False)
        followers.append(opened(answer))
        return followers[-1]

    yield begin
    for follower in followers:
        service_of(caller.client.application).drain()
        follower.leave()


@pytest.fixture
def another(
    settings: Settings, database: Database, decoder: ImageReader, caller: Caller
) -> Iterator[Caller]:
    """Return the same caller at another API."""
    app = create_app(settings, database=database, wakeup=RecordingWakeup(), images=decoder)
    yield Caller(app.test_client(), caller.key)
    service_of(app).drain()


def record(
    database: Database, claimed: claims.Claim, publisher: Tells
) -> tuple[TraceWriter, TraceBuffer]:
    """Begin the stream of a claimed job and return what records it."""
    recorder = TraceWriter(
        database,
        publisher=publisher,
        owner=claimed.owner,
        flush_seconds=1,
        on_lost=lambda _: None,
    )
    started_at = factories.begin(database, claimed)
    assert started_at is not None
    return recorder, recorder.open(claimed, generation=0, started_at=started_at)


def say(recorder: TraceWriter, live: TraceBuffer, *words: str) -> None:
    """Say ``words``, each as an event of its own."""
    for word in words:
        live.add(word)
        recorder.tick()


def succeed(
    database: Database, claimed: claims.Claim, recorder: TraceWriter, live: TraceBuffer
) -> None:
    """End the job with what the stream has said."""
    recorder.close(live)
    ended = factories.make_ended(live.text(), event_index=live.event_index)
    assert settle.succeed(database, claimed, answer=Answer("6", "boxed"), generation=ended)


@pytest.fixture
def finished(database: Database, caller: Caller) -> dict[str, Any]:
    """Return a job that has said five things and finished."""
    job = caller.job()
    claimed = factories.claim(database)
    recorder, live = record(database, claimed, RecordingPublisher())
    say(recorder, live, "Let me ", "look:\n", "圆 🟢 ", "six", ".")
    succeed(database, claimed, recorder, live)
    return caller.job() | job


def test_a_finished_job_is_replayed_from_every_number(
    follow: Follow, finished: dict[str, Any], caller: Caller
) -> None:
    events = follow(finished).join()

    kinds = ["job.queued", "job.started", *["trace.delta"] * 5, "job.finished"]
    assert [event["type"] for event in events] == kinds
    assert following.text(events) == "Let me look:\n圆 🟢 six."
    assert events[-1]["job"] == caller("GET", finished["urls"]["self"]).get_json()
    assert events[-1]["valid_through"] == events[-2]["sequence_number"]
    for event in events[:-1]:
        number = event["sequence_number"]
        rest = [later for later in events if later["sequence_number"] > number]
        assert follow(finished, f"?after={number}").join() == rest
        assert follow(finished, "?after=0", **{"Last-Event-ID": str(number)}).join() == rest


def test_each_frames_id_is_its_number_and_a_foreign_last_event_id_is_ignored(
    follow: Follow, finished: dict[str, Any]
) -> None:
    follower = follow(finished, **{"Last-Event-ID": "from elsewhere"})

    events = follower.join()

    assert follower.ids == [str(event["sequence_number"]) for event in events]
    assert len(events) == 8


def test_after_the_end_there_is_no_content_so_that_eventsource_stays_away(
    follow: Follow, finished: dict[str, Any], caller: Caller
) -> None:
    last = follow(finished).join()[-1]["sequence_number"]

    answer = caller("GET", finished["urls"]["events"], headers={"Last-Event-ID": str(last)})

    assert (answer.status_code, answer.data) == (204, b"")


def test_a_follower_from_the_queue_on_gets_all_events_even_without_redis(
    follow: Follow, database: Database, caller: Caller
) -> None:
    follower = follow(caller.job())
    assert eventually(lambda: follower.kinds() == ["job.queued"])
    claimed = factories.claim(database)
    recorder, live = record(database, claimed, RecordingPublisher())
    say(recorder, live, "Let me ", "look")
    recorder.flush()
    assert eventually(lambda: follower.text() == "Let me look")
    say(recorder, live, ": six.")
    succeed(database, claimed, recorder, live)

    events = follower.join()

    assert following.text(events) == "Let me look: six."
    assert events[-1]["job"]["status"] == "succeeded"
    assert events[-1]["job"]["answer"]["text"] == "6"


def test_a_job_that_waits_is_followed_to_its_cancel(follow: Follow, caller: Caller) -> None:
    job = caller.job()
    follower = follow(job)

    caller("POST", job["urls"]["cancel"])

    assert [event["type"] for event in follower.join()] == ["job.queued", "job.finished"]
    assert follower.events[-1]["valid_through"] is None


@pytest.mark.parametrize("after", ["-1", "x", str(2**63), "1.5"])
def test_an_invalid_number_is_refused(caller: Caller, after: str) -> None:
    answer = caller("GET", f"{caller.job()['urls']['events']}?after={after}")
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["parameter"] == "after"


def test_a_stream_over_the_limit_is_refused_and_a_closed_stream_makes_room(
    caller: Caller, follow: Follow, operator: Caller, database: Database
) -> None:
    job = caller.job()
    followers = [follow(job) for _ in range(3)]

    refused = caller("GET", job["urls"]["events"])

    assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "streams_in_use")
    assert int(refused.headers["Retry-After"]) > 0
    assert caller("HEAD", job["urls"]["events"]).status_code == 200
    assert 'longlook_sse_connections{kind="stream"} 3.0' in operator("GET", "/metrics").text
    with ThreadPoolExecutor(1) as pool:
        leaving = pool.submit(followers[0].leave)
        worker.start(database)
        leaving.result(30)
    assert 'longlook_sse_connections{kind="stream"} 2.0' in operator("GET", "/metrics").text
    again = follow(job)
    assert eventually(lambda: len(again.events) == 2)


def test_an_account_that_holds_many_streams_keeps_no_other_one_out(
    settings: Settings, database: Database, decoder: ImageReader, caller: Caller
) -> None:
    few = settings.model_copy(update={"max_streams": 4})
    app = create_app(few, database=database, wakeup=RecordingWakeup(), images=decoder)
    greedy = Caller(app.test_client(), caller.key)
    stranger = Caller(app.test_client(), factories.make_key(database, account="stranger"))
    mine, theirs = (who.job()["urls"]["events"] for who in (greedy, stranger))

    held = [greedy("GET", mine, buffered=False) for _ in range(4)]
    waited = greedy.submit(headers={"Prefer": "wait=60"})
    other = stranger("GET", theirs, buffered=False)

    assert [answer.status_code for answer in held] == [200, 200, 200, 503]
    assert held[-1].get_json()["error"]["code"] == "streams_in_use"
    assert int(held[-1].headers["Retry-After"]) > 0
    assert waited.status_code == 202
    assert "Preference-Applied" not in waited.headers
    assert other.status_code == 200
    held[0].close()
    again = greedy("GET", mine, buffered=False)
    assert again.status_code == 200
    for answer in (*held, other, again):
        answer.close()
    service_of(app).drain()


def test_a_draining_service_ends_all_streams(app: Router, follow: Follow, caller: Caller) -> None:
    follower = follow(caller.job())
    assert eventually(lambda: bool(follower.events))

    service_of(app).drain()

    assert [event["type"] for event in follower.join()] == ["job.queued"]


def test_a_stream_ends_when_its_follower_hangs_up_though_nothing_is_written(
    database: Database, settings: Settings
) -> None:
    account_id = factories.make_account(database)
    job_id = factories.make_job(database, account_id)
    principal = accounts.authenticate(
        database, factories.make_key(database), peppers=[factories.PEPPER]
    )
    assert principal is not None
    shares = Shares(1, name="streams")
    revocation = Revocation(database)
    streams = Streams(
        database,
        subscriber=Subscriber(settings.redis_url, redis_prefix),
        shares=shares,
        revocation=revocation,
        heartbeat_seconds=3600,
    )
    request = wire.Held()
    stream = streams.follow(job_id, account_id=account_id, key_id=principal.key_id, after=0)
    reported: list[bytes] = []

    def read() -> None:
        with current.running(request):
            reported.extend(stream)

    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(read)
        assert eventually(lambda: b"job.queued" in b"".join(reported))
        request.hang_up()
        rest.result(60)
    assert b"job.finished" not in b"".join(reported)
    stream.close()
    assert shares.take(account_id)
    revocation.close()
    streams.close()


def test_a_job_that_fails_to_render_ends_its_own_stream_only(
    follow: Follow, caller: Caller, database: Database
) -> None:
    """A worker of a later version, say, has found what this one does not know."""
    strange, plain = follow(caller.job()), follow(caller.job())
    assert eventually(lambda: bool(strange.events and plain.events))
    for begun in (strange, plain):
        claimed = factories.claim(database)
        recorder, live = record(database, claimed, RecordingPublisher())
        say(recorder, live, "six")
        if begun is strange:
            later = findings.Finding(
                findings.FindingKind.LOOP, generation=0, start=0, end=1, action=findings.Action.NONE
            )
            with database.transaction() as transaction:
                stored.store(transaction, claimed.job_id, claimed.attempt, [later])
                transaction.execute(sa.update(FindingEntry).values(kind="unheard_of"))
        succeed(database, claimed, recorder, live)

    assert plain.join()[-1]["type"] == "job.finished"
    assert "job.finished" not in [event["type"] for event in strange.join()]


def test_a_removed_job_is_streamed_without_its_text(
    follow: Follow, finished: dict[str, Any], database: Database
) -> None:
    whole = follow(finished).join()
    job_id = ids.parse("job", finished["id"])
    assert job_id is not None
    retention.remove_job(database, job_id, account_id=None, actor="key:test")

    left = follow(finished).join()

    assert [event["sequence_number"] for event in left] == [
        event["sequence_number"] for event in whole if event["type"] != "trace.delta"
    ]
    assert left[-1]["job"]["data_removed"] is True
    assert "six" not in str(left)


class TestTheHotPath:
    """Redis brings what SQL does not have yet."""

    @pytest.fixture
    def settings(self, settings: Settings, redis_url: str) -> Settings:
        return settings.model_copy(update={"redis_url": redis_url, "redis_prefix": redis_prefix()})

    @pytest.fixture
    def publisher(self, redis_url: str) -> Iterator[Publisher]:
        publisher = Publisher(redis_url, redis_prefix)
        publisher.start()
        yield publisher
        publisher.stop()

    def test_text_comes_before_it_is_written_and_a_lost_tail_is_withdrawn(
        self,
        follow: Follow,
        another: Caller,
        database: Database,
        publisher: Publisher,
        age: databases.Age,
    ) -> None:
        job = another.job()
        follower = follow(job)
        claimed = factories.claim(database)
        recorder, live = record(database, claimed, publisher)
        say(recorder, live, "I see ")
        recorder.flush()
        assert eventually(lambda: follower.text() == "I see ")
        say(recorder, live, "six ", "or seven")
        assert eventually(lambda: follower.text() == "I see six or seven")
        # A process without earlier followers reads the same from SQL.
        late = opened(another("GET", job["urls"]["events"], buffered=False))
        assert eventually(lambda: late.text() == "I see ")
        age(61)
        expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
        age(10)
        second = factories.claim(database)
        again, anew = record(database, second, publisher)
        # Events of a worker that has lost its job reach no follower.
        assert eventually(lambda: "attempt.restarted" in follower.kinds())
        say(recorder, live, " or eight")
        say(again, anew, "It is ", "6.")
        succeed(database, second, again, anew)

        events = follower.join()

        numbers = [event["sequence_number"] for event in events]
        assert numbers == sorted(set(numbers))
        [restarted] = [event for event in events if event["type"] == "attempt.restarted"]
        stored = [
            event
            for event in events
            if event.get("attempt") != 1 or event["sequence_number"] <= restarted["valid_through"]
        ]
        assert following.text(stored, attempt=1) == "I see "
        assert following.text(events, attempt=1) == "I see six or seven"
        assert following.text(events, attempt=2) == "It is 6."
        assert follow(job).join() == late.join() == stored

    def test_all_followers_get_the_same_events_by_all_ways(
        self, follow: Follow, caller: Caller, database: Database, publisher: Publisher
    ) -> None:
        job = caller.job()
        early = follow(job)
        assert eventually(lambda: bool(early.events))
        claimed = factories.claim(database)
        recorder, live = record(database, claimed, publisher)
        rng = random.Random(7)
        joined: list[Follower] = []
        pause = threading.Event()
        for number in range(300):
            say(recorder, live, f"word{number}\n")
            pause.wait(0.002)
            if rng.random() < 0.1:
                recorder.flush()
            if number in (100, 200):
                joined.append(follow(job))
        succeed(database, claimed, recorder, live)

        reported = early.join()

        assert following.text(reported) == "".join(f"word{number}\n" for number in range(300))
        assert [follower.join() for follower in joined] == [reported, reported]
        assert follow(job).join() == reported


def test_another_process_streams_the_same(
    another: Caller, finished: dict[str, Any], follow: Follow
) -> None:
    reported = opened(another("GET", finished["urls"]["events"], buffered=False)).join()

    assert reported == follow(finished).join()
