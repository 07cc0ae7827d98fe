"""Requests that are refused, or that come without a valid key, fill neither the log nor the database's time."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api import addresses
from api.app import create_app, service_of
from api.framework import Router
from api.unknown_keys import UnknownKeys
from core import logs
from core.database import Database
from core.settings import Settings
from jobs.images import ImageReader
from jobs.store import accounts
from tests import factories
from tests.api.conftest import Caller
from tests.fakes import HandTimer, RecordingWakeup

Line = MutableMapping[str, Any]

FAILURES = 30
#: Lines of each kind in a minute.
LINES = 20


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return the settings of the application: an address may fail seldom."""
    return settings.model_copy(update={"failed_keys_per_minute": FAILURES})


@pytest.fixture
def timer() -> HandTimer:
    """Return the timer of the application."""
    return HandTimer()


@pytest.fixture
def app(
    settings: Settings, database: Database, decoder: ImageReader, timer: HandTimer
) -> Iterator[Router]:
    """Return the application, whose time stands still."""
    app = create_app(
        settings,
        database=database,
        wakeup=RecordingWakeup(),
        delivery_wakeup=RecordingWakeup(),
        images=decoder,
        timer=timer,
    )
    yield app
    service_of(app).drain()


@pytest.fixture
def logged() -> Iterator[list[Line]]:
    """Return what is logged, with what is bound."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines


@pytest.fixture
def statements(database: Database) -> list[str]:
    """Return the statements that the application sends from now on."""
    seen: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *event: seen.append(event[2]))
    return seen


def knock(
    client: FlaskClient,
    key: str | None = None,
    *,
    address: str = "192.0.2.1",
    path: str = "/v1/models",
) -> TestResponse:
    """Send a request from an address, without a key or with one."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return client.get(path, headers=headers, environ_base={"REMOTE_ADDR": address})


def exhaust(client: FlaskClient, *, address: str = "192.0.2.1") -> None:
    """Let an address fail as often as it may."""
    for _ in range(FAILURES):
        assert knock(client, accounts.new_key(), address=address).status_code == 401


def finished(lines: list[Line]) -> list[Line]:
    """Return the lines that tell of one request each."""
    return [line for line in lines if line["event"] == "request_finished"]


def test_an_address_that_fails_too_often_gets_a_retry_after(
    client: FlaskClient, timer: HandTimer
) -> None:
    exhaust(client)

    refused = knock(client, accounts.new_key())
    assert refused.status_code == 429
    assert refused.get_json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["Retry-After"] == "2"
    # However the key is missing.
    for key in (None, "", "ll_short", "x" * 5_000):
        assert knock(client, key).status_code == 429
    token = knock(client, path=f"/v1/jobs/job_{'0' * 32}/events?token=none")
    assert token.status_code == 429
    assert knock(client, accounts.new_key(), address="192.0.2.2").status_code == 401

    timer.seconds += 2
    assert knock(client, accounts.new_key()).status_code == 401
    assert knock(client, accounts.new_key()).status_code == 429


def test_a_valid_key_is_served_whatever_comes_from_its_address(
    client: FlaskClient, database: Database, timer: HandTimer
) -> None:
    key = factories.make_key(database)
    exhaust(client)
    assert knock(client, accounts.new_key()).status_code == 429

    assert knock(client, key).status_code == 200
    # One that is made during the flood, a moment later.
    new = factories.make_key(database)
    timer.seconds += 1
    assert knock(client, new).status_code == 200
    # And one that is revoked is none, at once.
    accounts.revoke_key(database, accounts.keys(database)[0].key_id)
    assert knock(client, key).status_code == 429


def test_a_flood_of_unknown_keys_asks_the_database_once_a_second(
    client: FlaskClient, timer: HandTimer, statements: list[str]
) -> None:
    exhaust(client)
    statements.clear()

    for _ in range(100):
        assert knock(client, accounts.new_key()).status_code == 429
    # The first refusal read the keys, a moment ago.
    assert [one for one in statements if "api_keys" in one] == []

    timer.seconds += 1
    exhausted_again = [knock(client, accounts.new_key()).status_code for _ in range(100)]
    assert exhausted_again.count(429) == 100
    assert len([one for one in statements if "api_keys" in one]) == 1


