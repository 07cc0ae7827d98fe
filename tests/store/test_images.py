"""Pictures are kept once by what is in them, and go with the last that needs them."""

from __future__ import annotations

import contextlib
import uuid

import pytest
import sqlalchemy as sa

from core import errors
from core.database import Database
from jobs.answers.extraction import Answer
from jobs.images import CanonicalImage
from jobs.records.attempts import Attempt, Generation
from jobs.records.images import Image, ImageBytes
from jobs.store import claims, contents, history, retention, settle, submission, traces
from tests import factories, races

ACTOR = "key:test"


def upload(
    database: Database, account_id: uuid.UUID, image: CanonicalImage | None = None
) -> uuid.UUID:
    """Keep an image by itself."""
    return submission.store_image(
        database, account_id=account_id, image=image or factories.make_image()
    )


def finished(database: Database, account_id: uuid.UUID, *images: object) -> uuid.UUID:
    """Run a job about ``images`` to its end; return its id."""
    job_id = factories.make_job(
        database, account_id, images=[(image, 4) for image in images or (factories.make_image(),)]
    )
    claimed = factories.claim(database)
    assert claimed.job_id == job_id
    factories.begin(database, claimed)
    ended = factories.make_ended("the whole trace")
    assert settle.succeed(database, claimed, answer=Answer("6", "boxed"), generation=ended)
    return job_id


def stored(database: Database, account_id: uuid.UUID, image: CanonicalImage) -> bool:
    """Whether the bytes of ``image`` are there."""
    return claims.image(database, account_id=account_id, key=image.key) is not None


def count(database: Database, table: type[Image | ImageBytes]) -> int:
    """Return how many rows a table has."""
    with database.reading() as transaction:
        return transaction.session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def remove_job(database: Database, job_id: uuid.UUID, account_id: uuid.UUID) -> bool:
    """Remove a job's data."""
    return retention.remove_job(database, job_id, account_id=account_id, actor=ACTOR)


def test_the_same_original_is_the_same_image(database: Database, account_id: uuid.UUID) -> None:
    image_id = upload(database, account_id)

    assert upload(database, account_id) == image_id
    shown = factories.get_job(database, factories.make_job(database, account_id)).images
    assert [view.image.id for view in shown] == [image_id]
    assert (count(database, Image), count(database, ImageBytes)) == (1, 1)


