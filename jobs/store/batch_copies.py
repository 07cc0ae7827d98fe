"""The copies that batches have of jobs: the line of the input file, and the result in the output file.

They go with the content of the job: the line becomes blank, and the result an error with the same ``custom_id``. The
files keep their sizes, so that a download that runs meanwhile stays whole.
"""

import collections
import uuid
from collections.abc import Collection
from typing import Any, Final

import orjson
import sqlalchemy as sa

from core import escapes
from core.database import Transaction
from jobs.records.declarative import table
from jobs.records.files import BatchEntry, BatchLine, LineState
from jobs.store import files
from jobs.store.files import Overwritten

#: The error in place of a deleted answer. It is shorter than any answer.
DELETED: Final = {"code": "response_deleted", "message": "The response was deleted."}

_LINE = table(BatchLine).c
_BATCH = table(BatchEntry).c


def remove(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove the copies of jobs whose rows the transaction has locked: see :func:`jobs.store.batch_lines.write`."""
    rows = transaction.execute(
        sa.select(
            _LINE.state,
            _LINE.start,
            _LINE.length,
            _LINE.result_start,
            _LINE.result_length,
            _BATCH.input_file_id,
            _BATCH.output_file_id,
        )
        .join_from(table(BatchLine), table(BatchEntry), _BATCH.id == _LINE.batch_id)
        .where(_LINE.job_id.in_(job_ids))
    ).all()
    parts: dict[uuid.UUID, list[Overwritten]] = collections.defaultdict(list)
    for row in rows:
        parts[row.input_file_id].append(Overwritten(row.start, row.length))
        if row.state is LineState.COMPLETED and row.result_start is not None:
            head = _deleted(transaction, row.output_file_id, row.result_start, row.result_length)
            parts[row.output_file_id].append(Overwritten(row.result_start, row.result_length, head))
    # In one order, so that no two deletions deadlock.
    for file_id in sorted(parts):
        files.overwrite(transaction, file_id, parts[file_id])


def _deleted(transaction: Transaction, file_id: uuid.UUID, start: int, length: int) -> bytes:
    """Return the result at a place without the answer; nothing if the file is deleted."""
    data = files.part(transaction, file_id, start=start, length=length)
    if not data:
        return b""
    shown: dict[str, Any] = orjson.loads(data)
    return escapes.in_one_line(orjson.dumps(shown | {"response": None, "error": DELETED}))
