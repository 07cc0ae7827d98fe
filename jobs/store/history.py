"""Reading jobs: one, a page of them, their attempts, their images, their position in the queue."""

import itertools
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core import errors, ids
from core.database import Database, Transaction
from jobs import filters
from jobs.lifecycle import Status
from jobs.phrases import Phrase
from jobs.records import (
    Attempt,
    FindingEntry,
    Generation,
    Image,
    ImageBytes,
    ImageCrashes,
    Job,
    JobImage,
    table,
)
from jobs.store import findings, positions, search, timeline
from jobs.store.images import FACTS, ImageFacts, ImageView

#: Most characters of questions, answers and votes on a page of jobs; a page ends before the job that would exceed it.
MAX_PAGE_CHARS = 4 * 2**20
#: Ids begin with the time of the host that made them, which is at most this far from the database's.
_CLOCK_SKEW = timedelta(hours=1)
#: At most this many reruns are shown with a job, the newest.
MAX_RERUNS = 100


@dataclass(frozen=True)
class Progress:
    """How far the running attempt is."""

    output_tokens: int
    samples_done: int


@dataclass(frozen=True)
class JobView:
    """A job with all that the API shows of it."""

    job: Job
    images: tuple[ImageView, ...]
    queue: positions.QueuePosition | None = None
    progress: Progress | None = None
    reruns: tuple[uuid.UUID, ...] = ()
    findings: tuple[FindingEntry, ...] = ()


#: Which jobs to list, as :mod:`jobs.filters` parses it.
Filter = filters.Filter


@dataclass(frozen=True)
class AttemptView:
    """An attempt and its generations."""

    attempt: Attempt
    generations: tuple[Generation, ...]


def get(
    database: Database,
    job_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
) -> JobView | None:
    """Return a job, or None when there is no such job (in this account; None: in any account)."""
    with database.reading() as transaction:
        job = transaction.session.get(Job, job_id)
        if job is None or (account_id is not None and job.account_id != account_id):
            return None
        return JobView(
            job=job,
            images=_images(transaction, [job.id]).get(job.id, ()),
            queue=positions.of(transaction, job) if job.status is Status.QUEUED else None,
            progress=_progress(transaction, job) if job.status is Status.RUNNING else None,
            findings=findings.of(transaction, [job.id]).get(job.id, ()),
            reruns=_reruns(transaction, job.id),
        )


