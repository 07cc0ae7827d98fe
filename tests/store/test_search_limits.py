"""Searches: few at once, in turns among accounts, on a part of the connections, and each until its deadline."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from core import errors
from core.database import Database
from jobs.lifecycle import Status
from jobs.store import history, statistics
from tests import factories
from webhooks import claims

OTHER = uuid.UUID(int=7)
_ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}
_LIMIT = sa.text("SELECT current_setting('statement_timeout')")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database whose searches get all the time that a busy machine takes."""
    with contextlib.closing(Database(database_url, search_seconds=60)) as opened:
        yield opened


@pytest.fixture
def hasty(database_url: str) -> Iterator[Database]:
    """A database of one connection whose searches get little time."""
    with contextlib.closing(
        Database(database_url, pool_size=1, searches=2, search_seconds=0.2)
    ) as opened:
        yield opened


def test_a_search_is_ended_at_its_deadline_and_its_connection_serves_on(hasty: Database) -> None:
    with (
        pytest.raises(errors.SearchTooSlow, match=r"longer than 0\.2 s") as caught,
        hasty.searching(OTHER) as transaction,
    ):
        transaction.execute(sa.text(_ENDLESS[hasty.dialect]))

    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    assert (hasty.searches.held, hasty.searches.waiting) == (0, 0)
    # Longer than a look at the deadline lasts, which is over by now.
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT count(*) FROM n"
    with hasty.reading() as transaction:
        assert transaction.execute(sa.text(many)).scalar_one() == 50_000
        if hasty.dialect == "postgresql":
            assert transaction.execute(_LIMIT).scalar_one() == "10s"


def test_the_deadline_is_one_for_all_statements_of_a_search(database_url: str) -> None:
    now = 0.0
    with (
        contextlib.closing(
            Database(database_url, search_seconds=100, timer=lambda: now)
        ) as database,
        database.searching(OTHER) as transaction,
    ):
        now = 99.0
        if database.dialect == "postgresql":
            assert transaction.execute(_LIMIT).scalar_one() == "1s"
        assert transaction.execute(sa.text("SELECT 1")).scalar_one() == 1
        now = 200.0
        with pytest.raises(sa.exc.OperationalError):
            transaction.execute(sa.text(_ENDLESS[database.dialect]))


_READS: dict[str, Callable[[Database, uuid.UUID], object]] = {
    "a phrase": lambda database, account_id: history.page(
        database, history.Filter(account_id, phrases=["circles"]), limit=1
    ),
    "a status": lambda database, account_id: history.page(
        database, history.Filter(account_id, statuses=[Status.FAILED]), limit=1
    ),
    "metadata": lambda database, account_id: history.page(
        database, history.Filter(account_id, metadata={"case": "1"}), limit=1
    ),
    "the queue": lambda database, account_id: statistics.queue(database, account_id=account_id),
    "the backlog": lambda database, account_id: claims.backlog(database, account_id=account_id),
}


@pytest.mark.parametrize("read", _READS.values(), ids=list(_READS))
def test_an_account_that_searches_all_it_can_delays_no_search_of_another(
    database_url: str, account_id: uuid.UUID, read: Callable[[Database, uuid.UUID], object]
) -> None:
    with (
        contextlib.closing(Database(database_url, search_seconds=60)) as database,
        contextlib.ExitStack() as held,
        ThreadPoolExecutor(8) as threads,
    ):
        for _ in range(2):
            held.enter_context(database.searching(account_id))
        queued = [threads.submit(read, database, account_id) for _ in range(5)]
        read(database, OTHER)
        holding, done = database.searches.held, [one for one in queued if one.done()]
        held.close()
        served = [one.exception(60) for one in queued]

    assert (holding, done) == (2, [])
    assert served == [None] * 5


def test_searches_take_no_connection_from_anything_else(
    database_url: str, account_id: uuid.UUID
) -> None:
    with (
        contextlib.closing(
            Database(database_url, pool_size=2, pool_seconds=0, searches=3, search_seconds=60)
        ) as database,
        contextlib.ExitStack() as held,
        ThreadPoolExecutor(8) as threads,
    ):
        for account in (account_id, account_id, OTHER):
            held.enter_context(database.searching(account))
        requested = history.Filter(account_id, phrases=["circles"])
        queued = [threads.submit(history.page, database, requested, limit=1) for _ in range(5)]
        database.ping()
        job_id = factories.make_job(database, account_id)
        found, _ = history.page(database, history.Filter(account_id), limit=1)
        held.close()
        for one in queued:
            one.result(60)

    assert [view.job.id for view in found] == [job_id]
