"""What jobs used, by day, model and account, read without the history before and after the range."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from core import errors, ids
from core.database import Database
from jobs.lifecycle import Status
from jobs.store import consumption
from jobs.store.consumption import Dimension
from tests import factories

DAY = datetime(2026, 3, 1, tzinfo=UTC)
USED = {
    "input_tokens": 100,
    "cached_tokens": 40,
    "image_tokens": 60,
    "output_tokens": 7,
    "engine_seconds": 1.5,
}


def job(at: datetime, status: Status = Status.SUCCEEDED, **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    """Return the row of a job that was submitted at a time."""
    ended = {"finished_at": at + timedelta(minutes=1), **USED} if status.terminal else {}
    made = uuid.UUID(int=ids.earliest(at).int + ids.new().int % 2**80)
    return {"id": made, "created_at": at, "status": status, **ended, **facts}


def used(database: Database, *by: Dimension, **changes: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any argument
    """Return the report as dictionaries, without what is None or 0."""
    wanted: dict[str, Any] = {"account_id": None, "since": DAY, "until": DAY + timedelta(days=7)}
    rows = consumption.consumption(database, by=by, **wanted | changes)
    return [
        {name: value for name, value in dataclasses.asdict(row).items() if value} for row in rows
    ]


def test_jobs_are_added_up_by_the_day_of_their_submission_in_utc(
    database: Database, account_id: uuid.UUID
) -> None:
    east = DAY.replace(tzinfo=UTC).astimezone()
    rows = [
        job(DAY),
        job(east + timedelta(hours=23, minutes=59), Status.FAILED),
        job(DAY + timedelta(days=1), Status.CANCELLED),
        job(DAY + timedelta(days=1), Status.QUEUED),
    ]
    factories.insert_jobs(database, account_id, rows)

    twice = {name: 2 * value for name, value in USED.items()}
    assert used(database, Dimension.DAY) == [
        {"day": "2026-03-01", "jobs": 2, "succeeded": 1, "failed": 1, **twice},
        {"day": "2026-03-02", "jobs": 2, "cancelled": 1, **USED},
    ]


def test_the_start_belongs_to_the_range_and_the_end_does_not(
    database: Database, account_id: uuid.UUID
) -> None:
    second = timedelta(seconds=1)
    times = (DAY - second, DAY, DAY + timedelta(days=7) - second, DAY + timedelta(days=7))
    factories.insert_jobs(database, account_id, [job(at) for at in times])

    assert [row["day"] for row in used(database, Dimension.DAY)] == ["2026-03-01", "2026-03-07"]


def test_rows_are_by_model_and_account_and_only_of_the_account_that_is_named(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    factories.insert_jobs(database, account_id, [job(DAY, model="a"), job(DAY, model="b")])
    factories.insert_jobs(database, other, [job(DAY, model="b"), job(DAY, model="b")])

    both = used(database, Dimension.MODEL, Dimension.ACCOUNT)
    mine = used(database, Dimension.MODEL, account_id=other)

    assert {(row["model"], row["account_id"]): row["jobs"] for row in both} == {
        ("a", account_id): 1,
        ("b", account_id): 1,
        ("b", other): 2,
    }
    assert [row["model"] for row in both] == ["a", "b", "b"]
    assert [(row["model"], row["jobs"]) for row in mine] == [("b", 2)]


def test_without_a_dimension_all_jobs_are_one_row_and_no_job_is_none(
    database: Database, account_id: uuid.UUID
) -> None:
    assert used(database) == []
    factories.insert_jobs(database, account_id, [job(DAY), job(DAY + timedelta(days=2))])
    assert [row["jobs"] for row in used(database)] == [2]


def test_a_report_with_too_many_rows_is_refused(database: Database, account_id: uuid.UUID) -> None:
    rows = [job(DAY, model=f"m{number:05}") for number in range(consumption.MOST_ROWS + 1)]
    for start in range(0, len(rows), 500):
        factories.insert_jobs(database, account_id, rows[start : start + 500])

    with pytest.raises(errors.SearchTooBroad) as caught:
        used(database, Dimension.MODEL)
    assert caught.value.param == "by"
    assert len(used(database, Dimension.DAY)) == 1


@pytest.mark.parametrize("of_account", [True, False])
def test_the_jobs_of_the_range_are_found_by_their_ids(
    database: Database, account_id: uuid.UUID, *, of_account: bool
) -> None:
    days = [DAY + timedelta(hours=number) for number in range(-3000, 3000)]
    factories.insert_jobs(database, account_id, [job(at) for at in days])
    statements: list[tuple[str, Any]] = []

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own hook
        statements.append((event[2], event[3]))

    with database.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    sa.event.listen(database.engine, "before_cursor_execute", note)
    used(database, Dimension.DAY, account_id=account_id if of_account else None)
    sa.event.remove(database.engine, "before_cursor_execute", note)

    [(statement, parameters)] = [seen for seen in statements if "FROM jobs" in seen[0]]
    explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
    with database.engine.connect() as connection:
        lines = connection.exec_driver_sql(explain + statement, parameters)
        plan = "\n".join(str(line[-1]) for line in lines)
    assert "id>? AND id<?" in plan.replace("=", "") or "Index Cond: " in plan, plan
    assert "Seq Scan" not in plan, plan
