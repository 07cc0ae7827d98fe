"""What the official Python clients do besides single calls: raw answers, pages, retries, errors, helpers, webhooks."""

from __future__ import annotations

import asyncio
import json
import typing
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import openai
import pydantic
import pytest
from openai.types import Batch, FileDeleted, FileObject, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from openai.types.webhooks import WebhookEndpoint, WebhookEndpointWithSecret

from core.database import Database
from jobs.lifecycle import Role
from jobs.store import accounts
from scripted.options import ScriptedOptions
from tests.clients.service import Service
from tests.e2e.stack import PEPPER, eventually
from tests.receivers import receiving

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
MODEL = "tiny-qvq"
QUESTION = "How many?"
USER: Any = [{"role": "user", "content": QUESTION}]
FAILS = f"{QUESTION} [[behavior:cut_off]]"
#: The engine falls silent, so this runs until it is cancelled.
SILENT = f"{QUESTION} [[behavior:silent]]"
ONCE = {"options": {"max_attempts": 1}}
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"input": QUESTION}}


@pytest.fixture(scope="module")
def engine_options() -> ScriptedOptions:
    """Answers take no time."""
    return ScriptedOptions(tokens_per_second=4000, markers=True)


class Count(pydantic.BaseModel):
    """A number of things."""

    count: int


def strict(model: type[pydantic.BaseModel], shown: pydantic.BaseModel) -> pydantic.BaseModel:
    """Validate an object by the client's own type, as JSON, without conversions."""
    return model.model_validate_json(shown.model_dump_json(exclude_unset=True), strict=True)


def limited(service: Service, *, per_minute: int) -> str:
    """Return a new key with a limit of its own."""
    key = accounts.new_key()
    with closing(Database(service.stack.database_url)) as database:
        accounts.create_key(
            database,
            key,
            pepper=PEPPER.encode(),
            account="default",
            role=Role.SUBMIT,
            name="limited",
            requests_per_minute=per_minute,
        )
    return key


def exhaust(client: openai.OpenAI) -> None:
    """Send requests until one is refused, 200 at most."""
    for _ in range(200):
        client.models.list()


def uploaded(client: openai.OpenAI, *lines: Json, endpoint: str = "/v1/responses") -> Any:  # noqa: ANN401 - arguments
    """Return the arguments of a batch of these lines."""
    data = "".join(f"{json.dumps(each)}\n" for each in lines).encode()
    file = client.files.create(file=("lines.jsonl", data), purpose="batch")
    return {"input_file_id": file.id, "endpoint": endpoint, "completion_window": "24h"}


