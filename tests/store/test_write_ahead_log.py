"""SQLite's log grows while somebody reads, and becomes small again."""

from __future__ import annotations

import uuid

import pytest
import sqlalchemy as sa

from core import write_ahead_log
from core.database import Database
from core.sqlite import SQLITE_LOG_BYTES
from jobs.records.images import ImageBytes

_ROW_BYTES = 2**20


def write(database: Database, account_id: uuid.UUID, mebibytes: int) -> None:
    """Write rows of a mebibyte, each in a transaction of its own."""
    for _ in range(mebibytes):
        row = {"account_id": account_id, "image_key": uuid.uuid4().hex, "data": bytes(_ROW_BYTES)}
        with database.transaction() as transaction:
            transaction.execute(sa.insert(ImageBytes), [row])


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_after_a_long_reader_the_log_is_truncated(
    database: Database, account_id: uuid.UUID
) -> None:
    with database.reading() as transaction:
        transaction.execute(sa.text("SELECT count(*) FROM jobs")).one()
        write(database, account_id, SQLITE_LOG_BYTES // _ROW_BYTES + 10)

        # What the reader sees is in the log.
        assert not write_ahead_log.truncate(database)
        assert write_ahead_log.size(database) > SQLITE_LOG_BYTES

    assert write_ahead_log.truncate(database)
    assert write_ahead_log.size(database) == 0
    write(database, account_id, 1)


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_after_a_long_reader_writes_alone_bring_the_log_to_its_limit(
    database: Database, account_id: uuid.UUID
) -> None:
    with database.reading() as transaction:
        transaction.execute(sa.text("SELECT count(*) FROM jobs")).one()
        write(database, account_id, SQLITE_LOG_BYTES // _ROW_BYTES + 10)
    assert write_ahead_log.size(database) > SQLITE_LOG_BYTES

    write(database, account_id, 3)

    assert write_ahead_log.size(database) <= SQLITE_LOG_BYTES


def test_a_small_log_is_left_alone_and_postgresql_has_none(database: Database) -> None:
    assert not write_ahead_log.truncate(database)
