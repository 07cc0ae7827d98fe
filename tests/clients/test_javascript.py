"""What the official JavaScript clients, 7 and 6, do beyond models and errors: one scenario for each feature."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import openai
import pytest

from tests.api import image_files
from tests.clients.javascript import JavaScript
from tests.clients.service import Service
from tests.e2e.stack import eventually
from webhooks import signature

pytestmark = pytest.mark.e2e

IMAGE = image_files.data_url(image_files.png())
QUESTION = {"text": "How many circles?", "image": IMAGE}
#: An answer that takes so long that a test can end it.
ENDLESS = {"text": "How many circles? [[behavior:no_answer_at_length]]", "image": IMAGE}


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
        requests = [line(number) for number in range(300)]
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