class TestRawAnswers:
    def test_headers_come_with_the_parsed_answer(self, client: openai.OpenAI) -> None:
        raw = client.responses.with_raw_response.create(input=SILENT, background=True)
        response = raw.parse()
        assert raw.headers["x-request-id"] == response._request_id  # noqa: SLF001 - public by its docs
        assert raw.headers["content-type"] == "application/json"
        polled = client.responses.with_raw_response.retrieve(response.id)
        assert int(polled.headers["openai-poll-after-ms"]) > 0
        client.responses.cancel(response.id)
        ended = client.responses.with_raw_response.retrieve(response.id)
        assert "openai-poll-after-ms" not in ended.headers

    def test_a_body_is_read_as_a_stream(self, client: openai.OpenAI) -> None:
        with client.responses.with_streaming_response.create(input=QUESTION) as answer:
            assert answer.parse().status == "completed"
        with client.chat.completions.with_streaming_response.create(
            model=MODEL, messages=USER, stream=True
        ) as lines:
            sent = [line for line in lines.iter_lines() if line.startswith("data:")]
        assert sent[-1] == "data: [DONE]"

    def test_files_are_read_in_each_way_of_the_client(
        self,
        client: openai.OpenAI,
        tmp_path: Any,  # noqa: ANN401 - pytest's
    ) -> None:
        data = b"\x00\xff text"
        file = client.files.create(file=("ä.bin", data), purpose="user_data")
        assert client.files.content(file.id).content == data
        assert client.files.with_raw_response.content(file.id).content == data
        with client.files.with_streaming_response.content(file.id) as content:
            content.stream_to_file(tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data


class TestTypes:
    def test_each_object_passes_the_strict_validation_of_the_client(
        self, client: openai.OpenAI
    ) -> None:
        file = client.files.create(file=b"x", purpose="user_data")
        strict(FileObject, file)
        strict(FileDeleted, client.files.delete(file.id))
        strict(Model, client.models.list().data[0])
        chat = client.chat.completions.create(model=MODEL, messages=USER)
        strict(ChatCompletion, chat)
        created = client.batches.create(**uploaded(client, LINE))
        strict(Batch, created)
        assert eventually(lambda: client.batches.retrieve(created.id).status == "completed")
        strict(Batch, client.batches.retrieve(created.id))

    def test_each_event_and_chunk_passes_it_too(self, client: openai.OpenAI) -> None:
        event_type: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)
        for question in (QUESTION, FAILS):
            events = list(
                client.responses.create(
                    input=question,
                    stream=True,
                    reasoning={"effort": "low", "summary": "auto"},
                    extra_body=ONCE,
                )
            )
            sent = [event.model_dump_json(exclude_unset=True) for event in events]
            assert all(event_type.validate_json(each, strict=True) for each in sent)
        chunks = client.chat.completions.create(
            model=MODEL, messages=USER, stream=True, stream_options={"include_usage": True}
        )
        assert all(strict(ChatCompletionChunk, chunk) for chunk in chunks)

    def test_a_stream_has_the_grammar_that_all_clients_need(self, client: openai.OpenAI) -> None:
        """Created without output, one id, queued only before the items, and each item added, closed and in the end."""
        for question in (QUESTION, FAILS, "Go. [[behavior:no_answer_at_length]]"):
            events = list(
                client.responses.create(
                    input=question, stream=True, max_output_tokens=60, extra_body={"options": {"max_attempts": 2}}
                )
            )  # fmt: skip
            kinds = [event.type for event in events]
            assert kinds[0] == "response.created"
            responses = [event.response for event in events if hasattr(event, "response")]
            assert responses[0].output == []
            assert len({response.id for response in responses}) == 1
            first = kinds.index("response.output_item.added")
            assert not {"response.queued", "response.in_progress"} & set(kinds[first:])
            added = [e for e in events if e.type == "response.output_item.added"]
            done = [e for e in events if e.type == "response.output_item.done"]
            final = [item.id for item in responses[-1].output]
            assert [e.output_index for e in added] == list(range(len(added)))
            assert [e.item.id for e in added] == [e.item.id for e in done] == final
            for event in added:
                shown = event.item.model_dump()
                assert shown["content"] == []
                assert shown.get("summary", []) == []
            scoped = {e.item_id for e in events if hasattr(e, "item_id")}
            assert scoped <= set(final)


