"""Models, errors, and paths that are not served, as the official clients see them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import Callable
from datetime import UTC, datetime, time
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from core import profiles
from tests.clients.javascript import JavaScript
from tests.clients.service import Service

pytestmark = pytest.mark.e2e

MODEL = "Qwen/QVQ-72B-Preview"
#: More than a server has to read of a request that it refuses.
LARGE = 2 * 2**20

Call = Callable[[openai.OpenAI], Any]
#: Calls of the client whose routes Longlook does not have.
NOT_SERVED: dict[str, Call] = {
    "assistants": lambda client: client.beta.assistants.list(),
    "audio": lambda client: client.audio.speech.create(model="x", voice="alloy", input="x"),
    "compact": lambda client: client.responses.compact(model=MODEL, input="x"),
    "completions": lambda client: client.completions.create(model=MODEL, prompt="x"),
    "containers": lambda client: client.containers.list(),
    "conversations": lambda client: client.conversations.create(),
    "conversation": lambda client: client.conversations.delete("conv_1"),
    "delete a model": lambda client: client.models.delete(MODEL),
    "embeddings": lambda client: client.embeddings.create(model="x", input="x"),
    "evals": lambda client: client.evals.list(),
    "fine-tuning": lambda client: client.fine_tuning.jobs.list(),
    "images": lambda client: client.images.generate(prompt="x"),
    "moderations": lambda client: client.moderations.create(input="x"),
    "stored chats": lambda client: client.chat.completions.list(),
    "stored chat": lambda client: client.chat.completions.messages.list("chatcmpl-1"),
    "transcription": lambda client: client.audio.transcriptions.create(
        model="x", file=("a.wav", b"RIFF" * (LARGE // 4))
    ),
    "uploads": lambda client: client.uploads.create(
        bytes=1, filename="x", mime_type="x/y", purpose="vision"
    ),
    "upload part": lambda client: client.uploads.parts.create("upload_1", data=b"x" * LARGE),
    "vector stores": lambda client: client.vector_stores.create(),
    "videos": lambda client: client.videos.list(),
}


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return {"LONGLOOK_MODEL": MODEL}


class TestModels:
    def test_the_python_clients_list_and_retrieve_a_name_with_a_slash(
        self, service: Service, client: openai.OpenAI
    ) -> None:
        async def retrieved() -> str:
            async with service.async_client() as concurrent:
                [model] = [model async for model in concurrent.models.list()]
                assert await concurrent.models.retrieve(MODEL) == model
                return model.id

        [listed] = client.models.list()
        assert client.models.retrieve(MODEL) == listed
        assert listed.id == asyncio.run(retrieved()) == MODEL
        published = datetime.combine(profiles.QVQ.published, time(), UTC)
        assert listed.created == published.timestamp()

    def test_the_javascript_clients_list_and_retrieve_a_name_with_a_slash(
        self, javascript: JavaScript
    ) -> None:
        assert javascript.run("models", "listed") == [MODEL]
        retrieved = javascript.run("models", "retrieved", id=MODEL)
        assert retrieved["id"] == MODEL
        assert retrieved["requestId"].startswith("req_")

    def test_answers_carry_request_id_and_rate_limit(self, client: openai.OpenAI) -> None:
        answer = client.models.with_raw_response.list()
        assert answer.headers["x-request-id"] == answer.parse()._request_id  # noqa: SLF001 - public by its docs
        assert answer.headers["RateLimit"].startswith('"default";r=')
        assert answer.headers["RateLimit-Policy"].startswith('"default";q=')

    def test_another_model_is_404_in_both_languages(
        self, client: openai.OpenAI, javascript: JavaScript
    ) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("gpt-5")
        error = javascript.run("models", "refused", method="get", path="/models/gpt-5")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert (error["kind"], error["code"], error["param"]) == (
            "NotFoundError", "model_not_found", "model",
        )  # fmt: skip
        assert MODEL in caught.value.message
        assert error["type"] == caught.value.type == "invalid_request_error"
        assert error["requestID"]

    def test_an_unknown_key_is_401(self, service: Service) -> None:
        with pytest.raises(openai.AuthenticationError) as caught:
            service.client(api_key="sk-unknown").models.list()
        assert caught.value.code == "invalid_api_key"


class TestNotServed:
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("name", NOT_SERVED)
    def test_a_call_that_is_not_served_ends_at_once_with_a_json_error(
        self, client: openai.OpenAI, name: str
    ) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            NOT_SERVED[name](client)
        assert caught.value.code == "not_found"
        assert caught.value.request_id

    @pytest.mark.parametrize("method", ["post", "delete", "put", "patch"])
    def test_the_javascript_clients_get_it_too(self, javascript: JavaScript, method: str) -> None:
        error = javascript.run(
            "models", "refused", method=method, path="/uploads/upload_1/cancel", body={"a": 1}
        )
        assert (error["kind"], error["status"], error["code"]) == (
            "NotFoundError",
            404,
            "not_found",
        )

    @pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models", "/v1/uploads/upload_1/parts"])
    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            ({"Content-Length": "0"}, b""),
            ({"Content-Length": "0", "Content-Type": "application/json"}, b""),
            ({}, b'{"input": "x"}'),
            ({"Content-Type": "text/plain"}, b"x"),
            ({"Content-Type": "application/json"}, b"{" * LARGE),
        ],
        ids=["no type", "JSON type", "body without type", "text", "much"],
    )
    def test_every_kind_of_body_is_answered(
        self, service: Service, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        status, answer = raw(service, "POST", path, headers=headers, body=body)
        assert (status, answer["error"]["code"]) == (404, "not_found")

    def test_a_websocket_is_refused(self, service: Service) -> None:
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
        }
        for path in ("/v1/responses", "/v1/realtime?model=x"):
            status, answer = raw(service, "GET", path, headers=upgrade)
            assert (status, answer["error"]["code"]) == (404, "not_found")


def raw(
    service: Service, method: str, path: str, *, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, Any]:
    """Send a request with these headers alone; return the status and the JSON of the response."""
    connection = http.client.HTTPConnection(urlsplit(service.base_url).netloc, timeout=60)
    sent = {"Authorization": f"Bearer {service.key}", **headers}
    connection.request(method, path, body=body, headers=sent)
    answer = connection.getresponse()
    with contextlib.closing(connection):
        assert "json" in (answer.getheader("Content-Type") or "")
        return answer.status, json.loads(answer.read())
