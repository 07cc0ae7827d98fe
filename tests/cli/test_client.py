"""The command line's client, on real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import client
from core import errors
from core.settings import Settings
from tests.cli.fake_api import Canned, delta, events, job, serving
from tests.e2e.stack import free_port

JOB = "/v1/jobs/job_0123456789abcdef0123456789abcdef"
JOB_ID = JOB.removeprefix("/v1/jobs/")


def problem(
    code: str, detail: str, *, faults: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    return {
        "detail": detail,
        "errors": faults or [],
        "error": {"code": code, "message": detail, "param": None},
    }


def no_pause(_seconds: float) -> None:
    """Do not wait."""


def unused_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


def test_a_submission_has_files_question_options_and_an_idempotency_key(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(b"first image")
    (tmp_path / "b.jpg").write_bytes(b"second image")
    with serving({"POST /v1/jobs": [Canned(202, job("queued"))]}) as api:
        service = client.Client(api.url, key="ll_secret")
        created = service.submit(
            [tmp_path / "a.png", tmp_path / "b.jpg"], "How many?", options={"priority": "high"}
        )
        service.submit([tmp_path / "a.png"], "How many?")
    first, second = api.seen
    assert created["status"] == "queued"
    assert first.headers["Authorization"] == "Bearer ll_secret"
    assert first.headers["Content-Type"].startswith("multipart/form-data")
    assert first.body.index(b"first image") < first.body.index(b"second image")
    assert b'name="image"; filename="b.jpg"' in first.body
    assert b'{"priority": "high"}' in first.body
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]


def test_a_failed_submission_is_retried_with_the_same_idempotency_key(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"picture")
    unavailable = Canned(503, problem("unavailable", "Not now."), {"Retry-After": "0"})
    with serving({"POST /v1/jobs": [unavailable, Canned(202, job("queued"))]}) as api:
        created = client.Client(api.url, key="k").submit([image], "How many?")
    assert created["status"] == "queued"
    assert len({request.headers["Idempotency-Key"] for request in api.seen}) == 1
    assert len(api.seen) == 2


def test_a_missing_image_is_reported_before_anything_is_sent(tmp_path: Path) -> None:
    with (
        serving({}) as api,
        pytest.raises(errors.InvalidRequest, match=r"none\.png cannot be read"),
    ):
        client.Client(api.url, key="k").submit([tmp_path / "none.png"], "How many?")
    assert api.seen == []


def test_wait_requests_long_polling_and_pauses_as_the_api_says() -> None:
    pauses: list[float] = []
    answers = [
        Canned(200, job("queued"), {"Retry-After": "3"}),
        Canned(200, job("running"), {"Retry-After": "0"}),
        Canned(200, job("running")),
        Canned(200, job("succeeded")),
    ]
    with serving({f"GET {JOB}": answers}) as api:
        done = client.Client(api.url, key="k").wait(JOB_ID, pause=pauses.append)
    assert done["answer"] == {"text": "6"}
    assert pauses == [3, 0, 1]
    assert {request.headers["Prefer"] for request in api.seen} == {"wait=30"}


FINISHED = {"type": "job.finished", "job": job("succeeded")}


def test_follow_resumes_a_broken_stream_after_its_last_event() -> None:
    first = events({"type": "job.queued"}, delta("There"), broken=True)
    second = events(delta(" are six.", sequence_number=7), FINISHED | {"sequence_number": 9})
    with serving({f"GET {JOB}/events": [first, second]}) as api:
        received = list(client.Client(api.url, key="k").follow(JOB_ID, pause=no_pause))

    assert [event["sequence_number"] for event in received] == [1, 2, 7, 9]
    assert [event.get("delta") for event in received[1:3]] == ["There", " are six."]
    assert received[-1]["job"]["status"] == "succeeded"
    assert [request.headers["Last-Event-ID"] for request in api.seen] == ["0", "2"]


def test_follow_resumes_a_closed_stream() -> None:
    streams = [events({"type": "job.queued"}), events(FINISHED | {"sequence_number": 9})]
    pauses: list[float] = []
    with serving({f"GET {JOB}/events": streams}) as api:
        received = list(client.Client(api.url, key="k").follow(JOB_ID, pause=pauses.append))

    assert [event["sequence_number"] for event in received] == [1, 9]
    assert [pause for pause in pauses if pause] == [1.0]


def test_follow_of_an_unknown_job_or_service_is_an_error() -> None:
    with serving({}) as api, pytest.raises(errors.NotFound):
        list(client.Client(api.url, key="k").follow(JOB_ID, pause=no_pause))
    with pytest.raises(client.Unreachable):
        list(client.Client(unused_url(), key="k").follow(JOB_ID, pause=no_pause))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "invalid_api_key", errors.Unauthenticated),
        (403, "insufficient_scope", errors.InsufficientScope),
        (404, "not_found", errors.NotFound),
        (409, "conflict", errors.Conflict),
        (409, "idempotency_in_progress", errors.IdempotencyInProgress),
        (413, "request_too_large", errors.BodyTooLarge),
        (422, "invalid_request_error", errors.InvalidRequest),
        (422, "idempotency_key_reused", errors.IdempotencyKeyReused),
        (422, "something_new", errors.InvalidRequest),
        (418, "something_new", errors.RequestError),
        (500, "server_error", errors.Unavailable),
    ],
)
def test_an_error_response_becomes_the_error_of_its_code_or_status(
    status: int, code: str, kind: type[errors.LonglookError]
) -> None:
    fault = client.fault(status, problem(code, "What is wrong."))
    assert type(fault) is kind
    assert str(fault) == "What is wrong."


def test_a_code_that_is_more_specific_than_its_class_remains() -> None:
    fault = client.fault(422, problem("image_too_small", "Too small."))
    assert isinstance(fault, errors.RequestError)
    assert fault.specific_code == "image_too_small"


def test_all_faults_of_a_response_remain() -> None:
    listed = [
        {"pointer": "#/question", "detail": "This must not be empty.", "code": "a"},
        {"parameter": "Prefer", "detail": "No.", "code": "b"},
    ]
    fault = client.fault(422, problem("invalid_request_error", "2 faults.", faults=listed))
    assert isinstance(fault, errors.InvalidRequest)
    assert [entry.pointer for entry in fault.faults] == ["#/question", "Prefer"]


@settings(max_examples=40)
@given(
    st.integers(min_value=400, max_value=599),
    st.dictionaries(
        st.sampled_from(["detail", "title", "code", "error", "errors"]),
        st.recursive(
            st.none() | st.text() | st.integers(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    ),
)
def test_any_error_response_becomes_an_error_with_a_message(
    status: int, body: dict[str, Any]
) -> None:
    assert str(client.fault(status, body))


def test_an_unreachable_service_is_reported_with_a_remedy() -> None:
    with pytest.raises(client.Unreachable, match="longlook up"):
        client.Client(unused_url(), key="k").job(JOB_ID)


def test_an_error_response_without_json_has_a_message() -> None:
    assert client.fault(502, {}).args == ("HTTP status 502.",)


def test_a_configured_key_takes_precedence_over_the_key_in_the_home_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / client.KEY_FILE).write_text("ll_home\n")
    assert client.key(Settings.read({}, home=tmp_path)) == "ll_home"
    assert client.key(Settings.read({}, home=tmp_path, api_key="ll_set")) == "ll_set"


def test_without_any_key_the_message_names_the_variable_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(errors.Unauthenticated, match=r"LONGLOOK_API_KEY.*admin\.key"):
        client.key(Settings.read({}, home=tmp_path))


def test_a_probe_returns_status_and_body_or_zero_without_a_response() -> None:
    with serving({"GET /readyz": [Canned(503, {"ready": False})]}) as api:
        assert client.probe(f"{api.url}/readyz", seconds=5) == (503, {"ready": False})
    assert client.probe(unused_url(), seconds=5) == (0, {})
