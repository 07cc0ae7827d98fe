"""Streams are stopped from outside: all of them at once, whatever their engine does."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator

import pytest

from core.database import Database
from jobs.store import claims
from tests.worker.conftest import LEASE
from worker.leases import Leases, StopReason

STREAMS = 40


@pytest.fixture
def dialect() -> str:
    """Return one kind of database: no statement is run here."""
    return "sqlite"


@pytest.fixture
def leases_(database: Database) -> Iterator[Leases]:
    leases_ = Leases(database, owner="me", lease=LEASE, renew_seconds=15, watch_seconds=1)
    yield leases_
    leases_.stop()


def some_claim() -> claims.Claim:
    return claims.Claim(
        job_id=uuid.uuid4(),
        attempt=1,
        owner="me",
        account_id=uuid.uuid4(),
        model="tiny-qvq",
        question="How many?",
        options={},
        images=(),
        failures=0,
        max_attempts=3,
        request_id="req_test",
        quarantined=False,
    )


def test_no_stop_waits_for_another(leases_: Leases) -> None:
    together = threading.Barrier(STREAMS)
    aborted: list[int] = []
    closed = threading.Semaphore(0)

    def abort() -> None:
        aborted.append(together.wait(60))

    with contextlib.ExitStack() as held:
        for _ in range(STREAMS):
            holding = held.enter_context(leases_.hold(some_claim()))
            holding.attach(abort=abort, close=closed.release)

        leases_.end_all(StopReason.DRAIN)

        assert all(closed.acquire(timeout=60) for _ in range(STREAMS))
    assert len(aborted) == STREAMS


def test_a_stream_whose_abort_fails_is_closed_nevertheless(leases_: Leases) -> None:
    closed = threading.Event()

    def abort() -> None:
        raise ValueError("no such engine")

    with leases_.hold(some_claim()) as holding:
        holding.attach(abort=abort, close=closed.set)

        leases_.end_all(StopReason.DRAIN)

        assert closed.wait(60)
