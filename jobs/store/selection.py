"""Which jobs a filter matches: the conditions in SQL, and their ids in order."""

import itertools
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core import ids
from core.database import Transaction
from jobs.filters import Filter
from jobs.lifecycle import Status
from jobs.phrases import Phrase
from jobs.records.accounts import Account
from jobs.records.declarative import table
from jobs.records.images import Image, JobImage
from jobs.records.jobs import Job
from jobs.store import findings, metadata, neighbors, search, timeline

#: Ids begin with the time of the host that made them, which is at most this far from the database's.
_CLOCK_SKEW = timedelta(hours=1)
#: At most this many alternatives are read one by one.
_MOST_ALTERNATIVES = 12
#: One of them holds for a job that is wanted, and the jobs it holds for are few or can be read in order.
Alternatives = Sequence[tuple[sa.ColumnElement[bool], ...]]


def alternatives(requested: Filter) -> Alternatives:
    """Return the combinations of the statuses and error codes that are wanted.

    Their number is limited, and phrases are searched for once, not once per combination.
    """
    statuses = list(map(_standing, requested.statuses)) or [sa.true()]
    codes = [Job.error_code == code for code in requested.error_codes] or [sa.true()]
    if len(statuses) * len(codes) > _MOST_ALTERNATIVES or requested.phrases:
        return [(sa.or_(*statuses), sa.or_(*codes))]
    return list(itertools.product(statuses, codes))


def _standing(status: Status) -> sa.ColumnElement[bool]:
    """Return the condition of having ``status``, in the form of SQLite's index of ended jobs."""
    if status.terminal:
        return sa.and_(
            timeline.standing(status), Job.finished_at.is_not(None), Job.lease_owner.is_(None)
        )
    return timeline.standing(status)


def in_order(
    transaction: Transaction,
    conditions: Sequence[sa.ColumnElement[bool]],
    alternatives_: Alternatives,
    limit: int,
    *,
    newest_first: bool,
) -> Sequence[uuid.UUID]:
    """Return the first ``limit`` ids of the jobs that meet all conditions and one of the alternatives.

    Each alternative is read in the order of its index. With a condition for several values, the databases read all
    jobs in the order of their ids, until enough of them have one of the values.
    """
    order = sa.desc if newest_first else sa.asc
    parts = []
    for number, alternative in enumerate(alternatives_):
        wanted = sa.select(Job.id).where(*conditions, *alternative)
        key = _key(alternative, transaction.dialect)
        part = wanted.order_by(order(key)).limit(limit).subquery(f"part_{number}")
        parts.append(sa.select(part.c.id))
    united = sa.union_all(*parts).subquery("united") if len(parts) > 1 else None
    statement = parts[0] if united is None else sa.select(united.c.id)
    id_ = statement.selected_columns[0]
    return transaction.execute(statement.order_by(order(id_)).limit(limit)).scalars().all()


def _key(alternative: Sequence[sa.ColumnElement[bool]], dialect: str) -> sa.ColumnElement[Any]:
    """Return what to order an alternative by: the id.

    SQLite would walk all jobs by the bare column, rather than sort the few of a partial index.
    """
    few = [str(timeline.standing(status)) for status in (Status.QUEUED, Status.RUNNING)]
    if dialect == "sqlite" and any(str(condition) in few for condition in alternative):
        return sa.func.coalesce(Job.id, Job.id)
    return table(Job).c.id


def conditions(requested: Filter, transaction: Transaction) -> list[sa.ColumnElement[bool]]:
    """Return all conditions."""
    either = (sa.and_(*alternative) for alternative in alternatives(requested))
    return [*common_conditions(requested, transaction), sa.or_(*either)]


def common_conditions(requested: Filter, transaction: Transaction) -> list[sa.ColumnElement[bool]]:
    """Return the conditions, without those that :func:`in_order` has as alternatives: status and error code."""
    conditions = [
        *_facts(requested),
        *_bounds(requested),
        *_neighbors(requested, transaction),
    ]
    conditions += [
        metadata.holds(transaction, key, value) for key, value in requested.metadata.items()
    ]
    conditions += [
        search.holds(transaction, Phrase.of(text), account_id=requested.account_id)
        for text in requested.phrases
    ]
    return conditions


def _facts(requested: Filter) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions on a job's own columns."""
    if requested.account_id is not None:
        yield Job.account_id == requested.account_id
    if requested.account is not None:
        yield Job.account_id == _account_id(requested.account)
    if requested.crashes_above is not None:
        yield Job.crashes > requested.crashes_above
        if requested.crashes_above >= 0:
            # In the form of the index of such jobs.
            yield Job.crashes > sa.literal_column("0")
    if requested.group_id is not None:
        yield Job.group_id == requested.group_id


def _bounds(requested: Filter) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the bounds of a job's id and of its creation."""
    if requested.first_id is not None:
        yield Job.id >= requested.first_id
    if requested.last_id is not None:
        yield Job.id <= requested.last_id
    if requested.created_after is not None:
        yield from _created_after(requested.created_after)
    if requested.created_before is not None:
        yield from _created_before(requested.created_before)


def _neighbors(requested: Filter, transaction: Transaction) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions on rows of other tables that belong to the job."""
    if requested.rerun is not None:
        has_none = requested.rerun == "none"
        yield neighbors.has_no_rerun() if has_none else neighbors.has_rerun(transaction)
    if requested.operation_id is not None:
        yield neighbors.changed_by(transaction, requested.operation_id)
    if requested.findings:
        yield findings.among(requested.findings)
    if requested.engine is not None:
        yield neighbors.ran_on(transaction, requested.engine)
    if requested.worker is not None:
        yield neighbors.ran_by(transaction, requested.worker)
    wanted = sa.select(JobImage.job_id).join(Image, Image.id == JobImage.image_id)
    if requested.image_id is not None:
        yield Job.id.in_(wanted.where(Image.id == requested.image_id))
    if requested.image_sha256 is not None:
        yield Job.id.in_(_of_file(transaction, requested))


def _account_id(account: str) -> sa.ColumnElement[uuid.UUID] | sa.ScalarSelect[uuid.UUID]:
    """Return the id of the account with this name or id; SQL's NULL, which matches no job, if it does not exist."""
    given = ids.parse("acct", account)
    if given is not None:
        return sa.literal(given)
    return sa.select(Account.id).where(Account.name == account).scalar_subquery()


def _of_file(transaction: Transaction, requested: Filter) -> sa.Select[uuid.UUID]:
    """Return the jobs of an original file, by the ids of its images.

    A join instead makes PostgreSQL expect a few jobs, and sort all of a file that thousands share.
    """
    images = sa.select(Image.id).where(Image.original_sha256 == requested.image_sha256)
    if requested.account_id is not None:
        images = images.where(Image.account_id == requested.account_id)
    image_ids = transaction.session.scalars(images).all()
    return sa.select(JobImage.job_id).where(JobImage.image_id.in_(image_ids))


# The bound of the ids finds the jobs; the column decides.


def _created_after(moment: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return Job.created_at >= moment, Job.id >= ids.earliest(moment, offset=-_CLOCK_SKEW)


def _created_before(moment: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return Job.created_at < moment, Job.id < ids.earliest(moment, offset=_CLOCK_SKEW)
