"""Every failpoint of jobs: a process is killed exactly there, and a new one finishes the job."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from core import ids
from core.database import Database
from jobs.lifecycle import Status
from jobs.store import accounts, commands, storage, submission
from jobs.store.storage import StorageKind
from tests import children, databases, factories
from tests.chaos import checks, victims
from tests.chaos.callers import IMAGES
from tests.chaos.scene import QUESTION, Scene, killed, outcomes, submitted
from tests.e2e.stack import eventually

KEY = "an-idempotency-key"
#: No lease ends by itself, however slow the machine is: tests end them.
LEASE_SECONDS = 60.0
#: An engine that takes minutes for an answer, so that a job does not end before the test has done something to it.
SLOW = {"LONGLOOK_ENGINE_URLS": "scripted:?tokens_per_second=5&markers=true"}
FAULTY = "How many? [[behavior:fault]]"
LOOPING = "How many? [[behavior:verbatim_loop]]"
REFUSED = "How many? [[behavior:refuse]]"


@pytest.fixture
def scene(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> Scene:
    key = factories.make_key(database)
    environment = {
        "LONGLOOK_HOME": str(tmp_path),
        "LONGLOOK_DATABASE_URL": database_url,
        "LONGLOOK_REDIS_URL": redis_url,
        "LONGLOOK_ENGINE_URLS": "scripted:?tokens_per_second=250&markers=true",
        "LONGLOOK_PEPPER": factories.PEPPER.decode(),
        "LONGLOOK_LEASE_SECONDS": str(LEASE_SECONDS),
        "LONGLOOK_RENEW_SECONDS": "0.2",
        "LONGLOOK_SWEEP_SECONDS": "0.2",
        "LONGLOOK_WATCH_SECONDS": "0.1",
        "LONGLOOK_FLUSH_SECONDS": "0.1",
        "LONGLOOK_DRAIN_SECONDS": "0",
        "LONGLOOK_DISK_FLOOR_MB": "0",
    }
    return Scene(database, accounts.account_id(database, "default"), key, environment)


@pytest.mark.parametrize(
    ("failpoint", "expected"),
    [
        ("claim.commit", ["succeeded"]),
        ("claim.committed", ["lost", "succeeded"]),
        ("begin.commit", ["lost", "succeeded"]),
        ("begin.committed", ["lost", "succeeded"]),
        ("flush.commit", ["lost", "succeeded"]),
        ("flush.committed", ["lost", "succeeded"]),
        ("renew.commit", ["lost", "succeeded"]),
        ("renew.committed", ["lost", "succeeded"]),
        ("succeed.commit", ["lost", "succeeded"]),
        ("succeed.committed", ["succeeded"]),
    ],
)
def test_when_a_worker_dies_over_an_answer_another_one_answers(
    scene: Scene, failpoint: str, expected: list[str]
) -> None:
    job_id = scene.submit()

    scene.kill_worker(failpoint)

    assert outcomes(scene.finish(job_id)) == expected


@pytest.mark.parametrize("failpoint", ["follow.commit", "follow.committed"])
def test_when_a_worker_dies_over_a_cut_another_one_forces_the_answer(
    scene: Scene, failpoint: str
) -> None:
    job_id = scene.submit(LOOPING)

    scene.kill_worker(failpoint)

    life = scene.finish(job_id)
    assert outcomes(life) == ["lost", "succeeded"]
    assert (life.job.answer_forced, life.generations[-1].continues) == (True, 0)


@pytest.mark.parametrize(
    "failpoint", ["join.commit", "join.committed", "leave.commit", "leave.committed"]
)
def test_when_a_worker_dies_over_a_vote_another_one_repeats_the_vote(
    scene: Scene, failpoint: str
) -> None:
    job_id = scene.submit(samples=3)

    scene.kill_worker(failpoint)

    life = scene.finish(job_id)
    assert outcomes(life) == ["lost", "succeeded"]
    assert life.job.votes is not None
    last = [generation.number for generation in life.generations if generation.attempt == 2]
    assert last == list(range(life.job.votes["begun"]))


@pytest.mark.parametrize("failpoint", ["join", "leave"])
def test_a_generation_whose_commit_reply_was_lost_starts_and_ends_once(
    scene: Scene, failpoint: str
) -> None:
    job_id = scene.submit(samples=3)

    with victims.running(victims.worker, scene.armed(f"{failpoint}.committed=raise")):
        assert eventually(lambda: scene.hurry(job_id).terminal)

    life = scene.life(job_id)
    assert outcomes(life) == ["succeeded"]
    assert life.job.votes is not None
    assert len(life.generations) == life.job.votes["begun"]


def test_a_worker_that_dies_between_two_chunks_leaves_the_written_trace(scene: Scene) -> None:
    job_id = scene.submit()

    with victims.running(victims.worker, scene.armed("stream.chunk=kill:100")) as victim:
        assert killed(victim)
    scene.let_leases_end()

    life = scene.finish(job_id)
    assert outcomes(life) == ["lost", "succeeded"]
    partial, whole = [generation.output or "" for generation in life.generations]
    assert 0 < len(partial) < len(whole)


@pytest.mark.parametrize(
    ("failpoint", "question", "expected"),
    [
        ("fail.commit", REFUSED, ["lost", "failed"]),
        ("fail.committed", REFUSED, ["failed"]),
        ("retry.commit", FAULTY, ["lost", "retried", "failed"]),
        ("retry.committed", FAULTY, ["retried", "failed"]),
    ],
)
def test_when_a_worker_dies_over_a_fault_the_fault_counts_once(
    scene: Scene, failpoint: str, question: str, expected: list[str]
) -> None:
    job_id = scene.submit(question)

    scene.kill_worker(failpoint)

    life = scene.finish(job_id)
    assert outcomes(life) == expected
    assert life.job.status is Status.FAILED


@pytest.mark.parametrize(
    ("failpoint", "expected"), [("stop.commit", ["lost"]), ("stop.committed", ["cancelled"])]
)
def test_a_worker_that_dies_over_a_cancel_leaves_a_cancelled_job(
    scene: Scene, failpoint: str, expected: list[str]
) -> None:
    job_id = scene.submit()

    with victims.running(victims.worker, scene.armed(f"{failpoint}=kill") | SLOW) as victim:
        assert eventually(lambda: scene.streams(job_id))
        commands.cancel(scene.database, job_id, account_id=None, actor="key:test")
        assert killed(victim)
    scene.let_leases_end()

    life = scene.finish(job_id)
    assert outcomes(life) == expected
    assert life.job.status is Status.CANCELLED


@pytest.mark.parametrize(
    ("failpoint", "expected"),
    [("release.commit", ["lost", "succeeded"]), ("release.committed", ["released", "succeeded"])],
)
def test_a_worker_that_dies_while_it_drains_loses_nothing(
    scene: Scene, failpoint: str, expected: list[str]
) -> None:
    job_id = scene.submit()

    with victims.running(victims.worker, scene.armed(f"{failpoint}=kill") | SLOW) as victim:
        assert eventually(lambda: scene.streams(job_id))
        victim.terminate()
        assert killed(victim)
    scene.let_leases_end()

    assert outcomes(scene.finish(job_id)) == expected


@pytest.mark.parametrize("failpoint", ["expire.commit", "expire.committed"])
def test_when_a_sweeper_dies_over_an_expired_lease_the_lease_ends_once(
    scene: Scene, failpoint: str
) -> None:
    job_id = scene.submit()
    factories.claim(scene.database, "host:1:gone", lease=timedelta(seconds=-1))

    # With PostgreSQL a sweeper waits for the length of a lease before it ends any.
    scene.kill_worker(failpoint, LONGLOOK_LEASE_SECONDS="0.8")

    life = scene.finish(job_id)
    assert outcomes(life) == ["lost", "succeeded"]
    assert life.job.crashes == 1


@pytest.mark.parametrize("failpoint", ["overdue.commit", "overdue.committed"])
def test_when_a_sweeper_dies_over_a_deadline_the_job_fails_once(
    scene: Scene, failpoint: str
) -> None:
    job_id = scene.submit(deadline=timedelta(seconds=-1))

    scene.kill_worker(failpoint)

    assert scene.finish(job_id).job.error_code == "deadline_exceeded"


@pytest.mark.parametrize(
    ("failpoint", "retained"),
    [("submit.commit", 0), ("submit.committed", 1), ("wakeup.publish", 1), ("wakeup.published", 1)],
)
def test_when_an_api_dies_over_a_submission_a_repeat_creates_no_second_job(
    scene: Scene, failpoint: str, retained: int
) -> None:
    image = submission.store_image(scene.database, account_id=scene.account_id, image=submitted())
    body = {"question": QUESTION, "images": [{"image_id": ids.show("img", image)}]}
    request = {"json": body, "headers": {"Idempotency-Key": KEY}}

    scene.kill_api(failpoint, "/v1/jobs", **request)

    assert len(checks.lives(scene.database)) == retained
    with victims.running(
        victims.api, scene.environment, "/v1/jobs", scene.key, **request
    ) as repeat:
        repeat.join()
        assert repeat.exitcode == 0
    [job_id] = checks.lives(scene.database)
    assert outcomes(scene.finish(job_id)) == ["succeeded"]


@pytest.mark.parametrize(
    ("failpoint", "status"),
    [("cancel.commit", Status.QUEUED), ("cancel.committed", Status.CANCELLED)],
)
def test_when_an_api_dies_over_a_cancel_the_cancel_took_effect_or_did_not(
    scene: Scene, failpoint: str, status: Status
) -> None:
    job_id = scene.submit()

    scene.kill_api(failpoint, f"/v1/jobs/{ids.show('job', job_id)}/cancel")

    assert factories.get_job(scene.database, job_id).job.status is status
    commands.cancel(scene.database, job_id, account_id=None, actor="key:test")
    assert scene.life(job_id).job.status is Status.CANCELLED


@pytest.mark.parametrize(("failpoint", "retained"), [("upload.commit", 0), ("upload.committed", 1)])
def test_when_an_api_dies_over_an_image_the_image_is_stored_and_counted_or_neither(
    scene: Scene, failpoint: str, retained: int
) -> None:
    request = {"data": Path(IMAGES[0]).read_bytes(), "content_type": "image/png"}

    scene.kill_api(failpoint, "/v1/images", **request)

    once = scene.stored(StorageKind.IMAGES)
    assert (once > 0) == bool(retained)
    with victims.running(
        victims.api, scene.environment, "/v1/images", scene.key, **request
    ) as repeat:
        repeat.join()
        assert repeat.exitcode == 0
    # A repeated upload does not store a second image.
    assert scene.stored(StorageKind.IMAGES) == once or not retained
    assert checks.miscounted(scene.database) == []


@pytest.mark.parametrize(
    "failpoint", ["fold.commit", "fold.committed", "recount.commit", "recount.committed"]
)
def test_when_a_worker_dies_over_the_storage_count_the_count_stays_correct(
    scene: Scene, failpoint: str
) -> None:
    submission.store_image(scene.database, account_id=scene.account_id, image=submitted())
    size = scene.stored(StorageKind.IMAGES)

    (scene.kill_worker if failpoint.startswith("fold") else scene.kill_recount)(failpoint)

    assert checks.miscounted(scene.database) == []
    assert storage.recount(scene.database, scene.account_id)
    with victims.running(victims.worker, scene.environment):
        assert eventually(scene.all_folded)
    assert checks.miscounted(scene.database) == []
    assert scene.stored(StorageKind.IMAGES) == size


@pytest.mark.parametrize("failpoint", ["begin", "retry", "release", "succeed", "fail", "stop"])
def test_a_commit_whose_reply_was_lost_is_not_repeated(scene: Scene, failpoint: str) -> None:
    questions = {"retry": FAULTY, "fail": REFUSED}
    job_id = scene.submit(questions.get(failpoint, QUESTION))
    armed = scene.armed(f"{failpoint}.committed=raise")
    interrupted = failpoint in {"stop", "release"}

    with victims.running(victims.worker, armed | (SLOW if interrupted else {})) as worker:
        if interrupted:
            assert eventually(lambda: scene.streams(job_id))
        if failpoint == "stop":
            commands.cancel(scene.database, job_id, account_id=None, actor="key:test")
        if failpoint == "release":
            worker.terminate()
            worker.join()
            assert worker.exitcode == 0
        else:
            assert eventually(lambda: scene.hurry(job_id).terminal)

    expected = {
        "begin": ["released", "succeeded"],
        "retry": ["retried", "failed"],
        "release": ["released", "succeeded"],
        "succeed": ["succeeded"],
        "fail": ["failed"],
        "stop": ["cancelled"],
    }
    life = scene.finish(job_id)
    assert outcomes(life) == expected[failpoint]
    assert life.job.crashes == 0


def test_a_worker_that_sleeps_through_its_lease_writes_nothing_when_it_wakes(
    scene: Scene,
) -> None:
    job_id = scene.submit()

    with victims.running(victims.worker, scene.environment | SLOW) as zombie:
        pid = zombie.pid or 0
        assert eventually(lambda: scene.streams(job_id))
        children.freeze(pid)
        # A process that is stopped within a transaction keeps its locks.
        while databases.is_locked(scene.database):
            os.kill(pid, signal.SIGCONT)
            assert eventually(lambda: not databases.is_locked(scene.database))
            children.freeze(pid)
        scene.let_leases_end()
        ended = scene.finish(job_id)
        zombie.terminate()
        os.kill(pid, signal.SIGCONT)
        zombie.join()
        assert zombie.exitcode == 0

    assert outcomes(ended) == ["lost", "succeeded"]
    after = scene.life(job_id)
    assert [entry.id for entry in after.entries] == [entry.id for entry in ended.entries]
    assert [generation.output for generation in after.generations] == [
        generation.output for generation in ended.generations
    ]
