"""Batches without a worker: files of requests, and slices of the thread that works on batches, one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from api.app import service_of
from api.framework import Router
from api.openai.batches.runner import BatchRunner
from core import ids
from core.database import Database
from jobs.lifecycle import Status
from jobs.records.files import BatchEntry, BatchStatus
from jobs.records.jobs import Job
from jobs.store import batches
from tests.api import worker
from tests.api.conftest import Caller, Json

WINDOW = 4


def line(custom_id: str, question: str = "How many?", **changes: object) -> Json:
    """Return a line of an input file."""
    body = {"input": question}
    return {
        "custom_id": custom_id, "method": "POST", "url": "/v1/responses", "body": body,
    } | changes  # fmt: skip


def lines(count: int) -> list[Json]:
    """Return so many valid lines."""
    return [line(f"line-{number}") for number in range(count)]


def upload(caller: Caller, content: Sequence[Json | str] | bytes) -> str:
    """Upload an input file and return its id."""
    if isinstance(content, bytes):
        data = content
    else:
        texts = [each if isinstance(each, str) else json.dumps(each) for each in content]
        data = "".join(f"{text}\n" for text in texts).encode()
    answer = caller.form("/v1/files", {"file": data, "purpose": "batch"})
    assert answer.status_code == 200, answer.text
    return str(answer.get_json()["id"])


def create(caller: Caller, content: Sequence[Json | str] | bytes, **options: Any) -> Json:  # noqa: ANN401 - of any field
    """Upload a file and create its batch."""
    return create_of(caller, upload(caller, content), **options)


def create_of(
    caller: Caller, file_id: str, *, headers: dict[str, str] | None = None, **options: object
) -> Json:
    """Create the batch of a file."""
    body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
    answer = caller("POST", "/v1/batches", json=body | options, headers=headers)
    assert answer.status_code == 200, answer.text
    batch: Json = answer.get_json()
    return batch


def get(caller: Caller, batch: Json) -> Json:
    """Return a batch as it is now."""
    found: Json = caller("GET", f"/v1/batches/{batch['id']}").get_json()
    return found


def content(caller: Caller, file_id: str | None) -> list[Json]:
    """Return the lines of a file, none without a file."""
    if file_id is None:
        return []
    text = caller("GET", f"/v1/files/{file_id}/content").text
    return [json.loads(each) for each in text.splitlines()]


def runner_of(app: Router) -> BatchRunner:
    """Return the thread's object, which does not run."""
    [loop] = service_of(app).loops
    assert isinstance(loop, BatchRunner)
    return loop


def settle(app: Router, database: Database, batch: Json) -> BatchStatus:
    """Do everything that can be done for a batch now, without its pauses; return its state."""
    batch_id = ids.parse("batch", batch["id"])
    assert batch_id is not None
    seen: list[Any] = []
    while True:
        end_pauses(database)
        runner_of(app).run_slice()
        row = batches.get(database, batch_id, account_id=None)
        assert row is not None
        state = [
            row.status, row.validated, row.last_line, row.completed, row.failed,
            row.written_line, jobs(database), row.waiting_for,
        ]  # fmt: skip
        if row.status.terminal or seen[-2:] == [state, state]:
            return row.status
        seen.append(state)


def end_pauses(database: Database) -> None:
    """Make every open batch due."""
    with database.transaction() as transaction:
        transaction.update(BatchEntry, not_before=transaction.now())


def jobs(database: Database) -> int:
    """Return how many jobs are stored."""
    with database.reading() as transaction:
        return transaction.scalar(sa.select(sa.func.count()).select_from(Job))


def finish_jobs(database: Database) -> None:
    """Run the jobs that wait now to their ends."""
    while True:
        with database.reading() as transaction:
            queued = sa.select(Job.id).where(Job.status == Status.QUEUED).limit(1)
            if transaction.execute(queued).first() is None:
                return
        worker.finish(database)
