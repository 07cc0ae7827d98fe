"""A job comes in once, whole or not at all, however often and by how many threads it is sent."""

from __future__ import annotations

import uuid
from datetime import UTC, timedelta

import pytest
import sqlalchemy as sa

from core import errors, ids
from core.database import Database
from jobs.lifecycle import Priority, Status
from jobs.records.images import Image
from jobs.records.jobs import Job
from jobs.records.timeline import TimelineEntry
from jobs.store import idempotency, retention, submission
from tests import factories, races
from tests.databases import Age
from webhooks.policy import Webhook

STORED = factories.KEY_LIFETIME


def keyed(account_id: uuid.UUID, fingerprint: str = "f1", **facts: object) -> submission.Submission:
    """Return a submission under the key ``key-1``."""
    return factories.make_submission(
        account_id, idempotency_key="key-1", fingerprint=fingerprint, **facts
    )


def count(database: Database, table: type[Job | Image | TimelineEntry]) -> int:
    """Return how many rows a table has."""
    with database.reading() as transaction:
        return transaction.session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_a_job_is_stored_as_it_was_submitted(database: Database, account_id: uuid.UUID) -> None:
    original = factories.make_submission(
        account_id,
        question="Wie viele Kreise? 圆 🟢",
        metadata={"case": "42", "Schlüssel": "Wert"},
        options={"seed": 7, "temperature": 0.5, "top_p": None},
        priority=Priority.HIGH,
        deadline=timedelta(seconds=90),
        max_attempts=2,
    )

    submitted = submission.submit(database, original, key_lifetime=STORED)

    assert not submitted.replayed
    view = factories.get_job(database, submitted.job_id)
    job = view.job
    assert (job.status, job.attempt, job.crashes, job.failures) == (Status.QUEUED, 0, 0, 0)
    assert (job.account_id, job.model, job.question) == (account_id, "tiny-qvq", original.question)
    assert (job.options, job.metadata_) == (original.options, original.metadata)
    assert (job.priority, job.max_attempts, job.request_id) == (Priority.HIGH, 2, "req_test")
    assert abs(job.deadline_at - job.created_at - timedelta(seconds=90)) < timedelta(seconds=1)
    assert [(shown.tokens, shown.image.width) for shown in view.images] == [(4, 56)]


def test_a_submission_returns_what_it_has_stored(database: Database, account_id: uuid.UUID) -> None:
    requested = keyed(
        account_id,
        metadata={"case": "42"},
        options={"top_p": None, "answer_format": {"type": "choice", "choices": ["a", "b"]}},
        webhook=Webhook(url="https://receiver.example/hook").plain(),
        followers=[submission.Follower("And squares?", {"seed": 7})],
    )

    returned = submission.submit(database, requested, key_lifetime=STORED).job

    assert returned is not None
    stored = factories.get_job(database, returned.id).job
    names = [column.key for column in sa.inspect(Job).column_attrs]
    assert {name: getattr(returned, name) for name in names} == {
        name: getattr(stored, name) for name in names
    }


def test_times_are_aware_and_in_utc(database: Database, account_id: uuid.UUID) -> None:
    job = factories.get_job(database, factories.make_job(database, account_id)).job

    for time in (job.created_at, job.not_before, job.ordering_at, job.deadline_at):
        assert time.tzinfo is UTC


def test_images_keep_the_order_of_the_request(database: Database, account_id: uuid.UUID) -> None:
    uploaded = factories.make_image(b"uploaded")
    image_id = submission.store_image(database, account_id=account_id, image=uploaded)
    one, two = factories.make_image(b"one"), factories.make_image(b"two")

    job_id = factories.make_job(
        database, account_id, images=[(two, 2), (image_id, 3), (one, 1), (two, 2), (uploaded, 3)]
    )

    shown = factories.get_job(database, job_id).images
    assert [(view.image.image_key, view.tokens) for view in shown] == [
        (two.key, 2),
        (uploaded.key, 3),
        (one.key, 1),
        (two.key, 2),
        (uploaded.key, 3),
    ]
    assert shown[1].image.id == image_id == shown[4].image.id


@pytest.mark.parametrize("whose", ["nobody's", "somebody else's", "a removed one"])
def test_a_job_about_an_image_that_is_not_there_leaves_nothing_behind(
    database: Database, account_id: uuid.UUID, whose: str
) -> None:
    other = factories.make_account(database)
    image_id = ids.new()
    if whose == "somebody else's":
        image_id = submission.store_image(database, account_id=other, image=factories.make_image())
    elif whose == "a removed one":
        image_id = removed_image(database, account_id)
    before = count(database, Image)

    with pytest.raises(errors.NotFound):
        factories.make_job(
            database, account_id, images=[(factories.make_image(b"new"), 4), (image_id, 4)]
        )

    assert (count(database, Job), count(database, TimelineEntry)) == (0, 0)
    assert count(database, Image) == before


def be_impatient(connection: sa.Connection) -> None:
    """Wait for locks a moment only."""
    connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")


def removed_image(database: Database, account_id: uuid.UUID) -> uuid.UUID:
    """Upload an image and take it away again."""
    image_id = submission.store_image(
        database, account_id=account_id, image=factories.make_image(b"gone")
    )
    assert retention.remove_image(database, image_id, account_id=account_id)
    return image_id


