"""Headers of every response, and log lines of every request."""

from __future__ import annotations

import pytest
import structlog
from flask.testing import FlaskClient

from api.framework import Router
from core import errors
from tests.api.conftest import Caller


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/v1/nothing", "/openapi.json"])
def test_every_answer_has_a_request_id_and_security_headers(caller: Caller, path: str) -> None:
    headers = caller("GET", path).headers
    assert headers["x-request-id"].startswith("req_")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [("abcd-1234.X_z", True), ("short", False), ("x" * 65, False), ("new line\tin it", False)],
)
def test_a_sane_request_id_is_taken_over(caller: Caller, given: str, *, taken: bool) -> None:
    answer = caller("GET", "/v1/nothing", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) is taken
    assert answer.get_json()["request_id"] == answer.headers["x-request-id"]


def test_a_request_leaves_one_line_with_the_route_and_nothing_of_what_was_sent(
    caller: Caller,
) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        job = caller.job(question="CANARY?", metadata={"CANARY": "CANARY"})
        caller("GET", "/v1/CANARY?CANARY=1")
    # Redis is unavailable here, which is logged, too.
    lines = [line for line in lines if line["event"] != "redis_lost"]
    assert [line["event"] for line in lines] == [
        "job_submitted", "request_finished", "request_finished",
    ]  # fmt: skip
    submitted, finished, missed = lines
    assert submitted["job_id"] == finished["job_id"] == job["id"]
    assert submitted["request_id"] == finished["request_id"]
    assert (finished["method"], finished["route"], finished["status"]) == ("POST", "/v1/jobs", 202)
    assert finished["duration_ms"] > 0
    assert (missed["route"], missed["error_code"]) == (None, "not_found")
    assert "job_id" not in missed
    assert "CANARY" not in str(lines)
    assert caller.key not in str(lines)


def test_health_checks_leave_no_line(client: FlaskClient) -> None:
    with structlog.testing.capture_logs() as lines:
        client.get("/livez")
        client.get("/readyz")
    assert lines == []


def test_an_error_satisfies_rfc_9457_and_the_openai_client(caller: Caller) -> None:
    answer = caller("GET", "/v1/jobs/job_0")
    body = answer.get_json()
    assert answer.content_type == "application/problem+json"
    assert body == {
        "type": "/problems/not-found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no such job.",
        "instance": "/v1/jobs/job_0",
        "request_id": answer.headers["x-request-id"],
        "errors": [],
        "error": {
            "message": "There is no such job.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        },
    }


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (errors.IdempotencyInProgress("Wait.", retry_after=1), 409, ("1", "true")),
        (errors.Conflict("No."), 409, (None, "false")),
        (errors.IdempotencyKeyReused("No."), 422, (None, "false")),
        (errors.Unavailable("Not now.", retry_after=7), 503, ("7", "true")),
        (errors.EngineFault("What does it do here?"), 500, (None, None)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_whether_and_when_to_try_again(
    app: Router,
    caller: Caller,
    error: errors.LonglookError,
    status: int,
    headers: tuple[str | None, str | None],
) -> None:
    def fail() -> str:
        raise error

    app.add_url_rule("/fail", view_func=fail)
    answer = caller("GET", "/fail")
    assert answer.status_code == status
    assert (answer.headers.get("Retry-After"), answer.headers.get("x-should-retry")) == headers
    assert answer.get_json()["error"]["type"] == (
        "server_error" if status >= 500 else "invalid_request_error"
    )
