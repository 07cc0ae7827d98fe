"""Live events: subscribers receive the events of their job, and an unreachable Redis delays nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.events import live
from jobs.events.index import IndexEntry
from jobs.events.live import LiveEvent, Publisher, StoredThrough, Subscriber
from tests.e2e.stack import eventually
from tests.fakes import HandTimer, redis_prefix
from tests.redis_servers import RedisServer

NOWHERE = "unix:///nowhere/redis.sock"


def delta(job_id: uuid.UUID, number: int, text: str = "I see 圆 🟢") -> LiveEvent:
    return LiveEvent(job_id, 1, 0, number - 1, IndexEntry(number, len(text), 5), text)


@pytest.fixture
def publisher(redis_url: str) -> Iterator[Publisher]:
    publisher = Publisher(redis_url, redis_prefix)
    publisher.start()
    yield publisher
    publisher.stop()


@pytest.fixture
def subscriber(redis_url: str) -> Iterator[Subscriber]:
    subscriber = Subscriber(redis_url, redis_prefix)
    yield subscriber
    subscriber.close()


def woken(
    subscriber: Subscriber,
) -> tuple[list[LiveEvent | StoredThrough], Callable[[], int]]:
    """Return the list of received events, and a callback that appends to it and counts."""
    events: list[LiveEvent | StoredThrough] = []

    def listen() -> int:
        events.extend(subscriber.hear())
        return len(events)

    return events, listen


def test_a_subscriber_receives_the_events_of_its_job_only(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    mine, foreign = uuid.uuid4(), uuid.uuid4()
    subscriber.want([mine])
    events, listen = woken(subscriber)
    finding = LiveEvent(mine, 1, 2, 8, IndexEntry(9, 0, 5, {"kind": "loop"}), "")

    def ready() -> bool:
        # A subscription is active once an event arrives.
        publisher.record([delta(mine, 1), delta(foreign, 1)])
        return listen() > 0

    assert eventually(ready)
    publisher.record([delta(mine, 8), delta(foreign, 2), finding])

    assert eventually(lambda: listen() > 0 and finding in events)
    assert {event.job_id for event in events} == {mine}
    assert delta(mine, 8) in events


def test_a_job_is_watched_while_somebody_hears_how_far_it_is_stored(
    redis_url: str, subscriber: Subscriber
) -> None:
    timer = HandTimer()
    publisher = Publisher(redis_url, redis_prefix, timer=timer)
    publisher.start()
    mine, foreign, live_only = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    subscriber.want([live_only], stored=[mine])
    events, listen = woken(subscriber)

    def ready() -> bool:
        publisher.announce([StoredThrough(job_id, 7) for job_id in (mine, foreign, live_only)])
        return listen() > 0 and bool(publisher.watched())

    assert eventually(ready)
    assert set(events) == {StoredThrough(mine, 7)}
    assert publisher.watched() == {mine}

    def forgotten() -> bool:
        # The thread of the publisher may announce something once more meanwhile.
        timer.seconds += 6
        return publisher.watched() == set()

    assert eventually(forgotten)
    publisher.stop()


def test_a_closed_subscription_receives_nothing(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    job_id = uuid.uuid4()
    subscriber.want([job_id])
    events, listen = woken(subscriber)

    def ready() -> bool:
        publisher.record([delta(job_id, 1)])
        return listen() > 0

    assert eventually(ready)
    subscriber.want([])
    assert subscriber.hear() == []
    assert events


def test_without_redis_nothing_is_received_and_nothing_waits() -> None:
    publisher, subscriber = Publisher(NOWHERE, redis_prefix), Subscriber(NOWHERE, redis_prefix)
    publisher.start()
    for number in range(100):
        publisher.record([delta(uuid.uuid4(), number)])
    subscriber.want([uuid.uuid4()])
    assert subscriber.hear() == []
    publisher.stop()
    subscriber.close()


def test_a_malformed_message_is_not_an_event() -> None:
    job_id = uuid.uuid4()
    channel = f"test:live:{job_id.hex}".encode()

    assert live.decode(channel, live.encode([delta(job_id, 3)])) == [delta(job_id, 3)]
    for message in (b"", b"{}", b"[[1]]", b"[[1,2,3,4,5,6]]", b'["x"]', b"1"):
        assert live.decode(channel, message) == []
    assert live.decode(b"test:live:x", live.encode([delta(job_id, 3)])) == []


def test_events_arrive_again_after_redis_comes_back(short_folder: Path) -> None:
    server = RedisServer(short_folder)
    server.start()
    job_id = uuid.uuid4()
    publisher, subscriber = (
        Publisher(server.url, redis_prefix),
        Subscriber(server.url, redis_prefix),
    )
    publisher.start()
    events, listen = woken(subscriber)

    def through() -> bool:
        subscriber.want([job_id])
        publisher.record([delta(job_id, 1)])
        return listen() > 0

    assert eventually(through)
    server.stop()
    assert eventually(lambda: subscriber.hear() == [])
    server.start()
    events.clear()
    assert eventually(through)
    publisher.stop()
    subscriber.close()
    server.stop()
