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
