"""Whatever is done to a job, by whom and in whatever order: its rules hold."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import sqlalchemy as sa
from hypothesis import strategies as st

from core import errors
from core.database import Database
from jobs.answers.extraction import Answer
from jobs.lifecycle import TRANSITIONS, Outcome, Status
from jobs.records.attempts import Attempt, Generation, TraceChunk
from jobs.records.jobs import Job
from jobs.records.timeline import TimelineEntry
from jobs.store import claims, commands, expiry, history, purge, retention, settle, timeline, traces
from tests import databases, factories
from tests.databases import Age

FAULT = settle.Failure(code="engine_fault", message="The engine failed.", retryable=True)
DEAD = timedelta(seconds=-1)
TIMES = {"not_before", *(name for name in timeline.REPORTED if name.endswith("_at"))}
MINUTE = timedelta(seconds=60)
PERIODS = purge.Periods(image=MINUTE, trace=MINUTE, answer=MINUTE, timeline=MINUTE)


@dataclass
class World:
    """One job and everybody who has ever held it."""

    database: Database
    age: Age
    job_id: uuid.UUID
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    claimed: list[claims.Claim] = field(default_factory=list)
    pieces: int = 0

    def claim(self, lease: timedelta) -> None:
        claimed = claims.claim(self.database, owner=f"worker-{len(self.claimed)}", lease=lease)
        if claimed is not None:
            self.claimed.append(claimed)

    def holder(self, pick: int) -> claims.Claim | None:
        return self.claimed[-1 - pick % len(self.claimed)] if self.claimed else None

    def append(self, claimed: claims.Claim) -> None:
        if traces.read(self.database, self.job_id, attempt=claimed.attempt):
            self.pieces += 1
            piece = factories.make_piece(claimed, "text ", position=self.pieces)
            traces.append(self.database, owner=claimed.owner, pieces=[piece])

    def begin(self, claimed: claims.Claim) -> None:
        if not traces.read(self.database, self.job_id, attempt=claimed.attempt):
            factories.begin(self.database, claimed)

    def remove(self) -> None:
        try:
            retention.remove_job(self.database, self.job_id, account_id=None, actor="key:test")
        except errors.Conflict:
            assert not self.job().status.terminal

    def holds(self, claimed: claims.Claim) -> bool:
        """Whether the row says that the job is still theirs."""
        job = self.job()
        return job.status is Status.RUNNING and (job.attempt, job.lease_owner) == (
            claimed.attempt,
            claimed.owner,
        )

    def renew(self, claimed: claims.Claim, lease: timedelta) -> bool:
        key = (claimed.job_id, claimed.attempt)
        stored = claims.renew(self.database, owner=claimed.owner, held=[key], lease=lease)
        return stored == {key}

    def watch(self, claimed: claims.Claim) -> bool:
        key = (claimed.job_id, claimed.attempt)
        return key in claims.watch(self.database, owner=claimed.owner, held=[key])

    def job(self) -> Job:
        return factories.get_job(self.database, self.job_id).job


def held(write: Callable[[World, claims.Claim], object]) -> Callable[[World, int], object]:
    """Return the verb that ``write`` is for one of those who hold the job, or think so."""

    def verb(world: World, pick: int) -> None:
        if (claimed := world.holder(pick)) is not None:
            write(world, claimed)

    return verb


def fenced(write: Callable[[World, claims.Claim], bool]) -> Callable[[World, int], object]:
    """Return the verb of a holder that works if, and only if, the job is theirs."""

    def attempt(world: World, claimed: claims.Claim) -> None:
        theirs = world.holds(claimed)
        assert write(world, claimed) is theirs

    return held(attempt)


ENDED = factories.make_ended()
VERBS: dict[str, Callable[[World, int], object]] = {
    "claim": lambda world, _: world.claim(factories.LEASE),
    "claim and die": lambda world, _: world.claim(DEAD),
    "begin": held(lambda world, one: world.begin(one)),
    "append": held(lambda world, one: world.append(one)),
    "die": fenced(lambda world, one: world.renew(one, DEAD)),
    "renew": fenced(lambda world, one: world.renew(one, factories.LEASE)),
    "watch": fenced(lambda world, one: world.watch(one)),
    "succeed": fenced(
        lambda world, one: settle.succeed(
            world.database, one, answer=Answer("6", "boxed"), generation=ENDED
        )
    ),
    "fail": fenced(lambda world, one: settle.fail(world.database, one, FAULT, generation=ENDED)),
    "fail early": fenced(
        lambda world, one: settle.fail(world.database, one, FAULT, generation=None)
    ),
    "stop": fenced(lambda world, one: settle.stop(world.database, one, generation=ENDED)),
    "retry": fenced(
        lambda world, one: settle.retry(world.database, one, FAULT, generation=ENDED, rng=world.rng)
    ),
    "release": fenced(lambda world, one: settle.release(world.database, one, generation=None)),
    "sweep": lambda world, _: expiry.sweep(
        world.database, actor="sweeper:test", crash_limit=3, rng=world.rng
    ),
    "cancel": lambda world, _: commands.cancel(
        world.database, world.job_id, account_id=None, actor="key:test"
    ),
    "run now": lambda world, _: commands.run_now(
        world.database, world.job_id, account_id=None, actor="operator:test"
    ),
    "wait": lambda world, _: world.age(70),
    "remove": lambda world, _: world.remove(),
    "purge": lambda world, _: purge.batch(world.database, PERIODS, actor="sweeper:test"),
}
STEPS = st.lists(st.tuples(st.sampled_from(sorted(VERBS)), st.integers(0, 2)), max_size=22)


def reported(database: Database, job_id: uuid.UUID) -> dict[str, Any]:
    """Return what the timeline says of the job as it is now."""
    with database.reading() as transaction:
        entries = transaction.session.scalars(
            sa.select(TimelineEntry)
            .where(TimelineEntry.job_id == job_id)
            .order_by(TimelineEntry.id)
        ).all()
    life: dict[str, Any] = dict.fromkeys(timeline.REPORTED)
    for entry in entries:
        life |= entry.changes
    return life


def shown(job: Job, *, exact: bool) -> dict[str, Any]:
    """Return the told columns of ``job`` as the timeline holds them."""
    row = {name: getattr(job, name) for name in timeline.REPORTED}
    return {
        name: value.astimezone(UTC).isoformat(timespec="microseconds")
        if isinstance(value, datetime) and exact
        else value
        for name, value in row.items()
    }


def assert_rules_hold(world: World, before: Job) -> Job:
    """Compare the job with what it was one step ago."""
    now = world.job()
    assert now.attempt in {before.attempt, before.attempt + 1}
    if now.status is not before.status:
        assert now.status in TRANSITIONS[before.status]
    if before.status.terminal:
        assert (now.status, now.attempt, now.finish_reason) == (
            before.status,
            before.attempt,
            before.finish_reason,
        )
        assert (now.error_code, now.crashes, now.failures) == (
            before.error_code,
            before.crashes,
            before.failures,
        )
        assert before.finished_at is not None
        assert now.finished_at is not None
        assert now.finished_at - now.created_at == before.finished_at - before.created_at
        assert now.answer_text in {before.answer_text, None}
    return now


def assert_nothing_is_left_open(world: World, job: Job) -> None:
    """Only the running attempt may be open, and only it may have pieces of a trace."""
    running = job.attempt if job.status is Status.RUNNING else None
    with world.database.reading() as transaction:
        open_attempts = transaction.session.scalars(
            sa.select(Attempt.number).where(Attempt.outcome.is_(None))
        ).all()
        open_streams = transaction.session.scalars(
            sa.select(Generation.attempt).where(Generation.ended_at.is_(None))
        ).all()
        pieces = transaction.session.scalars(sa.select(TraceChunk.attempt).distinct()).all()
    assert set(open_attempts) == ({running} if running else set())
    assert {*open_streams, *pieces} <= {running}


@hypothesis.settings(
    max_examples=40,
    # The database is emptied before each example.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(steps=STEPS)
def test_terminal_is_terminal_and_the_timeline_rebuilds_the_job(
    database: Database, age: Age, steps: list[tuple[str, int]]
) -> None:
    databases.empty(database)
    world = World(database, age, factories.make_job(database, factories.make_account(database)))
    job = world.job()
    for verb, pick in steps:
        VERBS[verb](world, pick)
        job = assert_rules_hold(world, job)
    assert_nothing_is_left_open(world, job)
    attempts = history.attempts(database, world.job_id)
    assert [view.attempt.number for view in attempts] == list(range(1, job.attempt + 1))
    outcomes = [view.attempt.outcome for view in attempts]
    assert outcomes.count(Outcome.LOST) == job.crashes
    assert outcomes.count(Outcome.RETRIED) == job.failures
    exact = (
        database.dialect == "sqlite"
    )  # Ageing the rows of PostgreSQL leaves the timeline's JSON.
    life, row = reported(database, world.job_id), shown(job, exact=exact)
    for name in timeline.REPORTED:
        if name in TIMES and not exact:
            assert (life[name] is None) == (row[name] is None), name
        else:
            assert life[name] == row[name], name


def test_the_timeline_has_times_to_the_microsecond(
    database: Database, account_id: uuid.UUID
) -> None:
    for end in ("cancel", "stop", "retry", "overdue", "remove"):
        job_id = factories.make_job(
            database, account_id, deadline=timedelta(seconds=-1 if end == "overdue" else 60)
        )
        assert reported(database, job_id) == shown(
            factories.get_job(database, job_id).job, exact=True
        )
        world = World(database, lambda _seconds: None, job_id)
        if end not in {"cancel", "overdue"}:
            world.claim(factories.LEASE)
            world.begin(world.claimed[0])
        VERBS["sweep" if end == "overdue" else "retry" if end == "retry" else "cancel"](world, 0)
        if end in {"stop", "remove"}:
            VERBS["stop"](world, 0)
        if end == "remove":
            world.remove()

        assert reported(database, job_id) == shown(
            factories.get_job(database, job_id).job, exact=True
        )