class TestPages:
    def test_each_list_goes_on_by_itself(self, client: openai.OpenAI) -> None:
        made = {client.files.create(file=b"x", purpose="evals").id for _ in range(3)}
        assert {file.id for file in client.files.list(purpose="evals", limit=1)} == made

        batch = uploaded(client, LINE)
        batches = [client.batches.create(**batch).id for _ in range(3)]
        listed = [each.id for each in client.batches.list(limit=2)]
        assert listed[:3] == batches[::-1]
        assert len(listed) == len(set(listed))

        turns: Any = [
            {"role": role, "content": role} for role in ("user", "assistant", "user", "assistant", "user")
        ]  # fmt: skip
        response = client.responses.create(input=turns, background=True)
        items = client.responses.input_items
        ascending = [item.id for item in items.list(response.id, limit=2, order="asc")]
        assert len(ascending) == 5
        assert [item.id for item in items.list(response.id, limit=1)] == ascending[::-1]

        endpoints = [
            client.webhooks.create(
                name=f"{number}", url="http://127.0.0.1:9/", event_types=["response.failed"]
            ).id
            for number in range(3)
        ]
        assert {each.id for each in client.webhooks.list(limit=1)} >= set(endpoints)
        for endpoint in endpoints:
            client.webhooks.delete(endpoint)

    def test_the_asynchronous_client_pages_as_well(self, service: Service) -> None:
        async def pages() -> tuple[set[str], set[str]]:
            async with service.async_client() as client:
                made = {
                    (await client.files.create(file=b"x", purpose="fine-tune")).id for _ in range(3)
                }
                listed = client.files.list(purpose="fine-tune", limit=1)
                return made, {file.id async for file in listed}

        made, listed = asyncio.run(pages())
        assert listed == made

    def test_limits_outside_of_the_range_are_refused(self, client: openai.OpenAI) -> None:
        response = client.responses.create(input=QUESTION)
        lists: list[tuple[Any, tuple[str, ...], int]] = [
            (client.files.list, (), 10_000),
            (client.batches.list, (), 100),
            (client.responses.input_items.list, (response.id,), 100),
        ]
        for call, arguments, most in lists:
            assert call(*arguments, limit=most).has_more is False
            for wrong in ({"limit": 0}, {"limit": most + 1}, {"after": "nothing"}):
                with pytest.raises(openai.BadRequestError) as caught:
                    call(*arguments, **wrong)
                assert caught.value.param in wrong


class TestRetries:
    def test_a_refusal_says_how_long_to_wait_and_the_client_does_it(self, service: Service) -> None:
        key = limited(service, per_minute=60)
        impatient = service.client(api_key=key)
        with pytest.raises(openai.RateLimitError) as caught:
            exhaust(impatient)
        assert caught.value.code == "rate_limit_exceeded"
        assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 60
        assert caught.value.response.headers.get("x-should-retry") != "false"
        assert impatient.with_options(max_retries=5).models.list().data

    def test_no_wait_is_longer_than_clients_accept(self, service: Service) -> None:
        impatient = service.client(api_key=limited(service, per_minute=1))
        with pytest.raises(openai.RateLimitError) as caught:
            exhaust(impatient)
        assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 60

    def test_what_cannot_succeed_is_not_tried_again(self, service: Service) -> None:
        patient = service.client(max_retries=3)
        held = patient.responses.create(input=SILENT, background=True)
        with pytest.raises(openai.ConflictError) as conflict:
            patient.responses.delete(held.id)
        patient.responses.cancel(held.id)
        headers = {"Idempotency-Key": "not tried again"}
        patient.responses.create(input="One?", background=True, extra_headers=headers)
        with pytest.raises(openai.UnprocessableEntityError) as reused:
            patient.responses.create(input="Two?", background=True, extra_headers=headers)
        for caught, code in (
            (conflict, "response_not_deletable"),
            (reused, "idempotency_key_reused"),
        ):
            assert caught.value.code == code
            assert caught.value.response.headers["x-should-retry"] == "false"
            assert caught.value.request.headers["x-stainless-retry-count"] == "0"

    def test_a_timeout_of_one_call_ends_that_call(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.5).responses.create(input=SILENT)

    def test_a_key_makes_one_batch(self, client: openai.OpenAI) -> None:
        batch = uploaded(client, LINE)
        headers = {"Idempotency-Key": "one batch"}
        made = {client.batches.create(**batch, extra_headers=headers).id for _ in range(3)}
        assert len(made) == 1


