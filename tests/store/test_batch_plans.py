"""The statements of files and batches find their rows by an index, on both databases."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import ids
from core.database import Database, utcnow
from jobs.lifecycle import Status
from jobs.records.accounts import ApiKey
from jobs.records.files import BatchEntry, BatchLine, BatchStatus, FileChunk, FileEntry, LineState
from jobs.records.jobs import Job
from jobs.store import batch_copies, batch_lines, batches, files
from jobs.store.batch_lines import LineError, LinesRead, LineWritten, NewLine
from jobs.store.batches import BatchClaim, NewBatch
from tests import factories
from tests.databases import PostgresSource, SqliteSource
from tests.store.test_plans import Crowd, plans

BATCHES, LINES, FILES = 60, 150, 2_000
TABLES = ("files", "file_chunks", "batches", "batch_lines", "jobs")
LEASE = timedelta(minutes=1)


@dataclasses.dataclass(frozen=True)
class Stored:
    """Files and batches of a few accounts.

    Attributes:
        crowd: their database.
        running: a batch of which some lines have ended, some have jobs, and some wait.
        ended: another one.
        file_id: a file with chunks, which a batch may need.
        removable: another one, which no batch needs.
    """

    crowd: Crowd
    running: uuid.UUID
    ended: uuid.UUID
    file_id: uuid.UUID
    removable: uuid.UUID

    def held(self) -> BatchClaim:
        """Return the running batch as its owner has it."""
        batch = batches.get(self.crowd.database, self.running, account_id=None)
        assert batch is not None
        return BatchClaim("me", LEASE, batch, left=LEASE)


@pytest.fixture(scope="module", params=["sqlite", "sqlite with statistics", "postgresql"])
def stored(request: pytest.FixtureRequest) -> Iterator[Stored]:
    """Fill a database of its own."""
    if request.param == "postgresql":
        source: PostgresSource = request.getfixturevalue("postgres_source")
        url, drop = source.clone(), source.drop_for_good
    else:
        sqlite: SqliteSource = request.getfixturevalue("sqlite_source")
        url, drop = sqlite.create(), sqlite.drop
    database = Database(url)
    filled = fill(database)
    if request.param != "sqlite":
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
        database.engine.dispose()  # A connection reads the statistics when it is opened.
    yield filled
    database.close()
    drop(url)


def fill(database: Database) -> Stored:
    """Store files, and batches of which all but two have ended."""
    accounts = [factories.make_account(database) for _ in range(4)]
    now = utcnow()
    file_ids = [ids.new() for _ in range(FILES)]
    batch_ids = [ids.new() for _ in range(BATCHES)]
    file_rows = [
        {
            "id": file_ids[number],
            "account_id": accounts[number % 4],
            "purpose": "batch" if number % 2 else "vision",
            "filename": "a",
            "bytes": 1,
            "created_at": now,
            "touched_at": now,
            "stored_at": now,
            "expires_at": now + timedelta(days=1 + number % 30) if number % 2 else None,
        }
        for number in range(FILES)
    ]
    with database.reading() as transaction:
        key_id = transaction.scalar(sa.select(ApiKey.id).where(ApiKey.account_id == accounts[0]))
    batch_rows = [
        batch_row(number, accounts[number % 4], key_id, file_ids[number])
        | {"id": batch_ids[number]}
        for number in range(BATCHES)
    ]
    job_rows = [
        {"status": status, "finished_at": now if status.terminal else None}
        for status in (Status.SUCCEEDED, Status.QUEUED)
        for _ in range(1_000)
    ]
    rows = factories.job_rows(accounts[0], [row | {"id": ids.new()} for row in job_rows])
    line_rows: list[dict[str, object]] = []
    for batch in batch_rows:
        for number in range(1, LINES + 1):
            done = batch["finished_at"] is not None or number < LINES // 2
            state = LineState.COMPLETED if number % 3 else LineState.FAILED
            if not done:
                state = LineState.SUBMITTED if number < LINES // 2 + 20 else LineState.WAITING
            line_rows.append(
                {
                    "batch_id": batch["id"],
                    "number": number,
                    "custom_id": f"line-{number}",
                    "start": 100 * number,
                    "length": 100,
                    "state": state,
                    "job_id": None
                    if state is LineState.WAITING
                    else rows[len(line_rows) % 2_000]["id"],
                }
            )
    chunk_rows = [
        {"file_id": file_ids[number], "start": start, "data": b"x"}
        for number in range(300)
        for start in range(3)
    ]
    with database.transaction() as transaction:
        transaction.execute(sa.insert(FileEntry), file_rows)
        transaction.execute(sa.insert(FileChunk), chunk_rows)
        transaction.execute(sa.insert(BatchEntry), batch_rows)
        transaction.execute(sa.insert(Job), rows)
        for start in range(0, len(line_rows), 500):
            transaction.execute(sa.insert(BatchLine), line_rows[start : start + 500])
    crowd = Crowd(database, accounts[0], [], [], uuid.uuid4())
    return Stored(crowd, batch_ids[0], batch_ids[4], file_ids[4], file_ids[100])


def batch_row(
    number: int, account_id: uuid.UUID, key_id: uuid.UUID, file_id: uuid.UUID
) -> dict[str, object]:
    """Return the row of a batch; the first two run."""
    now = utcnow()
    runs = number < 2
    return {
        "account_id": account_id,
        "key_id": key_id,
        "endpoint": "/v1/responses",
        "status": BatchStatus.IN_PROGRESS if runs else BatchStatus.COMPLETED,
        "ending": None,
        "input_file_id": file_id,
        "completion_window": "24h",
        "metadata_": None,
        "validated": 0,
        "last_line": LINES,
        "total": LINES,
        "lines_bytes": 0,
        "completed": 0,
        "failed": 0,
        "fault_count": 0,
        "written_line": 0,
        "not_before": now,
        "served_at": now,
        "lease_owner": "me" if runs else None,
        "lease_expires_at": now + timedelta(hours=1) if runs else None,
        "idempotency_key": f"key-{number}",
        "fingerprint": "a",
        "request_id": "req",
        "created_at": now,
        "expires_at": now + timedelta(days=1),
        "finished_at": None if runs else now,
    }


def create(kept: Stored) -> None:
    """Create a batch."""
    database, account_id = kept.crowd.database, kept.crowd.account_id
    new = NewBatch(
        account_id=account_id,
        key_id=account_id,
        endpoint="/v1/responses",
        input_file_id=kept.file_id,
        completion_window="24h",
        window=timedelta(days=1),
        request_id="req",
        idempotency_key=uuid.uuid4().hex,
        fingerprint="a",
    )
    batches.create(database, new, most_open=1_000, key_lifetime=LEASE)


def add(kept: Stored) -> None:
    """Read lines."""
    line = NewLine(LINES + 1, "another", 0, 1)
    batch_lines.add(kept.crowd.database, kept.held(), LinesRead(0, LINES + 1, 1, [line]))


def submit(kept: Stored) -> None:
    """Note the job of a line."""
    database = kept.crowd.database
    [line] = batch_lines.waiting(database, kept.running, limit=1)
    with database.transaction() as transaction:
        batch_lines.submitted(kept.held(), line.number)(transaction, uuid.uuid4())


def refuse(kept: Stored) -> None:
    """Note that a line becomes no job."""
    database = kept.crowd.database
    [line] = batch_lines.waiting(database, kept.running, limit=1)
    batch_lines.refuse(database, kept.held(), line.number, LineError("code", "It is not."))


def write(kept: Stored) -> None:
    """Write the results of lines."""
    database, held = kept.crowd.database, kept.held()
    chosen = batch_lines.ended(database, kept.running, after=held.batch.written_line, limit=5)
    written = [LineWritten(line, b"{}\n", has_content=True) for line in chosen]
    batch_lines.write(database, held, written)


def remove_copies(kept: Stored) -> None:
    """Remove what files have of some jobs."""
    database = kept.crowd.database
    chosen = batch_lines.ended(database, kept.running, after=0, limit=5)
    with database.transaction() as transaction:
        batch_copies.remove(transaction, [line.job_id for line in chosen if line.job_id])


ACTS: dict[str, Callable[[Stored], object]] = {
    "create": create,
    "add": add,
    "known ids": lambda kept: batch_lines.known_custom_ids(
        kept.crowd.database, kept.running, [f"line-{number}" for number in range(200)]
    ),
    "claim": lambda kept: batches.claim(
        kept.crowd.database,
        owner="me",
        lease=LEASE,
        feeding=batches.Feeding(batches=[kept.ended], accounts=[kept.ended]),
    ),
    "submit": submit,
    "refuse": refuse,
    "write": write,
    "remove copies": remove_copies,
    "unfinished": lambda kept: batch_lines.unfinished(kept.crowd.database, kept.running),
    "collect": lambda kept: batch_lines.collect(
        kept.crowd.database, kept.held(), answered=lambda _: True, limit=64
    ),
    "running jobs": lambda kept: batch_lines.running_jobs(kept.crowd.database, kept.running),
    "ended": lambda kept: batch_lines.ended(kept.crowd.database, kept.ended, after=20, limit=20),
    "failed": lambda kept: batch_lines.ended(
        kept.crowd.database, kept.ended, after=20, limit=20, state=LineState.FAILED
    ),
    "cancel": lambda kept: batches.cancel(kept.crowd.database, kept.ended),
    "page of batches": lambda kept: batches.page(
        kept.crowd.database, account_id=kept.crowd.account_id, limit=20, after=kept.ended
    ),
    "purge of batches": lambda kept: batches.purge(kept.crowd.database, timedelta(days=1)),
    "file": lambda kept: files.get(kept.crowd.database, kept.file_id, account_id=None),
    "read": lambda kept: list(files.read(kept.crowd.database, kept.file_id, start=1)),
    "page of files": lambda kept: files.page(
        kept.crowd.database,
        account_id=kept.crowd.account_id,
        purpose=None,
        limit=20,
        after=kept.file_id,
        newest_first=True,
    ),
    "page of a purpose": lambda kept: files.page(
        kept.crowd.database,
        account_id=kept.crowd.account_id,
        purpose="batch",
        limit=20,
        after=None,
        newest_first=False,
    ),
    "purge of files": lambda kept: files.purge(kept.crowd.database),
    "removal": lambda kept: files.remove(
        kept.crowd.database, kept.removable, account_id=kept.crowd.account_id
    ),
}


@pytest.mark.parametrize("name", ACTS)
def test_no_statement_reads_a_whole_table(stored: Stored, name: str) -> None:
    plan = plans(stored.crowd, lambda: ACTS[name](stored))

    assert plan
    for table in TABLES:
        assert f"Seq Scan on {table}" not in plan, plan
        assert not re.search(rf"^\s*SCAN {table}$", plan, re.MULTILINE), plan


@pytest.mark.parametrize("name", ["ended", "failed", "page of files", "page of a purpose"])
def test_pages_are_not_sorted(stored: Stored, name: str) -> None:
    plan = plans(stored.crowd, lambda: ACTS[name](stored))

    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan


def test_lists_of_operators_walk_the_key(stored: Stored) -> None:
    database = stored.crowd.database

    def listed() -> None:
        batches.page(database, account_id=None, limit=20, after=None)
        files.page(database, account_id=None, purpose=None, limit=20, after=None, newest_first=True)

    plan = plans(stored.crowd, listed)
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan
