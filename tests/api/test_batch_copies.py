"""What a batch has of its jobs goes with them: the line of the input file, and the answer in the output file."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from api.framework import Router
from core import ids
from core.database import Database
from core.settings import Settings
from jobs.filters import Filter
from jobs.records.files import BatchLine, BatchStatus, FileChunk
from jobs.store import batch_lines, erasure, files, purge, retention
from jobs.store import batches as store
from jobs.store.batch_lines import LineWritten
from jobs.store.batches import BatchLost
from jobs.store.purge import Periods
from tests import databases
from tests.api import batches, worker
from tests.api.batches import content, create, get, line, settle
from tests.api.conftest import Caller, Json
from webhooks import purge as webhook_purge

WORDS = "Doe has six circles"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Few jobs of a batch at once."""
    return settings.model_copy(update={"batch_window": batches.WINDOW})


def run(app: Router, database: Database, batch: Json) -> Json:
    """Let a worker answer all jobs of a batch with the secret; return the ended batch."""
    while not settle(app, database, batch).terminal:
        worker.finish(database, text=f"I see {WORDS}.", answer=WORDS)
    return batch


def some(count: int = 3) -> list[Json]:
    """Return lines that ask about the secret."""
    return [line(f"line-{number}", f"{WORDS}, why? ({number})") for number in range(count)]


def jobs(database: Database) -> list[uuid.UUID]:
    """Return the jobs of all lines, in their order."""
    with database.reading() as transaction:
        rows = transaction.session.scalars(sa.select(BatchLine).order_by(BatchLine.number))
        return [row.job_id for row in rows if row.job_id is not None]


def stored(database: Database) -> bytes:
    """Return the bytes of all files."""
    with database.reading() as transaction:
        return b"".join(transaction.execute(sa.select(FileChunk.data)).scalars())


def test_the_answer_of_a_deleted_response_leaves_the_output_file(
    app: Router, caller: Caller, database: Database
) -> None:
    batch = get(caller, run(app, database, create(caller, some())))
    before = content(caller, batch["output_file_id"])
    sizes = [
        caller("GET", f"/v1/files/{batch[name]}").get_json()["bytes"]
        for name in ("input_file_id", "output_file_id")
    ]

    gone = before[1]["response"]["body"]["id"]
    assert caller("DELETE", f"/v1/responses/{gone}").status_code == 200

    after = content(caller, batch["output_file_id"])
    deleted = {"code": "response_deleted", "message": "The response was deleted."}
    assert after == [before[0], before[1] | {"response": None, "error": deleted}, before[2]]
    assert caller("GET", f"/v1/batches/{batch['id']}/results").get_json()["data"] == after
    sent = caller("GET", f"/v1/files/{batch['input_file_id']}/content").data
    assert [bool(each.strip()) for each in sent.splitlines()] == [True, False, True]
    assert sizes == [
        len(caller("GET", f"/v1/files/{batch[name]}/content").data)
        for name in ("input_file_id", "output_file_id")
    ]
    assert get(caller, batch) == batch


def test_an_erasure_of_all_jobs_leaves_nothing_in_files(
    app: Router, caller: Caller, database: Database
) -> None:
    run(app, database, create(caller, some(6)))
    assert stored(database).count(WORDS.encode()) > 12
    for _ in erasure.erase_jobs(
        database, Filter(account_id=None), actor="test", remove_copies=webhook_purge.reduce_jobs
    ):
        pass
    assert WORDS.encode() not in stored(database)


def test_retention_of_answers_leaves_nothing_in_files(
    app: Router, caller: Caller, database: Database, age: databases.Age
) -> None:
    run(app, database, create(caller, some()))
    age(2 * 86_400)
    purge.batch(database, Periods(answer=timedelta(days=1)), actor="test")
    assert WORDS.encode() not in stored(database)


def test_a_response_that_is_deleted_while_its_batch_runs_is_not_written(
    app: Router, caller: Caller, database: Database
) -> None:
    batch = create(caller, some(batches.WINDOW + 2))
    settle(app, database, batch)
    worker.finish(database, answer=WORDS)
    settle(app, database, batch)
    [first, *_] = jobs(database)
    assert caller("DELETE", f"/v1/jobs/{ids.show('job', first)}").status_code in (200, 204)
    run(app, database, batch)

    output = content(caller, get(caller, batch)["output_file_id"])
    assert [each["error"] is None for each in output] == [False] + [True] * (batches.WINDOW + 1)
    assert output[0]["error"]["code"] == "response_deleted"
    assert get(caller, batch)["request_counts"]["completed"] == batches.WINDOW + 2


def test_an_answer_that_is_deleted_while_it_is_written_is_not_stored(
    app: Router, caller: Caller, database: Database
) -> None:
    batch = create(caller, some(1))
    settle(app, database, batch)
    worker.finish(database, answer=WORDS)
    batches.end_pauses(database)
    runner = batches.runner_of(app)
    runner.run_slice()
    held = store.claim(database, owner="me", lease=timedelta(minutes=1))
    while held is not None and held.batch.status is not BatchStatus.FINALIZING:
        runner.run_slice()
        batches.end_pauses(database)
        held = store.claim(database, owner="me", lease=timedelta(minutes=1))
    assert held is not None
    [ended] = batch_lines.ended(database, held.id, after=0, limit=10)
    written = LineWritten(ended, json.dumps({"answer": WORDS}).encode() + b"\n", has_content=True)
    [job_id] = jobs(database)
    retention.remove_job(database, job_id, account_id=None, actor="test")

    with pytest.raises(BatchLost):
        batch_lines.write(database, held, [written])

    assert WORDS.encode() not in stored(database)
    store.release(database, held, pause=timedelta(0))
    assert settle(app, database, batch) is BatchStatus.COMPLETED
    [shown] = content(caller, get(caller, batch)["output_file_id"])
    assert shown["error"]["code"] == "response_deleted"


def test_a_batch_of_a_file_with_a_deleted_line_says_so(
    app: Router, caller: Caller, database: Database
) -> None:
    first = create(caller, some(2))
    second = batches.create_of(caller, first["input_file_id"])
    for _ in range(4):
        batches.end_pauses(database)
        batches.runner_of(app).run_slice()
    third = batches.create_of(caller, first["input_file_id"])
    jobs_before = jobs(database)
    batches.finish_jobs(database)
    for job_id in jobs_before:
        retention.remove_job(database, job_id, account_id=None, actor="test")
    for batch in (first, second, third):
        while not settle(app, database, batch).terminal:
            batches.finish_jobs(database)

    assert get(caller, first)["status"] == get(caller, second)["status"] == "completed"
    # Blank lines are no lines.
    assert get(caller, third)["status"] == "failed"
    assert get(caller, third)["errors"]["data"][0]["code"] == "empty_file"


@pytest.mark.parametrize("size", [10, files.CHUNK_BYTES, files.CHUNK_BYTES + 7])
def test_parts_of_files_are_overwritten_across_chunks(
    database: Database, caller: Caller, size: int
) -> None:
    file_id = ids.parse("file", batches.upload(caller, [line("a")]))
    assert file_id is not None
    account = files.get(database, file_id, account_id=None)
    assert account is not None
    text = b"x" * size + b"secret\nsecret" + b"y" * files.CHUNK_BYTES
    file = files.store(database, files.NewFile(account.account_id, "batch", "a"), [text])
    parts = [
        files.Overwritten(size, 7, b"gone"),
        files.Overwritten(size + 7, 6),
    ]
    with database.transaction() as transaction:
        files.overwrite(transaction, file.id, parts)

    expected = b"x" * size + b"gone  \n      " + b"y" * files.CHUNK_BYTES
    assert b"".join(files.read(database, file.id)) == expected
