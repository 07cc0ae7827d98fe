"""What the official JavaScript clients, 7 and 6, do besides single calls, and what they make of endings and errors."""

from __future__ import annotations

import typing
from contextlib import closing
from typing import Any

import pytest
from openai.types.chat import completion_create_params as of_chats
from openai.types.responses import response_create_params as of_responses

from core.database import Database
from jobs.lifecycle import Role
from jobs.store import accounts
from scripted.options import ScriptedOptions
from tests.clients.javascript import JavaScript
from tests.clients.service import Service
from tests.e2e.stack import PEPPER

pytestmark = pytest.mark.e2e

QUESTION = {"text": "How many?"}
FAILS = {"text": "How many? [[behavior:cut_off]]"}
ENDLESS = {"text": "How many? [[behavior:no_answer_at_length]]"}


@pytest.fixture(scope="module")
def engine_options() -> ScriptedOptions:
    """Answers take no time."""
    return ScriptedOptions(tokens_per_second=4000, markers=True)


class TestHelpers:
    def test_the_helper_resolves_with_a_failed_response(self, javascript: JavaScript) -> None:
        """Two attempts are two items: no index and no id is used again."""
        seen = javascript.run("features", "ending", **FAILS, options={"max_attempts": 2})
        assert seen["status"] == "failed"
        assert {"code", "message", "type", "param"} <= set(seen["error"])
        assert [item["status"] for item in seen["output"]] == ["incomplete", "incomplete"]
        assert len({item["id"] for item in seen["output"]}) == 2

    def test_the_helper_resolves_with_an_incomplete_response(self, javascript: JavaScript) -> None:
        seen = javascript.run("features", "ending", **ENDLESS, max_output_tokens=40)
        assert (seen["status"], seen["output_text"]) == ("incomplete", "")
        assert seen["incomplete_details"] == {"reason": "max_output_tokens"}
        assert [item["type"] for item in seen["output"]] == ["reasoning"]

    def test_the_helper_resolves_with_a_refusal(self, javascript: JavaScript) -> None:
        seen = javascript.run("features", "ending", text="How many? [[behavior:refusal]]")
        assert (seen["status"], seen["output_text"]) == ("completed", "")
        [part] = seen["output"][-1]["content"]
        assert part["type"] == "refusal"
        assert part["refusal"] == "I'm sorry, but I can't assist with that."

    @pytest.mark.parametrize(
        "options", [{"reasoning": {"summary": "auto"}}, {"options": {"samples": 3}}]
    )
    def test_summaries_and_samples_are_items_that_the_helper_takes(
        self, javascript: JavaScript, options: dict[str, Any]
    ) -> None:
        seen = javascript.run("features", "ending", **QUESTION, **options)
        assert seen["status"] == "completed"
        assert seen["output_text"]
        summarized = [item["summary"] for item in seen["output"] if item["type"] == "reasoning"]
        assert all(bool(summary) == ("reasoning" in options) for summary in summarized)

    def test_the_helper_by_id_starts_where_its_user_wants(self, javascript: JavaScript) -> None:
        seen = javascript.run("features", "followed", **QUESTION)
        assert seen["status"] == "completed"
        assert seen["numbers"] == list(range(5, 5 + len(seen["numbers"])))

    def test_json_that_was_cut_off_is_never_parsed(self, javascript: JavaScript) -> None:
        text = f"{QUESTION['text']} [[behavior:deaf]]"
        seen = javascript.run("features", "half", text=text, max_tokens=24)
        assert seen == {"parsed": None, "kinds": ["reasoning"], "raised": True}

    def test_the_usage_of_a_chat_reaches_the_helper(self, javascript: JavaScript) -> None:
        seen = javascript.run("features", "counted", **QUESTION)
        assert seen["usage"]["total_tokens"] == seen["total"]["total_tokens"] > 0

    def test_a_failed_chat_ends_its_stream_with_an_error(self, javascript: JavaScript) -> None:
        seen = javascript.run("features", "broken", **FAILS, options={"max_attempts": 1})
        assert (seen["code"], seen["type"]) == ("engine_fault", "server_error")


class TestCalls:
    def test_raw_answers_are_json_with_a_request_id(self, javascript: JavaScript) -> None:
        seen = javascript.run("features", "raw", **QUESTION)
        assert seen["type"] == "application/json"
        assert seen["json"]["object"] == "response"
        assert seen["status"] == "completed"
        assert seen["requestId"].startswith("req_")

    def test_lists_go_on_page_by_page(self, javascript: JavaScript) -> None:
        turns = ["user", "assistant", "user", "assistant", "user"]
        assert javascript.run("features", "items", turns=turns) == turns
        seen = javascript.run("features", "files", purpose="evals")
        assert seen["listed"] == [file["id"] for file in seen["made"]]
        assert [file["filename"] for file in seen["made"]][:2] == ["試.bin", "b"]

    def test_all_optional_fields_may_be_null(self, javascript: JavaScript) -> None:
        responses = set(typing.get_type_hints(of_responses.ResponseCreateParamsBase))
        chats = set(typing.get_type_hints(of_chats.CompletionCreateParamsBase))
        seen = javascript.run(
            "features",
            "nulls",
            responses=sorted(responses - {"input"} | {"stream"}),
            chats=sorted(chats - {"messages"} | {"stream"}),
        )
        assert seen == {"status": "completed", "reason": "stop"}

    def test_each_status_is_the_clients_own_class_with_its_code(
        self, javascript: JavaScript
    ) -> None:
        plain = {"headers": {"content-type": "text/plain"}, "body": "x"}
        calls: list[tuple[dict[str, Any], tuple[str, int, str, str | None]]] = [
            (
                {"method": "post", "path": "/responses", "body": {"input": ""}},
                ("BadRequestError", 400, "invalid_request_error", "input"),
            ),
            (
                {"method": "get", "path": "/models", "options": {"apiKey": "sk-x"}},
                ("AuthenticationError", 401, "invalid_api_key", None),
            ),
            (
                {"method": "get", "path": "/keys"},
                ("PermissionDeniedError", 403, "insufficient_scope", None),
            ),
            (
                {"method": "get", "path": "/responses/resp_1"},
                ("NotFoundError", 404, "not_found", None),
            ),
            (
                {"method": "post", "path": "/responses", **plain},
                ("APIError", 415, "unsupported_media_type", "Content-Type"),
            ),
        ]
        seen = javascript.run("features", "errors", calls=[call for call, _ in calls])
        for error, (_, expected) in zip(seen, calls, strict=True):
            assert (error["kind"], error["status"], error["code"], error["param"]) == expected
            assert error["type"] == "invalid_request_error"
            assert error["requestID"]

    def test_a_refusal_says_how_long_to_wait_and_the_client_does_it(
        self, javascript: JavaScript, service: Service
    ) -> None:
        key = accounts.new_key()
        with closing(Database(service.stack.database_url)) as database:
            accounts.create_key(
                database,
                key,
                pepper=PEPPER.encode(),
                account="default",
                role=Role.SUBMIT,
                name="limited",
                requests_per_minute=60,
            )
        seen = javascript.run("features", "limited", key=key)
        assert seen["refusal"]["code"] == "rate_limit_exceeded"
        assert 1 <= seen["refusal"]["wait"] <= 60
        assert seen["models"] == 1