def test_a_flood_from_very_many_addresses_asks_the_database_no_oftener_than_from_twenty(
    client: FlaskClient, database: Database, timer: HandTimer, statements: list[str]
) -> None:
    for number in range(2_000):
        address = f"2001:db8:{number:x}::1"
        assert knock(client, accounts.new_key(), address=address).status_code == 401

    # And the live keys, once.
    assert len([one for one in statements if "api_keys" in one]) == 20 * FAILURES + 1
    timer.seconds += 1
    key = factories.make_key(database)
    assert knock(client, key, address="2001:db8:ffff::1").status_code == 200


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "local"),
        ("no address", "local"),
    ],
)
def test_an_address_counts_for_its_network(address: str, group: str) -> None:
    assert addresses.group(address) == group


def test_addresses_that_fail_take_no_more_memory_than_some() -> None:
    strangers = UnknownKeys(per_minute=2, addresses=100, timer=HandTimer())
    for number in range(1_000):
        assert strangers.fail(f"address {number}") is None
    assert len(strangers) == 100

    assert strangers.fail("address 999") is None
    assert strangers.fail("address 999") == 30
    # Forgotten long ago.
    assert [strangers.fail("address 0") for _ in range(3)] == [None, None, 30]


def test_refused_requests_are_logged_a_few_times_and_then_counted(
    client: FlaskClient, timer: HandTimer, logged: list[Line]
) -> None:
    for number in range(500):
        knock(client, accounts.new_key(), address=f"192.0.2.{number % 250}")
        knock(client, path=f"/no/such/{number}")

    lines = finished(logged)
    assert len(lines) == 2 * LINES
    assert {line["route"] for line in lines} == {"/v1/models", None}
    timer.seconds += 60
    logged.clear()
    client.get("/livez")

    assert logged == [
        {
            "event": "requests_not_logged",
            "log_level": "warning",
            "requests": 2 * (500 - LINES),
            "counts": [
                {"status": 401, "error_code": "invalid_api_key", "route": "/v1/models", "requests": 480},
                {"status": 404, "error_code": "not_found", "route": None, "requests": 480},
            ],
        }
    ]  # fmt: skip
    logged.clear()
    timer.seconds += 60
    client.get("/livez")
    assert logged == []


def test_each_kind_of_refusal_has_lines_of_its_own(
    caller: Caller, client: FlaskClient, logged: list[Line]
) -> None:
    for _ in range(100):
        client.get("/no/such")

    assert caller("GET", f"/v1/jobs/job_{'0' * 32}").status_code == 404
    assert caller("GET", "/v1/jobs?limit=0").status_code == 422
    assert [line["status"] for line in finished(logged)[LINES:]] == [404, 422]


def test_what_needs_no_key_is_counted_too_and_what_a_key_did_is_always_logged(
    caller: Caller, client: FlaskClient, logged: list[Line]
) -> None:
    for _ in range(100):
        assert client.get("/openapi.json").status_code == 200
        assert caller("GET", "/v1/models").status_code == 200

    routes = [line["route"] for line in finished(logged)]
    assert routes.count("/openapi.json") == LINES
    assert routes.count("/v1/models") == 100


def test_what_a_client_makes_up_is_not_logged(client: FlaskClient, logged: list[Line]) -> None:
    client.open("/v1/models", method="X" * 5_000)
    client.get("/" + "y" * 5_000, headers={"x-request-id": "z" * 5_000, "User-Agent": "u" * 5_000})

    assert [line["method"] for line in finished(logged)] == ["other", "GET"]
    assert max(len(str(line)) for line in logged) < 500


def test_a_fault_of_ours_is_logged_a_few_times_with_its_traceback(
    app: Router, client: FlaskClient, timer: HandTimer, logged: list[Line]
) -> None:
    def fail() -> str:
        raise RuntimeError("a fault")

    app.add_url_rule("/fault", view_func=fail)
    for _ in range(50):
        assert client.get("/fault").status_code == 500
    assert [line["event"] for line in logged].count("request_failed") == 5

    timer.seconds += 60
    client.get("/fault")
    [reported] = [line for line in logged if line["event"] == "tracebacks_not_logged"]
    assert (reported["error_type"], reported["route"], reported["requests"]) == (
        "RuntimeError",
        "/fault",
        46,
    )


def test_a_budget_distinguishes_a_thousand_kinds_and_no_more() -> None:
    timer = HandTimer()
    budget = logs.LineBudget(lines=1, timer=timer)

    written = [kind for kind in range(3_000) if budget.spend(kind)]
    timer.seconds += 60

    assert len(written) == 1_001
    assert budget.left_out() == {None: 1_999}
    assert budget.left_out() == {}
