"""The search for phrases in questions, answers and traces, by an index of words; see :mod:`jobs.phrases`.

The texts are rows of their own. On SQLite FTS5 indexes them, in a table that triggers update; on PostgreSQL a GIN index
of a generated column does. In the index each word starts with its account's tag, so a search reads no entry of another
account, and its duration reveals nothing about them. The transactions that write and delete the originals also write
and delete these rows.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.phrases import PIPELINE, Part, Phrase, spellings
from jobs.records import Account, Generation, Job, ReindexProgress, SearchText, table

#: Up to this many texts with a phrase's words are compared with the phrase at once. With more, it is faster to test one
#: job after the other, in the order of the page.
_FEW = 30_000

#: PostgreSQL's column, generated from text and account; the records do not describe it.
_WORDS: sa.ColumnElement[Any] = sa.literal_column("search_texts.words")
#: FTS5's table; the column with the table's name means all columns.
_INDEX = sa.table("search_index", sa.column("search_index"), sa.column("rowid", sa.Integer()))


#: The key of the only row of :class:`jobs.records.ReindexProgress`.
_ONLY = 1
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


def add(transaction: Transaction, job_id: uuid.UUID, part: Part, text: str | None) -> None:
    """Add ``text`` to the texts by which searches find a job."""
    add_normalized(transaction, job_id, part, spellings(text or ""))


def add_normalized(
    transaction: Transaction, job_id: uuid.UUID, part: Part, spelled: Iterable[str]
) -> None:
    """Add a text that :func:`jobs.phrases.spellings` has normalized to those by which searches find a job."""
    for spelling in spelled:
        transaction.execute(_TEXT, {"b_job": job_id, "b_part": part, "b_text": spelling})


def remove(
    transaction: Transaction, job_ids: Collection[uuid.UUID], *, parts: Collection[Part]
) -> None:
    """Remove these ``parts`` of jobs from the texts by which searches find them."""
    transaction.delete(SearchText, SearchText.job_id.in_(job_ids), SearchText.part.in_(parts))


def holds(
    transaction: Transaction, phrase: Phrase, *, account_id: uuid.UUID | None
) -> sa.ColumnElement[bool]:
    """Return the condition of a job to contain ``phrase``, for jobs of one account (None: of any account)."""
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
    candidates = transaction.scalar(
        sa.select(sa.func.count()).select_from(matching.limit(_FEW + 1).subquery())
    )
    if candidates > _FEW:
        return sa.exists(sa.select(1).where(SearchText.job_id == Job.id, decided))
    holding = sa.select(SearchText.job_id).where(matches, decided)
    if transaction.dialect == "postgresql":
        # As an array, the ids are found first. As a subquery, they can be looked for in each job from the newest on.
        return Job.id == sa.any_(sa.func.array(holding.scalar_subquery()))
    return Job.id.in_(holding)


@dataclass(frozen=True)
class Reindexed:
    """How far a reindex is.

    Attributes:
        reached: the last job whose texts are rebuilt.
        jobs: how many jobs are.
    """

    reached: uuid.UUID
    jobs: int


def reindexed(database: Database) -> Reindexed | None:
    """Return how far an interrupted reindex by today's rules came; None: no reindex was interrupted."""
    with database.reading() as transaction:
        row = transaction.session.get(ReindexProgress, _ONLY)
        if row is None or row.pipeline != PIPELINE:
            return None
        return Reindexed(row.reached, row.jobs)


def rebuild(
    database: Database, *, after: Reindexed | None = None, limit: int = 50
) -> Reindexed | None:
    """Rebuild the texts of up to ``limit`` jobs beyond ``after``; return how far it is, None at the end.

    This is needed when phrases are normalized in a new way, or when texts were lost. Each call is one transaction;
    concurrent changes of the jobs come before it or wait for it. It also stores how far the reindex is, for
    :func:`reindexed`.
    """
    with database.transaction("reindex") as transaction:
        wanted = sa.select(Job).order_by(Job.id).limit(limit).with_for_update()
        if after is not None:
            wanted = wanted.where(Job.id > after.reached)
        jobs = list(transaction.session.scalars(wanted))
        if not jobs:
            transaction.delete(ReindexProgress)
            return None
        _rebuild(transaction, jobs)
        done = Reindexed(jobs[-1].id, len(jobs) + (after.jobs if after else 0))
        progress = {
            "pipeline": PIPELINE,
            "reached": done.reached,
            "jobs": done.jobs,
            "at": transaction.now(),
        }
        transaction.execute(
            transaction.insert(ReindexProgress)
            .values(id=_ONLY, **progress)
            .on_conflict_do_update(index_elements=["id"], set_=progress)
        )
        return done


def _rebuild(transaction: Transaction, jobs: Sequence[Job]) -> None:
    job_ids = [job.id for job in jobs]
    remove(transaction, job_ids, parts=tuple(Part))
    for job in jobs:
        add(transaction, job.id, Part.QUESTION, job.question)
        add(transaction, job.id, Part.ANSWER, job.answer_text)
    outputs = transaction.execute(
        sa.select(Generation.job_id, Generation.output)
        .where(Generation.job_id.in_(job_ids), Generation.output.is_not(None))
        .order_by(Generation.job_id, Generation.attempt, Generation.number)
    )
    for row in outputs:
        add(transaction, row.job_id, Part.TRACE, row.output)


def _tags(transaction: Transaction, account_id: uuid.UUID | None) -> list[str]:
    """Return the tag of the account, or the tags of all accounts; revision 0100 computes the same in SQL."""
    if account_id is not None:
        return [_tag(account_id)]
    return list(map(_tag, transaction.execute(_ACCOUNTS).scalars()))


def _tag(account_id: uuid.UUID) -> str:
    """Return the prefix of an account's words: random, and nearly always unique."""
    return f"a{account_id.hex[-7:]}"


def _fts5(phrase: Phrase, tags: Collection[str]) -> str:
    """Return the query in FTS5's syntax; without tags nothing matches."""
    last = " *" if phrase.unfinished else ""
    pieces = [piece.replace('"', '""') for piece in phrase.pieces]
    queries = (f'"{" ".join(tag + piece for piece in pieces)}"{last}' for tag in tags)
    return " OR ".join(queries) or '""'


def _tsquery(phrase: Phrase, tags: Collection[str]) -> sa.ColumnElement[Any]:
    """Return the query; PostgreSQL's parser splits its words in the same way as the indexed texts.

    Words consist of letters and digits, so nothing needs to be escaped.
    """
    last = ":*" if phrase.unfinished else ""
    queries = (f"({' & '.join(tag + word for word in phrase.words)}{last})" for tag in tags)
    return sa.func.to_tsquery(sa.literal_column("'simple'"), " | ".join(queries))