def test_another_detail_or_account_is_another_image(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    drawing = factories.make_image()
    low = factories.make_image(detail="low", data=b"a smaller one")

    ids = {
        upload(database, account_id, drawing),
        upload(database, account_id, low),
        upload(database, other, drawing),
    }

    assert len(ids) == 3
    assert (count(database, Image), count(database, ImageBytes)) == (3, 3)


def test_two_originals_with_the_same_canonical_image_share_its_bytes(
    database: Database, account_id: uuid.UUID
) -> None:
    one = factories.make_image(b"one")
    two = factories.make_image(b"two", data=one.data)
    first, second = upload(database, account_id, one), upload(database, account_id, two)
    assert (count(database, Image), count(database, ImageBytes)) == (2, 1)

    assert retention.remove_image(database, first, account_id=account_id)
    assert stored(database, account_id, two)
    assert retention.remove_image(database, second, account_id=account_id)
    assert not stored(database, account_id, two)


def test_an_image_is_seen_by_its_own_account_only(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    image_id = upload(database, account_id)

    found = history.image(database, image_id, account_id=account_id)
    assert found is not None
    assert history.image_bytes(database, found) == factories.make_image().data
    assert history.image(database, image_id, account_id=None) is not None
    assert history.image(database, image_id, account_id=other) is None
    assert not retention.remove_image(database, image_id, account_id=other)


def test_a_removed_image_is_gone_but_its_facts_stay(
    database: Database, account_id: uuid.UUID
) -> None:
    image_id = upload(database, account_id)
    job_id = finished(database, account_id, image_id)

    assert retention.remove_image(database, image_id, account_id=account_id)

    assert history.image(database, image_id, account_id=account_id) is None
    assert not stored(database, account_id, factories.make_image())
    [view] = factories.get_job(database, job_id).images
    assert view.image.removed_at is not None
    assert view.image.original_sha256 == factories.make_image().original.sha256
    assert not retention.remove_image(database, image_id, account_id=account_id)


def test_an_image_that_comes_back_is_revived_under_its_id(
    database: Database, account_id: uuid.UUID
) -> None:
    image_id = upload(database, account_id)
    retention.remove_image(database, image_id, account_id=account_id)

    assert upload(database, account_id) == image_id
    assert history.image(database, image_id, account_id=account_id) is not None
    retention.remove_image(database, image_id, account_id=account_id)
    factories.make_job(database, account_id)

    assert history.image(database, image_id, account_id=account_id) is not None
    assert factories.claim(database).images[0].key == factories.make_image().key
    assert stored(database, account_id, factories.make_image())


@pytest.mark.parametrize("state", ["queued", "running"])
def test_an_image_of_an_unfinished_job_stays(
    database: Database, account_id: uuid.UUID, state: str
) -> None:
    image_id = upload(database, account_id)
    factories.make_job(database, account_id, images=[(image_id, 4)])
    if state == "running":
        factories.claim(database)

    with pytest.raises(errors.Conflict):
        retention.remove_image(database, image_id, account_id=account_id)

    assert stored(database, account_id, factories.make_image())


def test_the_removal_of_a_job_deletes_its_texts_and_leaves_its_counters(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = finished(database, account_id)
    before = factories.get_job(database, job_id).job

    assert remove_job(database, job_id, account_id)

    job = factories.get_job(database, job_id).job
    assert {getattr(job, name) for name in contents.NO_ANSWER} == {None}
    assert job.data_removed_at is not None
    assert (job.status, job.finished_at, job.output_tokens) == (
        before.status,
        before.finished_at,
        before.output_tokens,
    )
    [trace] = traces.read(database, job_id)
    assert (trace.text, trace.complete, trace.output_tokens) == ("", True, 11)
    with database.reading() as transaction:
        assert transaction.session.scalars(sa.select(Generation.output)).all() == [None]
        # SQL's NULL, not JSON's.
        empty = sa.select(sa.func.count()).where(Attempt.prompt.is_(None))
        assert transaction.session.scalar(empty) == 1


def test_removing_a_job_twice_changes_nothing_more(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = finished(database, account_id)
    remove_job(database, job_id, account_id)
    removed_at = factories.get_job(database, job_id).job.data_removed_at

    assert remove_job(database, job_id, account_id)

    assert factories.get_job(database, job_id).job.data_removed_at == removed_at


def test_an_unfinished_job_is_not_removed(database: Database, account_id: uuid.UUID) -> None:
    job_id = factories.make_job(database, account_id)

    with pytest.raises(errors.Conflict):
        remove_job(database, job_id, account_id)

    assert factories.get_job(database, job_id).job.question is not None


def test_a_job_of_another_account_is_not_removed(database: Database, account_id: uuid.UUID) -> None:
    job_id = finished(database, account_id)

    assert not remove_job(database, job_id, factories.make_account(database))
    assert not remove_job(database, uuid.uuid4(), account_id)
    assert factories.get_job(database, job_id).job.data_removed_at is None


def test_the_image_goes_with_the_last_job_that_has_it(
    database: Database, account_id: uuid.UUID
) -> None:
    first, second = finished(database, account_id), finished(database, account_id)

    remove_job(database, first, account_id)
    assert stored(database, account_id, factories.make_image())
    remove_job(database, second, account_id)
    assert not stored(database, account_id, factories.make_image())


def test_an_image_that_was_uploaded_alone_outlives_its_jobs(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = finished(database, account_id)
    image_id = upload(database, account_id)

    remove_job(database, job_id, account_id)

    assert history.image(database, image_id, account_id=account_id) is not None


def race_with_removal(
    database: Database,
    account_id: uuid.UUID,
    *,
    wanted: CanonicalImage | uuid.UUID,
    removed: uuid.UUID,
) -> tuple[bool, bool]:
    """Submit a job about one image while another thread removes one; return which of the two were done."""

    def submit() -> bool:
        with contextlib.suppress(errors.NotFound):
            factories.make_job(database, account_id, images=[(wanted, 4)])
            return True
        return False

    def remove() -> bool:
        with contextlib.suppress(errors.Conflict):
            return retention.remove_image(database, removed, account_id=account_id)
        return False

    submitted, gone = races.race(submit, remove)
    return submitted, gone


def test_a_job_by_id_races_the_removal_of_its_image_and_never_loses_it(
    database: Database, account_id: uuid.UUID
) -> None:
    for turn in range(12):
        drawing = factories.make_image(f"turn {turn}".encode())
        image_id = upload(database, account_id, drawing)

        submitted, removed = race_with_removal(
            database, account_id, wanted=image_id, removed=image_id
        )

        assert submitted is not removed
        assert stored(database, account_id, drawing) is submitted


def test_a_new_original_races_the_removal_of_another_with_the_same_bytes_and_never_loses_them(
    database: Database, account_id: uuid.UUID
) -> None:
    for turn in range(12):
        old = factories.make_image(f"old {turn}".encode())
        new = factories.make_image(f"new {turn}".encode(), data=old.data)
        image_id = upload(database, account_id, old)

        done = race_with_removal(database, account_id, wanted=new, removed=image_id)

        assert done == (True, True)
        assert stored(database, account_id, new)


def test_racing_removals_of_images_with_the_same_bytes_take_them_away_once(
    database: Database, account_id: uuid.UUID
) -> None:
    for turn in range(8):
        one = factories.make_image(f"one {turn}".encode())
        two = factories.make_image(f"two {turn}".encode(), data=one.data)
        ids = [upload(database, account_id, one), upload(database, account_id, two)]

        removed = races.race(
            *(
                lambda image_id=image_id: retention.remove_image(
                    database, image_id, account_id=account_id
                )
                for image_id in ids
            )
        )

        assert removed == [True, True]
        assert not stored(database, account_id, one)


def test_removals_of_jobs_race_new_jobs_with_their_images_and_nothing_is_lost(
    database: Database, account_id: uuid.UUID
) -> None:
    one, two = factories.make_image(b"one"), factories.make_image(b"two")
    old = [finished(database, account_id, one, two) for _ in range(6)]

    def remove() -> int:
        return sum(remove_job(database, job_id, account_id) for job_id in old)

    def submit() -> int:
        for _ in range(6):
            factories.make_job(database, account_id, images=[(two, 4), (one, 4)])
        return 6

    assert races.race(remove, submit) == [6, 6]
    assert stored(database, account_id, one)
    assert stored(database, account_id, two)