def group(
    database: Database, group_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> list[JobView]:
    """Return the jobs of a group, the leader first; empty when there is no such group (in this account)."""
    with database.reading() as transaction:
        wanted = sa.select(Job).where(Job.group_id == group_id).order_by(Job.id)
        jobs = list(transaction.session.scalars(wanted))
        if account_id is not None and any(job.account_id != account_id for job in jobs):
            return []
        images = _images(transaction, [job.id for job in jobs])
        return [JobView(job=job, images=images.get(job.id, ())) for job in jobs]


def accepted(
    database: Database,
    job: Job,
    images: tuple[ImageView, ...],
    forecast: positions.PositionForecast,
) -> JobView:
    """Return a job that was just submitted with ``images``, at a cost that does not grow with the queue."""
    with database.reading() as transaction:
        return JobView(job=job, images=images, queue=forecast.of(transaction, job))


def last_place(
    database: Database, leader: Job, forecast: positions.PositionForecast, *, behind: int
) -> positions.QueuePosition:
    """Return the position of the last job of a group that was just submitted, ``behind`` jobs after its leader."""
    with database.reading() as transaction:
        return forecast.of(transaction, leader, behind=behind)


def exists(database: Database, job_id: uuid.UUID, *, account_id: uuid.UUID | None) -> bool:
    """Return whether there is such a job (in this account; None: in any account)."""
    with database.reading() as transaction:
        owner = transaction.execute(
            sa.select(Job.account_id).where(Job.id == job_id)
        ).scalar_one_or_none()
        return owner is not None and account_id in (None, owner)


def count(database: Database) -> int:
    """Return the number of all jobs. It reads an index from one end to the other."""
    with database.reading() as transaction:
        return transaction.scalar(sa.select(sa.func.count()).select_from(table(Job)))


def job(database: Database, job_id: uuid.UUID, *, account_id: uuid.UUID | None) -> Job | None:
    """Return a job's row alone, or None if it does not exist (in this account; None: in any)."""
    with database.reading() as transaction:
        row = transaction.session.get(Job, job_id)
        return row if row is not None and account_id in (None, row.account_id) else None


def status(database: Database, job_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Status]:
    """Return the status of each of ``job_ids``, in one query."""
    with database.reading() as transaction:
        rows = transaction.execute(sa.select(Job.id, Job.status).where(Job.id.in_(job_ids)))
        return {row.id: row.status for row in rows}


def page(
    database: Database,
    requested: Filter,
    *,
    limit: int,
    after: uuid.UUID | None = None,
    newest_first: bool = True,
) -> tuple[list[JobView], bool]:
    """Return up to ``limit`` jobs beyond ``after`` and whether there are more; five queries, and one per phrase.

    The page has fewer jobs if they would exceed :data:`MAX_PAGE_CHARS` together, but always one if there is one. With
    any filter besides the account the call is a search and takes a share of the searches.

    Raises:
        core.errors.Overloaded: the limit of concurrent searches is reached, and none ended in time.
        core.errors.SearchTooBroad: the search reached its deadline.
    """
    if not requested.given:
        with database.reading() as transaction:
            return _page(transaction, requested, limit, after, newest_first=newest_first)
    try:
        with database.searching(requested.account_id) as transaction:
            return _page(transaction, requested, limit, after, newest_first=newest_first)
    except errors.SearchTooSlow as error:
        raise errors.SearchTooBroad(
            f"The search was stopped because it takes too long. {_advice(requested)}", param="q"
        ) from error


def _advice(requested: Filter) -> str:
    """Return the sentence that names what makes a search faster."""
    given = requested.given
    narrowing = {
        "created_after": "`created:<7d`",
        "statuses": "`status:`",
        "group_id": "`group:`",
        "image_id": "`image:`",
        "metadata": "`meta.KEY:VALUE`",
    }
    if given.get("image_sha256"):
        del narrowing["image_id"]
    missing = [term for name, term in narrowing.items() if name not in given]
    terms = [f"one of {', '.join(missing)}"] if missing else []
    if requested.phrases:
        terms.append("a longer phrase or a rarer word")
    return f"Narrow it with {', or '.join(terms)}." if terms else "Choose a shorter time."


def _page(
    transaction: Transaction,
    requested: Filter,
    limit: int,
    after: uuid.UUID | None,
    *,
    newest_first: bool,
) -> tuple[list[JobView], bool]:
    conditions = _conditions(requested, transaction)
    if after is not None:
        conditions.append(Job.id < after if newest_first else Job.id > after)
    page_ids = _in_order(
        transaction, conditions, _alternatives(requested), limit + 1, newest_first=newest_first
    )
    order = Job.id.desc() if newest_first else Job.id.asc()
    sizes = transaction.execute(
        sa.select(Job.id, _CHARS).where(Job.id.in_(page_ids)).order_by(order)
    ).all()
    fitting = _fitting([row.chars for row in sizes[:limit]])
    more = len(sizes) > fitting
    shown = Job.id.in_([row.id for row in sizes[:fitting]])
    jobs = list(transaction.session.scalars(sa.select(Job).where(shown).order_by(order)))
    images = _images(transaction, [job.id for job in jobs])
    by_job = findings.of(transaction, [job.id for job in jobs])
    views = [
        JobView(job=job, images=images.get(job.id, ()), findings=by_job.get(job.id, ()))
        for job in jobs
    ]
    return views, more


#: The characters of a job's values whose length callers and models choose.
_CHARS = sum(
    (
        sa.func.coalesce(sa.func.length(sa.cast(column, sa.Text)), 0)
        for column in (
            Job.question,
            Job.answer_text,
            Job.answer_tex,
            Job.answer_value,
            Job.votes,
            Job.options,
        )
    ),
    sa.literal(0),
).label("chars")


def _fitting(sizes: Sequence[int]) -> int:
    """Return how many jobs of these sizes, from the first one on, fit on a page."""
    sums = itertools.accumulate(sizes)
    fitting = sum(1 for _ in itertools.takewhile(lambda chars: chars <= MAX_PAGE_CHARS, sums))
    return max(fitting, min(1, len(sizes)))


#: At most this many alternatives are read one by one.
_MOST_ALTERNATIVES = 12
#: One of them holds for a job that is wanted, and the jobs it holds for are few or can be read in order.
_Alternatives = Sequence[tuple[sa.ColumnElement[bool], ...]]


def _alternatives(requested: Filter) -> _Alternatives:
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


def _in_order(
    transaction: Transaction,
    conditions: Sequence[sa.ColumnElement[bool]],
    alternatives: _Alternatives,
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
    for number, alternative in enumerate(alternatives):
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


def _reruns(transaction: Transaction, job_id: uuid.UUID) -> tuple[uuid.UUID, ...]:
    newest = (
        sa.select(Job.id).where(Job.rerun_of == job_id).order_by(Job.id.desc()).limit(MAX_RERUNS)
    )
    return tuple(reversed(transaction.session.scalars(newest).all()))


def _conditions(requested: Filter, transaction: Transaction) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if requested.account_id is not None:
        conditions.append(Job.account_id == requested.account_id)
    if requested.findings:
        conditions.append(findings.among(requested.findings))
    if requested.group_id is not None:
        conditions.append(Job.group_id == requested.group_id)
    if requested.created_after is not None:
        conditions += _created_after(requested.created_after)
    if requested.created_before is not None:
        conditions += _created_before(requested.created_before)
    conditions += [
        _metadata_holds(transaction, key, value) for key, value in requested.metadata.items()
    ]
    conditions += [
        search.holds(transaction, Phrase.of(text), account_id=requested.account_id)
        for text in requested.phrases
    ]
    wanted = sa.select(JobImage.job_id).join(Image, Image.id == JobImage.image_id)
    if requested.image_id is not None:
        conditions.append(Job.id.in_(wanted.where(Image.id == requested.image_id)))
    if requested.image_sha256 is not None:
        conditions.append(Job.id.in_(_of_file(transaction, requested)))
    return conditions


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
    return Job.created_at >= moment, Job.id >= ids.earliest(moment - _CLOCK_SKEW)


def _created_before(moment: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return Job.created_at < moment, Job.id < ids.earliest(moment + _CLOCK_SKEW)


def _metadata_holds(transaction: Transaction, key: str, value: str) -> sa.ColumnElement[bool]:
    """Return the condition of a job to have this pair of metadata; SQLite has a table of them as an index."""
    if transaction.dialect == "postgresql":
        return Job.metadata_.op("@>", is_comparison=True)({key: value})
    holding = sa.select(_PAIRS.c.job_id).where(_PAIRS.c.key == key, _PAIRS.c.value == value)
    few = holding.limit(_FEW_PAIRS + 1).subquery()
    if transaction.scalar(sa.select(sa.func.count()).select_from(few)) <= _FEW_PAIRS:
        return Job.id.in_(holding)
    # SQLite would collect all of them for a page. One job after the other, a page is soon full.
    return holding.where(_PAIRS.c.job_id == Job.id).correlate(table(Job)).exists()


#: On SQLite, the jobs of a pair of metadata are collected if there are at most this many.
_FEW_PAIRS = 20_000
#: The pairs of metadata on SQLite; revision 0105 has the triggers that write them.
_PAIRS = sa.table(
    "search_index_metadata",
    sa.column("key", sa.Text()),
    sa.column("value", sa.Text()),
    sa.column("job_id", sa.Uuid()),
)


def attempts(database: Database, job_id: uuid.UUID) -> list[AttemptView]:
    """Return every attempt of a job with its generations, in order."""
    with database.reading() as transaction:
        generations: dict[int, list[Generation]] = {}
        for generation in transaction.session.scalars(
            sa.select(Generation)
            .where(Generation.job_id == job_id)
            .order_by(Generation.attempt, Generation.number)
        ):
            generations.setdefault(generation.attempt, []).append(generation)
        rows = transaction.session.scalars(
            sa.select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)
        )
        return [AttemptView(row, tuple(generations.get(row.number, ()))) for row in rows]


def image(database: Database, image_id: uuid.UUID, *, account_id: uuid.UUID | None) -> Image | None:
    """Return an image whose bytes are stored, or None (in this account; None: in any account)."""
    with database.reading() as transaction:
        row = transaction.session.get(Image, image_id)
        if row is None or row.removed_at is not None:
            return None
        return row if account_id in (None, row.account_id) else None


_IMAGE = table(Image).c
_JOB_IMAGE = table(JobImage).c
_CRASHES = table(ImageCrashes).c
_FACTS = sa.select(*FACTS)
_IMAGES = (
    _FACTS.add_columns(_CRASHES.quarantined_at)
    .outerjoin_from(
        table(Image),
        table(ImageCrashes),
        sa.and_(_CRASHES.account_id == _IMAGE.account_id, _CRASHES.image_key == _IMAGE.image_key),
    )
    .where(
        _IMAGE.id.in_(sa.bindparam("image_ids", expanding=True)),
        _IMAGE.account_id == sa.bindparam("account_id"),
    )
)


def images(
    database: Database, image_ids: Collection[uuid.UUID], *, account_id: uuid.UUID
) -> dict[uuid.UUID, ImageFacts]:
    """Return those of ``image_ids`` that are this account's, by id, including quarantined images and removed ones."""
    with database.reading() as transaction:
        rows = transaction.execute(
            _IMAGES, {"image_ids": list(image_ids), "account_id": account_id}
        )
        return {row["id"]: ImageFacts(**row) for row in rows.mappings()}


def image_bytes(database: Database, image: Image) -> bytes | None:
    """Return an image's canonical bytes, or None when they were just removed."""
    with database.reading() as transaction:
        row = transaction.session.get(ImageBytes, (image.account_id, image.image_key))
        return None if row is None else row.data


_IMAGES_OF_JOBS = (
    _FACTS.add_columns(_JOB_IMAGE.job_id, _JOB_IMAGE.tokens)
    .join(table(JobImage), _IMAGE.id == _JOB_IMAGE.image_id)
    .where(_JOB_IMAGE.job_id.in_(sa.bindparam("job_ids", expanding=True)))
    .order_by(_JOB_IMAGE.job_id, _JOB_IMAGE.position)
)


def _images(
    transaction: Transaction, job_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, tuple[ImageView, ...]]:
    if not job_ids:
        return {}
    rows = transaction.execute(_IMAGES_OF_JOBS, {"job_ids": list(job_ids)})
    by_job: dict[uuid.UUID, tuple[ImageView, ...]] = {}
    for row in rows.mappings():
        facts = dict(row)
        job_id, tokens = facts.pop("job_id"), facts.pop("tokens")
        by_job[job_id] = (*by_job.get(job_id, ()), ImageView(ImageFacts(**facts), tokens))
    return by_job


def _progress(transaction: Transaction, job: Job) -> Progress:
    row = transaction.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(Generation.output_tokens), 0).label("tokens"),
            sa.func.count(Generation.ended_at).label("done"),
        ).where(Generation.job_id == job.id, Generation.attempt == job.attempt)
    ).one()
    return Progress(output_tokens=row.tokens, samples_done=row.done)
