"""Files in chunks: complete or invisible, removed completely, counted for the quota."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import errors, failpoints
from core.database import Database
from jobs.records.accounts import Account, ApiKey
from jobs.records.files import FileChunk, FileEntry
from jobs.store import batches, erased_accounts, erasure, files, storage
from jobs.store.storage import StorageKind
from tests import factories, races
from tests.databases import ROOT, Age
from webhooks import purge as webhook_purge

DATA = bytes(range(256)) * 10_000
#: Of an uploader: it is killed once the second chunk is stored.
_UPLOAD = """
import sys
import uuid
from core.database import Database
from jobs.store import files
database = Database(sys.argv[1])
def pieces():
    for _ in range(2):
        yield b"x" * files.CHUNK_BYTES
    print("ready", flush=True)
    sys.stdin.read()
files.store(database, files.NewFile(uuid.UUID(sys.argv[2]), "batch", "a.jsonl"), pieces())
"""


def make(
    database: Database,
    account_id: uuid.UUID,
    data: bytes = DATA,
    *,
    purpose: str = "user_data",
    lifetime: timedelta | None = None,
) -> uuid.UUID:
    """Store a file and return its id."""
    new = files.NewFile(account_id, purpose, "résumé.txt", lifetime)
    return files.store(database, new, [data[:1_000_000], data[1_000_000:]]).id


def rows(database: Database) -> tuple[int, int]:
    """Return how many files and chunks there are, seen or not."""
    with database.reading() as transaction:
        counted = (sa.select(sa.func.count()).select_from(each) for each in (FileEntry, FileChunk))
        first, second = (transaction.scalar(each) for each in counted)
        return first, second


def test_a_file_has_the_bytes_that_were_sent_whole_and_in_part(
    database: Database, account_id: uuid.UUID
) -> None:
    file_id = make(database, account_id)

    stored = files.get(database, file_id, account_id=account_id)
    assert stored is not None
    assert (stored.bytes, stored.filename) == (len(DATA), "résumé.txt")
    assert b"".join(files.read(database, file_id)) == DATA
    edge = files.CHUNK_BYTES
    for start, end in ((0, 1), (edge - 1, edge + 1), (edge, 2 * edge), (5, 5), (len(DATA), None)):
        assert b"".join(files.read(database, file_id, start=start, end=end)) == DATA[start:end]
    assert len(list(files.read(database, file_id))) == 3


def test_an_empty_file_is_a_file(database: Database, account_id: uuid.UUID) -> None:
    file_id = make(database, account_id, b"")

    assert list(files.read(database, file_id)) == []
    assert files.get(database, file_id, account_id=account_id) is not None


def test_a_file_is_invisible_until_its_last_byte_and_to_others(
    database: Database, account_id: uuid.UUID
) -> None:
    seen: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield DATA
        listed, _ = files.page(
            database, account_id=None, purpose=None, limit=10, after=None, newest_first=True
        )
        seen.append(len(listed))

    stored = files.store(database, files.NewFile(account_id, "batch", "a"), pieces())

    assert seen == [0]
    assert files.get(database, stored.id, account_id=account_id) is not None
    assert files.get(database, stored.id, account_id=factories.make_account(database)) is None


def test_an_upload_that_is_killed_leaves_nothing_after_an_hour(
    database: Database, database_url: str, account_id: uuid.UUID, age: Age
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _UPLOAD, database_url, str(account_id)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert rows(database) == (1, 2)

    files.purge(database)
    assert rows(database) == (1, 2)  # It might still be going on.
    age(3601)
    while files.purge(database)[1]:
        pass
    assert rows(database) == (0, 0)


def test_an_upload_that_fails_leaves_nothing(database: Database, account_id: uuid.UUID) -> None:
    def pieces() -> Iterator[bytes]:
        yield DATA
        raise errors.Overloaded("The spool is full.")

    with pytest.raises(errors.Overloaded):
        files.store(database, files.NewFile(account_id, "batch", "a"), pieces())

    assert rows(database) == (0, 0)


def test_a_file_over_the_quota_is_not_stored(database: Database, account_id: uuid.UUID) -> None:
    new = files.NewFile(account_id, "batch", "a")

    with pytest.raises(errors.StorageQuotaExceeded):
        files.store(database, new, [DATA], limit=len(DATA) - 1)

    assert rows(database) == (0, 0)


def test_a_removed_file_takes_its_chunks_along(database: Database, account_id: uuid.UUID) -> None:
    file_id = make(database, account_id)
    kept = make(database, account_id)
    other = factories.make_account(database)

    assert not files.remove(database, file_id, account_id=other)
    assert files.remove(database, file_id, account_id=account_id)
    assert not files.remove(database, file_id, account_id=account_id)

    assert rows(database) == (1, 3)
    assert b"".join(files.read(database, kept)) == DATA


def test_a_file_is_removed_though_its_chunks_cannot_be_deleted_now(
    database: Database, account_id: uuid.UUID
) -> None:
    def break_off(*event: str) -> None:
        if event[2].startswith("DELETE FROM file_chunks"):
            raise failpoints.FailpointFault

    file_id = make(database, account_id)
    sa.event.listen(database.engine, "before_cursor_execute", break_off)
    removed = files.remove(database, file_id, account_id=account_id)
    sa.event.remove(database.engine, "before_cursor_execute", break_off)

    assert removed
    assert files.get(database, file_id, account_id=None) is None
    assert rows(database) == (1, 3)
    assert files.purge(database) == (1, False)
    assert rows(database) == (0, 0)


def test_an_expired_file_is_gone_at_once_and_removed_by_the_sweep(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    file_id = make(database, account_id, lifetime=timedelta(hours=1))
    kept = make(database, account_id)
    assert files.purge(database) == (0, False)

    age(3601)
    assert files.get(database, file_id, account_id=account_id) is None
    while files.purge(database)[1]:
        pass
    assert rows(database) == (1, 3)
    assert files.get(database, kept, account_id=account_id) is not None


def test_pages_are_complete_in_both_orders(database: Database, account_id: uuid.UUID) -> None:
    made = [
        make(database, account_id, b"x", purpose="batch" if number % 2 else "vision")
        for number in range(7)
    ]
    make(database, factories.make_account(database), b"x")

    def walk(purpose: str | None, *, newest_first: bool) -> list[uuid.UUID]:
        found: list[uuid.UUID] = []
        more, after = True, None
        while more:
            page, more = files.page(
                database,
                account_id=account_id,
                purpose=purpose,
                limit=2,
                after=after,
                newest_first=newest_first,
            )
            found += [file.id for file in page]
            after = found[-1]
        return found

    assert walk(None, newest_first=False) == made
    assert walk(None, newest_first=True) == made[::-1]
    assert walk("batch", newest_first=False) == made[1::2]


def test_bytes_count_until_they_are_removed(database: Database, account_id: uuid.UUID) -> None:
    file_id = make(database, account_id)
    counted = storage.usage(database, account_id, default_mb=1).by_kind[StorageKind.FILES]
    with database.reading() as transaction:
        held = storage.stored(transaction, account_id)[StorageKind.FILES]

    assert counted == held == len(DATA) + len("résumé.txt".encode()) + 512
    files.remove(database, file_id, account_id=account_id)
    assert storage.usage(database, account_id, default_mb=1).by_kind[StorageKind.FILES] == 0


def test_the_erasure_of_an_account_removes_its_files(
    database: Database, account_id: uuid.UUID
) -> None:
    make(database, account_id)
    with database.transaction() as transaction:
        begun = files.begin(transaction, files.NewFile(account_id, "batch", "begun"))
    kept = make(database, factories.make_account(database))

    erasure.erase_account(
        database,
        account_id,
        actor="operator:test",
        remove_copies=webhook_purge.reduce_jobs,
        remove_account=webhook_purge.remove_account,
    )

    assert rows(database) == (1, 3)
    assert files.get(database, kept, account_id=None) is not None
    with pytest.raises(errors.NotFound), database.transaction() as transaction:
        files.append(transaction, begun, b"more")


@pytest.mark.parametrize("last", [b"", b"more"])
def test_a_file_that_is_stored_while_its_account_is_erased_does_not_survive(
    database: Database, account_id: uuid.UUID, last: bytes
) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(files.CHUNK_BYTES)
        erase(database, account_id)
        yield last

    new = files.NewFile(account_id, "user_data", "a.txt")
    with pytest.raises(errors.NotFound):
        files.store(database, new, pieces())
    with pytest.raises(errors.Unauthenticated):
        files.store(database, new, [b"later"])
    assert rows(database) == (0, 0)


def test_a_batch_that_is_created_while_its_account_is_erased_does_not_survive(
    database: Database, account_id: uuid.UUID
) -> None:
    new = new_batch(database, account_id)
    erasure.close_account(database, account_id, actor="test")
    batch, _ = batches.create(database, new, most_open=1, key_lifetime=timedelta(hours=1))

    erase(database, account_id)

    assert batches.get(database, batch.id, account_id=None) is None
    with pytest.raises(errors.NotFound):
        batches.create(database, new, most_open=1, key_lifetime=timedelta(hours=1))


def test_an_erased_account_creates_no_batch(database: Database, account_id: uuid.UUID) -> None:
    new = new_batch(database, account_id)
    with database.transaction() as transaction:
        erased = erased_accounts.name(account_id)
        transaction.update(Account, Account.id == account_id, name=erased)

    with pytest.raises(errors.Unauthenticated):
        batches.create(database, new, most_open=1, key_lifetime=timedelta(hours=1))

    assert batches.page(database, account_id=None, limit=1, after=None) == ([], False)


def test_batches_that_are_created_at_once_keep_to_the_limit(
    database: Database, account_id: uuid.UUID
) -> None:
    new = new_batch(database, account_id)

    def create() -> bool:
        try:
            batches.create(database, new, most_open=2, key_lifetime=timedelta(hours=1))
        except errors.QueueFull:
            return False
        return True

    created = races.race(*([create] * 6))

    assert created.count(True) == 2


def new_batch(database: Database, account_id: uuid.UUID) -> batches.NewBatch:
    """Return a batch of a file that exists."""
    with database.reading() as transaction:
        key_id = transaction.scalar(sa.select(ApiKey.id).where(ApiKey.account_id == account_id))
    return batches.NewBatch(
        account_id=account_id,
        key_id=key_id,
        endpoint="/v1/responses",
        input_file_id=make(database, account_id),
        completion_window="24h",
        window=timedelta(hours=24),
        request_id="req_test",
    )


def erase(database: Database, account_id: uuid.UUID) -> None:
    """Erase an account."""
    erasure.erase_account(
        database,
        account_id,
        actor="test",
        remove_copies=webhook_purge.reduce_jobs,
        remove_account=webhook_purge.remove_account,
    )
