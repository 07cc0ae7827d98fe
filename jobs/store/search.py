"""What is searched of jobs: their questions, answers and traces, in an index of words; see :mod:`jobs.phrases`.

The texts are rows of their own. They are indexed by FTS5 on SQLite, in a table that triggers keep in step, and by
a GIN index of a generated column on PostgreSQL. In the index each word begins with a tag of its account, so that a
search reads nothing of what others have, and its cost tells nothing about it. They come and go in the transactions
in which what they are taken from does.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.phrases import Part, Phrase, spellings
from jobs.records import Account, Generation, Job, SearchText, table

#: Up to so many texts that hold a phrase's words are looked at by themselves. Of more, a page of jobs that hold the
#: phrase is found sooner by looking at one job after the other, in the order of the page.
_FEW = 1_000

#: PostgreSQL's column, made from the text and the account, which the records do not describe.
_WORDS: sa.ColumnElement[Any] = sa.literal_column("search_texts.words")
#: FTS5's table; its column of its own name stands for all columns.
_INDEX = sa.table("search_index", sa.column("search_index"), sa.column("rowid", sa.Integer()))


_ACCOUNTS = sa.select(table(Account).c.id)
_TEXT = sa.insert(table(SearchText)).from_select(
    ["job_id", "account_id", "part", "text"],
    sa.select(
        table(Job).c.id,
        table(Job).c.account_id,
        sa.bindparam("b_part", type_=SearchText.part.type),
        sa.bindparam("b_text", type_=SearchText.text.type),
    ).where(table(Job).c.id == sa.bindparam("b_job")),
)


def keep(transaction: Transaction, job_id: uuid.UUID, part: Part, text: str | None) -> None:
    """Let a job be found by ``text``, beside what it is found by already."""
    keep_spelled(transaction, job_id, part, spellings(text or ""))


def keep_spelled(
    transaction: Transaction, job_id: uuid.UUID, part: Part, spelled: Iterable[str]
) -> None:
    """Let a job be found by a text that :func:`jobs.phrases.spellings` has ``spelled``."""
    for spelling in spelled:
        transaction.execute(_TEXT, {"b_job": job_id, "b_part": part, "b_text": spelling})


def remove(
    transaction: Transaction, job_ids: Collection[uuid.UUID], *, parts: Collection[Part]
) -> None:
    """Let jobs no longer be found by these ``parts`` of them."""
    transaction.execute(
        sa.delete(SearchText).where(SearchText.job_id.in_(job_ids), SearchText.part.in_(parts))
    )


def holds(
    transaction: Transaction, phrase: Phrase, *, account_id: uuid.UUID | None
) -> sa.ColumnElement[bool]:
    """Return the condition on jobs of holding ``phrase``, for jobs of one account (None: of any)."""
    tags = _tags(transaction, account_id)
    if transaction.dialect == "sqlite":
        wanted = sa.literal(_fts5(phrase, tags))
        matching = sa.select(_INDEX.c.rowid).where(_INDEX.c.search_index.op("MATCH")(wanted))
        matches: sa.ColumnElement[bool] = SearchText.id.in_(matching)
        decided = sa.func.instr(SearchText.text, phrase.spelling) > 0
    else:
        matches = _WORDS.op("@@", is_comparison=True)(_tsquery(phrase, tags))
        matching = sa.select(SearchText.id).where(matches)
        decided = sa.func.strpos(SearchText.text, phrase.spelling) > 0
    candidates: int = transaction.execute(
        sa.select(sa.func.count()).select_from(matching.limit(_FEW + 1).subquery())
    ).scalar_one()
    if candidates > _FEW:
        return sa.exists(sa.select(1).where(SearchText.job_id == Job.id, decided))
    return Job.id.in_(sa.select(SearchText.job_id).where(matches, decided))


def rebuild(database: Database, *, after: uuid.UUID | None, limit: int = 50) -> uuid.UUID | None:
    """Write anew what up to ``limit`` jobs beyond ``after`` are found by; return the last of them, if any.

    For jobs from before there was a search, and when phrases are spelled in a new way. Each call is a
    transaction of its own; whatever happens to the jobs meanwhile waits for it, or comes before it.
    """
    with database.transaction() as transaction:
        wanted = sa.select(Job).order_by(Job.id).limit(limit).with_for_update()
        if after is not None:
            wanted = wanted.where(Job.id > after)
        jobs = list(transaction.session.scalars(wanted))
        job_ids = [job.id for job in jobs]
        remove(transaction, job_ids, parts=tuple(Part))
        for job in jobs:
            keep(transaction, job.id, Part.QUESTION, job.question)
            keep(transaction, job.id, Part.ANSWER, job.answer_text)
        outputs = transaction.execute(
            sa.select(Generation.job_id, Generation.output)
            .where(Generation.job_id.in_(job_ids), Generation.output.is_not(None))
            .order_by(Generation.job_id, Generation.attempt, Generation.number)
        )
        for row in outputs:
            keep(transaction, row.job_id, Part.TRACE, row.output)
        return job_ids[-1] if job_ids else None


def _tags(transaction: Transaction, account_id: uuid.UUID | None) -> list[str]:
    """Return the tag of the account, or those of all accounts; revision 0100 has the same in SQL."""
    if account_id is not None:
        return [_tag(account_id)]
    return list(map(_tag, transaction.execute(_ACCOUNTS).scalars()))


def _tag(account_id: uuid.UUID) -> str:
    """Return what an account's words begin with: random, and nearly always its own."""
    return f"a{account_id.hex[-7:]}"


def _fts5(phrase: Phrase, tags: Collection[str]) -> str:
    """Return the query in FTS5's language; without a tag nothing matches."""
    last = " *" if phrase.unfinished else ""
    pieces = [piece.replace('"', '""') for piece in phrase.pieces]
    queries = (f'"{" ".join(tag + piece for piece in pieces)}"{last}' for tag in tags)
    return " OR ".join(queries) or '""'


def _tsquery(phrase: Phrase, tags: Collection[str]) -> sa.ColumnElement[Any]:
    """Return the query as PostgreSQL's own parser, which has made the index as well, reads the words.

    Words are letters and digits only: nothing in them has to be escaped.
    """
    last = ":*" if phrase.unfinished else ""
    queries = (f"({' & '.join(tag + word for word in phrase.words)}{last})" for tag in tags)
    return sa.func.to_tsquery(sa.literal_column("'simple'"), " | ".join(queries))
