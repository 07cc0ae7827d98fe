"""The steps of traces, stored with the texts from which they were parsed.

The text is the truth. Steps that are missing, or that another version of the rules has found, are parsed from the text
when a caller reads them; :func:`reparse` stores them by the current rules.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs import trace
from jobs.document import Document
from jobs.events.index import IndexEntry
from jobs.records.attempts import Generation
from jobs.records.declarative import table

#: A generation: job, attempt, number.
Place = tuple[uuid.UUID, int, int]

#: Traces that one statement examines.
_EXAMINED = 500
_PLACE = (Generation.job_id, Generation.attempt, Generation.number)
_STALE = sa.or_(
    Generation.steps.is_(sa.null()), Generation.steps["version"].as_integer() != trace.VERSION
)


def pack(source: str | Document) -> dict[str, Any]:
    """Return the steps of an ended trace as they are stored: version of the rules; kind, start, end of each.

    Args:
        source: the text, or its document.
    """
    return {
        "version": trace.VERSION,
        "steps": [[step.kind.value, step.start, step.end] for step in trace.parse(source)],
    }


def read(
    text: str, index: Iterable[IndexEntry], stored: Mapping[str, Any] | None
) -> list[trace.Step]:
    """Return the steps of ``text`` with the times and tokens from its ``index``.

    Args:
        text: a trace, whole or so far.
        index: the entries of its event index, in order; text that they do not cover has no times and tokens.
        stored: the result of :func:`pack` for the text, by any version of the rules; None: nothing is stored yet.
    """
    if stored is None or stored["version"] != trace.VERSION:
        steps = trace.parse(text)
    else:
        steps = [trace.Step(trace.StepKind(kind), *place) for kind, *place in stored["steps"]]
    return trace.timed(steps, _moments(index))


_STEPS = (
    sa.update(table(Generation))
    .where(
        table(Generation).c.job_id == sa.bindparam("b_job"),
        table(Generation).c.attempt == sa.bindparam("b_attempt"),
        table(Generation).c.number == sa.bindparam("b_number"),
    )
    .values(steps=sa.bindparam("b_steps"))
)


def reparse(
    database: Database, *, after: Place | None, limit: int = 50
) -> tuple[Place, int] | None:
    """Store the steps of up to ``limit`` ended traces beyond ``after`` that have none by the current rules.

    The texts are read and parsed outside of the transaction that writes, so the transaction is short. A trace that
    another process has locked at that moment is about to be removed, and is skipped. Each statement reads a bounded
    number of traces, even where all are up to date.

    Returns:
        The last trace and how many were written; None without any.
    """
    texts: dict[Place, str] = {}
    while not texts:
        with database.reading() as transaction:
            places = _following(transaction, after)
            if not places:
                return None
            texts = _stale(transaction, places, limit)
        after = places[-1]
    packed = {place: pack(text) for place, text in texts.items()}
    with database.transaction() as transaction:
        rows = transaction.execute(
            sa.select(*_PLACE)
            .where(*_among(list(texts)))
            .with_for_update(key_share=True, skip_locked=True)
        ).all()
        if rows:
            transaction.execute(
                _STEPS,
                [
                    {
                        "b_job": row.job_id,
                        "b_attempt": row.attempt,
                        "b_number": row.number,
                        "b_steps": packed[tuple(row)],
                    }
                    for row in rows
                ],
            )
    return list(texts)[-1], len(rows)


def _following(transaction: Transaction, after: Place | None) -> list[Place]:
    """Return the next places beyond ``after``, which an index has."""
    wanted = sa.select(*_PLACE).order_by(*_PLACE).limit(_EXAMINED)
    if after is not None:
        wanted = wanted.where(sa.tuple_(*_PLACE) > after)
    return [(row.job_id, row.attempt, row.number) for row in transaction.execute(wanted)]


def _stale(transaction: Transaction, places: list[Place], limit: int) -> dict[Place, str]:
    """Return the texts of up to ``limit`` of ``places`` that need steps."""
    wanted = sa.select(*_PLACE, Generation.output).where(*_among(places), _STALE)
    rows = transaction.execute(wanted.order_by(*_PLACE).limit(limit))
    return {(row.job_id, row.attempt, row.number): row.output for row in rows}


def _among(places: list[Place]) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of an ended generation to be at one of ``places``.

    SQLite has no index for several triples, and reads all generations; the jobs' ids lead it to theirs.
    """
    job_ids = {job_id for job_id, _, _ in places}
    return (
        Generation.job_id.in_(job_ids),
        sa.tuple_(*_PLACE).in_(places),
        Generation.output.is_not(None),
    )


def _moments(index: Iterable[IndexEntry]) -> list[trace.TokenMark]:
    """Return the length of an index's text in characters and tokens, at the time of each entry with text."""
    moments: list[trace.TokenMark] = []
    chars = 0
    tokens: int | None = 0
    for entry in index:
        if entry.length:
            chars += entry.length
            # After a piece with an unknown number of tokens their sum is unknown.
            tokens = None if tokens is None or entry.tokens is None else tokens + entry.tokens
        moments.append(trace.TokenMark(chars, datetime.fromtimestamp(entry.at / 1000, UTC), tokens))
    return moments
