"""What the official JavaScript clients, 7 and 6, do beyond models and errors: one scenario for each feature."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime
from typing import Any

import openai
import pytest

from scripted.options import ScriptedOptions
from tests.api import image_files
from tests.clients.javascript import JavaScript
from tests.clients.service import Service
from tests.e2e.stack import eventually
from webhooks import signature

pytestmark = pytest.mark.e2e

IMAGE = image_files.data_url(image_files.png())
QUESTION = {"text": "How many circles?", "image": IMAGE}
#: The engine falls silent after a few tokens, so this runs until it is cancelled.
ENDLESS = {"text": "How many circles? [[behavior:silent]]", "image": IMAGE}


@pytest.fixture(scope="module")
def engine_options() -> ScriptedOptions:
    """Return how the engine behaves: fast, so that many calls of two clients take little time."""
    return ScriptedOptions(tokens_per_second=2000, markers=True)


def line(number: int, **body: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a line of a batch."""
    return {
        "custom_id": f"q-{number}",
        "method": "POST",
        "url": "/v1/responses",
        "body": {"model": "tiny-qvq", "input": "How many circles?"} | body,
    }


class TestChat:
    def test_a_whole_answer_has_the_trace_and_the_counts(self, javascript: JavaScript) -> None:
        answer = javascript.run("chat", "whole", **QUESTION)
        [choice] = answer["choices"]
        assert answer["id"].startswith("chatcmpl-")
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"]
        assert choice["message"]["reasoning_content"]
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    def test_chunks_join_to_the_answer_and_the_usage_is_last(self, javascript: JavaScript) -> None:
        options = {"stream_options": {"include_usage": True}, "seed": 7}
        chunks = javascript.run("chat", "chunks", **QUESTION, **options)
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
        assert "".join(delta.get("reasoning_content") or "" for delta in deltas)
        assert "".join(delta.get("content") or "" for delta in deltas)
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["completion_tokens"] > 0
        assert len({chunk["id"] for chunk in chunks}) == 1

    def test_the_stream_helper_ends_with_the_whole_completion(self, javascript: JavaScript) -> None:
        seen = javascript.run("chat", "helper", **QUESTION)
        [choice] = seen["final"]["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"] == seen["content"]

    def test_a_structured_answer_is_parsed(self, javascript: JavaScript) -> None:
        parsed = javascript.run("chat", "parsed", **QUESTION)
        assert isinstance(parsed["count"], int)

    def test_leaving_a_stream_cancels_the_job(
        self, javascript: JavaScript, service: Service
    ) -> None:
        identity = javascript.run("chat", "abandoned", **ENDLESS)
        job = identity.replace("chatcmpl-", "job_")
        native = service.client()
        assert eventually(lambda: native.get(f"/jobs/{job}", cast_to=dict)["status"] == "cancelled")


class TestFilesAndBatches:
    def test_a_file_is_stored_listed_read_and_deleted(self, javascript: JavaScript) -> None:
        seen = javascript.run(
            "files",
            "stored",
            text='{"a": "試"}\n',
            filename="Aufgaben für 試験.jsonl",
            purpose="batch",
        )
        created = seen["created"]
        assert created["filename"] == "Aufgaben für 試験.jsonl"
        assert created["expires_at"] == created["created_at"] + 3600
        assert seen["processed"] == created
        assert seen["content"] == '{"a": "試"}\n'
        assert created["id"] in seen["listed"]
        assert seen["deleted"]["deleted"] is True

    def test_a_batch_runs_its_lines_and_writes_both_files(self, javascript: JavaScript) -> None:
        requests = [line(1), line(2), line(3, max_output_tokens=16)]
        seen = javascript.run("files", "batch", endpoint="/v1/responses", requests=requests)
        batch = seen["batch"]
        assert batch["status"] == "completed"
        assert batch["metadata"] == {"from": "javascript"}
        assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
        assert seen["created"]["id"] in seen["listed"]
        assert {line["custom_id"] for line in seen["output"]} == {"q-1", "q-2", "q-3"}
        assert all(line["response"]["status_code"] == 200 for line in seen["output"])
        assert seen["errors"] is None

    def test_a_cancelled_batch_ends_cancelled(self, javascript: JavaScript) -> None:
        endless = line(0, input=ENDLESS["text"])
        requests = [endless, *(line(number) for number in range(1, 300))]
        seen = javascript.run("files", "cancelled", endpoint="/v1/responses", requests=requests)
        assert seen["first"]["status"] in ("cancelling", "cancelled")
        assert seen["batch"]["status"] == "cancelled"


class TestWebhooks:
    def test_a_message_is_unwrapped(self, javascript: JavaScript) -> None:
        secret, data = signature.new_secret(), {"id": "resp_1"}
        event = {"id": "evt_1", "object": "event", "created_at": 1, "type": "response.completed"}
        body = json.dumps(event | {"data": data})
        headers = signature.headers(
            "evt_1",
            body.encode(),
            at=datetime.now(UTC),
            secrets=[secret],
            private_key=signature.new_pair().private,
        )
        seen = javascript.run("webhooks", "unwrapped", body=body, headers=headers, secret=secret)
        assert seen == {"type": "response.completed", "id": "resp_1"}

    def test_endpoints_are_managed(self, javascript: JavaScript) -> None:
        if javascript.package == "openai6":
            pytest.skip("Version 6 has no webhook endpoints.")
        seen = javascript.run("webhooks", "endpoints", url="http://127.0.0.1:9/hook")
        assert {"response.completed", "batch.expired", "job.succeeded"} <= set(seen["types"])
        assert seen["updated"]["event_types"] == ["response.failed"]
        assert seen["rotated"]["signing_secret"] != seen["created"]["signing_secret"]
        assert seen["retrieved"]["id"] == seen["created"]["id"]
        assert seen["created"]["id"] in seen["listed"]
        assert seen["deleted"]["deleted"] is True


