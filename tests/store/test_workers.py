"""Who works: processes that beat, until they fall silent or say goodbye."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from core.database import Database
from jobs.store import workers
from tests.databases import Age

ALIVE = timedelta(seconds=30)
ONE = workers.WorkerHeartbeat(id="one", host="here", pid=1, version="1", slots=8)
TWO = workers.WorkerHeartbeat(id="two", host="there", pid=2, version="1", slots=4)


def test_a_beat_counts_the_workforce_that_lives(database: Database, age: Age) -> None:
    assert workers.workforce(database, alive=ALIVE) == workers.LiveWorkers(0, 0)
    assert workers.beat(database, ONE, alive=ALIVE) == workers.LiveWorkers(1, 8)
    age(20)
    assert workers.beat(database, TWO, alive=ALIVE) == workers.LiveWorkers(2, 12)
    age(20)

    assert workers.workforce(database, alive=ALIVE) == workers.LiveWorkers(1, 4)
    assert workers.beat(database, ONE, alive=ALIVE) == workers.LiveWorkers(2, 12)


def test_who_drains_takes_no_jobs_any_more(database: Database) -> None:
    workers.beat(database, ONE, alive=ALIVE)
    workers.beat(database, TWO, alive=ALIVE)

    draining = dataclasses.replace(ONE, draining=True)

    assert workers.beat(database, draining, alive=ALIVE) == workers.LiveWorkers(1, 4)


def test_who_retires_is_forgotten_at_once(database: Database) -> None:
    workers.beat(database, ONE, alive=ALIVE)

    workers.retire(database, "one")
    workers.retire(database, "nobody")

    assert workers.workforce(database, alive=ALIVE) == workers.LiveWorkers(0, 0)


def test_who_was_silent_for_long_is_forgotten(database: Database, age: Age) -> None:
    workers.beat(database, ONE, alive=ALIVE)
    age(3600)
    workers.beat(database, TWO, alive=ALIVE)

    workers.forget(database, silent=timedelta(minutes=30))

    assert workers.workforce(database, alive=timedelta(days=1)) == workers.LiveWorkers(1, 4)


def test_a_drain_lasts_until_an_operator_ends_it(database: Database, age: Age) -> None:
    assert not workers.undrain(database, "one")
    assert workers.orders(database, "one").drain is None
    workers.beat(database, ONE, alive=ALIVE)
    assert workers.orders(database, "one").drain is False
    assert not workers.undrain(database, "one")

    assert workers.request_drain(database, "one", actor="key:key_1")
    workers.beat(database, dataclasses.replace(ONE, draining=True), alive=ALIVE)
    assert workers.orders(database, "one").drain is True

    # It was silent for so long that its row was removed: it stays drained.
    age(3600)
    workers.forget(database, silent=timedelta(minutes=30))
    assert workers.orders(database, "one").drain is None
    workers.beat(database, dataclasses.replace(ONE, draining=True), alive=ALIVE)
    assert workers.orders(database, "one").drain is True

    assert workers.undrain(database, "one")
    assert workers.orders(database, "one").drain is False
    [seen] = workers.seen(database, alive=ALIVE)
    assert (seen.drain_requested_at, seen.drain_requested_by) == (None, None)
