"""Errors of the routes that OpenAI's clients call: 400, places in OpenAI's notation, and 422 for a reused key alone."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import openai
import pytest
from flask import Response
from flask.testing import FlaskClient
from pydantic import BaseModel

from api import errors as problems
from api.framework import ResponseSpec, Router, reply, route
from api.openai.places import relocated
from core import errors
from core.settings import Settings
from tests.api.conftest import Caller

MODEL = "Qwen/QVQ-72B-Preview"


class _Done(BaseModel):
    done: bool = True


class _Raising:
    """What the routes of a test raise."""

    act: Callable[[], None]


def _routes(path: str, style: problems.ErrorStyle) -> _Raising:
    class Routes(_Raising):
        TAG = "test"
        ERRORS = style

        @route.post(f"/test/{path}", operation_id=path, answers={200: ResponseSpec(None, "")})
        def create(self) -> Response:
            """Raise."""
            self.act()
            return reply(_Done())

    return Routes()


Act = Callable[[Exception], dict[str, tuple[int, str | None, str | None]]]


@pytest.fixture
def raised(app: Router, client: FlaskClient) -> Act:
    """Return what answers, by path, the status, the code and the parameter of the response to an error."""
    surfaces = {
        "openai": _routes("openai", problems.OPENAI),
        "chat": _routes("chat", problems.OPENAI_CHAT),
        "native": _routes("native", problems.NATIVE),
    }
    for surface in surfaces.values():
        app.include(surface)

    def answers(error: Exception) -> dict[str, tuple[int, str | None, str | None]]:
        def act() -> None:
            raise error

        found = {}
        for path, surface in surfaces.items():
            surface.act = act
            answer = client.post(f"/test/{path}")
            shown = answer.get_json()["error"]
            found[path] = (answer.status_code, shown["code"], shown["param"])
        return found

    return answers


def test_a_refused_request_is_400_and_natively_422(raised: Act) -> None:
    place = "#/input/0/content/1/image_url"
    error = problems.refused([errors.Fault(place, "This is no image.", "invalid_image_format")])

    param = "input[0].content[1].image_url"
    assert raised(error) == {
        "openai": (400, "invalid_image_format", param),
        "chat": (400, "invalid_image_format", param),
        "native": (422, "invalid_image_format", param),
    }


def test_an_unknown_model_is_404_for_chat_alone(raised: Act) -> None:
    error = problems.refused([errors.Fault("#/model", "There is none.", "model_not_found")])

    assert raised(error) == {
        "openai": (400, "model_not_found", "model"),
        "chat": (404, "model_not_found", "model"),
        "native": (422, "model_not_found", "model"),
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.IdempotencyKeyReused("Reused."), 422, "idempotency_key_reused"),
        (errors.ImageRejected("Large.", code="image_file_too_large"), 413, "image_file_too_large"),
        (errors.NotFound("There is none."), 404, "not_found"),
        (errors.Conflict("It has ended."), 409, "conflict"),
        (errors.QueueFull("It is full.", retry_after=5), 429, "queue_full"),
        (errors.Unavailable("Not now."), 503, "unavailable"),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else str(given),
)
def test_all_other_statuses_are_the_same_everywhere(
    raised: Act, error: Exception, status: int, code: str
) -> None:
    assert {answer[:2] for answer in raised(error).values()} == {(status, code)}


def test_an_image_without_a_status_of_its_own_is_400(raised: Act) -> None:
    answers = raised(errors.ImageRejected("Damaged.", code="image_parse_error"))
    assert {path: answer[0] for path, answer in answers.items()} == {
        "openai": 400, "chat": 400, "native": 422,
    }  # fmt: skip


@pytest.mark.parametrize(("seconds", "sent"), [(0, "1"), (7, "7"), (3600, "60")])
def test_retry_after_is_always_between_1_and_60(
    app: Router, client: FlaskClient, seconds: int, sent: str
) -> None:
    surface = _routes("openai", problems.OPENAI)
    app.include(surface)

    def full() -> None:
        raise errors.QueueFull("Later.", retry_after=seconds)

    def unavailable() -> None:
        raise errors.Unavailable("Later.", retry_after=seconds)

    for surface.act in (full, unavailable):
        assert client.post("/test/openai").headers["Retry-After"] == sent


def test_places_of_the_native_request_become_those_of_the_callers_own() -> None:
    native = problems.refused(
        [
            errors.Fault("#/question", "This is too long."),
            errors.Fault("#/options/webhook/url", "There is no such host."),
            errors.Fault("#/options/answer_format/schema", "This is no schema."),
        ]
    )
    places = {
        "#/question": "#/messages/2/content",
        "#/options": "#/options",
        "#/options/answer_format": "#/response_format/json_schema",
    }

    with pytest.raises(errors.InvalidRequest) as caught, relocated(places):
        raise native

    assert [fault.pointer for fault in caught.value.faults] == [
        "#/messages/2/content",
        "#/options/webhook/url",
        "#/response_format/json_schema/schema",
    ]
    assert caught.value.param == "messages[2].content"
    assert "response_format.json_schema.schema: This is no schema." in caught.value.message


def test_an_error_without_places_passes_unchanged() -> None:
    full = errors.QueueFull("It is full.", retry_after=5)
    with pytest.raises(errors.QueueFull) as caught, relocated({"#": "#/input"}):
        raise full
    assert caught.value is full


class TestModels:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"model": MODEL})

    @pytest.fixture
    def official(self, app: Router, caller: Caller) -> openai.OpenAI:
        transport = httpx2.WSGITransport(app)
        return openai.OpenAI(
            base_url="http://localhost/v1",
            api_key=caller.key,
            max_retries=0,
            http_client=httpx2.Client(transport=transport, timeout=60),
        )

    def test_a_name_with_a_slash_is_found_in_the_form_that_the_client_sends(
        self, official: openai.OpenAI
    ) -> None:
        [listed] = official.models.list()
        assert official.models.retrieve(MODEL) == listed
        assert listed.id == MODEL

    def test_another_model_is_not_found(self, official: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            official.models.retrieve("Qwen/another")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert caught.value.request_id

    @pytest.mark.parametrize(
        "target",
        [
            "/v1/models%2FQwen%2FQVQ-72B-Preview",
            "/v1%2Fmodels/x",
            "/v1/models/%51wen/QVQ-72B-Preview",
        ],
    )
    def test_only_the_name_may_have_encoded_slashes_and_nothing_else_is_encoded_needlessly(
        self, caller: Caller, target: str
    ) -> None:
        answer = caller("GET", target, environ_overrides={"RAW_URI": target})
        assert answer.status_code == 404
        assert answer.get_json()["error"]["code"] == "not_found"

    @pytest.mark.parametrize("name", [MODEL, "Qwen%2FQVQ-72B-Preview", "Qwen%2fQVQ-72B-Preview"])
    def test_a_slash_may_be_encoded_or_not(self, caller: Caller, name: str) -> None:
        target = f"/v1/models/{name}"
        answer = caller("GET", target, environ_overrides={"RAW_URI": target})
        assert answer.get_json()["id"] == MODEL
