"""Findings of guards, stored with the generation in which they were found."""

import functools
import itertools
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from core.database import Now, Transaction, insert
from jobs.findings import Finding, FindingKind
from jobs.records.attempts import FindingEntry
from jobs.records.declarative import table
from jobs.records.jobs import Job


def store(
    transaction: Transaction, job_id: uuid.UUID, attempt: int, new: Iterable[Finding]
) -> None:
    """Store findings of an attempt; those that are stored already do not change."""
    for finding in new:
        transaction.execute(
            _insert(transaction.dialect),
            {
                "job_id": job_id,
                "attempt": attempt,
                "generation": finding.generation,
                "kind": str(finding.kind),
                "start_char": finding.start,
                "end_char": finding.end,
                "action": str(finding.action),
                "evidence": dict(finding.evidence),
                "tokens_saved": finding.tokens_saved,
            },
        )
        transaction.notes.append(finding)


@functools.cache
def _insert(dialect: str) -> sa.Insert:
    return insert(dialect, table(FindingEntry)).values(found_at=Now()).on_conflict_do_nothing()


def among(kinds: Sequence[FindingKind]) -> sa.ColumnElement[bool]:
    """Return the condition of a job to have a finding of one of ``kinds``."""
    return Job.id.in_(sa.select(FindingEntry.job_id).where(FindingEntry.kind.in_(map(str, kinds))))


def of(
    transaction: Transaction, job_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, tuple[FindingEntry, ...]]:
    """Return the findings of ``job_ids``, oldest attempt first."""
    if not job_ids:
        return {}
    rows = transaction.session.scalars(
        sa.select(FindingEntry)
        .where(FindingEntry.job_id.in_(job_ids))
        .order_by(
            FindingEntry.job_id, FindingEntry.attempt, FindingEntry.generation, FindingEntry.kind
        )
    )
    by_job = itertools.groupby(rows, key=lambda row: row.job_id)
    return {job_id: tuple(entries) for job_id, entries in by_job}
