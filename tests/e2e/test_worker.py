"""The exit of worker processes that cannot continue, and the release of their jobs."""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from core import redis_prefix
from core.database import Database
from core.settings import Settings
from jobs import queue
from jobs.lifecycle import Outcome, Status
from jobs.queue import RedisWakeup
from jobs.store import history
from tests import children, databases, factories
from tests.e2e.stack import LEASE_SECONDS, Stack, eventually
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"


@pytest.fixture
def stack(sqlite_source: databases.SqliteSource, redis_server: RedisServer) -> Iterator[Stack]:
    """Return the dependencies of a worker, with a slow engine inside the worker."""
    redis_server.flush()
    folder = children.short_folder()
    engine = "scripted:?window=4&tokens_per_second=10"
    stack = Stack(folder, sqlite_source.create(), redis_server.url, engine)
    yield stack
    stack.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.database_url)
    yield database
    database.close()


def submit(database: Database) -> uuid.UUID:
    image = factories.make_image(data=IMAGE.read_bytes())
    return factories.make_job(database, factories.make_account(database), images=[(image, 4)])


def test_a_worker_that_cannot_start_exits_and_receives_no_wakeup(
    stack: Stack, redis_server: RedisServer
) -> None:
    wakeup = RedisWakeup(
        Settings.read({}, redis_url=redis_server.url, database_url=stack.database_url)
    )
    wakeup.notify()
    assert eventually(lambda: redis_server.length(queue.REASON) == 1)
    wakeup.close()

    worker = stack.start_worker(LONGLOOK_ENGINE_URLS="scripted:?no_such_option=1")

    assert worker.wait(60) != 0
    assert "no_such_option" in stack.log("worker")
    assert redis_server.length(queue.REASON) == 1


def test_a_worker_whose_celery_gives_up_releases_its_job(stack: Stack, database: Database) -> None:
    job_id = submit(database)
    # An answer that no wait of this test outlasts.
    worker = stack.start_worker(
        LONGLOOK_DRAIN_SECONDS="0", LONGLOOK_ENGINE_URLS="scripted:?behavior=silent"
    )
    assert eventually(lambda: factories.get_job(database, job_id).job.status is Status.RUNNING)

    with redis.Redis.from_url(stack.redis_url) as client:
        client.lpush(
            redis_prefix.RedisPrefix(Settings.read({}), database)() + queue.REASON,
            b"no message of Celery's",
        )

    assert worker.wait(60) != 0
    job = factories.get_job(database, job_id).job
    assert (job.status, job.crashes) == (Status.QUEUED, 0)
    [view] = history.attempts(database, job_id)
    assert view.attempt.outcome is Outcome.RELEASED


def test_a_worker_that_stopped_for_longer_than_its_lease_continues_with_its_job(
    stack: Stack, database: Database
) -> None:
    job_id = submit(database)
    worker = stack.start_worker(LONGLOOK_ENGINE_URLS="scripted:?tokens_per_second=10")
    assert eventually(lambda: factories.get_job(database, job_id).job.status is Status.RUNNING)

    children.freeze(worker.pid)
    until = factories.get_job(database, job_id).job.lease_expires_at
    assert until is not None
    assert eventually(
        lambda: (database.clock() - until).total_seconds() > LEASE_SECONDS, seconds=60
    )
    worker.send_signal(signal.SIGCONT)

    assert eventually(lambda: factories.get_job(database, job_id).job.status.terminal)
    job = factories.get_job(database, job_id).job
    assert (job.status, job.attempt, job.crashes) == (Status.SUCCEEDED, 1, 0)
