"""Pages of jobs found by a phrase among many jobs: rare and frequent phrases, the first page and a late one.

Compared with the same page without a phrase, on the same database. ``--jobs`` sets the number of jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from bench import figures, postgres
from core import ids
from core.database import Database, utcnow
from jobs import phrases
from jobs.lifecycle import Priority, Role, Status
from jobs.phrases import Part
from jobs.records.jobs import Job
from jobs.records.search import SearchText
from jobs.store import accounts, history
from migrations import schema

_AT_ONCE = 2_000
_ROUNDS = 9
_ACCOUNTS = 8
_WORDS = 120
_PHRASES = {
    "in one job": "case 00000777",
    "in one of 40": "word4711",
    "in every job": "a long look",
    "in every job, Chinese": "有圆形",
    "its words in every job, the phrase in none": "look long a",
    "in none": "zebra crossing",
}


def fill(database: Database, jobs: int) -> tuple[uuid.UUID, uuid.UUID]:
    """Store ``jobs`` jobs with traces of some hundred words; return an account and one of its early jobs."""
    rng = random.Random(1)
    vocabulary = [f"word{number}" for number in range(5_000)]
    owners = []
    for number in range(_ACCOUNTS):
        name = f"account-{number}"
        accounts.create_key(
            database, accounts.new_key(), pepper=b"p", account=name, role=Role.READ, name="bench"
        )
        owners.append(accounts.account_id(database, name))
    early = ids.new()
    for start in range(0, jobs, _AT_ONCE):
        rows, texts = [], []
        for number in range(start, min(start + _AT_ONCE, jobs)):
            now = utcnow()
            row = {
                "id": ids.new(), "account_id": owners[number % _ACCOUNTS], "status": Status.SUCCEEDED,
                "model": "tiny-qvq", "options": {}, "metadata_": {}, "priority": Priority.NORMAL,
                "ordering_at": now, "not_before": now, "deadline_at": now + timedelta(hours=1), "attempt": 1,
                "crashes": 0, "failures": 0, "max_attempts": 5, "request_id": "req_bench",
                "created_at": now, "started_at": now, "finished_at": now,
            }  # fmt: skip
            words = " ".join(rng.choices(vocabulary, k=_WORDS))
            trace = f"Let me take a long look at case {number:08}: 有圆形。 {words}"
            rows.append(row)
            texts += [
                {"job_id": row["id"], "account_id": row["account_id"], "part": Part.TRACE, "text": text}
                for text in phrases.spellings(trace)
            ]  # fmt: skip
        if start <= jobs // 50:
            early = ids.new()
        with database.transaction() as transaction:
            transaction.execute(sa.insert(Job), rows)
            transaction.execute(sa.insert(SearchText), texts)
    return owners[0], early


def page_ms(database: Database, account_id: uuid.UUID, phrase: str, after: uuid.UUID | None) -> str:
    """Return the median time of a page in milliseconds."""
    requested = history.Filter(account_id=account_id, phrases=(phrase,) if phrase else ())
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        history.page(database, requested, limit=20, after=after)
        times.append(time.perf_counter() - began)
    return f"{statistics.median(times) * 1e3:.1f}"


def rows_of(name: str, url: str, jobs: int) -> Iterator[list[str]]:
    """Yield the table's rows of one database."""
    schema.upgrade(url)
    database = Database(url)
    try:
        account_id, early = fill(database, jobs)
        if database.dialect == "postgresql":
            with database.engine.connect() as connection:
                connection.exec_driver_sql("ANALYZE")
                connection.commit()
        for what, phrase in {"no phrase": "", **_PHRASES}.items():
            first = page_ms(database, account_id, phrase, None)
            yield [f"{name}: {what}", first, page_ms(database, account_id, phrase, early)]
    finally:
        database.close()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    jobs: int = parser.parse_args().jobs
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="ll")))
        rows = list(rows_of("SQLite", f"sqlite:///{folder / 'bench.db'}", jobs))
        folder.chmod(0o755)
        server = running.enter_context(postgres.running(folder / "pg"))
        if server is not None:
            rows += rows_of("PostgreSQL", server.create(), jobs)
    figures.show(
        f"A page of 20 of {jobs} jobs of {_ACCOUNTS} accounts, p50 of {_ROUNDS} ({figures.machine()})",
        ("phrase", "first page, ms", "late page, ms"),
        rows,
    )


if __name__ == "__main__":
    main()
