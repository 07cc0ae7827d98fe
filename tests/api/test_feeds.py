"""A feed has no gap and no end of memory: what does not follow waits, who is too late reads SQL."""

from __future__ import annotations

import uuid

from api.streams.feeds import Feed, StoredFeed
from jobs.events.index import IndexEntry
from jobs.events.live import LiveEvent
from jobs.store.event_log import EventPosition

JOB = uuid.uuid4()


def reported(number: int, *, previous: int | None = None) -> LiveEvent:
    before = number - 1 if previous is None else previous
    return LiveEvent(JOB, 1, 0, before, IndexEntry(number, 1, 5), "x")


def begun(number: int = 10) -> Feed:
    feed = Feed()
    assert feed.stale(EventPosition(number, finished=False)) is False
    return feed


def taken(feed: Feed, position: int) -> list[int]:
    """Return the numbers of what lies beyond ``position``."""
    data = feed.take(position, seconds=0).data
    return [int(line[4:]) for line in data.splitlines() if line.startswith(b"id: ")]


def test_following_events_are_added_and_known_ones_are_dropped() -> None:
    feed = begun()
    feed.add_live([reported(11), reported(12), reported(11), reported(9)])
    assert (taken(feed, 10), taken(feed, 11), taken(feed, 12)) == ([11, 12], [12], [])


def test_what_leaves_a_gap_waits_until_sql_has_filled_it() -> None:
    feed = begun()
    feed.add_live([reported(13), reported(14)])
    assert taken(feed, 10) == []
    assert feed.stale(EventPosition(12, finished=False)) is True

    feed.add_read([(11, b"id: 11\n"), (12, b"id: 12\n")], through=12, over=False)

    assert taken(feed, 10) == [11, 12, 13, 14]
    assert feed.stale(EventPosition(13, finished=False)) is False


def test_numbers_need_not_be_dense() -> None:
    feed = begun()
    feed.add_live([reported(40, previous=10), reported(99, previous=40)])
    assert taken(feed, 10) == [40, 99]


def test_live_events_before_the_first_read_are_added_after_it() -> None:
    feed = Feed()
    feed.add_live([reported(11), reported(12)])
    assert feed.take(0, seconds=0).position == 0
    assert feed.stale(EventPosition(11, finished=False)) is False
    assert taken(feed, 11) == [12]


def test_who_is_too_late_is_sent_to_sql_and_the_feed_stays_short() -> None:
    feed = begun()
    feed.add_live([reported(number) for number in range(11, 1000)])

    late = feed.take(10, seconds=0)

    assert (late.behind, late.data, late.position) == (True, b"", 10)
    assert taken(feed, 900) == list(range(901, 1000))


def test_it_is_over_when_everything_up_to_the_end_was_taken() -> None:
    feed = begun()
    feed.add_read([(11, b"id: 11\n"), (20, b"id: 20\n")], through=20, over=True)

    assert feed.take(10, seconds=0).over
    assert feed.take(20, seconds=0).over
    assert feed.take(99, seconds=0).over


def test_the_end_of_the_service_ends_all_followers() -> None:
    feed = Feed()
    feed.end()
    assert feed.take(5, seconds=60).over


class TestStored:
    """How far events are stored; nobody waits for what is known."""

    def test_a_wait_ends_with_a_higher_number(self) -> None:
        feed = StoredFeed()
        feed.advance(7)
        feed.advance(5)
        assert feed.wait(6, seconds=60, ended=lambda: False) == 7
        assert feed.wait(7, seconds=0, ended=lambda: False) == 7

    def test_a_wait_ends_with_the_feed_or_its_follower(self) -> None:
        feed = StoredFeed()
        assert feed.wait(0, seconds=60, ended=lambda: True) == 0
        feed.end()
        assert feed.wait(0, seconds=60, ended=lambda: False) == 0
        assert feed.over
