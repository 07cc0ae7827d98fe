"""The steps of traces are kept with their text and gone with it; whatever is kept, they are today's."""

from __future__ import annotations

import dataclasses
import itertools
import random
import uuid
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs import trace
from jobs.events.index import IndexEntry
from jobs.records.attempts import Generation
from jobs.store import claims, expiry, retention, settle, steps, traces
from tests import factories, races
from tests.databases import Age

TEXT = "I see three circles.\n\nWait, let me check again.\n\n**Final Answer** 3"


def begun(database: Database, account_id: uuid.UUID) -> claims.Claim:
    """Submit, claim and begin a job."""
    factories.make_job(database, account_id)
    claimed = factories.claim(database)
    assert factories.begin(database, claimed) is not None
    return claimed


def ended(database: Database, account_id: uuid.UUID, text: str = TEXT) -> uuid.UUID:
    """Return a job that has ended with a trace."""
    claimed = begun(database, account_id)
    generation = factories.make_ended(text)
    assert settle.succeed(database, claimed, answer=None, generation=generation)
    return claimed.job_id


def keep(database: Database, stored: dict[str, object]) -> None:
    """Let these be the steps that are kept of all traces."""
    with database.transaction() as transaction:
        transaction.execute(sa.update(Generation).values(steps=stored))


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def reparse(database: Database, *, limit: int) -> list[int]:
    """Reparse in batches until nothing is left; return how many were written in each."""
    last: steps.Place | None = None
    counts: list[int] = []
    while (reached := steps.reparse(database, after=last, limit=limit)) is not None:
        last, written = reached
        counts.append(written)
    return counts


def test_the_steps_of_an_ended_generation_are_stored(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = ended(database, account_id)

    [found] = traces.read(database, job_id)

    assert found.stored_steps == steps.pack(TEXT)
    assert found.stored_steps["version"] == trace.VERSION
    assert [step.kind for step in found.steps()] == ["observation", "re-check", "answer"]


def test_the_steps_of_a_generation_whose_worker_was_lost_are_stored(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    claimed = begun(database, account_id)
    piece = dataclasses.replace(
        factories.make_piece(claimed, "I see a ball."), event_index=(IndexEntry(7, 13, 5_000),)
    )
    assert not traces.append(database, owner=claimed.owner, pieces=[piece])
    [before] = traces.read(database, claimed.job_id)
    age(61)
    expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))

    [found] = traces.read(database, claimed.job_id)

    assert (before.stored_steps, found.stored_steps) == (None, steps.pack("I see a ball."))
    assert before.steps() == found.steps()
    assert [(step.started_at, step.ended_at) for step in found.steps()] == [(moment(5_000),) * 2]


