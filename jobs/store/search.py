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
from jobs.records.accounts import Account
from jobs.records.attempts import Generation
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.search import ReindexProgress, SearchText
from jobs.store import metadata

#: Up to this many texts with a phrase's words are compared with the phrase at once. With more, it is faster to test one
#: job after the other, in the order of the page.
_FEW = 30_000
#: Pages of SQLite's index that one transaction merges: some milliseconds.
_MERGED_PAGES = 500
#: A merge that changes fewer rows had nothing to do. Source: SQLite's documentation of the merge command.
_MERGE_CHANGES = 2

#: PostgreSQL's column, generated from text and account; the records do not describe it.
_WORDS: sa.ColumnElement[Any] = sa.literal_column("search_texts.words")
#: FTS5's table; the column with the table's name means all columns.
_INDEX = sa.table("search_index", sa.column("search_index"), sa.column("rowid", sa.Integer()))


#: The key of the only row of :class:`jobs.records.search.ReindexProgress`.
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
    """Remove these ``parts`` of jobs from the texts by which searches find them.

    SQLite's index keeps their words until a :class:`Cleaning` has rewritten it.
    """
    transaction.delete(SearchText, SearchText.job_id.in_(job_ids), SearchText.part.in_(parts))
    if transaction.dialect == "sqlite":
        removals = _removals(transaction)
        transaction.execute(sa.text(f"PRAGMA user_version = {removals + 1}"))


class Cleaning:
    """Rewrites SQLite's index without the words of removed texts, in short transactions.

    It can be interrupted and repeated. On PostgreSQL, where VACUUM does the same, there is nothing to do.

    Args:
        database: where the index is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        #: The removals before this cleaning; None: it has not begun.
        self._seen: int | None = None

    def needed(self) -> bool:
        """Return whether the index still has such words. Raises :class:`core.database_faults.DatabaseUnavailable`."""
        if self._database.dialect != "sqlite":
            return False
        with self._database.reading() as transaction:
            return _removals(transaction) > 0

    def step(self) -> bool:
        """Do a part of the work; return whether there is more. At the end, empty the write-ahead log.

        Raises:
            core.database_faults.DatabaseUnavailable: the database does not answer.
        """
        if self._database.dialect != "sqlite":
            return False
        # The words are gone once all segments of the index are merged into one. A negative number starts that.
        pages = _MERGED_PAGES
        if self._seen is None:
            pages = -pages
            with self._database.reading() as transaction:
                self._seen = _removals(transaction)
        if _merge(self._database, pages):
            return True
        with self._database.transaction() as transaction:
            # Texts that were removed meanwhile need another cleaning.
            if _removals(transaction) == self._seen:
                transaction.execute(sa.text("PRAGMA user_version = 0"))
        self._database.checkpoint()
        self._seen = None
        return False


def _removals(transaction: Transaction) -> int:
    """Return how many removals the index has not forgotten: SQLite stores a number for applications."""
    return int(transaction.execute(sa.text("PRAGMA user_version")).scalar_one())


def _merge(database: Database, pages: int) -> bool:
    """Merge about this many pages of SQLite's index; return whether there are more."""
    changes = sa.text("SELECT total_changes()")
    with database.transaction() as transaction:
        before = int(transaction.execute(changes).scalar_one())
        transaction.execute(
            sa.text("INSERT INTO search_index(search_index, rank) VALUES ('merge', :pages)"),
            {"pages": pages},
        )
        # FTS5 counts its own writes; the statement alone is one change.
        return int(transaction.execute(changes).scalar_one()) - before >= _MERGE_CHANGES


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


def reindex_due(database: Database) -> bool:
    """Return whether searches need a reindex: one is due, runs, or was interrupted."""
    with database.reading() as transaction:
        return transaction.session.get(ReindexProgress, _ONLY) is not None


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
    """Rebuild the texts and the metadata pairs of up to ``limit`` jobs; return how far it is, None at the end.

    This is needed when phrases are normalized in a new way (then a migration stores that it is due), or when texts
    were lost. Each call is one transaction; concurrent changes of the jobs come before it or wait for it. It also
    stores how far the reindex is, for :func:`reindexed`.

    Args:
        database: where the jobs are.
        after: where the last call stopped; None: start with the first job.
        limit: the number of jobs.
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
        metadata.rebuild(transaction, [job.id for job in jobs])
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
