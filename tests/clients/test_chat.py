"""Chat completions as the official Python client sees them: whole, in chunks, and when they fail."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.api import image_files
from tests.clients.service import Service

pytestmark = pytest.mark.e2e

Message = dict[str, Any]
IMAGE = image_files.data_url(image_files.png())
#: An answer that does not end before its budget is spent.
ENDLESS = "How many circles? [[behavior:no_answer_at_length]]"
#: The engine falls silent after a few tokens.
SILENT = "How many circles? [[behavior:silent]]"
LOOPS_OFF = {"guards": {"loop": False, "budget": False, "convergence": False}}


class Count(BaseModel):
    """A structured answer."""

    count: int


def user(text: str, *images: str) -> Message:
    """Return a message of the user."""
    parts: list[Message] = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def fields(text: str = "How many circles?", **others: Any) -> dict[str, Any]:  # noqa: ANN401 - the client's own
    """Return the fields of a question about an image; the model's name is that of any service."""
    return {"model": "tiny-qvq", "messages": [user(text, IMAGE)]} | others


def ask(client: openai.OpenAI, text: str = "How many circles?", **others: Any) -> ChatCompletion:  # noqa: ANN401 - same
    """Ask about an image."""
    answer: ChatCompletion = client.chat.completions.create(**fields(text, **others))
    return answer


def stream(
    client: openai.OpenAI,
    text: str = "How many circles?",
    **others: Any,  # noqa: ANN401 - same
) -> list[ChatCompletionChunk]:
    """Return all chunks of an answer."""
    return list(client.chat.completions.create(**fields(text, **others), stream=True))


def reasoning(chunks: list[ChatCompletionChunk]) -> str:
    """Return the joined trace."""
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    return "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)


