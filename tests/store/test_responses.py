"""What clients of OpenAI's surface sent: stored with the job, counted, and removed with its answer."""

from __future__ import annotations

import uuid

from core.database import Database
from jobs.records.accounts import StorageTotal
from jobs.store import responses, retention, storage
from jobs.store.responses import NewResponse
from jobs.store.storage import StorageKind
from tests import databases, factories
from tests.api import worker
from webhooks import purge

SENT = NewResponse("responses", background=False, requested={"instructions": "x" * 5000})
NOT_STORED = NewResponse("responses", background=False, requested={"input": "y"}, discard=True)


def kept(database: Database, job_id: uuid.UUID) -> bool:
    entry = responses.get(database, job_id)
    assert entry is not None
    return entry.requested is not None


def used(database: Database, account_id: uuid.UUID) -> int:
    """Return the bytes of the account's questions, as counted by rows and by triggers."""
    while storage.fold(database):
        pass
    with database.reading() as transaction:
        rows = storage.stored(transaction, account_id)[StorageKind.JOBS]
        triggers = transaction.session.get(StorageTotal, (account_id, StorageKind.JOBS))
    assert triggers is not None
    assert rows == triggers.bytes
    return rows


def discard(database: Database) -> int:
    return retention.discard(database, actor="test", remove_copies=purge.reduce_jobs)


def test_its_bytes_count_until_they_are_removed(database: Database, account_id: uuid.UUID) -> None:
    factories.make_job(database, account_id)
    without = used(database, account_id)
    job_id = factories.make_job(database, account_id, response=SENT)
    counted = used(database, account_id)

    assert counted - without > 5000
    worker.finish(database)
    worker.finish(database)
    retention.remove_job(database, job_id, account_id=account_id, actor="test")
    assert not kept(database, job_id)
    assert used(database, account_id) < 5000


def test_content_that_is_not_to_be_stored_is_removed_after_its_request(
    database: Database, account_id: uuid.UUID, age: databases.Age
) -> None:
    discarded = factories.make_job(database, account_id, response=NOT_STORED)
    stored = factories.make_job(database, account_id, response=SENT)
    waiting = factories.make_job(database, account_id, response=NOT_STORED)
    for _ in (discarded, stored):
        worker.finish(database)

    assert discard(database) == 0
    age(120)
    assert discard(database) == 1
    assert [kept(database, job) for job in (discarded, stored, waiting)] == [False, True, True]
    assert discard(database) == 0


def test_a_native_job_has_none(database: Database, account_id: uuid.UUID) -> None:
    assert responses.get(database, factories.make_job(database, account_id)) is None
