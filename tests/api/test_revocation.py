"""A key that is revoked loses what it holds open."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from api.app import service_of
from api.framework import Router
from api.revocation import Revocation
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.lifecycle import Role
from jobs.records.accounts import ApiKey
from jobs.store import accounts
from tests import factories
from tests import webhooks as reported
from tests.api import worker
from tests.api.conftest import Caller, Json
from tests.api.following import Follower
from tests.e2e.stack import eventually

ROOT = "/v1/webhook_endpoints"


def key_of(database: Database, caller: Caller) -> uuid.UUID:
    found = accounts.authenticate(database, caller.key, peppers=[factories.PEPPER])
    assert found is not None
    return found.key_id


@pytest.fixture
def reader(client: FlaskClient, database: Database) -> Caller:
    """Return another key of the caller's account."""
    return Caller(client, factories.make_key(database, role=Role.READ))


@pytest.fixture
def follow(app: Router) -> Iterator[Callable[..., Follower]]:
    """Return a function that follows a stream; the end of the test closes all followers."""
    followers: list[Follower] = []

    def begin(client: FlaskClient, url: str, **headers: str) -> Follower:
        answer = client.get(url, headers=headers, buffered=False)
        assert answer.status_code == 200, answer.text
        followers.append(Follower(answer.response, close=answer.close))  # type: ignore[arg-type] # bytes, for us
        return followers[-1]

    yield begin
    for follower in followers:
        service_of(app).drain()
        follower.leave()


@pytest.mark.parametrize("by_token", [False, True], ids=["key", "token"])
def test_a_stream_ends_with_its_key_and_no_other_one_does(
    caller: Caller,
    reader: Caller,
    database: Database,
    follow: Callable[..., Follower],
    *,
    by_token: bool,
) -> None:
    job = caller.job()
    url = job["urls"]["events"]
    headers = {"Authorization": f"Bearer {reader.key}"}
    if by_token:
        url = reader("POST", f"{job['urls']['self']}/stream_token").get_json()["url"]
        headers = {}
    stays = follow(caller.client, job["urls"]["events"], Authorization=f"Bearer {caller.key}")
    ends = follow(reader.client, url, **headers)
    assert eventually(lambda: len(stays.events) == len(ends.events) == 1)

    accounts.revoke_key(database, key_of(database, reader))
    ends.join()
    worker.finish(database)
    stays.join()

    assert ends.kinds() == ["job.queued"]
    assert stays.kinds()[-1] == "job.finished"
    assert reader.client.get(url, headers=headers).status_code == 401


def test_a_wait_ends_with_its_key_and_shows_nothing(
    caller: Caller, reader: Caller, database: Database
) -> None:
    job = caller.job()
    key_id = key_of(database, reader)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(reader, "GET", job["urls"]["self"], headers={"Prefer": "wait=60"})
        assert eventually(lambda: waiting(caller) == 1)
        accounts.revoke_key(database, key_id)
        answer = held.result(50)

    assert answer.status_code == 401
    assert job["question"] not in answer.text


def waiting(caller: Caller) -> int:
    return int(service_of(caller.client.application).waits.open)


def test_the_test_of_an_endpoint_ends_with_its_key(
    caller: Caller, client: FlaskClient, database: Database
) -> None:
    body = {"name": "prod", "url": "https://receiver.example/", "event_types": ["job.failed"]}
    made: Json = caller("POST", ROOT, json=body).get_json()
    other = Caller(client, factories.make_key(database))
    key_id = key_of(database, other)

    with ThreadPoolExecutor(1) as pool:
        path = f"{ROOT}/{made['id']}/test"
        held = pool.submit(other, "POST", path, json={"event_type": "job.failed"})
        assert eventually(lambda: bool(reported.attempts(database)))
        accounts.revoke_key(database, key_id)

        assert held.result(60).status_code == 401


def test_all_that_are_open_are_one_query(database: Database) -> None:
    ended: set[uuid.UUID] = set()
    looks = threading.Semaphore(0)
    #: The function stays: a thread may be going through the list of those that are called.
    over = threading.Event()
    statements: list[str] = []

    def noted(*call: Any) -> None:  # noqa: ANN401 - an event of SQLAlchemy
        if "api_keys" in call[2] and not over.is_set():
            statements.append(call[2])
            looks.release()

    keys = [_key_id(database) for _ in range(5)]
    revocation = Revocation(database, check_seconds=0.01)
    sa.event.listen(database.engine, "before_cursor_execute", noted)
    watches = [
        revocation.watch(key_id, lambda key_id=key_id: ended.add(key_id))  # type: ignore[misc] # bound now
        for key_id in keys
        for _ in range(20)
    ]
    for _ in range(5):
        assert looks.acquire(timeout=30)
    over.set()
    requested = list(statements)
    accounts.revoke_key(database, keys[0])
    assert eventually(lambda: all(watch.revoked for watch in watches[:20]))
    for watch in watches:
        watch.close()
    revocation.close()

    assert ended == {keys[0]}
    assert [watch.revoked for watch in watches[20:]] == [False] * 80
    # Not one for each of the hundred.
    assert len(requested) < 20
    assert all(" IN " in statement for statement in requested)


def test_while_the_database_is_away_everything_stays_open(database: Database) -> None:
    looked = threading.Semaphore(0)

    class Away(Database):
        def reading(self, *, snapshot: bool = False) -> Any:  # noqa: ANN401, ARG002 - it never returns
            looked.release()
            raise DatabaseUnavailable("away")

    away = Away(database.url.render_as_string(hide_password=False))
    revocation = Revocation(away, check_seconds=0.01)
    watch = revocation.watch(uuid.uuid4(), lambda: None)
    for _ in range(3):
        assert looked.acquire(timeout=30)
    watch.close()
    revocation.close()
    away.close()

    assert not watch.revoked


def _key_id(database: Database) -> uuid.UUID:
    key = factories.make_key(database)
    found = accounts.authenticate(database, key, peppers=[factories.PEPPER])
    assert found is not None
    return found.key_id


def test_a_stream_ends_when_its_key_expires_and_the_refusal_says_so(
    caller: Caller, reader: Caller, database: Database, follow: Callable[..., Follower]
) -> None:
    url = caller.job()["urls"]["events"]
    headers = {"Authorization": f"Bearer {reader.key}"}
    ends = follow(reader.client, url, **headers)
    assert eventually(lambda: len(ends.events) == 1)

    with database.transaction() as transaction:
        transaction.execute(
            sa.update(ApiKey)
            .where(ApiKey.id == key_of(database, reader))
            .values(expires_at=datetime(2020, 1, 31, tzinfo=UTC))
        )
    ends.join()

    refused = reader.client.get(url, headers=headers)
    assert refused.status_code == 401
    assert "expired at 2020-01-31T00:00:00+00:00" in refused.text