class TestErrors:
    def test_each_status_is_the_clients_own_class_with_code_and_type(
        self, client: openai.OpenAI, service: Service
    ) -> None:
        calls: list[tuple[type[openai.APIStatusError], int, str, Any]] = [
            (openai.BadRequestError, 400, "invalid_request_error", lambda: client.responses.create(input="")),
            (openai.AuthenticationError, 401, "invalid_api_key", service.client(api_key="sk-x").models.list),
            (openai.PermissionDeniedError, 403, "insufficient_scope", lambda: client.get("/keys", cast_to=object)),
            (openai.NotFoundError, 404, "not_found", lambda: client.responses.retrieve("resp_1")),
            (openai.APIStatusError, 413, "request_too_large", lambda: client.responses.create(input="x" * 70 * 2**20)),
            (openai.APIStatusError, 415, "unsupported_media_type", lambda: client.post(
                "/responses", cast_to=object, options={"headers": {"Content-Type": "text/plain"}}
            )),
        ]  # fmt: skip
        for kind, status, code, call in calls:
            with pytest.raises(kind) as caught:
                call()
            error = caught.value
            assert (error.status_code, error.code, error.type) == (
                status,
                code,
                "invalid_request_error",
            )
            assert error.request_id

    @pytest.mark.parametrize("question", [FAILS, "Go. [[behavior:no_answer_at_length]]"])
    def test_the_helper_raises_unless_a_response_is_completed(
        self, client: openai.OpenAI, question: str
    ) -> None:
        with client.responses.stream(
            model=MODEL, input=question, max_output_tokens=30, extra_body=ONCE
        ) as stream:
            last = list(stream)[-1]
            with pytest.raises(RuntimeError):
                stream.get_final_response()
        assert last.type in ("response.failed", "response.incomplete")
        assert client.responses.retrieve(last.response.id) == last.response

    def test_an_error_of_a_response_has_all_members_that_tools_demand(
        self, client: openai.OpenAI
    ) -> None:
        failed = client.responses.create(input=FAILS, extra_body=ONCE)
        assert failed.status == "failed"
        assert failed.error is not None
        assert {"code", "message", "type", "param"} <= set(failed.error.model_dump())


class TestHelpers:
    def test_a_stream_is_parsed_into_the_clients_own_types(self, client: openai.OpenAI) -> None:
        with client.responses.stream(model=MODEL, input=QUESTION, text_format=Count) as stream:
            assert isinstance(stream.get_final_response().output_parsed, Count)
        with client.chat.completions.stream(
            model=MODEL, messages=USER, response_format=Count, stream_options={"include_usage": True}
        ) as chunks:  # fmt: skip
            completion = chunks.get_final_completion()
        assert isinstance(completion.choices[0].message.parsed, Count)
        assert completion.usage is not None

    def test_a_helper_by_id_starts_where_its_user_wants(self, client: openai.OpenAI) -> None:
        """It asks for the whole stream and leaves out the events before by itself."""
        response = client.responses.create(input=QUESTION, background=True)
        with client.responses.stream(response_id=response.id, starting_after=4) as stream:
            numbers = [event.sequence_number for event in stream]
            assert stream.get_final_response().status == "completed"
        assert numbers == list(range(5, 5 + len(numbers)))

    def test_the_asynchronous_client_cancels_lists_and_deletes(self, service: Service) -> None:
        async def used() -> tuple[str | None, int, str]:
            async with service.async_client() as client:
                created = await client.responses.create(input=SILENT, background=True)
                cancelled = await client.responses.cancel(created.id)
                resumed = await client.responses.retrieve(created.id, stream=True, starting_after=0)
                rest = [event async for event in resumed]
                await client.responses.delete(created.id)
                with pytest.raises(openai.NotFoundError) as caught:
                    await client.responses.retrieve(created.id)
                return cancelled.status, len(rest), str(caught.value.code)

        status, rest, code = asyncio.run(used())
        assert (status, code) == ("cancelled", "not_found")
        assert rest > 0