def content(chunks: list[ChatCompletionChunk]) -> str:
    """Return the joined answer."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


class TestWhole:
    def test_an_answer_has_its_trace_its_finish_reason_and_its_usage(
        self, service: Service, client: openai.OpenAI
    ) -> None:
        answer = ask(client)
        [choice] = answer.choices
        assert answer.id.startswith("chatcmpl-")
        assert answer.model == service.model
        assert choice.finish_reason == "stop"
        message = choice.message.model_dump()
        assert message["content"] in message["reasoning_content"]
        assert "reasoning" not in message
        usage = answer.usage
        assert usage is not None
        assert usage.prompt_tokens > 0
        assert usage.completion_tokens > 0
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert usage.prompt_tokens_details is not None
        assert usage.completion_tokens_details is not None
        assert usage.completion_tokens_details.reasoning_tokens == usage.completion_tokens

    def test_the_asynchronous_client_gets_the_same(
        self, service: Service, client: openai.OpenAI
    ) -> None:
        async def answers() -> list[ChatCompletion]:
            async with service.async_client() as concurrent:
                asked = [concurrent.chat.completions.create(**fields()) for _ in range(3)]
                return list(await asyncio.gather(*asked))

        expected = ask(client).choices
        for answer in asyncio.run(answers()):
            assert answer.choices == expected

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_without_an_answer_at_the_token_limit_the_content_is_null(
        self, client: openai.OpenAI, name: str
    ) -> None:
        answer = ask(client, ENDLESS, extra_body={"options": LOOPS_OFF}, **{name: 40})
        [choice] = answer.choices
        assert choice.finish_reason == "length"
        assert choice.message.content is None
        assert choice.message.model_dump()["reasoning_content"]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 40

    def test_a_forced_answer_is_an_answer(self, client: openai.OpenAI) -> None:
        [choice] = ask(client, ENDLESS, max_tokens=300).choices
        assert choice.finish_reason == "stop"
        assert choice.message.content

    def test_a_refusal_is_said_as_one(self, client: openai.OpenAI) -> None:
        refused = "How many? [[behavior:refusal]]"
        [choice] = ask(client, refused).choices
        with client.chat.completions.stream(**fields(refused)) as events:
            final = events.get_final_completion().choices[0]
        assert choice.message.content is None
        assert choice.message.refusal == "I'm sorry, but I can't assist with that."
        assert final.message.refusal == choice.message.refusal
        assert (choice.finish_reason, final.finish_reason) == ("stop", "stop")

    def test_text_without_an_image_is_served(self, client: openai.OpenAI) -> None:
        answer = ask(client, messages=[{"role": "user", "content": "What is 2 + 2?"}])
        assert answer.choices[0].message.content

    def test_an_object_of_any_shape_is_served(self, client: openai.OpenAI) -> None:
        form: Any = {"type": "json_object"}

        [whole] = ask(client, response_format=form).choices
        chunks = stream(client, response_format=form)
        [cut] = ask(
            client,
            "How many? [[behavior:endless_json]]",
            response_format=form,
            max_completion_tokens=200,
        ).choices

        assert whole.finish_reason == "stop"
        assert isinstance(json.loads(whole.message.content or ""), dict)
        assert content(chunks) == whole.message.content
        assert (cut.finish_reason, cut.message.content) == ("length", None)

    def test_a_conversation_with_all_its_images_is_answered_as_chat_interfaces_send_it(
        self, client: openai.OpenAI
    ) -> None:
        messages: list[Message] = [{"role": "system", "content": "Answer in one word."}]
        for turn in range(12):
            messages.append(user(f"Question {turn}?", IMAGE))
            answer = ask(client, messages=messages).choices[0].message
            messages.append({"role": "assistant", "content": answer.content})
        messages.append({"role": "user", "content": "And which one was first?"})
        assert ask(client, messages=messages).choices[0].message.content

    def test_what_openai_ignores_is_ignored(self, client: openai.OpenAI) -> None:
        answer = ask(
            client,
            n=1,
            tools=[],
            tool_choice="auto",
            parallel_tool_calls=True,
            logprobs=False,
            frequency_penalty=0,
            presence_penalty=0.0,
            modalities=["text"],
            prediction=None,
            user="somebody",
            service_tier="auto",
            store=True,
            seed=-1,
            stop=[],
            metadata={"case": "42"},
            verbosity="low",
            reasoning_effort="low",
            prompt_cache_key="key",
            response_format={"type": "text"},
        )
        assert answer.choices[0].message.content

    def test_the_answer_ends_before_a_stop_text(self, client: openai.OpenAI) -> None:
        whole = ask(client, "Answer with a sentence.").choices[0].message.content
        assert whole
        cut = ask(client, "Answer with a sentence.", stop=whole[-1]).choices[0].message.content
        assert cut == whole[: whole.index(whole[-1])]

    @pytest.mark.parametrize("streamed", [False, True])
    def test_what_is_not_stored_is_removed_after_the_answer(
        self,
        service: Service,
        client: openai.OpenAI,
        streamed: bool,  # noqa: FBT001 - a parameter
    ) -> None:
        if streamed:
            chunks = stream(client, store=False)
            assert content(chunks)
            completion_id = chunks[0].id
        else:
            answer = ask(client, store=False)
            assert answer.choices[0].message.content
            completion_id = answer.id
        url = f"{service.base_url}/jobs/job_{completion_id.removeprefix('chatcmpl-')}"
        headers = {"Authorization": f"Bearer {service.key}"}
        job = httpx2.get(url, headers=headers, timeout=60).json()
        assert (job["data_removed"], job["question"], job["answer"]) == (True, None, None)


class TestRefusals:
    @pytest.mark.parametrize(
        ("sent", "param"),
        [
            ({"n": 2}, "n"),
            ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools"),
            ({"functions": [{"name": "x"}]}, "functions"),
            ({"logprobs": True}, "logprobs"),
            ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
            ({"modalities": ["text", "audio"]}, "modalities"),
            ({"web_search_options": {}}, "web_search_options"),
            ({"frequency_penalty": 1}, "frequency_penalty"),
        ],
    )
    def test_what_is_not_served_is_refused_by_name(
        self, client: openai.OpenAI, sent: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, **sent)
        assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
        assert caught.value.type == "invalid_request_error"

    @pytest.mark.parametrize(
        ("sent", "param", "code"),
        [
            ({"stop": ["a"] * 5}, "stop", "invalid_request_error"),
            ({"stop": 5}, "stop", "invalid_request_error"),
            ({"stop": ["a", 5]}, "stop[1]", "invalid_request_error"),
            ({"extra_body": {"topk": 1}}, "topk", "unknown_parameter"),
        ],
    )
    def test_a_fault_has_one_place_and_its_code(
        self, client: openai.OpenAI, sent: dict[str, Any], param: str, code: str
    ) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, **sent)
        body: Any = caught.value.body
        assert (caught.value.param, caught.value.code) == (param, code)
        assert "faults" not in body["message"]

    def test_all_faults_are_named_in_openais_notation(self, client: openai.OpenAI) -> None:
        parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,eA"}}]
        messages = [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
            {"role": "user", "content": parts},
        ]
        with pytest.raises(openai.BadRequestError) as caught:
            ask(
                client,
                messages=messages,
                temperature=3,
                response_format={"type": "json_schema"},
                extra_body={"topk": 1, "options": {"sample": 2}},
            )
        body: Any = caught.value.body
        for place in (
            "messages[0].content[0].type",
            "messages[1].content[0].image_url.url",
            "temperature",
            "topk",
            "response_format.json_schema",
            "options.sample",
        ):
            assert place in body["message"]

    def test_an_image_that_is_none_is_refused_with_its_place(self, client: openai.OpenAI) -> None:
        image = "data:image/png;base64,aGVsbG8gd29ybGQ="
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, messages=[user("What?", IMAGE, image)])
        assert caught.value.param == "messages[0].content[1].image_url.url"
        assert caught.value.code == "invalid_image_format"

    def test_an_unknown_model_is_404(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client, model="gpt-4o")
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")

    def test_stored_completions_are_refused_at_once(self, client: openai.OpenAI) -> None:
        for call in (
            client.chat.completions.list,
            lambda: client.chat.completions.retrieve("chatcmpl-1"),
            lambda: client.chat.completions.messages.list("chatcmpl-1"),
        ):
            with pytest.raises(openai.APIStatusError) as caught:
                call()
            assert (caught.value.status_code, caught.value.code) == (404, "not_found")


class TestStructured:
    def test_parse_returns_the_object(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.parse(**fields(), response_format=Count)
        message = answer.choices[0].message
        assert isinstance(message.parsed, Count)
        assert message.content
        assert Count.model_validate_json(message.content) == message.parsed
        assert answer.usage is not None
        assert answer.usage.completion_tokens_details is not None
        reasoned = answer.usage.completion_tokens_details.reasoning_tokens
        assert reasoned is not None
        assert 0 < reasoned < answer.usage.completion_tokens

    def test_an_answer_in_json_has_tokens_of_its_own_as_its_response_says(
        self, client: openai.OpenAI
    ) -> None:
        whole = client.chat.completions.parse(**fields(), response_format=Count)
        response = client.responses.retrieve(f"resp_{whole.id.removeprefix('chatcmpl-')}")
        assert whole.usage is not None
        assert response.usage is not None
        assert whole.usage.prompt_tokens_details is not None
        assert whole.usage.completion_tokens_details is not None
        reasoning_tokens = whole.usage.completion_tokens_details.reasoning_tokens
        assert reasoning_tokens == response.usage.output_tokens_details.reasoning_tokens
        assert reasoning_tokens < whole.usage.completion_tokens
        # A chat that is read as a response says which format it had.
        assert response.text is not None
        assert response.text.format is not None
        shown = response.text.format.model_dump(by_alias=True)
        assert (shown["type"], shown["schema"]["required"]) == ("json_schema", ["count"])
        assert whole.usage.prompt_tokens_details.cache_write_tokens == 0

    def test_an_answer_that_is_cut_off_raises_the_clients_own_error(
        self, client: openai.OpenAI
    ) -> None:
        with pytest.raises(openai.LengthFinishReasonError):
            client.chat.completions.parse(**fields(max_tokens=2), response_format=Count)

    def test_a_schema_that_no_grammar_enforces_is_refused_with_its_place(
        self, client: openai.OpenAI
    ) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}
        with pytest.raises(openai.BadRequestError) as caught:
            ask(
                client,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": schema},
                },
            )
        assert caught.value.param == "response_format.json_schema.schema"


class TestStreams:
    def test_chunks_come_in_the_order_that_clients_expect(self, client: openai.OpenAI) -> None:
        chunks = stream(client)
        whole = ask(client).choices[0].message
        assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
        deltas = [chunk.choices[0].delta for chunk in chunks]
        assert [delta.role for delta in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
        assert reasoning(chunks) == whole.model_dump()["reasoning_content"]
        assert content(chunks) == whole.content
        finished = [chunk.choices[0].finish_reason for chunk in chunks]
        assert finished == [*[None] * (len(chunks) - 1), "stop"]
        assert all(chunk.usage is None for chunk in chunks)
        kinds = ["content" if delta.content else "other" for delta in deltas]
        assert kinds.index("content") > len(
            [d for d in deltas if "reasoning_content" in d.model_dump()]
        )

    def test_the_usage_comes_last_with_no_choices(self, client: openai.OpenAI) -> None:
        *chunks, last = stream(client, stream_options={"include_usage": True})
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
        assert all(chunk.usage is None for chunk in chunks)

    def test_the_other_chunks_say_that_they_have_no_usage(self, service: Service) -> None:
        """OpenAI documents it, and programs without the client read it."""
        asked = post(service, stream=True, stream_options={"include_usage": True})
        *chunks, last = data(asked)
        assert {chunk["usage"] for chunk in chunks} == {None}
        assert last["usage"]
        assert not any("usage" in chunk for chunk in data(post(service, stream=True)))

    def test_the_stream_helper_joins_them(self, client: openai.OpenAI) -> None:
        with client.chat.completions.stream(**fields(), response_format=Count) as events:
            kinds = [event.type for event in events]
            final = events.get_final_completion()
        assert "content.done" in kinds
        assert isinstance(final.choices[0].message.parsed, Count)
        assert final.choices[0].finish_reason == "stop"

    def test_the_asynchronous_client_streams_the_same(
        self, service: Service, client: openai.OpenAI
    ) -> None:
        async def chunks() -> list[ChatCompletionChunk]:
            async with service.async_client() as concurrent:
                events = await concurrent.chat.completions.create(**fields(), stream=True)
                return [chunk async for chunk in events]

        asynchronous = asyncio.run(chunks())
        assert content(asynchronous) == content(stream(client))

    def test_the_stream_ends_with_done_and_has_no_event_lines(self, service: Service) -> None:
        answer = post(service, stream=True)
        lines = answer.text.splitlines()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert [line for line in lines if line][-1] == "data: [DONE]"
        assert not [line for line in lines if line.startswith(("event:", "id:", "retry:"))]

    def test_several_samples_stream_the_trace_of_the_answer(self, client: openai.OpenAI) -> None:
        # The same completion twice: another one may count the samples that end first in another order.
        asked: dict[str, Any] = {
            "extra_body": {"options": {"samples": 3}},
            "extra_headers": {"Idempotency-Key": "several samples"},
        }
        chunks = stream(client, **asked)
        whole = ask(client, **asked).choices[0].message
        assert content(chunks)
        assert whole.content == content(chunks)
        assert reasoning(chunks).endswith(whole.model_dump()["reasoning_content"])


class TestFailures:
    def test_a_job_that_fails_is_an_error_in_the_body(self, service: Service) -> None:
        answer = post(service, "How many? [[behavior:refuse]]")
        assert answer.status_code == 200
        error = answer.json()["error"]
        assert error["code"] == "engine_rejected"
        assert error["type"] == "server_error"
        assert error["message"]

    def test_a_stream_that_fails_raises_in_the_client(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.APIError) as caught:
            stream(client, "How many? [[behavior:refuse]]")
        assert caught.value.code == "engine_rejected"


class TestIdempotency:
    def test_a_repeated_request_is_the_same_completion(self, client: openai.OpenAI) -> None:
        headers = {"Idempotency-Key": "chat-1"}
        first = ask(client, extra_headers=headers)
        assert ask(client, extra_headers=headers) == first
        assert {chunk.id for chunk in stream(client, extra_headers=headers)} == {first.id}
        again = client.chat.completions.with_raw_response.create(**fields(), extra_headers=headers)
        assert again.headers["Idempotent-Replayed"] == "true"
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            ask(client, "Another question?", extra_headers=headers)
        assert caught.value.code == "idempotency_key_reused"

    def test_a_completion_that_is_stored_is_not_removed_by_another_request(
        self, client: openai.OpenAI
    ) -> None:
        headers = {"Idempotency-Key": "chat-3"}
        first = ask(client, store=True, extra_headers=headers)
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            ask(client, store=False, extra_headers=headers)
        assert caught.value.code == "idempotency_key_reused"
        stored = client.responses.retrieve(first.id.replace("chatcmpl-", "resp_"))
        assert stored.output_text == first.choices[0].message.content

    def test_a_client_that_timed_out_gets_the_job_that_it_began(self, service: Service) -> None:
        given = {"metadata": {"case": "timed out"}, "extra_headers": {"Idempotency-Key": "chat-2"}}
        with pytest.raises(openai.APITimeoutError):
            ask(service.client(timeout=1), SILENT, **given)
        asked = fields(SILENT, **given)
        with service.client().chat.completions.create(**asked, stream=True) as chunks:
            first = next(iter(chunks))
        headers = {"Authorization": f"Bearer {service.key}"}
        [job] = httpx2.get(
            f"{service.base_url}/jobs",
            params={"metadata[case]": "timed out"},
            headers=headers,
            timeout=60,
        ).json()["data"]
        assert first.id == job["id"].replace("job_", "chatcmpl-")
        httpx2.post(
            f"{service.base_url}/jobs/{job['id']}/cancel", headers=headers, timeout=60
        ).raise_for_status()


def post(service: Service, text: str = "How many circles?", **others: Any) -> httpx2.Response:  # noqa: ANN401 - JSON
    """Send a request without the client."""
    return httpx2.post(
        f"{service.base_url}/chat/completions",
        json=fields(text, **others),
        headers={"Authorization": f"Bearer {service.key}"},
        timeout=60,
    )


def data(answer: httpx2.Response) -> list[Any]:
    """Return the chunks of a stream, as JSON."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if "data: {" in line]
    return [json.loads(line) for line in lines]