def test_the_python_client_sees_what_javascript_made(
    javascript: JavaScript, client: openai.OpenAI
) -> None:
    requests = [line(1)]
    seen = javascript.run("files", "batch", endpoint="/v1/responses", requests=requests)
    assert client.batches.retrieve(seen["batch"]["id"]).to_dict() == seen["batch"]


def stored(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response without what the client adds to it."""
    return {name: value for name, value in response.items() if name != "output_text"}


class TestResponses:
    def test_a_foreground_response_is_held_until_it_ends(self, javascript: JavaScript) -> None:
        seen = javascript.run("responses", "foreground", **QUESTION)
        response = seen["response"]
        assert response["status"] == "completed"
        assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
        assert seen["text"]
        assert response["usage"]["total_tokens"] > 0

    def test_a_background_response_is_polled_and_lists_its_input(
        self, javascript: JavaScript
    ) -> None:
        seen = javascript.run("responses", "background", **QUESTION)
        assert seen["created"]["status"] in ("queued", "in_progress")
        assert seen["created"]["output"] == []
        assert seen["response"]["status"] == "completed"
        assert seen["text"]
        [item] = seen["items"]
        assert [part["type"] for part in item["content"]] == ["input_text", "input_image"]

    def test_a_stream_replays_equal_from_the_start_and_from_the_middle(
        self, javascript: JavaScript
    ) -> None:
        seen = javascript.run("responses", "streamed", **QUESTION)
        numbers = [event["sequence_number"] for event in seen["live"]]
        assert numbers == list(range(len(numbers)))
        assert seen["again"] == seen["live"]
        assert seen["rest"] == seen["live"][seen["after"] + 1 :]
        assert seen["live"][-1]["type"] == "response.completed"
        assert seen["live"][-1]["response"] == stored(seen["response"])

    def test_the_helper_ends_with_the_response_live_and_later(self, javascript: JavaScript) -> None:
        seen = javascript.run("responses", "helper", **QUESTION)
        assert seen["final"]["status"] == "completed"
        assert seen["final"]["output_text"] == seen["text"]
        assert seen["replayed"] == seen["final"]

    def test_a_structured_answer_is_parsed(self, javascript: JavaScript) -> None:
        assert isinstance(javascript.run("responses", "parsed", **QUESTION)["count"], int)

    def test_dates_times_and_identifiers_are_parsed(self, javascript: JavaScript) -> None:
        """Zod writes a `pattern` next to each `format`, and checks the answer by it."""
        for parsed in javascript.run("responses", "formatted", **QUESTION):
            assert date.fromisoformat(parsed["day"]).year >= 2010
            assert uuid.UUID(parsed["number"]).version == 4

    def test_parts_that_a_model_uses_twice_and_nullable_ones_are_parsed(
        self, javascript: JavaScript
    ) -> None:
        """With Zod 3 these are `definitions` and `nullable`, and with Zod 4 parts with ids are `definitions`."""
        invoices, lines = javascript.run("responses", "reused", **QUESTION)
        for parsed in invoices:
            addresses = [parsed["invoice_address_of_the_customer"], *parsed["delivery_addresses"]]
            names = ["street", "house number with a name of many characters", "kinds"]
            assert all(list(address) == names for address in addresses)
        for parsed in lines:
            assert all(isinstance(parsed[name]["x"], int | float) for name in ("from", "to"))

    def test_a_cancelled_response_resolves_the_helper_and_can_be_cancelled_again(
        self, javascript: JavaScript
    ) -> None:
        seen = javascript.run("responses", "cancelled", **ENDLESS)
        assert seen["final"]["status"] == "cancelled"
        assert seen["final"]["incomplete_details"] is None
        assert stored(seen["again"]) == stored(seen["retrieved"])
        assert seen["retrieved"]["status"] == "cancelled"
        [reasoning] = seen["retrieved"]["output"]
        assert (reasoning["type"], reasoning["status"]) == ("reasoning", "incomplete")

    def test_a_deleted_response_is_gone(self, javascript: JavaScript) -> None:
        seen = javascript.run("responses", "deleted", **QUESTION)
        assert seen["status"] == 404

    def test_input_tokens_are_counted(self, javascript: JavaScript) -> None:
        counted = javascript.run("responses", "counted", **QUESTION)
        assert counted["object"] == "response.input_tokens"
        assert counted["input_tokens"] > 0

    def test_the_header_makes_a_repeated_request_the_same(self, javascript: JavaScript) -> None:
        key = f"{javascript.package}-{datetime.now(UTC).timestamp()}"
        first, second = javascript.run("responses", "repeated", **QUESTION, key=key)
        assert first == second
