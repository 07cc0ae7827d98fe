"""What is old goes by itself, each class when its time has come, and what is needed stays."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core.database import Database
from core.settings import Settings
from jobs.answers.extraction import Answer
from jobs.images import CanonicalImage
from jobs.lifecycle import Status
from jobs.records.attempts import Attempt, Generation
from jobs.records.images import Image, ImageBytes
from jobs.records.jobs import Job
from jobs.records.timeline import TimelineEntry
from jobs.store import (
    claims,
    commands,
    contents,
    history,
    purge,
    retention,
    settle,
    submission,
    timeline,
    traces,
)
from tests import databases, factories, races
from tests.databases import ROOT, Age

DAY = 86_400.0
_PURGE = """
import sys
from datetime import timedelta
from core.database import Database
from jobs.store import purge
database = Database(sys.argv[1])
periods = purge.Periods(trace=timedelta(0))
while purge.batch(database, periods, actor="sweeper:child", limit=1).more:
    print("purged", flush=True)
"""
ACTOR = "sweeper:test"
ALL = {name: timedelta(days=30) for name in ("image", "trace", "answer", "timeline")}


def periods(*classes: str) -> purge.Periods:
    """Return periods of thirty days for ``classes``, and for ever for the others."""
    return purge.Periods(**{name: ALL[name] for name in classes})


def run(database: Database, *classes: str, limit: int = 100) -> purge.Purged:
    """Take away one batch of what is older than thirty days."""
    return purge.batch(database, periods(*(classes or ALL)), actor=ACTOR, limit=limit)


def finished(
    database: Database, account_id: uuid.UUID, *images: CanonicalImage | uuid.UUID
) -> uuid.UUID:
    """Run a job about ``images`` to its end; return its id."""
    chosen = [(image, 4) for image in images or (factories.make_image(),)]
    options = {"answer_format": {"type": "number"}}
    job_id = factories.make_job(database, account_id, images=chosen, options=options)
    claimed = factories.claim(database)
    assert claimed.job_id == job_id
    factories.begin(database, claimed)
    traces.append(database, owner=claimed.owner, pieces=[factories.make_piece(claimed, "I see")])
    ended = factories.make_ended("I see 6.")
    assert settle.succeed(database, claimed, answer=Answer("6", "boxed"), generation=ended)
    return job_id


def job(database: Database, job_id: uuid.UUID) -> Job:
    return factories.get_job(database, job_id).job


def prompts(database: Database, job_id: uuid.UUID) -> list[object]:
    with database.reading() as transaction:
        found = sa.select(Attempt.prompt).where(Attempt.job_id == job_id)
        return list(transaction.session.scalars(found))


def outputs(database: Database, job_id: uuid.UUID) -> list[str | None]:
    with database.reading() as transaction:
        found = sa.select(Generation.output).where(Generation.job_id == job_id)
        return list(transaction.session.scalars(found))


def entries(database: Database, job_id: uuid.UUID) -> list[TimelineEntry]:
    return timeline.read(database, job_id, limit=100)[0]


def stored(database: Database, account_id: uuid.UUID, image: CanonicalImage) -> bool:
    """Whether the bytes of ``image`` are there."""
    return claims.image(database, account_id=account_id, key=image.key) is not None


def rest(database: Database, job_id: uuid.UUID) -> dict[str, object]:
    """Return what no period takes from a job: counters, hashes, ends."""
    row = job(database, job_id)
    names = ("status", "attempt", "fingerprint", "finish_reason", "input_tokens", "output_tokens",
             "engine_seconds", "metadata_", "options", "request_id")  # fmt: skip
    return {name: getattr(row, name) for name in names}


class TestClasses:
    def test_a_trace_goes_with_its_prompt_and_its_marker_stays(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        before = rest(database, job_id)
        age(31 * DAY)

        assert run(database, "trace") == purge.Purged(traces=1)

        row = job(database, job_id)
        assert row.trace_removed
        assert not row.answer_removed
        assert (row.question, row.answer_text, row.answer_value) == (
            "How many circles are there?",
            "6",
            6,
        )
        assert (outputs(database, job_id), prompts(database, job_id)) == ([None], [None])
        [trace] = traces.read(database, job_id)
        assert (trace.text, trace.complete, trace.output_tokens) == ("", True, 11)
        assert (trace.stored_steps, trace.event_index, trace.steps()) == (None, (), [])
        assert rest(database, job_id) == before
        assert stored(database, account_id, factories.make_image())

    def test_an_answer_goes_with_its_question_wherever_that_is(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        before = rest(database, job_id)
        age(31 * DAY)

        assert run(database, "answer") == purge.Purged(answers=1)

        row = job(database, job_id)
        assert row.answer_removed
        assert not row.trace_removed
        assert {getattr(row, name) for name in contents.NO_ANSWER} == {None}
        assert (outputs(database, job_id), prompts(database, job_id)) == (["I see 6."], [None])
        assert rest(database, job_id) == before

    def test_of_a_timeline_one_entry_stays_that_tells_the_whole_job(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        age(31 * DAY)

        assert run(database, "timeline") == purge.Purged(timelines=1)

        [entry] = entries(database, job_id)
        assert (entry.action, entry.actor) == ("timeline_removed", ACTOR)
        assert set(entry.changes) == set(timeline.REPORTED)
        assert (entry.changes["status"], entry.changes["attempt"]) == ("succeeded", 1)
        assert entry.changes["timeline_removed_at"] is not None
        assert [view.attempt.number for view in history.attempts(database, job_id)] == [1]

    def test_an_image_goes_and_its_facts_stay(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        age(31 * DAY)

        assert run(database, "image") == purge.Purged(images=1)

        assert not stored(database, account_id, factories.make_image())
        view = factories.get_job(database, job_id)
        assert view.images[0].image.removed_at is not None
        assert view.images[0].image.original_sha256 == factories.make_image().original.sha256
        assert view.job.images_released_at is not None
        assert view.job.question is not None

    def test_each_removal_names_its_actor(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        age(31 * DAY)

        run(database, "image", "trace", "answer")

        reported = [(entry.action, entry.actor) for entry in entries(database, job_id)[-3:]]
        assert reported == [
            ("images_released", ACTOR),
            ("trace_removed", ACTOR),
            ("answer_removed", ACTOR),
        ]

    @pytest.mark.parametrize("name", sorted(ALL))
    def test_a_class_goes_when_its_own_time_has_come_and_once(
        self, database: Database, account_id: uuid.UUID, age: Age, name: str
    ) -> None:
        job_id = finished(database, account_id)
        age(29 * DAY)
        assert run(database, name) == purge.Purged()
        age(2 * DAY)

        assert run(database, name) != purge.Purged()

        reported = [entry.id for entry in entries(database, job_id)]
        assert run(database, name) == purge.Purged()
        assert [entry.id for entry in entries(database, job_id)] == reported

    def test_without_periods_everything_stays_for_ever(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        age(10_000 * DAY)

        assert purge.batch(database, purge.NO_RETENTION, actor=ACTOR) == purge.Purged()

        assert outputs(database, job_id) == ["I see 6."]
        assert stored(database, account_id, factories.make_image())

    def test_settings_of_zero_days_are_for_ever(self) -> None:
        assert purge.Periods.of(Settings.read({})) == purge.NO_RETENTION
        settings = Settings.read({}, retention_image_days=1, retention_timeline_days=0.5)
        assert purge.Periods.of(settings) == purge.Periods(
            image=timedelta(days=1), timeline=timedelta(hours=12)
        )

    @pytest.mark.parametrize("state", ["queued", "running"])
    def test_a_job_that_has_not_ended_keeps_everything_however_old_it_is(
        self, database: Database, account_id: uuid.UUID, age: Age, state: str
    ) -> None:
        job_id = factories.make_job(database, account_id, deadline=timedelta(days=100))
        if state == "running":
            factories.begin(database, factories.claim(database))
        age(31 * DAY)

        assert run(database) == purge.Purged()

        assert job(database, job_id).status is Status(state)
        assert stored(database, account_id, factories.make_image())

    def test_jobs_that_failed_or_were_cancelled_are_purged_as_well(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        cancelled = factories.make_job(database, account_id)
        commands.cancel(database, cancelled, account_id=account_id, actor="key:test")
        failed = factories.make_job(database, account_id)
        claimed = factories.claim(database)
        settle.fail(database, claimed, settle.Failure("engine_rejected", "No."), generation=None)
        age(31 * DAY)

        assert run(database) == purge.Purged(images=1, traces=2, answers=2, timelines=2)

        assert [job(database, one).question for one in (cancelled, failed)] == [None, None]

    def test_what_was_deleted_on_request_is_left_alone_and_its_timeline_goes(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        retention.remove_job(database, job_id, account_id=account_id, actor="key:test")
        age(31 * DAY)

        assert run(database) == purge.Purged(timelines=1)

        row = job(database, job_id)
        assert (row.trace_removed, row.answer_removed) == (True, True)

    def test_what_retention_has_begun_a_request_can_finish(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        age(31 * DAY)
        run(database, "answer")

        assert retention.remove_job(database, job_id, account_id=account_id, actor="key:test")

        assert outputs(database, job_id) == [None]
        assert not stored(database, account_id, factories.make_image())


class TestImages:
    def test_an_image_that_a_younger_job_has_stays_until_that_is_old_too(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        finished(database, account_id)
        age(20 * DAY)
        finished(database, account_id)
        age(11 * DAY)

        assert run(database, "image").images == 0
        assert stored(database, account_id, factories.make_image())
        age(20 * DAY)
        assert run(database, "image").images == 1
        assert not stored(database, account_id, factories.make_image())

    def test_an_image_that_a_waiting_job_has_stays(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        finished(database, account_id)
        age(31 * DAY)
        factories.make_job(database, account_id)

        assert run(database, "image").images == 0
        assert stored(database, account_id, factories.make_image())

    def test_an_uploaded_image_stays_as_long_from_its_last_upload(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        submitted = factories.make_image()
        submission.store_image(database, account_id=account_id, image=submitted)
        age(20 * DAY)
        image_id = submission.store_image(database, account_id=account_id, image=submitted)
        finished(database, account_id, image_id)
        age(20 * DAY)
        assert run(database, "image") == purge.Purged()
        assert stored(database, account_id, submitted)

        age(11 * DAY)

        assert run(database, "image").images == 1
        assert not stored(database, account_id, submitted)

    def test_an_old_upload_stays_while_a_job_needs_it_and_goes_with_it(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        submitted = factories.make_image()
        image_id = submission.store_image(database, account_id=account_id, image=submitted)
        age(20 * DAY)
        finished(database, account_id, image_id)
        age(11 * DAY)

        assert run(database, "image").images == 0
        assert stored(database, account_id, submitted)
        age(20 * DAY)
        assert run(database, "image").images == 1
        assert not stored(database, account_id, submitted)

    def test_an_upload_without_a_job_is_removed(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        submitted = factories.make_image()
        image_id = submission.store_image(database, account_id=account_id, image=submitted)
        age(31 * DAY)

        assert run(database, "image").images == 1

        assert not stored(database, account_id, submitted)
        assert history.image(database, image_id, account_id=account_id) is None

    def test_an_image_that_comes_back_is_kept_for_the_new_job(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        old = finished(database, account_id)
        age(31 * DAY)
        run(database, "image")

        new = finished(database, account_id)

        assert stored(database, account_id, factories.make_image())
        for job_id in (old, new):
            assert factories.get_job(database, job_id).images[0].image.removed_at is None
        assert run(database, "image") == purge.Purged()

    def test_bytes_that_two_images_share_go_with_the_second(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        one = factories.make_image(b"one")
        two = factories.make_image(b"two", data=one.data)
        finished(database, account_id, one)
        age(20 * DAY)
        finished(database, account_id, two)
        age(11 * DAY)

        assert run(database, "image").images == 1
        assert stored(database, account_id, two)
        age(20 * DAY)
        assert run(database, "image").images == 1
        assert not stored(database, account_id, two)


class TestBatches:
    def test_batches_are_small_and_a_purge_that_stops_between_two_goes_on_where_it_was(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_ids = [finished(database, account_id) for _ in range(5)]
        age(31 * DAY)

        purged = [run(database, limit=2)]
        # A new process, which knows nothing of the batch before.
        url = database.url.render_as_string(hide_password=False)
        with contextlib.closing(Database(url, clock=database.clock)) as again:
            while purged[-1].more:
                purged.append(run(again, limit=2))

        assert [batch.traces for batch in purged] == [2, 2, 1]
        assert sum(batch.answers for batch in purged) == 5
        assert sum(batch.timelines for batch in purged) == 5
        assert sum(batch.images for batch in purged) == 1
        for job_id in job_ids:
            assert outputs(database, job_id) == [None]
            assert job(database, job_id).question is None
        assert run(database) == purge.Purged()

    def test_the_oldest_go_first(self, database: Database, account_id: uuid.UUID, age: Age) -> None:
        job_ids = []
        for _ in range(3):
            job_ids.append(finished(database, account_id))
            age(60)
        age(31 * DAY)

        run(database, "trace", limit=2)

        assert [outputs(database, job_id) for job_id in job_ids] == [[None], [None], ["I see 6."]]

    def test_a_batch_that_breaks_leaves_its_jobs_whole(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        job_id = finished(database, account_id)
        age(31 * DAY)
        before = entries(database, job_id)[-1].id

        def die(*event: object) -> None:
            if "UPDATE attempts" in str(event[2]):
                raise KeyboardInterrupt

        sa.event.listen(database.engine, "before_cursor_execute", die)
        with pytest.raises(KeyboardInterrupt):
            run(database, "trace")
        sa.event.remove(database.engine, "before_cursor_execute", die)

        assert outputs(database, job_id) == ["I see 6."]
        assert not job(database, job_id).trace_removed
        assert entries(database, job_id)[-1].id == before
        assert run(database, "trace").traces == 1

    def test_a_process_that_is_killed_while_it_purges_leaves_each_job_whole_or_purged(
        self, database: Database, account_id: uuid.UUID
    ) -> None:
        job_ids = [finished(database, account_id) for _ in range(20)]
        url = database.url.render_as_string(hide_password=False)
        with subprocess.Popen(
            [sys.executable, "-c", _PURGE, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "purged\n"
            process.kill()
        databases.wait_until_idle(database)

        for job_id in job_ids:
            gone = job(database, job_id).trace_removed
            assert outputs(database, job_id) == [None if gone else "I see 6."]
            assert prompts(database, job_id) == [None] or not gone
            assert (entries(database, job_id)[-1].action == "trace_removed") is gone
        at_once = purge.Periods(trace=timedelta(0))
        while purge.batch(database, at_once, actor=ACTOR).more:
            pass
        assert all(job(database, job_id).trace_removed for job_id in job_ids)

    def test_purges_at_the_same_time_take_everything_once(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        submitted_images = [factories.make_image(name) for name in (b"one", b"two", b"three")]
        job_ids = [
            finished(
                database, account_id, submitted_images[turn % 3], submitted_images[(turn + 1) % 3]
            )
            for turn in range(12)
        ]
        age(31 * DAY)

        def until_done() -> list[purge.Purged]:
            batches = [run(database, limit=2)]
            while batches[-1].more:
                batches.append(run(database, limit=2))
            return batches

        batches = [batch for all_of in races.race(*[until_done] * 3) for batch in all_of]

        assert sum(batch.traces for batch in batches) == 12
        assert sum(batch.answers for batch in batches) == 12
        assert sum(batch.timelines for batch in batches) == 12
        assert sum(batch.images for batch in batches) == 3
        assert not any(stored(database, account_id, submitted) for submitted in submitted_images)
        for job_id in job_ids:
            reported = [entry.action for entry in entries(database, job_id)]
            assert reported.count("timeline_removed") == 1

    def test_purges_race_new_jobs_about_the_same_images_and_nothing_is_lost(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        one, two = factories.make_image(b"one"), factories.make_image(b"two")
        for turn in range(4):
            uploaded = submission.store_image(database, account_id=account_id, image=one)
            for _ in range(3):
                finished(database, account_id, uploaded, two)
            age(31 * DAY)

            def submit() -> int:
                for _ in range(3):
                    factories.make_job(database, account_id, images=[(two, 4), (one, 4)])
                return 0

            def take_away() -> int:
                batches = [run(database, "image", limit=1)]
                while batches[-1].more:
                    batches.append(run(database, "image", limit=1))
                return 0

            assert races.race(submit, take_away, take_away) == [0, 0, 0]
            for submitted in (one, two):
                assert stored(database, account_id, submitted), turn
            with database.transaction() as transaction:
                transaction.execute(sa.update(Image).values(uploaded_at=None))
            for _ in range(3):
                claimed = factories.claim(database)
                factories.begin(database, claimed)
                settle.stop(database, claimed, generation=factories.make_ended())

    def test_no_bytes_are_left_without_an_image_that_has_them(
        self, database: Database, account_id: uuid.UUID, age: Age
    ) -> None:
        for name in (b"one", b"two"):
            finished(database, account_id, factories.make_image(name))
        age(31 * DAY)

        assert run(database, "image").images == 2

        with database.reading() as transaction:
            count = sa.select(sa.func.count()).select_from(ImageBytes)
            assert transaction.session.scalar(count) == 0
