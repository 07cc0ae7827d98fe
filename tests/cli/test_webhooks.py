"""``longlook webhooks`` against canned answers, and its receiver against real requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3
from typer.testing import CliRunner

from cli import main, output, times
from cli import webhooks as commands
from core import errors
from tests.cli.fake_api import Canned, FakeApi, serving
from tests.e2e.stack import free_port
from webhooks import signature

ENDPOINT: dict[str, Any] = {
    "id": "we_0123456789abcdef0123456789abcdef",
    "name": "prod",
    "url": "https://receiver.example/hook",
    "event_types": ["job.succeeded"],
    "disabled_at": None,
    "disabled_reason": None,
    "failing_since": None,
}
TRY: dict[str, Any] = {
    "number": 1,
    "kind": "automatic",
    "state": "ended",
    "outcome": "failed",
    "status_code": 500,
    "error_code": "refused",
    "seconds": 0.25,
    "address": "192.0.2.1",
    "started_at": "2026-11-23T10:00:00.000Z",
    "due_at": "2026-11-23T10:00:00.000Z",
}
DELIVERY: dict[str, Any] = {
    "id": "dlv_0123456789abcdef0123456789abcdef",
    "status": "failed",
    "event_type": "job.succeeded",
    "origin": "https://receiver.example",
    "attempts": [TRY],
    "created_at": "2026-11-23T10:00:00.000Z",
    "payload": {"type": "job.succeeded"},
}
PAGE = {"object": "list", "data": [DELIVERY], "has_more": False}
ROOT = "/v1/webhook_endpoints"
PAIR = signature.new_pair()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving(
        {
            f"GET {ROOT}": [Canned(200, {"object": "list", "data": [ENDPOINT]})],
            f"GET {ROOT}/we_0123456789abcdef0123456789abcdef": [Canned(200, ENDPOINT)],
            f"GET {ROOT}/we_0123456789abcdef0123456789abcdef/deliveries": [Canned(200, PAGE)],
            "GET /v1/jobs/job_0123456789abcdef0123456789abcdef/deliveries": [Canned(200, PAGE)],
            "GET /v1/deliveries": [Canned(200, PAGE)],
            "GET /v1/deliveries/dlv_0123456789abcdef0123456789abcdef": [Canned(200, DELIVERY)],
            "POST /v1/deliveries/dlv_0123456789abcdef0123456789abcdef/redeliver": [
                Canned(202, DELIVERY)
            ],
            f"POST {ROOT}/we_0123456789abcdef0123456789abcdef/recover": [
                Canned(202, {"id": "rcv_1", "since": "x"})
            ],
            f"POST {ROOT}/we_0123456789abcdef0123456789abcdef/test": [
                Canned(200, {"status_code": 204, "error_code": None}),
                Canned(200, {"status_code": None, "error_code": "timed_out"}),
            ],
            "GET /.well-known/longlook-webhook-key": [Canned(200, {"public_key": PAIR.public})],
        }
    ) as fake:
        yield fake


def longlook(api: FakeApi, *words: str) -> tuple[int, Any]:
    result = CliRunner().invoke(
        main.make_app(["webhooks"]),
        ["webhooks", *words, "--json"],
        env={"LONGLOOK_URL": api.url, "LONGLOOK_API_KEY": "ll_key"},
    )
    if isinstance(result.exception, errors.LonglookError):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def test_endpoints_and_failed_deliveries_are_listed(api: FakeApi) -> None:
    assert longlook(api, "ls")[1]["data"] == [ENDPOINT]
    assert longlook(api, "ls", "--failed", "--limit", "5")[1]["data"] == [DELIVERY]
    assert api.seen[-1].path == "/v1/deliveries?status=failed&limit=5"


def test_an_endpoint_a_delivery_and_a_job_are_shown_by_their_ids(api: FakeApi) -> None:
    assert longlook(api, "show", "we_0123456789abcdef0123456789abcdef")[1] == ENDPOINT | {
        "deliveries": [DELIVERY]
    }
    assert longlook(api, "show", "dlv_0123456789abcdef0123456789abcdef")[1] == DELIVERY
    assert longlook(api, "show", "job_0123456789abcdef0123456789abcdef")[1] == PAGE
    with pytest.raises(errors.InvalidRequest):
        longlook(api, "show", "img_1")


def test_a_delivery_is_sent_again(api: FakeApi) -> None:
    assert longlook(api, "redeliver", "dlv_0123456789abcdef0123456789abcdef") == (0, DELIVERY)


def test_a_recovery_names_its_time(api: FakeApi) -> None:
    longlook(
        api, "recover", "we_0123456789abcdef0123456789abcdef", "--since", "2026-11-23T10:00:00Z"
    )

    assert json.loads(api.seen[-1].body) == {"since": "2026-11-23T10:00:00Z"}


@pytest.mark.parametrize(
    ("given", "requested"),
    [
        ("30m", "2026-11-23T11:30:00+00:00"),
        ("2h", "2026-11-23T10:00:00+00:00"),
        ("3d", "2026-11-20T12:00:00+00:00"),
        ("2026-11-01", "2026-11-01T00:00:00+00:00"),
        ("2026-11-01 10:30", "2026-11-01T10:30:00+00:00"),
        ("2026-11-01T10:30:00+02:00", "2026-11-01T10:30:00+02:00"),
        ("1763892000", "1763892000"),
        ("yesterday", "yesterday"),
        ("2026-11-31", "2026-11-31"),
    ],
)
def test_a_time_can_be_an_age_or_a_date(given: str, requested: str) -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    assert times.moment(given, now=now) == requested


def test_a_test_that_the_receiver_refuses_fails_the_command(api: FakeApi) -> None:
    assert (
        longlook(api, "test", "we_0123456789abcdef0123456789abcdef", "--event", "job.failed")[0]
        == output.Exit.OK
    )
    assert json.loads(api.seen[-1].body) == {"event_type": "job.failed"}
    assert longlook(api, "test", "we_0123456789abcdef0123456789abcdef")[0] == output.Exit.FAILED


def test_rows_have_the_state_of_endpoints_and_deliveries() -> None:
    gone = ENDPOINT | {"disabled_at": 1, "disabled_reason": "gone"}
    assert commands.endpoint_row(ENDPOINT)[1] == "ok"
    assert commands.endpoint_row(ENDPOINT | {"failing_since": 1})[1] == "failing"
    assert commands.endpoint_row(gone)[1] == "disabled: gone"
    assert commands.delivery_row(DELIVERY)[4:6] == ("1", "500")
    assert commands.attempt_row(TRY)[2:5] == ("failed", "500", "0.25 s")


def test_the_receiver_accepts_genuine_messages_and_refuses_others() -> None:
    body = json.dumps({"type": "job.succeeded", "id": "evt_1"}).encode()
    secret = signature.new_secret()
    taken: list[bytes] = []

    def woken(headers: dict[str, str], reported: bytes) -> bool:
        try:
            signature.verify(headers, reported, at=datetime.now(UTC), public_key=PAIR.public)
        except signature.NotGenuine:
            return False
        taken.append(reported)
        return True

    signed = signature.headers(
        "evt_1", body, at=datetime.now(UTC), secrets=[secret], private_key=PAIR.private
    )
    with commands.server(0, woken) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{receiver.server_port}/"
        good = urllib3.request("POST", url, body=body, headers=signed, timeout=60)
        bad = urllib3.request("POST", url, body=body + b" ", headers=signed, timeout=60)
        receiver.shutdown()
        thread.join()

    assert (good.status, bad.status) == (204, 400)
    assert taken == [body]


def test_the_receiver_of_the_command_line_verifies_by_the_services_key(api: FakeApi) -> None:
    with pytest.raises(errors.LaunchError), commands.server(0, lambda *_: True) as other:
        commands.server(other.server_port, lambda *_: True)
    done: list[int] = []
    port = free_port()

    def run() -> None:
        result = CliRunner().invoke(
            main.make_app(["webhooks"]),
            ["webhooks", "listen", "--port", str(port), "--count", "1"],
            env={"LONGLOOK_URL": api.url, "LONGLOOK_API_KEY": "ll_key"},
        )
        assert '"evt_1"' in result.stdout
        done.append(result.exit_code)

    thread = threading.Thread(target=run)
    thread.start()
    body = json.dumps({"id": "evt_1", "type": "job.succeeded"}).encode()
    signed = signature.headers(
        "evt_1", body, at=datetime.now(UTC), secrets=[], private_key=PAIR.private
    )
    answer = urllib3.request(
        "POST",
        f"http://127.0.0.1:{port}/",
        body=body,
        headers=signed,
        retries=urllib3.Retry(20, backoff_factor=0.1, allowed_methods=None),
        timeout=60,
    )
    thread.join()

    assert (answer.status, done) == (204, [0])
