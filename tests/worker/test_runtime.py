"""A worker process put together."""

from __future__ import annotations

import contextlib

from jobs.settings import Settings
from jobs.store import claims
from tests import factories
from worker.runtime import Runtime


def test_slots_that_use_every_connection_leave_the_leases_theirs(
    database_url: str, redis_url: str
) -> None:
    settings = Settings.read(
        {},
        database_url=database_url,
        redis_url=redis_url,
        engine_urls="scripted:",
        worker_slots=4,
    )
    runtime = Runtime(settings)
    factories.make_job(runtime.database, factories.make_account(runtime.database))
    claimed = claims.claim(runtime.database, owner=runtime.owner, lease=factories.LEASE)
    assert claimed is not None
    before = factories.get_job(runtime.database, claimed.job_id).job.lease_expires_at
    assert before is not None

    with runtime.leases.hold(claimed) as holding, contextlib.ExitStack() as taken:
        for _ in range(20):
            taken.callback(runtime.database.engine.raw_connection().close)
        runtime.leases.renew()
        runtime.leases.look()

        assert holding.reason is None
    after = factories.get_job(runtime.database, claimed.job_id).job.lease_expires_at
    assert after is not None
    assert after > before
    runtime.stop()