class TestBatches:
    def test_a_batch_of_failures_only_is_completed_without_an_output_file(
        self, client: openai.OpenAI
    ) -> None:
        lines = [LINE | {"custom_id": f"{n}", "body": {"input": FAILS} | ONCE} for n in range(2)]
        batch = client.batches.create(**uploaded(client, *lines))
        assert eventually(lambda: client.batches.retrieve(batch.id).status == "completed")
        done = client.batches.retrieve(batch.id)
        assert done.output_file_id is None
        assert done.error_file_id is not None
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (0, 2)
        errors = client.files.content(done.error_file_id).text.splitlines()
        assert {json.loads(line)["custom_id"] for line in errors} == {"0", "1"}

    def test_other_endpoints_are_refused_by_name(self, client: openai.OpenAI) -> None:
        known = typing.get_args(typing.get_type_hints(openai.types.BatchCreateParams)["endpoint"])
        batch = uploaded(client, LINE)
        for endpoint in set(known) - {"/v1/responses", "/v1/chat/completions"}:
            with pytest.raises(openai.BadRequestError) as caught:
                client.batches.create(**batch | {"endpoint": endpoint})
            assert caught.value.param == "endpoint"

    @pytest.mark.parametrize("purpose", ["assistants", "batch", "evals", "fine-tune", "user_data"])
    def test_files_of_each_purpose_are_processed_at_once(
        self,
        client: openai.OpenAI,
        purpose: Any,  # noqa: ANN401 - the client's literal
    ) -> None:
        file = client.files.create(file=("x", b"x"), purpose=purpose)
        assert (file.purpose, file.status) == (purpose, "processed")
        assert client.files.wait_for_processing(file.id).id == file.id
        client.files.delete(file.id)


class TestWebhooks:
    def test_endpoints_live_as_the_client_says(self, client: openai.OpenAI) -> None:
        types = client.webhooks.event_types.list().data
        assert {"response.completed", "batch.completed"} <= set(types)
        created = client.webhooks.create(
            name="试", url="http://127.0.0.1:9/hook", event_types=["response.completed"]
        )
        strict(WebhookEndpointWithSecret, created)
        updated = client.webhooks.update(created.id, event_types=["batch.failed"])
        assert updated.event_types == ["batch.failed"]
        rotated = client.webhooks.rotate_secret(created.id)
        assert rotated.signing_secret != created.signing_secret
        client.webhooks.rotate_secret(created.id, keep_old_secret_active_for_24_hours=True)
        retrieved = client.webhooks.retrieve(created.id)
        strict(WebhookEndpoint, retrieved)
        assert retrieved.name == "试"
        assert client.webhooks.delete(created.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.webhooks.retrieve(created.id)

    def test_an_ended_response_and_batch_are_unwrapped(
        self, client: openai.OpenAI, service: Service
    ) -> None:
        """Those whose clients do not wait, once each: neither a foreground response nor the lines of a batch."""
        service.stack.start_delivery()
        assert eventually(lambda: " ready." in service.stack.log("delivery"))
        with receiving() as receiver:
            endpoint = client.webhooks.create(
                name="x", url=receiver.url, event_types=["response.completed", "batch.completed"]
            )
            client.responses.create(input=QUESTION)
            batch = client.batches.create(**uploaded(client, LINE))
            assert eventually(lambda: client.batches.retrieve(batch.id).status == "completed")
            response = client.responses.create(input=QUESTION, background=True)

            def seen() -> list[tuple[str, str]]:
                events: Iterable[Any] = (
                    client.webhooks.unwrap(got.body, got.headers, secret=endpoint.signing_secret)
                    for got in list(receiver.took)
                )
                return sorted((event.type, event.data.id) for event in events)

            expected = [("batch.completed", batch.id), ("response.completed", response.id)]
            assert eventually(lambda: len(seen()) >= len(expected))
            assert seen() == expected
            tested = client.webhooks.test(endpoint.id, event_type="response.completed")
            assert (tested.success, tested.status_code) == (True, 200)
            client.webhooks.delete(endpoint.id)
