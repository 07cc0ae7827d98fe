"""Running traces are written once a second, through outages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from jobs.database import Database, Transaction, Unavailable
from jobs.records import TraceChunk
from tests import factories
from tests.databases import Clock
from worker.recorder import Live, Recorder


class Flickering(Database):
    """A database that can be away: before what is written, or after it, when the reply is lost."""

    away = False
    reply_lost = False

    @contextlib.contextmanager
    def transaction(self, name: str = "") -> Iterator[Transaction]:
        if self.away:
            raise Unavailable("It is away.")
        with super().transaction(name) as transaction:
            yield transaction
        if self.reply_lost:
            raise Unavailable("It has gone.")


@pytest.fixture
def database(database_url: str, clock: Clock) -> Iterator[Flickering]:
    database = Flickering(database_url, clock=clock)
    yield database
    database.close()


@pytest.fixture
def recorder(database: Flickering) -> Recorder:
    return Recorder(database, owner="me", flush_seconds=1, on_lost=lambda _: None)


def begin(database: Database, recorder: Recorder) -> Live:
    factories.make_job(database, factories.make_account(database))
    claimed = factories.claim(database, "me")
    assert factories.begin(database, claimed) is not None
    return recorder.open(claimed, sample=0)


def chunks(database: Database, live: Live) -> list[str]:
    """Return what has been written, piece by piece."""
    with database.reading() as transaction:
        statement = sa.select(TraceChunk.text).where(TraceChunk.job_id == live.claim.job_id)
        return list(transaction.session.scalars(statement.order_by(TraceChunk.position)))


def test_after_an_outage_the_text_is_whole_and_in_few_pieces(
    database: Flickering, recorder: Recorder
) -> None:
    live = begin(database, recorder)
    database.away = True
    for word in ("I ", "see ", "six ", "round ", "shapes."):
        live.add(word)
        recorder.flush()
    database.away = False

    recorder.flush()
    recorder.flush()

    assert chunks(database, live) == ["I ", "see six round shapes."]


def test_a_piece_whose_reply_was_lost_is_not_written_twice(
    database: Flickering, recorder: Recorder
) -> None:
    live = begin(database, recorder)
    database.reply_lost = True
    for word in ("I ", "see ", "six."):
        live.add(word)
        recorder.flush()
    database.reply_lost = False

    recorder.flush()
    recorder.flush()

    assert chunks(database, live) == ["I ", "see six."]
