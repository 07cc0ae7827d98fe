"""Reads of a long history: each at 10,000 jobs and at millions, by the store, with the factor between them.

``--jobs`` sets the number of jobs on PostgreSQL; SQLite gets a quarter of it. The queue has 20,000 jobs at both sizes,
or half of the jobs if they are fewer. The files are temporary, about 1.5 GB for each million jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from bench import crowd, figures, postgres
from core.database import Database, utcnow
from jobs import filters
from jobs.store import expiry, traces
from jobs.store import history as store
from jobs.store import statistics as queue
from migrations import schema
from webhooks import claims as deliveries

_SMALL = 10_000
_QUEUED = 20_000
_ROUNDS = 9
_VIEWS = Path(__file__).parent.parent / "docs" / "reference" / "sql-views.md"
_QUERIES = (
    "status:failed",
    "status:cancelled status:failed",
    "status:running",
    "error:engine_fault",
    "error:engine_fault error:worker_lost",
    "error:engine_rejected",
    "created:<2h",
    "created:>7d",
    "created:>90d",
    "created:>170d",
    "created:>200d",
    "meta.case:77",
    "meta.case:none",
    "meta.fleet:a",
    "meta.fleet:b",
    f"image:{crowd.IMAGE_SHA256}",
    "account:large",
    "crashes:>0",
    "crashes:>5",
    'engine:"http://engine-1"',
    "engine:none",
    f"worker:{crowd.OWNER}",
    f"worker:{crowd.LOSER}",
    "rerun:any",
    "rerun:none",
    crowd.OLD_WORD,
)
Read = Callable[[], object]


def reads(database: Database, facts: crowd.Crowd) -> dict[str, Read]:
    """Return the reads by their names."""
    large, _, small = facts.accounts
    day = utcnow().date() - timedelta(days=150)
    with database.reading() as transaction:
        half = transaction.execute(
            sa.text("SELECT id FROM jobs ORDER BY id LIMIT 1 OFFSET :half").columns(id=sa.Uuid()),
            {"half": facts.jobs // 2},
        ).scalar_one()
    pages: dict[str, Callable[[], store.Filter]] = {
        "all": lambda: store.Filter(None),
        "of an account": lambda: store.Filter(large),
        "of a small account": lambda: store.Filter(small),
    }
    cancelled, rerun = (f"operation:op_{operation.hex}" for operation in facts.operations)
    scarce = (f"created:{day}", f"created:{day} status:failed")
    for query in (*_QUERIES, cancelled, rerun, *scarce):
        name = re.sub(r"[0-9a-f]{64}", "SHA256", query).replace(str(day), "a day")
        name = name.replace(cancelled, "operation: a cancel").replace(rerun, "operation: a rerun")
        pages[name] = lambda query=query: filters.parse(query, now=utcnow())  # type: ignore[misc] # bound now
    found: dict[str, Read] = {}
    for name, wanted in pages.items():
        # Of these, 10,000 jobs do not fill a page.
        limit = 1 if "a day" in name or "small" in name else 100
        title = f"list: {name}" if limit > 1 else f"list of one: {name}"
        found[title] = lambda wanted=wanted, limit=limit: store.page(  # type: ignore[misc] # bound now
            database, wanted(), limit=limit
        )
    found["list: all, from the middle"] = lambda: store.page(
        database, store.Filter(None), limit=100, after=half
    )
    found["list: all, oldest first"] = lambda: store.page(
        database, store.Filter(None), limit=100, newest_first=False
    )
    return found | {
        "/v1/queue": lambda: queue.queue(database, account_id=None),
        "/v1/queue of an account": lambda: queue.queue(database, account_id=large),
        "/metrics": lambda: _metrics(database),
        "a job": lambda: store.get(database, half, account_id=None),
        "its trace": lambda: traces.newest(database, half, chars=1_000_000),
        "the last queued job": lambda: store.get(database, facts.last, account_id=None),
        "due jobs": lambda: expiry.due(database, limit=64),
    }


def _metrics(database: Database) -> None:
    queue.waiting(database)
    queue.held(database)
    deliveries.backlog(database)


def views(database: Database) -> dict[str, Read]:
    """Return the documented queries of the views for this database, by their titles."""
    text = _VIEWS.read_text().partition("## Queries")[2]
    wanted = "PostgreSQL" if database.dialect == "postgresql" else "SQLite"
    found: dict[str, Read] = {}
    for section in text.split("\n### ")[1:]:
        title = section.partition("\n")[0]
        for name, query in re.findall(r"```sql\n-- (\w+)[^\n]*\n(.*?)```", section, re.DOTALL):
            if name in ("both", wanted):
                found[f"view: {title}"] = lambda query=query: _rows(database, query)  # type: ignore[misc] # bound now
    return found


def _rows(database: Database, query: str) -> None:
    with database.reading() as transaction:
        transaction.execute(sa.text(re.sub(r":(?=\w)", r"\:", query))).all()


@contextlib.contextmanager
def filled(
    url: str, jobs: int, *, queued: int, days: float = crowd.DAYS
) -> Iterator[dict[str, Read]]:
    """Fill a new database with ``jobs`` jobs of ``days``, of which ``queued`` wait; yield its reads."""
    schema.upgrade(url)
    with contextlib.closing(Database(url, search_seconds=60)) as database:
        facts = crowd.fill(database, jobs, queued=queued, days=days)
        yield reads(database, facts) | views(database)


def rows_of(name: str, make: Callable[[], str], jobs: int) -> Iterator[list[str]]:
    """Yield the table's rows of one database. The sizes take turns: other work on the machine slows down both.

    A view with a time reads the jobs of that time, so it is compared with 10,000 jobs of the same rate.
    """
    with (
        filled(make(), _SMALL, queued=_SMALL // 2) as small,
        filled(make(), _SMALL, queued=1_000, days=crowd.DAYS * _SMALL / jobs) as dense,
        filled(make(), jobs, queued=min(_QUEUED, jobs // 2)) as large,
    ):
        timed = [read for read in dense if read.startswith("view: ") and read != "view: Stuck"]
        small |= {read: dense[read] for read in timed}
        for read in large:
            times = [(_ms(small[read]), _ms(large[read])) for _ in range(_ROUNDS)]
            few, many = map(statistics.median, zip(*times, strict=True))
            yield [f"{name}: {read}", f"{few:.1f}", f"{many:.1f}", f"{many / few:.1f}"]


def _ms(read: Read) -> float:
    began = time.perf_counter()
    read()
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2_000_000)
    jobs: int = parser.parse_args().jobs
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="ll")))
        names = itertools.count()
        rows = list(
            rows_of("SQLite", lambda: f"sqlite:///{folder / f'{next(names)}.db'}", jobs // 4)
        )
        folder.chmod(0o755)
        server = running.enter_context(postgres.running(folder / "pg"))
        if server is not None:
            rows += rows_of("PostgreSQL", server.create, jobs)
    figures.show(
        f"Reads of {_SMALL} jobs and of {jobs} (SQLite: {jobs // 4}), p50 of {_ROUNDS} ({figures.machine()})",
        ("read", "10,000 jobs, ms", "all, ms", "factor"),
        rows,
    )


if __name__ == "__main__":
    main()
