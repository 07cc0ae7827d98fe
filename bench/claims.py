"""The cost of a claim with a long queue of many accounts that take turns.

Compared with a claim of the job with the lowest rank of all accounts, on a separate database without the index of the
turns. Both are measured in alternating blocks.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from bench import figures, postgres
from core import ids
from core.database import Database, Now, Seconds, utcnow
from jobs.events.index import SequenceBlock
from jobs.lifecycle import Priority, Role, Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.store import accounts, claims, dispatch, timeline, turns
from migrations import schema

_AT_ONCE = 2_000
_BLOCKS = 40
_LEASE = timedelta(hours=1)
_OWNER = "bench"

Claiming = Callable[[Database], object]


def by_turn(database: Database) -> object:
    """Claim as workers do."""
    return claims.claim(database, owner=_OWNER, lease=_LEASE)


_JOB = table(Job).c
_BEST = (
    sa.select(_JOB.id)
    .where(*dispatch.eligible())
    .order_by(_JOB.ordering_at, _JOB.id)
    .limit(1)
    .with_for_update(skip_locked=True)
    .cte("best")
)
#: A claim without turns.
_BY_RANK = timeline.Change(
    "claimed",
    source=Status.QUEUED,
    target=Status.RUNNING,
    where=(_JOB.id == sa.select(_BEST.c.id).scalar_subquery(),),
    values={
        "attempt": _JOB.attempt + 1,
        "lease_expires_at": Now(sa.bindparam("b_lease", type_=Seconds())),
        "started_at": sa.func.coalesce(_JOB.started_at, Now()),
    },
    numbers=SequenceBlock.BLOCK,
    shown=("model", "question", "options", "max_attempts"),
)


def by_rank(database: Database) -> object:
    """Claim in the order of submission."""
    with database.transaction("claim") as transaction:
        [job] = timeline.change(
            transaction,
            _BY_RANK,
            actor=f"worker:{_OWNER}",
            bound={"lease_owner": _OWNER, "b_lease": _LEASE},
        )
        return claims.hold(transaction, job, _OWNER)


def fill(database: Database, jobs: int, owners: int) -> None:
    """Put ``jobs`` jobs of ``accounts`` accounts into the queue."""
    account_ids = []
    for number in range(owners):
        name = f"account-{number}"
        accounts.create_key(
            database, accounts.new_key(), pepper=b"p", account=name, role=Role.SUBMIT, name="bench"
        )
        account_ids.append(accounts.account_id(database, name))
    for start in range(0, jobs, _AT_ONCE):
        now = utcnow()
        rows = [
            {
                "id": ids.new(), "account_id": account_ids[number % owners], "status": Status.QUEUED,
                "model": "tiny-qvq", "options": {}, "metadata_": {}, "priority": Priority.NORMAL,
                "ordering_at": now, "not_before": now, "deadline_at": now + timedelta(hours=9), "attempt": 0,
                "crashes": 0, "failures": 0, "max_attempts": 5, "request_id": "req_bench",
                "created_at": now,
            }
            for number in range(start, min(start + _AT_ONCE, jobs))
        ]  # fmt: skip
        with database.transaction() as transaction:
            transaction.execute(sa.insert(Job), rows)
    with database.transaction() as transaction:
        turns.enter_all(transaction, ((account_id, Priority.NORMAL) for account_id in account_ids))


def opened(url: str, *, jobs: int, owners: int, turned: bool) -> Database:
    """Return a new database with a full queue."""
    schema.upgrade(url)
    database = Database(url)
    fill(database, jobs, owners)
    with database.engine.connect() as connection:
        if not turned:
            connection.exec_driver_sql("DROP INDEX ix_jobs_turn")
        if database.dialect == "postgresql":
            connection.exec_driver_sql("ANALYZE")
        connection.commit()
    return database


def family_seconds(pid: int) -> float:
    """Return the CPU seconds of ``pid`` and its living children, in nanoseconds from ``/proc/PID/schedstat``."""
    found = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if pid in (parent, int(path.name)):
                found += int((path / "schedstat").read_text().split()[0])
    return found / 1e9


def cost(act: Claiming, database: Database, count: int, server: int | None) -> tuple[float, float]:
    """Return the CPU seconds and the seconds of ``count`` claims, the database server's CPU included."""

    def cpu() -> float:
        return time.process_time() + (family_seconds(server) if server is not None else 0.0)

    began, used = time.perf_counter(), cpu()
    for _ in range(count):
        if act(database) is None:
            raise SystemExit("The queue was empty too early.")
    return cpu() - used, time.perf_counter() - began


def rows_of(
    name: str, new: Database, old: Database, *, count: int, server: int | None
) -> Iterator[list[str]]:
    """Yield the table's row of one database."""
    for act, database in ((by_turn, new), (by_rank, old)):
        cost(act, database, 50, server)  # A warm-up: statements are compiled and prepared once.
    pairs = [
        (cost(by_turn, new, count, server), cost(by_rank, old, count, server))
        for _ in range(_BLOCKS)
    ]
    ratio = statistics.median(turned[0] / ranked[0] for turned, ranked in pairs)
    used, before = (sum(block[0] for block in blocks) for blocks in zip(*pairs, strict=True))
    taken, took = (
        statistics.median(block[1] for block in blocks) for blocks in zip(*pairs, strict=True)
    )
    total = count * _BLOCKS
    yield [
        name,
        f"{ratio:.2f}",
        f"{used / total * 1e3:.2f}",
        f"{before / total * 1e3:.2f}",
        f"{taken / count * 1e3:.2f}",
        f"{took / count * 1e3:.2f}",
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--accounts", type=int, default=500)
    parser.add_argument("--claims", type=int, default=25, help="in each of 40 blocks")
    requested = parser.parse_args()
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="ll")))
        folder.chmod(0o755)
        server = running.enter_context(postgres.running(folder / "pg"))
        rows: list[list[str]] = []
        for name in ("SQLite", "PostgreSQL"):
            if name == "SQLite":
                urls, pid = [f"sqlite:///{folder / kind}.db" for kind in ("new", "old")], None
            elif server is not None:
                urls, pid = [server.create(), server.create()], server.process.pid
            else:
                continue
            new, old = (
                opened(url, jobs=requested.jobs, owners=requested.accounts, turned=turned)
                for url, turned in zip(urls, (True, False), strict=True)
            )
            rows += rows_of(name, new, old, count=requested.claims, server=pid)
            new.close()
            old.close()
    figures.show(
        f"A claim with {requested.jobs} queued jobs of {requested.accounts} accounts ({figures.machine()})",
        ("database", "CPU, ratio", "by turns, ms CPU", "by rank", "p50 of blocks, ms", "by rank"),
        rows,
    )


if __name__ == "__main__":
    main()
