"""A worker process put together."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import pytest

from core.settings import Settings
from jobs.store import claims
from tests import factories
from worker.runtime import WorkerRuntime


@pytest.fixture
def runtime(database_url: str, redis_url: str) -> Iterator[WorkerRuntime]:
    """A worker process of four slots."""
    built = WorkerRuntime(
        Settings.read(
            {},
            database_url=database_url,
            redis_url=redis_url,
            engine_urls="scripted:",
            worker_slots=4,
        )
    )
    yield built
    built.stop()


def test_slots_that_use_every_connection_leave_the_leases_theirs(
    runtime: WorkerRuntime,
) -> None:
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


def test_a_worker_exports_the_use_of_the_shares_of_formulas_and_grammars(
    runtime: WorkerRuntime,
) -> None:
    formulas, grammars = runtime.formulas, runtime.grammars
    with (
        formulas.hold("A", seconds=0),
        grammars.at("http://one").hold("A", seconds=0),
        grammars.at("http://two").hold("A", seconds=0),
    ):
        value = functools.partial(runtime.registry.get_sample_value, "longlook_share_places")
        held = [
            value({"resource": resource, "state": "held"})
            for resource in ("formula_comparisons", "grammar_compilations")
        ]

    assert held == [1, 2]
