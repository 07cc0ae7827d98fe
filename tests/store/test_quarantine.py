"""Images that took engines down: who is counted, who is cleared, who is refused, who lets go."""

from __future__ import annotations

import random
import uuid

import sqlalchemy as sa

from core.database import Database
from jobs.answers.extraction import Answer
from jobs.lifecycle import Outcome, Status
from jobs.records.images import ImageCrashes
from jobs.store import claims, expiry, history, quarantine, settle
from tests import factories
from tests.databases import Age

FAULT = settle.Failure(code="engine_fault", message="It hung up.", retryable=True)
LIMIT = 3
IMAGE = factories.make_image(b"poison")


def begun(database: Database, account_id: uuid.UUID, **facts: object) -> claims.Claim:
    factories.make_job(database, account_id, images=[(IMAGE, 4)], **facts)
    claimed = factories.claim(database)
    assert factories.begin(database, claimed) is not None
    return claimed


def die(database: Database, claimed: claims.Claim) -> bool:
    """Let an engine hang up on an attempt."""
    return settle.retry(
        database,
        claimed,
        FAULT,
        generation=factories.make_ended("I see"),
        rng=random.Random(1),
        deadly=LIMIT,
    )


def held(database: Database, account_id: uuid.UUID) -> bool:
    return quarantine.held(database, account_id, [IMAGE.key]) == {IMAGE.key}


def kill_engines(database: Database, account_id: uuid.UUID, age: Age) -> claims.Claim:
    """Let as many engines die as it takes, over one job; return its last attempt."""
    claimed = begun(database, account_id, max_attempts=9)
    for _ in range(LIMIT - 1):
        assert die(database, claimed)
        age(100)
        claimed = factories.claim(database)
        factories.begin(database, claimed)
    assert die(database, claimed)
    return claimed


def test_the_last_of_several_deaths_fails_the_job_and_refuses_its_image(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    last = kill_engines(database, account_id, age)

    job = factories.get_job(database, last.job_id).job
    assert (job.status, job.error_code, job.error_retryable) == (
        Status.FAILED,
        "image_quarantined",
        False,
    )
    ends = [view.attempt.outcome for view in history.attempts(database, last.job_id)]
    assert ends == [Outcome.RETRIED, Outcome.RETRIED, Outcome.FAILED]
    assert held(database, account_id)
    [listed], more = quarantine.listed(database, limit=1)
    assert (listed.account_id, listed.crashes, more) == (account_id, LIMIT, False)
    assert listed.sha256 == IMAGE.original.sha256
    assert quarantine.count(database) == 1


def test_generations_that_one_crash_cut_count_once(
    database: Database, account_id: uuid.UUID
) -> None:
    several = [begun(database, account_id) for _ in range(LIMIT)]

    for claimed in several:
        assert die(database, claimed)

    assert not held(database, account_id)


def test_a_job_that_does_well_clears_its_image(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    for _ in range(2):
        for _ in range(LIMIT - 1):
            assert die(database, begun(database, account_id))
            age(100)
        good = factories.claim(database)
        factories.begin(database, good)
        assert settle.succeed(
            database, good, answer=Answer("6", "boxed"), generation=factories.make_ended()
        )

    assert not held(database, account_id)


def test_a_job_that_was_claimed_before_the_crash_clears_no_image(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    early = begun(database, account_id)
    age(1)
    for _ in range(LIMIT - 1):
        assert die(database, begun(database, account_id))
        age(100)
    assert settle.succeed(
        database, early, answer=Answer("6", "boxed"), generation=factories.make_ended()
    )

    assert die(database, begun(database, account_id))

    assert held(database, account_id)


def test_what_waits_with_such_an_image_is_claimed_as_that(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    kill_engines(database, account_id, age)

    factories.make_job(database, account_id, images=[(IMAGE, 4)])
    assert factories.claim(database).quarantined
    factories.make_job(database, account_id, images=[(factories.make_image(b"other"), 4)])
    assert not factories.claim(database).quarantined


def test_the_same_image_of_another_account_is_not_affected(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    kill_engines(database, account_id, age)
    other = factories.make_account(database)

    assert not held(database, other)
    factories.make_job(database, other, images=[(IMAGE, 4)])
    assert not factories.claim(database).quarantined


def test_a_lost_claim_counts_no_crash(database: Database, account_id: uuid.UUID, age: Age) -> None:
    claimed = begun(database, account_id, max_attempts=9)
    age(61)
    expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
    age(100)
    current = factories.claim(database)
    factories.begin(database, current)

    for _ in range(LIMIT):
        assert not die(database, claimed)
        age(100)

    assert not held(database, account_id)


def test_an_operator_lets_it_go_and_it_begins_anew(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    kill_engines(database, account_id, age)
    [listed], _ = quarantine.listed(database, limit=10)

    assert quarantine.release(database, listed.image_id, actor="key:key_1")

    assert not held(database, account_id)
    assert not quarantine.release(database, listed.image_id, actor="key:key_1")
    assert not quarantine.release(database, uuid.uuid4(), actor="key:key_1")
    assert quarantine.listed(database, limit=10) == ([], False)
    factories.make_job(database, account_id, images=[(IMAGE, 4)])
    good = factories.claim(database)
    factories.begin(database, good)
    assert settle.succeed(
        database, good, answer=Answer("6", "boxed"), generation=factories.make_ended()
    )
    with database.reading() as transaction:
        [row] = transaction.session.scalars(sa.select(ImageCrashes))
        assert (row.crashes, row.released_by) == (0, "key:key_1")
    assert die(database, begun(database, account_id))
    assert not held(database, account_id)


def test_the_last_attempt_of_a_job_counts_like_the_others(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    for _ in range(LIMIT):
        claimed = begun(database, account_id)
        assert settle.fail(
            database, claimed, FAULT, generation=factories.make_ended("I see"), deadly=LIMIT
        )
        age(100)

    assert held(database, account_id)
    assert factories.get_job(database, claimed.job_id).job.error_code == "image_quarantined"
