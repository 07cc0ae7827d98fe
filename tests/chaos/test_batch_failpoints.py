"""An API that dies while it stores a file or works on a batch, on purpose, at each line that matters."""

from __future__ import annotations

import io
import json
import uuid
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.database import Database
from core.failpoints import VARIABLE
from jobs.records.accounts import ApiKey
from jobs.records.files import BatchEntry, BatchLine, BatchStatus, FileChunk, FileEntry, LineState
from jobs.records.jobs import Job
from jobs.store import batches, files
from jobs.store.batches import NewBatch
from tests import factories
from tests.api import batches as batches_of_api
from tests.chaos import victims
from tests.chaos.scene import killed
from tests.e2e.stack import VAULT_KEY, eventually

LINES = 7


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the environment of an API."""
    return {
        "LONGLOOK_HOME": str(tmp_path),
        "LONGLOOK_DATABASE_URL": database_url,
        "LONGLOOK_REDIS_URL": redis_url,
        "LONGLOOK_VAULT_KEY": VAULT_KEY,
        "LONGLOOK_PEPPER": factories.PEPPER.decode(),
        "LONGLOOK_BATCH_WINDOW": "3",
        "LONGLOOK_DISK_FLOOR_MB": "0",
    }


def text() -> bytes:
    """Return an input file."""
    rows = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/responses",
            "body": {"input": f"Question {number}?"},
        }
        for number in range(LINES)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def make_batch(database: Database, account_id: uuid.UUID) -> uuid.UUID:
    """Store a batch and return its id."""
    file = files.store(database, files.NewFile(account_id, "batch", "in.jsonl"), [text()])
    with database.reading() as transaction:
        key_id = transaction.scalar(sa.select(ApiKey.id).where(ApiKey.account_id == account_id))
    new = NewBatch(
        account_id=account_id,
        key_id=key_id,
        endpoint="/v1/responses",
        input_file_id=file.id,
        completion_window="24h",
        window=timedelta(hours=24),
        request_id="req_test",
    )
    batch, _ = batches.create(database, new, most_open=1, key_lifetime=timedelta(hours=1))
    return batch.id


def died(database: Database, victim: BaseProcess) -> bool:
    """Run the jobs that wait; return whether the process has died."""
    batches_of_api.finish_jobs(database)
    return not victim.is_alive()


@pytest.fixture
def account_id(database: Database) -> uuid.UUID:
    """Return the account of the batch."""
    return factories.make_account(database)


#: Where an API dies while it works on a batch of seven lines, three at a time.
_PLACES = [
    "lines.commit=kill",
    "lines.committed=kill",
    "submit.commit=kill",
    "submit.committed=kill",
    "submit.committed=kill:4",
    "gather.commit=kill",
    "gather.committed=kill",
    "write.commit=kill",
    "write.committed=kill",
    "finish.commit=kill",
    "finish.committed=kill",
]


@pytest.mark.parametrize("place", _PLACES)
def test_a_killed_api_leaves_a_batch_that_another_one_finishes(
    database: Database, account_id: uuid.UUID, place: str, environment: dict[str, str]
) -> None:
    batch_id = make_batch(database, account_id)
    with victims.running(victims.batches, environment | {VARIABLE: place}) as victim:
        assert eventually(lambda: died(database, victim))
        assert killed(victim)
    with database.transaction() as transaction:
        transaction.update(
            BatchEntry,
            BatchEntry.lease_owner.is_not(None),
            lease_expires_at=transaction.now(timedelta(seconds=-1)),
        )

    def ended() -> bool:
        batches_of_api.finish_jobs(database)
        batch = batches.get(database, batch_id, account_id=None)
        return batch is not None and batch.status is BatchStatus.COMPLETED

    with victims.running(victims.batches, environment):
        assert eventually(ended)

    batch = batches.get(database, batch_id, account_id=None)
    assert batch is not None
    assert (batch.total, batch.completed, batch.failed) == (LINES, LINES, 0)
    with database.reading() as transaction:
        lines = transaction.session.scalars(sa.select(BatchLine)).all()
        jobs = transaction.session.scalars(sa.select(Job.id)).all()
        visible = transaction.session.scalars(sa.select(FileEntry)).all()
    assert sorted(line.job_id for line in lines if line.job_id) == sorted(jobs)
    assert {line.state for line in lines} == {LineState.COMPLETED}
    assert len(lines) == len(jobs) == LINES
    assert batch.output_file_id is not None
    assert batch.error_file_id is None
    output = b"".join(files.read(database, batch.output_file_id)).splitlines()
    assert [json.loads(row)["custom_id"] for row in output] == [f"line-{n}" for n in range(LINES)]
    assert len(visible) == 2


@pytest.mark.parametrize("place", ["file.commit=kill", "file.committed=kill", "file.commit=kill:2"])
def test_a_killed_upload_leaves_no_file_that_anyone_sees(
    database: Database, place: str, environment: dict[str, str]
) -> None:
    key = factories.make_key(database, account="uploader")
    form = {"purpose": "batch"}
    with victims.running(
        upload, environment | {VARIABLE: place}, key, form, b"x" * (2 * files.CHUNK_BYTES)
    ) as victim:
        assert killed(victim)

    listed, _ = files.page(
        database, account_id=None, purpose=None, limit=10, after=None, newest_first=True
    )
    assert listed == []
    with database.transaction() as transaction:
        transaction.update(FileEntry, touched_at=transaction.now(timedelta(hours=-2)))
    while files.purge(database)[1]:
        pass
    with database.reading() as transaction:
        for table in (FileEntry, FileChunk):
            assert transaction.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def upload(environment: victims.Environment, key: str, form: dict[str, str], data: bytes) -> None:
    """Upload a file as a request to the API does."""
    victims.api(environment, "/v1/files", key, data=form | {"file": (io.BytesIO(data), "a.jsonl")})


@pytest.mark.parametrize("place", ["batch.commit=kill", "batch.committed=kill"])
def test_a_killed_request_for_a_batch_creates_one_or_none(
    database: Database, account_id: uuid.UUID, place: str, environment: dict[str, str]
) -> None:
    key = factories.make_key(database, account="creator")
    with database.reading() as transaction:
        creator = transaction.scalar(
            sa.select(ApiKey.account_id).where(ApiKey.account_id != account_id)
        )
    file = files.store(database, files.NewFile(creator, "batch", "in.jsonl"), [text()])
    body = {
        "input_file_id": f"file-{file.id.hex}",
        "endpoint": "/v1/responses",
        "completion_window": "24h",
    }
    headers = {"Idempotency-Key": "one"}
    made = []
    for failpoint in ({VARIABLE: place}, {}):
        with victims.running(
            victims.api, environment | failpoint, "/v1/batches", key, json=body, headers=headers
        ) as victim:
            victim.join()
            made.append(victim.exitcode)
    assert made[0] not in (0, None)
    assert made[1] == 0
    with database.reading() as transaction:
        assert transaction.scalar(sa.select(sa.func.count()).select_from(BatchEntry)) == 1
