"""What other accounts have costs a search nothing, so that its cost tells nothing about it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from core import ids
from core.database import Database
from jobs.phrases import Part
from jobs.records.jobs import Job
from jobs.records.search import SearchText
from jobs.store import history
from tests import factories

#: Words that the other account has in each of its texts, and ones that begin like them.
_WORDS = [f"the{end}" for end in ("", "re", "n", "m", "ir", "se", "y", "ory", "rmal", "sis")]
#: What is searched for: words that only the other account has, that both have, that nobody has.
_PHRASES = ("the", "there then", "theory ; them", "red star", "star", "zebra", "zebra th")


#: Where Linux says how much this process has read.
_READ = Path("/proc/self/io")


def test_a_search_reads_as_much_whatever_others_have(
    database: Database, account_id: uuid.UUID
) -> None:
    if database.dialect == "sqlite" and not _READ.exists():
        pytest.skip("this system does not say how much a process has read")
    fill(database, account_id, ["a red star there", "two stars", "the red star"])
    before = {phrase: pages(database, account_id, phrase) for phrase in _PHRASES}
    rng = random.Random(1)
    texts = [" ".join(rng.choices(_WORDS, k=300)) for _ in range(2_000)]
    fill(database, factories.make_account(database), texts)
    after = {phrase: pages(database, account_id, phrase) for phrase in _PHRASES}

    # An index of that many more texts may be some levels deeper.
    more = {phrase: after[phrase] - before[phrase] for phrase in _PHRASES}
    assert max(more.values()) <= 40, more
    # What they have is looked for as long as what nobody has.
    assert abs(after["theory ; them"] - after["zebra th"]) <= 4, after


def fill(database: Database, account_id: uuid.UUID, texts: list[str]) -> None:
    """Put finished jobs of an account in, one for each of ``texts``."""
    rows = factories.job_rows(account_id, [{"id": ids.new()} for _ in texts])
    with database.transaction() as transaction:
        transaction.execute(sa.insert(Job), rows)
        transaction.execute(
            sa.insert(SearchText),
            [
                {"job_id": row["id"], "account_id": account_id, "part": Part.TRACE, "text": text}
                for row, text in zip(rows, texts, strict=True)
            ],
        )
    with database.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()


def pages(database: Database, account_id: uuid.UUID, phrase: str) -> int:
    """Return how many pages of the database a search for ``phrase`` reads."""

    def search() -> None:
        history.page(database, history.Filter(account_id, phrases=[phrase]), limit=20)

    return (
        _sqlite_pages(database, search)
        if database.dialect == "sqlite"
        else _postgres_pages(database, search)
    )


def _sqlite_pages(database: Database, search: Callable[[], object]) -> int:
    """Count what a connection that has nothing in its memory reads."""
    database.close()
    database.ping()
    before = _bytes_read()
    search()
    return (_bytes_read() - before) // 4096


def _bytes_read() -> int:
    facts = dict(line.split(": ") for line in _READ.read_text().splitlines())
    return int(facts["rchar"])


def _postgres_pages(database: Database, search: Callable[[], object]) -> int:
    """Add up what the server says of each statement."""
    seen: list[tuple[str, Any]] = []

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own hook
        seen.append((event[2], event[3]))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        search()
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)
    read = 0
    with database.engine.connect() as connection:
        for statement, parameters in seen:
            explained = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters
            ).scalar_one()
            plan = explained[0]["Plan"]
            read += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read
