"""What jobs used: their number, tokens and engine time, by day, model and account.

The day is that of the submission (UTC). A job's id contains that time, so the jobs of a range are read off the primary
key, or off the index of their account, whatever the history has before and after it.
"""

import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from core import errors, ids
from core.database import Database
from jobs.lifecycle import Status
from jobs.records.accounts import Account
from jobs.records.declarative import table
from jobs.records.jobs import Job

#: The longest range.
MOST_DAYS: Final = 93
#: Maximum number of rows: more are no report, but an export.
MOST_ROWS: Final = 10_000
#: Ids contain the time of the host that generated them; no host's clock is further off than this.
_SKEW: Final = timedelta(minutes=5)

_JOB = table(Job).c


class Dimension(enum.StrEnum):
    """What consumption is grouped by."""

    DAY = enum.auto()
    MODEL = enum.auto()
    ACCOUNT = enum.auto()


@dataclass(frozen=True)
class Consumption:
    """What the jobs of one group used. Of a job with several attempts the last one counts.

    Attributes:
        day: in UTC, as ``2026-11-30``; None if it is no part of the group, as the two below.
        model: the name of the model.
        account_id: the account of the jobs.
        jobs: submitted jobs.
        succeeded: those that succeeded so far, as the two below.
        input_tokens: prompts with their images, of ended jobs, as all below.
        cached_tokens: those of them that the engine had in its cache.
        image_tokens: those of them that are of images.
        output_tokens: reasoning and answers.
        engine_seconds: time that an engine generated.
    """

    day: str | None
    model: str | None
    account_id: uuid.UUID | None
    jobs: int
    succeeded: int
    failed: int
    cancelled: int
    input_tokens: int
    cached_tokens: int
    image_tokens: int
    output_tokens: int
    engine_seconds: float


def consumption(
    database: Database,
    *,
    account_id: uuid.UUID | None,
    since: datetime,
    until: datetime,
    by: Sequence[Dimension],
) -> list[Consumption]:
    """Return what the jobs that were submitted from ``since`` to before ``until`` used, in the order of ``by``.

    It takes a share of the searches.

    Args:
        database: where jobs are stored.
        account_id: the account of the jobs; None: all accounts.
        since: the start of the range.
        until: its end.
        by: what makes a group; without it all jobs are one.

    Raises:
        core.errors.SearchTooBroad: the range has too many jobs, or more than :data:`MOST_ROWS` groups.
        core.errors.Overloaded: the limit of concurrent searches is reached, and none ended in time.
    """
    statement = _statement(database.dialect, account_id, since, until, by)
    try:
        with database.searching(account_id) as transaction:
            rows = transaction.execute(statement).all()
    except errors.SearchTooSlow as error:
        raise errors.SearchTooBroad(
            "The report was stopped because it takes too long. Choose a shorter range.",
            param="since",
        ) from error
    if len(rows) > MOST_ROWS:
        raise errors.SearchTooBroad(
            f"A report has at most {MOST_ROWS:,} rows; this one has more. Choose a shorter range, or group by less.",
            param="by",
        )
    return [_consumption(row._mapping) for row in rows]  # noqa: SLF001 - public


_SUMS: Final = ("input_tokens", "cached_tokens", "image_tokens", "output_tokens", "engine_seconds")
_ENDS: Final = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


def _statement(
    dialect: str,
    account_id: uuid.UUID | None,
    since: datetime,
    until: datetime,
    by: Sequence[Dimension],
) -> sa.Select[*tuple[object, ...]]:
    groups = {
        Dimension.DAY: _day(dialect).label("day"),
        Dimension.MODEL: _JOB.model.label("model"),
        Dimension.ACCOUNT: _JOB.account_id.label("account_id"),
    }
    keys = [groups[dimension] for dimension in dict.fromkeys(by)]
    return (
        sa.select(
            *keys,
            sa.func.count().label("jobs"),
            *(sa.func.count().filter(_JOB.status == end).label(str(end)) for end in _ENDS),
            *(sa.func.sum(_JOB[name]).label(name) for name in _SUMS),
        )
        .where(
            _JOB.id >= ids.earliest(since, offset=-_SKEW),
            _JOB.id < ids.earliest(until, offset=_SKEW),
            _JOB.created_at >= since,
            _JOB.created_at < until,
            *(() if account_id is None else (_JOB.account_id == account_id,)),
        )
        .group_by(*keys)
        .having(sa.func.count() > 0)
        .order_by(*keys)
        .limit(MOST_ROWS + 1)
    )


def _day(dialect: str) -> sa.ColumnElement[str]:
    """Return the day of a job's submission, in UTC."""
    if dialect == "sqlite":
        return sa.func.date(_JOB.created_at, type_=sa.String())
    return sa.func.to_char(sa.func.timezone("UTC", _JOB.created_at), "YYYY-MM-DD")


def _consumption(row: sa.RowMapping) -> Consumption:
    return Consumption(
        day=row.get("day"),
        model=row.get("model"),
        account_id=row.get("account_id"),
        jobs=row["jobs"],
        succeeded=row["succeeded"],
        failed=row["failed"],
        cancelled=row["cancelled"],
        input_tokens=int(row["input_tokens"] or 0),
        cached_tokens=int(row["cached_tokens"] or 0),
        image_tokens=int(row["image_tokens"] or 0),
        output_tokens=int(row["output_tokens"] or 0),
        engine_seconds=float(row["engine_seconds"] or 0),
    )


def account_names(database: Database, account_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Return the names of accounts by their ids."""
    account = table(Account).c
    with database.reading() as transaction:
        rows = transaction.execute(
            sa.select(account.id, account.name).where(account.id.in_(account_ids))
        )
        return {row.id: row.name for row in rows}
