"""The condition of a job to have a pair of metadata.

PostgreSQL has an index of JSON. SQLite has a table of the pairs instead, which triggers write (revision 0105); a
reindex adds the pairs of the jobs that are older than the table.
"""

import uuid
from collections.abc import Collection

import sqlalchemy as sa

from core.database import Transaction
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.search import ReindexProgress

#: On SQLite, the jobs of a pair of metadata are collected if there are at most this many.
_FEW_PAIRS = 20_000
_PAIRS = sa.table(
    "search_index_metadata",
    sa.column("key", sa.Text()),
    sa.column("value", sa.Text()),
    sa.column("job_id", sa.Uuid()),
)
_JOB = table(Job).c
_LACKS_PAIRS = sa.select(ReindexProgress.id).where(ReindexProgress.lacks_pairs)


def holds(transaction: Transaction, key: str, value: str) -> sa.ColumnElement[bool]:
    """Return the condition of a job to have this pair of metadata."""
    if transaction.dialect == "postgresql":
        return Job.metadata_.op("@>", is_comparison=True)({key: value})
    if transaction.execute(_LACKS_PAIRS).first() is not None:
        pair = _pairs_of_job()
        return sa.exists(sa.select(1).where(pair.c.key == key, pair.c.value == value))
    holding = sa.select(_PAIRS.c.job_id).where(_PAIRS.c.key == key, _PAIRS.c.value == value)
    few = holding.limit(_FEW_PAIRS + 1).subquery()
    if transaction.scalar(sa.select(sa.func.count()).select_from(few)) <= _FEW_PAIRS:
        return Job.id.in_(holding)
    # SQLite would collect all of them for a page. One job after the other, a page is soon full.
    return holding.where(_PAIRS.c.job_id == Job.id).correlate(table(Job)).exists()


def rebuild(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Write the pairs of these jobs to SQLite's table again; on PostgreSQL there is nothing to do."""
    if transaction.dialect != "sqlite":
        return
    pair = _pairs_of_job()
    wanted = (
        sa.select(pair.c.key, pair.c.value, _JOB.id)
        .select_from(table(Job).join(pair, sa.true()))
        .where(_JOB.id.in_(job_ids))
    )
    transaction.execute(sa.delete(_PAIRS).where(_PAIRS.c.job_id.in_(job_ids)))
    transaction.execute(sa.insert(_PAIRS).from_select(["key", "value", "job_id"], wanted))


def _pairs_of_job() -> sa.TableValuedAlias:
    pairs = sa.func.json_each(_JOB["metadata"])
    return pairs.table_valued(sa.column("key", sa.Text()), sa.column("value", sa.Text()))
