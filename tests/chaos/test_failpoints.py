"""Each dangerous line, hit on purpose: a process is killed exactly there, and a fresh one finishes the job."""

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
from tests import children, factories
from tests.chaos import checks, victims
from tests.chaos.callers import IMAGES
from tests.chaos.scene import QUESTION, Scene, killed, outcomes, submitted
from tests.e2e.stack import eventually

KEY = "an-idempotency-key"
LEASE_SECONDS = 2.0
LONG = "How many? [[behavior:no_answer_at_length]]"
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
def test_a_worker_that_dies_over_an_answer_is_followed_by_one_that_gives_it(
    scene: Scene, failpoint: str, expected: list[str]
) -> None:
    job_id = scene.submit()

    scene.kill_worker(failpoint)

    assert outcomes(scene.finish(job_id)) == expected


@pytest.mark.parametrize("failpoint", ["follow.commit", "follow.committed"])
def test_a_worker_that_dies_over_a_cut_is_followed_by_one_that_forces_the_answer(
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
def test_a_worker_that_dies_over_a_vote_is_followed_by_one_that_votes_anew(
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
def test_a_sample_whose_commit_was_not_answered_is_begun_and_ended_once(
    scene: Scene, failpoint: str
) -> None:
    job_id = scene.submit(samples=3)

    with victims.running(victims.worker, scene.armed(f"{failpoint}.committed=raise")):
        assert eventually(lambda: scene.hurry(job_id).terminal)

    life = scene.life(job_id)
    assert outcomes(life) == ["succeeded"]
    assert life.job.votes is not None
    assert len(life.generations) == life.job.votes["begun"]


def test_between_two_chunks_a_worker_leaves_the_trace_that_was_written(scene: Scene) -> None:
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
def test_a_worker_that_dies_over_a_fault_counts_it_once(
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
    job_id = scene.submit(LONG)

    with victims.running(victims.worker, scene.armed(f"{failpoint}=kill")) as victim:
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
    job_id = scene.submit(LONG)

    with victims.running(victims.worker, scene.armed(f"{failpoint}=kill")) as victim:
        assert eventually(lambda: scene.streams(job_id))
        victim.terminate()
        assert killed(victim)
    scene.let_leases_end()

    assert outcomes(scene.finish(job_id)) == expected


@pytest.mark.parametrize("failpoint", ["expire.commit", "expire.committed"])
def test_a_sweeper_that_dies_over_a_dead_lease_ends_it_once(scene: Scene, failpoint: str) -> None:
    job_id = scene.submit()
    factories.claim(scene.database, "host:1:gone", lease=timedelta(seconds=-1))

    scene.kill_worker(failpoint)

    life = scene.finish(job_id)
    assert outcomes(life) == ["lost", "succeeded"]
    assert life.job.crashes == 1


@pytest.mark.parametrize("failpoint", ["overdue.commit", "overdue.committed"])
def test_a_sweeper_that_dies_over_a_deadline_lets_it_pass_once(
    scene: Scene, failpoint: str
) -> None:
    job_id = scene.submit(deadline=timedelta(seconds=-1))

    scene.kill_worker(failpoint)

    assert scene.finish(job_id).job.error_code == "deadline_exceeded"


@pytest.mark.parametrize(
    ("failpoint", "retained"),
    [("submit.commit", 0), ("submit.committed", 1), ("wakeup.publish", 1), ("wakeup.published", 1)],
)
def test_an_api_that_dies_over_a_submission_has_made_the_job_or_not_and_a_repeat_makes_no_second(
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
        repeat.join(30)
        assert repeat.exitcode == 0
    [job_id] = checks.lives(scene.database)
    assert outcomes(scene.finish(job_id)) == ["succeeded"]


@pytest.mark.parametrize(
    ("failpoint", "status"),
    [("cancel.commit", Status.QUEUED), ("cancel.committed", Status.CANCELLED)],
)
def test_an_api_that_dies_over_a_cancel_has_cancelled_or_not(
    scene: Scene, failpoint: str, status: Status
) -> None:
    job_id = scene.submit()

    scene.kill_api(failpoint, f"/v1/jobs/{ids.show('job', job_id)}/cancel")

    assert factories.get_job(scene.database, job_id).job.status is status
    commands.cancel(scene.database, job_id, account_id=None, actor="key:test")
    assert scene.life(job_id).job.status is Status.CANCELLED


@pytest.mark.parametrize(("failpoint", "retained"), [("upload.commit", 0), ("upload.committed", 1)])
def test_an_api_that_dies_over_an_image_has_kept_and_counted_it_or_neither(
    scene: Scene, failpoint: str, retained: int
) -> None:
    request = {"data": Path(IMAGES[0]).read_bytes(), "content_type": "image/png"}

    scene.kill_api(failpoint, "/v1/images", **request)

    once = scene.stored(StorageKind.IMAGES)
    assert (once > 0) == bool(retained)
    with victims.running(
        victims.api, scene.environment, "/v1/images", scene.key, **request
    ) as repeat:
        repeat.join(30)
        assert repeat.exitcode == 0
    # A repeat keeps no second one.
    assert scene.stored(StorageKind.IMAGES) == once or not retained
    assert checks.miscounted(scene.database) == []


@pytest.mark.parametrize(
    "failpoint", ["fold.commit", "fold.committed", "recount.commit", "recount.committed"]
)
def test_a_worker_that_dies_over_the_count_of_what_is_stored_leaves_it_right(
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
def test_a_commit_whose_answer_was_lost_is_not_made_twice(scene: Scene, failpoint: str) -> None:
    questions = {"retry": FAULTY, "fail": REFUSED, "stop": LONG, "release": LONG}
    job_id = scene.submit(questions.get(failpoint, QUESTION))

    with victims.running(victims.worker, scene.armed(f"{failpoint}.committed=raise")) as worker:
        if failpoint in {"stop", "release"}:
            assert eventually(lambda: scene.streams(job_id))
        if failpoint == "stop":
            commands.cancel(scene.database, job_id, account_id=None, actor="key:test")
        if failpoint == "release":
            worker.terminate()
            worker.join(20)
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

    # Its other threads are idle then: a process that is stopped inside of a transaction keeps its locks.
    rarely = {f"LONGLOOK_{name}_SECONDS": "30" for name in ("FLUSH", "RENEW", "SWEEP", "WATCH")} | {
        "LONGLOOK_LEASE_SECONDS": "60"
    }
    asleep = scene.armed("stream.chunk=pause:100") | rarely
    with victims.running(victims.worker, asleep) as zombie:
        pid = zombie.pid or 0
        assert eventually(lambda: children.state(pid) == "T")
        scene.let_leases_end()
        ended = scene.finish(job_id)
        zombie.terminate()
        os.kill(pid, signal.SIGCONT)
        zombie.join(20)
        assert zombie.exitcode == 0

    assert outcomes(ended) == ["lost", "succeeded"]
    after = scene.life(job_id)
    assert [entry.id for entry in after.entries] == [entry.id for entry in ended.entries]
    assert [generation.output for generation in after.generations] == [
        generation.output for generation in ended.generations
    ]