def test_the_same_key_and_request_replay_the_job(database: Database, account_id: uuid.UUID) -> None:
    first = submission.submit(database, keyed(account_id), key_lifetime=STORED)
    second = submission.submit(database, keyed(account_id), key_lifetime=STORED)

    assert (second.job_id, second.replayed) == (first.job_id, True)
    assert (
        idempotency.replay(
            database, account_id=account_id, key="key-1", fingerprint="f1", stored=STORED
        )
        == first.job_id
    )
    assert count(database, Job) == 1


def test_the_same_key_with_another_request_is_refused(
    database: Database, account_id: uuid.UUID
) -> None:
    submission.submit(database, keyed(account_id), key_lifetime=STORED)

    with pytest.raises(errors.IdempotencyKeyReused):
        submission.submit(database, keyed(account_id, "f2"), key_lifetime=STORED)
    with pytest.raises(errors.IdempotencyKeyReused):
        idempotency.replay(
            database, account_id=account_id, key="key-1", fingerprint="f2", stored=STORED
        )
    assert count(database, Job) == 1


def test_a_key_belongs_to_its_account(database: Database, account_id: uuid.UUID) -> None:
    other = factories.make_account(database)
    first = submission.submit(database, keyed(account_id), key_lifetime=STORED)

    assert (
        idempotency.replay(database, account_id=other, key="key-1", fingerprint="f2", stored=STORED)
        is None
    )
    second = submission.submit(database, keyed(other, "f2"), key_lifetime=STORED)

    assert not second.replayed
    assert second.job_id != first.job_id


def test_jobs_without_a_key_are_never_the_same(database: Database, account_id: uuid.UUID) -> None:
    factories.make_job(database, account_id)
    factories.make_job(database, account_id)

    assert count(database, Job) == 2


def test_an_expired_key_is_forgotten_and_may_mean_something_else(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    first = submission.submit(database, keyed(account_id), key_lifetime=STORED)
    age(STORED.total_seconds() - 60)
    assert submission.submit(database, keyed(account_id), key_lifetime=STORED).replayed
    age(120)

    assert (
        idempotency.replay(
            database, account_id=account_id, key="key-1", fingerprint="f2", stored=STORED
        )
        is None
    )
    second = submission.submit(database, keyed(account_id, "f2"), key_lifetime=STORED)

    assert not second.replayed
    assert factories.get_job(database, first.job_id).job.idempotency_key is None
    assert factories.get_job(database, second.job_id).job.idempotency_key == "key-1"


def test_of_racing_requests_with_one_key_one_makes_the_job_and_all_get_it(
    database: Database, account_id: uuid.UUID
) -> None:
    submitted = races.race(
        *(
            lambda: submission.submit(database, keyed(account_id), key_lifetime=STORED)
            for _ in range(12)
        )
    )

    assert len({one.job_id for one in submitted}) == 1
    assert [one.replayed for one in submitted].count(False) == 1
    assert count(database, Job) == 1


def test_racing_requests_with_an_expired_key_still_make_one_job(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    submission.submit(database, keyed(account_id), key_lifetime=STORED)
    age(STORED.total_seconds() + 60)

    submitted = races.race(
        *(
            lambda: submission.submit(database, keyed(account_id, "f2"), key_lifetime=STORED)
            for _ in range(8)
        )
    )

    assert len({one.job_id for one in submitted}) == 1
    assert [one.replayed for one in submitted].count(False) == 1
    assert count(database, Job) == 2


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_request_that_waits_too_long_for_the_same_key_is_refused_with_a_retry(
    database: Database, account_id: uuid.UUID
) -> None:
    sa.event.listen(database.engine, "begin", be_impatient)
    with database.transaction() as slow:
        slow.execute(sa.insert(Job), factories.job_rows(account_id, [{"idempotency_key": "key-1"}]))
        with pytest.raises(errors.IdempotencyInProgress) as refused:
            submission.submit(database, keyed(account_id), key_lifetime=STORED)
    assert refused.value.retry_after == 1


def test_a_conflict_that_is_not_the_keys_is_not_taken_for_it(database: Database) -> None:
    nobody = ids.new()

    with pytest.raises(sa.exc.IntegrityError) as failed:
        submission.submit(database, keyed(nobody, question="a secret"), key_lifetime=STORED)

    assert "a secret" not in str(failed.value)
    assert count(database, Job) == 0


def test_racing_jobs_with_the_same_images_in_opposite_orders_do_not_deadlock(
    database: Database, account_id: uuid.UUID
) -> None:
    one, two = factories.make_image(b"one"), factories.make_image(b"two")
    known = submission.store_image(database, account_id=account_id, image=two)
    # Two more originals with the same canonical bytes: here the bytes are what is shared.
    third, fourth = (
        factories.make_image(name, data=same.data)
        for name, same in ((b"three", two), (b"four", one))
    )
    orders = (
        [(one, 4), (two, 4)],
        [(two, 4), (one, 4)],
        [(known, 4), (one, 4)],
        [(third, 4), (fourth, 4)],
        [(fourth, 4), (third, 4)],
    )

    def submit(turn: int) -> int:
        for _ in range(5):
            factories.make_job(database, account_id, images=orders[turn % len(orders)])
        return turn

    assert races.race(*(lambda turn=n: submit(turn) for n in range(10))) == list(range(10))
    assert (count(database, Job), count(database, Image)) == (50, 4)
