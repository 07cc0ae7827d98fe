"""The steps of traces, kept beside the texts that they were read from.

The text is the truth. Steps that are missing, or that were read by other rules than today's, are read from it when
they are asked for; :func:`reparse` keeps them as they are read today.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from core.database import Database
from jobs import trace
from jobs.events.index import IndexEntry
from jobs.records import Generation, table

#: Which stream: job, attempt, number.
Place = tuple[uuid.UUID, int, int]

_PLACE = (Generation.job_id, Generation.attempt, Generation.number)
_STALE = sa.or_(
    Generation.steps.is_(sa.null()), Generation.steps["version"].as_integer() != trace.VERSION
)


def pack(text: str) -> dict[str, Any]:
    """Return the steps of an ended trace as they are kept: the rules' version, and kind, start and end of each."""
    found = trace.parse(text)
    return {
        "version": trace.VERSION,
        "steps": [[step.kind.value, step.start, step.end] for step in found],
    }


def read(
    text: str, index: Iterable[IndexEntry], stored: Mapping[str, Any] | None
) -> list[trace.Step]:
    """Return the steps of ``text`` with the times and tokens that its ``index`` tells.

    Args:
        text: a trace, whole or as far as it has come.
        index: its marks, in order; what they do not cover has neither.
        stored: what :func:`pack` has made of the text once, by whatever rules; None: nothing yet.
    """
    if stored is None or stored["version"] != trace.VERSION:
        found = trace.parse(text)
    else:
        found = [trace.Step(trace.StepKind(kind), *place) for kind, *place in stored["steps"]]
    return trace.timed(found, _moments(index))


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
    """Keep the steps of up to ``limit`` ended traces beyond ``after`` that have none by today's rules.

    The texts are read outside of the transaction that writes: nobody waits for it, and it waits for nobody. A
    trace that somebody else has in hand at that moment is about to be removed, and is left alone.

    Returns:
        the last of them and how many were written; None when there are none.
    """
    wanted = (
        sa.select(*_PLACE, Generation.output)
        .where(Generation.output.is_not(None), _STALE)
        .order_by(*_PLACE)
        .limit(limit)
    )
    if after is not None:
        wanted = wanted.where(sa.tuple_(*_PLACE) > after)
    with database.reading() as transaction:
        found = {tuple(row[:3]): row.output for row in transaction.execute(wanted)}
    if not found:
        return None
    packed = {place: pack(text) for place, text in found.items()}
    with database.transaction() as transaction:
        still = transaction.execute(
            sa.select(*_PLACE)
            .where(sa.tuple_(*_PLACE).in_(list(found)), Generation.output.is_not(None))
            .with_for_update(key_share=True, skip_locked=True)
        ).all()
        if still:
            transaction.execute(
                _STEPS,
                [
                    {
                        "b_job": row.job_id,
                        "b_attempt": row.attempt,
                        "b_number": row.number,
                        "b_steps": packed[tuple(row)],
                    }
                    for row in still
                ],
            )
    return list(found)[-1], len(still)


def _moments(index: Iterable[IndexEntry]) -> list[trace.TokenMark]:
    """Return when the text of an index had grown how long."""
    moments: list[trace.TokenMark] = []
    chars = 0
    tokens: int | None = 0
    for mark in index:
        if mark.length:
            chars += mark.length
            # Behind a piece of unknown tokens nobody knows how many they are.
            tokens = None if tokens is None or mark.tokens is None else tokens + mark.tokens
        moments.append(trace.TokenMark(chars, datetime.fromtimestamp(mark.at / 1000, UTC), tokens))
    return moments