def test_each_step_has_the_times_and_tokens_of_the_marks_around_it(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    index = tuple(
        IndexEntry(number, length, number * 1_000, tokens=number)
        for number, length in enumerate([5, 15, 10, len(TEXT) - 30], start=1)
    )
    generation = dataclasses.replace(factories.make_ended(TEXT), event_index=index)
    settle.succeed(database, claimed, answer=None, generation=generation)

    [found] = traces.read(database, claimed.job_id)

    times = [(step.started_at, step.ended_at) for step in found.steps()]
    assert times == [
        (moment(1_000), moment(2_000)),
        (moment(3_000), moment(4_000)),
        (moment(4_000), moment(4_000)),
    ]
    # As much as the marks around it can tell, and no more.
    tokens = [(step.start_token, step.end_token) for step in found.steps()]
    assert tokens == [(0, 1 + 2), (1 + 2, 1 + 2 + 3 + 4), (1 + 2 + 3, 1 + 2 + 3 + 4)]


def test_behind_a_piece_of_unknown_tokens_no_step_claims_any(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    index = (
        IndexEntry(1, 5, 1_000, tokens=2),
        IndexEntry(2, 25, 2_000),
        IndexEntry(3, len(TEXT) - 30, 3_000, tokens=4),
    )
    generation = dataclasses.replace(factories.make_ended(TEXT), event_index=index)
    settle.succeed(database, claimed, answer=None, generation=generation)

    [found] = traces.read(database, claimed.job_id)

    tokens = [(step.start_token, step.end_token) for step in found.steps()]
    assert tokens == [(0, None), (2, None), (None, None)]


def test_steps_that_are_missing_or_by_other_rules_are_read_from_the_text(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = ended(database, account_id)
    [fresh] = traces.read(database, job_id)

    for stored in ({"version": trace.VERSION + 1, "steps": [["unheard-of", 0, 1]]}, None):
        keep(database, stored) if stored else factories.forget_steps(database)
        [found] = traces.read(database, job_id)
        assert found.stored_steps == stored
        assert found.steps() == fresh.steps()


def test_stored_steps_of_the_current_rules_are_not_parsed_again(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = ended(database, account_id)
    keep(database, {"version": trace.VERSION, "steps": [["inference", 2, 5]]})

    [found] = traces.read(database, job_id)

    assert [(step.kind, step.start, step.end) for step in found.steps()] == [("inference", 2, 5)]


def test_all_traces_are_read_again_once_in_batches(
    database: Database, account_id: uuid.UUID
) -> None:
    job_ids = [ended(database, account_id) for _ in range(5)]
    keep(database, {"version": trace.VERSION - 1, "steps": []})
    begun(database, account_id)

    assert reparse(database, limit=2) == [2, 2, 1]

    found = itertools.chain.from_iterable(traces.read(database, job_id) for job_id in job_ids)
    assert [one.stored_steps for one in found] == [steps.pack(TEXT)] * 5
    assert reparse(database, limit=2) == []


def test_an_interrupted_reparse_goes_on_where_it_was(
    database: Database, account_id: uuid.UUID
) -> None:
    for _ in range(3):
        ended(database, account_id)
    factories.forget_steps(database)
    assert steps.reparse(database, after=None, limit=2) is not None

    assert reparse(database, limit=2) == [1]


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite has one writer at a time.
@pytest.mark.parametrize(("strong", "written"), [(True, 2), (False, 3)])
def test_a_reparse_passes_by_what_others_have_in_hand(
    database: Database, account_id: uuid.UUID, *, strong: bool, written: int
) -> None:
    job_ids = [ended(database, account_id) for _ in range(3)]
    factories.forget_steps(database)
    held = sa.select(Generation.number).where(Generation.job_id == job_ids[1])
    other = Database(database.url.render_as_string(hide_password=False))

    with other.transaction() as transaction:
        # A removal locks the row for itself; a finding that refers to it only keeps it from going.
        transaction.execute(held.with_for_update(read=not strong, key_share=not strong))
        # It would end with a lock timeout, if it waited for the row.
        counts = reparse(database, limit=3)

    other.close()
    assert counts == [written]
    found = itertools.chain.from_iterable(traces.read(database, job_id) for job_id in job_ids)
    assert [one.stored_steps is not None for one in found] == [True, not strong, True]
    assert reparse(database, limit=3) == ([1] if strong else [])


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_a_trace_that_goes_while_it_is_read_again_stays_gone(
    database: Database, account_id: uuid.UUID
) -> None:
    job_ids = [ended(database, account_id) for _ in range(4)]
    factories.forget_steps(database)

    races.race(
        lambda: reparse(database, limit=1),
        lambda: reparse(database, limit=3),
        lambda: [
            int(retention.remove_job(database, job_id, account_id=account_id, actor="test"))
            for job_id in job_ids[:2]
        ],
    )

    reparse(database, limit=4)
    found = [one for job_id in job_ids for one in traces.read(database, job_id)]
    assert [one.stored_steps for one in found] == [None, None, steps.pack(TEXT), steps.pack(TEXT)]


def test_a_removed_trace_gets_no_steps(database: Database, account_id: uuid.UUID) -> None:
    job_id = ended(database, account_id)
    factories.forget_steps(database)
    assert retention.remove_job(database, job_id, account_id=account_id, actor="test")

    assert reparse(database, limit=2) == []
    assert [one.stored_steps for one in traces.read(database, job_id)] == [None]
