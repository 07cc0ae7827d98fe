"""Responses as the official Python clients see them: answers, streams, cancel, and what a restart leaves unchanged."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import re
import uuid
from typing import Annotated, Any, Literal

import httpx2
import openai
import pydantic
import pytest
import sqlalchemy as sa
import urllib3
from openai.types.responses import Response

from core import ids
from core.database import Database
from jobs.records.jobs import Job
from tests.api import image_files
from tests.clients.service import Service
from tests.e2e.stack import eventually, running
from tests.scripted_server import BackgroundServer

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
MODEL = "tiny-qvq"
#: The engine falls silent after a few tokens, so the response runs until it is cancelled.
SILENT = "How many? [[behavior:silent]]"
ENDED = {"completed", "failed", "incomplete", "cancelled"}


ANY_OBJECT: Any = {"format": {"type": "json_object"}}


class Count(pydantic.BaseModel):
    """A number of things."""

    count: int
    sure: bool


class Invoice(pydantic.BaseModel):
    """A field of each type that pydantic describes by a format."""

    number: uuid.UUID
    day: dt.date
    paid_at: dt.datetime | None
    opening: dt.time
    due: list[dt.timedelta]
    host: ipaddress.IPv4Address
    backup: ipaddress.IPv6Address | None


class Circle(pydantic.BaseModel):
    """An option of a union."""

    kind: Literal["circle"]
    radius: float


class Square(pydantic.BaseModel):
    """Another one."""

    kind: Literal["square"]
    side: float


class Drawing(pydantic.BaseModel):
    """Discriminated unions, which pydantic describes by ``oneOf``."""

    largest: Circle | Square = pydantic.Field(discriminator="kind")
    shapes: list[Annotated[Circle | Square, pydantic.Field(discriminator="kind")]]


def image(*texts: str) -> Any:  # noqa: ANN401 - the client's own input
    """Return the input of a question about an image."""
    data = image_files.data_url(image_files.png())
    content = [{"type": "input_text", "text": text} for text in texts]
    return [{"role": "user", "content": [*content, {"type": "input_image", "image_url": data}]}]


def strict(response: Response) -> Response:
    """Validate an object by the client's own types, without conversions."""
    return Response.model_validate(response.model_dump(mode="json"), strict=True)


def ended(client: openai.OpenAI, response: Response) -> Response:
    """Poll until a response has ended."""
    latest = response

    def poll() -> bool:
        nonlocal latest
        latest = client.responses.retrieve(response.id)
        return latest.status in ENDED

    assert eventually(poll)
    return strict(latest)


def raw(service: Service, response_id: str, *, after: int | None = None) -> bytes:
    """Return the bytes of a stream without its comments, which depend on the time."""
    query = "" if after is None else f"&starting_after={after}"
    answer = urllib3.request(
        "GET",
        f"{service.base_url}/responses/{response_id}?stream=true{query}",
        headers={"Authorization": f"Bearer {service.key}"},
        timeout=60,
    )
    assert answer.status == 200, answer.data
    blocks = answer.data.split(b"\n\n")
    return b"\n\n".join(block for block in blocks if not block.startswith(b":"))


def parsed_on_both_routes(
    client: openai.OpenAI, question: str, model: type[pydantic.BaseModel]
) -> list[object]:
    """Return the answers to a question, as a response and as a chat completion, parsed by the client."""
    response = client.responses.parse(input=image(question), text_format=model)
    chat = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": question}], response_format=model
    )
    return [response.output_parsed, chat.choices[0].message.parsed]


class TestAnswers:
    def test_a_background_response_is_polled_to_its_end(self, client: openai.OpenAI) -> None:
        # As OpenAI, any characters.
        metadata = {"case": "42", 'a "quoted"\\\n key': "ä"}
        created = client.responses.create(
            input=image("How many?"), background=True, metadata=metadata
        )
        done = ended(client, strict(created))

        assert created.status == "queued"
        assert (done.status, done.metadata, done.error) == ("completed", metadata, None)
        assert [item.type for item in done.output] == ["reasoning", "message"]
        assert done.output_text
        assert done.usage is not None
        assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
        items = client.responses.input_items.list(created.id).data
        assert [part["type"] for part in items[0].model_dump()["content"]] == [
            "input_text",
            "input_image",
        ]

    def test_a_foreground_response_is_the_answer_itself(self, client: openai.OpenAI) -> None:
        response = client.responses.create(input="How many?", instructions="Be brief.")

        assert strict(response).status == "completed"
        assert response.output_text
        assert response.background is False
        assert client.responses.retrieve(response.id) == response

    def test_the_asynchronous_client_does_the_same(self, service: Service) -> None:
        async def ask() -> tuple[Response, Response]:
            async with service.async_client() as client:
                held, created = await asyncio.gather(
                    client.responses.create(input="How many?"),
                    client.responses.create(input="What color?", background=True),
                )
                async with client.responses.stream(response_id=created.id) as stream:
                    streamed = await stream.get_final_response()
                    assert streamed.output_text
                return held, await client.responses.retrieve(created.id)

        held, streamed = asyncio.run(ask())
        assert strict(held).status == strict(streamed).status == "completed"

    def test_a_structured_answer_is_parsed(self, client: openai.OpenAI) -> None:
        response = client.responses.parse(input=image("How many?"), text_format=Count)

        assert isinstance(response.output_parsed, Count)
        assert response.output[0].type == "reasoning"
        assert response.usage is not None
        # The answer in JSON has tokens of its own.
        reasoning = response.usage.output_tokens_details.reasoning_tokens
        assert 0 < reasoning < response.usage.output_tokens

    def test_dates_times_and_identifiers_are_parsed(self, client: openai.OpenAI) -> None:
        for parsed in parsed_on_both_routes(client, "When?", Invoice):
            assert isinstance(parsed, Invoice)
            assert parsed.paid_at is None or parsed.paid_at.tzinfo is not None

    def test_discriminated_unions_are_parsed(self, client: openai.OpenAI) -> None:
        for parsed in parsed_on_both_routes(client, "What?", Drawing):
            assert isinstance(parsed, Drawing)
            assert isinstance(parsed.largest, Circle | Square)

    def test_half_a_json_is_never_in_the_output(self, client: openai.OpenAI) -> None:
        response = client.responses.parse(
            input="How many? [[behavior:deaf]]", text_format=Count, max_output_tokens=24
        )

        assert response.output_parsed is None
        assert response.status in ("failed", "incomplete")
        assert [item.type for item in response.output] == ["reasoning"]

    @pytest.mark.parametrize("streamed", [False, True])
    def test_an_object_of_any_shape_is_served(
        self,
        client: openai.OpenAI,
        streamed: bool,  # noqa: FBT001 - a parameter
    ) -> None:
        """As the AI SDK asks for an object without a schema."""
        if streamed:
            with client.responses.stream(
                model=MODEL, input=image("How many?"), text=ANY_OBJECT
            ) as stream:
                kinds = [event.type for event in stream]
                response: Response = stream.get_final_response()
            assert kinds.count("response.output_text.done") == 1
        else:
            response = client.responses.create(input=image("How many?"), text=ANY_OBJECT)

        assert strict(response).status == "completed"
        assert isinstance(json.loads(response.output_text), dict)
        assert response.text is not None
        assert response.text.format is not None
        assert response.text.format.model_dump() == {"type": "json_object"}
        trace = response.output[0]
        assert trace.type == "reasoning"
        assert trace.content
        assert response.output_text not in trace.content[0].text

    def test_an_object_that_never_ends_is_incomplete_and_not_in_the_output(
        self, client: openai.OpenAI
    ) -> None:
        response = client.responses.create(
            input="How many? [[behavior:endless_json]]", text=ANY_OBJECT, max_output_tokens=200
        )

        assert strict(response).status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert [item.type for item in response.output] == ["reasoning"]
        assert response.usage is not None
        assert response.usage.output_tokens <= 200

    def test_a_used_up_budget_is_incomplete(self, client: openai.OpenAI) -> None:
        response = client.responses.create(
            input="How many? [[behavior:no_answer_at_length]]", max_output_tokens=40
        )

        assert strict(response).status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output_text == ""

    @pytest.mark.parametrize("samples", [1, 3])
    def test_a_refusal_of_the_model_is_a_refusal_of_the_client(
        self, client: openai.OpenAI, samples: int
    ) -> None:
        refused: Any = {
            "input": "How many? [[behavior:refusal]]",
            "extra_body": {"options": {"samples": samples}},
        }
        response = strict(client.responses.create(**refused))
        with client.responses.stream(model=MODEL, **refused) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()

        for answer in (response, final):
            said: Any = answer.output[-1].model_dump()
            assert answer.status == "completed"
            assert answer.output_text == ""
            assert said["content"] == [
                {"type": "refusal", "refusal": "I'm sorry, but I can't assist with that."}
            ]
        question: Any = {"role": "user", "content": "Why?"}
        reference: Any = {"type": "item_reference", "id": response.output[-1].id}
        for after in (
            client.responses.create(input="Why?", previous_response_id=response.id),
            client.responses.create(input=[reference, question]),
        ):
            job: Any = client.get(f"/jobs/{after.id.replace('resp_', 'job_')}", cast_to=object)
            assert "Assistant: I'm sorry, but I can't assist with that." in job["question"]
        assert "response.refusal.delta" in kinds
        assert client.responses.retrieve(final.id).model_dump() == final.model_dump()

    def test_a_conversation_goes_on(self, client: openai.OpenAI) -> None:
        first = client.responses.create(input=image("How many?"))
        second = client.responses.create(input="Sure?", previous_response_id=first.id)
        output: list[Any] = [item.model_dump() for item in first.output]
        resent = client.responses.create(
            input=[*image("How many?"), *output, {"role": "user", "content": "Sure?"}]
        )

        assert second.previous_response_id == first.id
        assert strict(second).output_text == strict(resent).output_text

    def test_content_that_is_not_stored_is_gone(self, client: openai.OpenAI) -> None:
        response = client.responses.create(input="How many?", store=False)

        assert response.output_text
        assert response.model_dump()["store"] is False
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response.id)

    def test_faults_are_bad_requests_with_their_place(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(
                input=[{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]
            )
        error = caught.value
        assert (error.param, error.code) == ("input[0].content[0].type", "unsupported_parameter")

    def test_input_tokens_are_counted(self, client: openai.OpenAI) -> None:
        assert client.responses.input_tokens.count(input="How many?").input_tokens > 0

    @pytest.mark.parametrize("path", ["responses", "chat/completions"])
    def test_nothing_follows_the_last_event_of_a_stream(self, service: Service, path: str) -> None:
        """The second request finds the job finished, so that the end is known before the native stream begins."""
        asked: Json = {"input": "How many?"}
        if path != "responses":
            asked = {"messages": [{"role": "user", "content": "How many?"}]}
        headers = {
            "Authorization": f"Bearer {service.key}",
            "Idempotency-Key": f"stream of {path}",
        }
        for _ in range(2):
            answer = urllib3.request(
                "POST",
                f"{service.base_url}/{path}",
                json={"model": MODEL, "stream": True} | asked,
                headers=headers,
                timeout=60,
            )
            [*_, last, rest] = answer.data.split(b"\n\n")
            assert rest == b""
            assert last.startswith(
                b"event: response.completed" if "input" in asked else b"data: [DONE]"
            )

    def test_the_same_key_is_the_same_response(self, client: openai.OpenAI) -> None:
        headers = {"Idempotency-Key": "the key of this test"}
        created = [
            client.responses.create(input="x", background=True, extra_headers=headers).id
            for _ in range(2)
        ]

        assert created[0] == created[1]

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_repeat_that_waits_says_that_it_is_one(
        self, client: openai.OpenAI, *, stream: bool
    ) -> None:
        body = {"input": "x", "stream": stream}
        headers = {"Idempotency-Key": f"waits {stream}"}
        answers = [
            client.post(
                "/responses", body=body, cast_to=httpx2.Response, options={"headers": headers}
            )
            for _ in range(2)
        ]
        assert [each.headers.get("Idempotent-Replayed") for each in answers] == [None, "true"]

    def test_a_top_p_of_zero_is_shown_as_it_was_sent(self, client: openai.OpenAI) -> None:
        created = client.responses.create(input="x", top_p=0, background=True)
        assert (created.top_p, client.responses.retrieve(created.id).top_p) == (0, 0)


class TestStreams:
    @pytest.mark.parametrize("summary", [None, "auto"])
    def test_the_clients_accumulator_takes_every_event(
        self, client: openai.OpenAI, summary: Literal["auto"] | None
    ) -> None:
        with client.responses.stream(
            model=MODEL, input=image("How many?"), reasoning={"summary": summary}
        ) as (stream):
            kinds = [event.type for event in stream]
            final = stream.get_final_response()

        assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert ("response.reasoning_summary_text.delta" in kinds) is (summary is not None)
        retrieved = client.responses.retrieve(final.id)
        assert retrieved.model_dump() == client.responses.retrieve(final.id).model_dump()
        assert final.output_text == retrieved.output_text
        assert final.usage == retrieved.usage

    def test_deltas_join_to_the_stored_text_and_numbers_have_no_gaps(
        self, client: openai.OpenAI
    ) -> None:
        events = list(client.responses.create(input="How many?", background=True, stream=True))

        last = events[-1]
        assert last.type == "response.completed"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        trace = "".join(
            event.delta for event in events if event.type == "response.reasoning_text.delta"
        )
        reasoning = last.response.output[0]
        assert reasoning.type == "reasoning"
        assert reasoning.content is not None
        assert reasoning.content[0].text == trace
        assert client.responses.retrieve(last.response.id) == last.response

    def test_a_stream_goes_on_from_every_number(
        self, client: openai.OpenAI, service: Service
    ) -> None:
        created = client.responses.create(input="How many?", background=True)
        ended(client, created)
        whole = raw(service, created.id)
        count = whole.count(b"event: ")

        for number in (0, 1, count // 2, count - 2, count - 1, count + 5):
            stream = client.responses.retrieve(created.id, stream=True, starting_after=number)
            numbers = [event.sequence_number for event in stream]
            assert numbers == list(range(number + 1, count))

    def test_a_retried_attempt_ends_its_item_and_starts_another(
        self, client: openai.OpenAI
    ) -> None:
        with client.responses.stream(
            model=MODEL,
            input="How many? [[behavior:cut_off]]",
            extra_body={"options": {"max_attempts": 2}},
        ) as stream:
            events = list(stream)

        kinds = [event.type for event in events]
        started = [event.item.id for event in events if event.type == "response.output_item.added"]
        assert len(started) == len(set(started)) == 2
        assert kinds.count("response.in_progress") == 1
        last = events[-1]
        assert last.type == "response.failed"
        assert [getattr(item, "status", "") for item in last.response.output] == ["incomplete"] * 2

    def test_several_samples_are_items_of_their_own(self, client: openai.OpenAI) -> None:
        with client.responses.stream(
            model=MODEL, input="How many?", extra_body={"options": {"samples": 3}}
        ) as stream:
            final = stream.get_final_response()

        kinds = [item.type for item in final.output]
        assert kinds[-1] == "message"
        assert kinds.count("reasoning") >= 2
        assert strict(client.responses.retrieve(final.id)).output_text == final.output_text

    def test_a_stream_is_byte_equal_after_restarts_and_a_day_later(
        self, client: openai.OpenAI, service: Service
    ) -> None:
        with client.responses.stream(
            model=MODEL, input=image("How many?"), background=True, reasoning={"summary": "auto"}
        ) as stream:
            live = [event.sequence_number for event in stream]
            response = stream.get_final_response()
        before = raw(service, response.id)
        later = live[len(live) // 2]
        middle = raw(service, response.id, after=later)
        service.restart()

        assert raw(service, response.id) == before
        assert raw(service, response.id, after=later) == middle
        make_older(service, response.id)
        assert without_times(raw(service, response.id)) == without_times(before)
        assert without_times(raw(service, response.id, after=later)) == without_times(middle)
        with client.responses.stream(response_id=response.id) as replayed:
            assert [event.sequence_number for event in replayed] == live

    def test_a_running_stream_survives_a_restart(
        self, client: openai.OpenAI, service: Service
    ) -> None:
        service.stack.stop_workers()
        # Its attempt does not end before it is killed.
        service.stack.start_worker(LONGLOOK_ENGINE_URLS="scripted:?behavior=silent")
        created = client.responses.create(input="How many?", background=True)
        assert eventually(lambda: bool(client.responses.retrieve(created.id).output))
        service.restart()

        done = ended(service.client(), created)
        first = raw(service, created.id)
        assert first == raw(service, created.id)
        assert done.status == "completed"


class TestCancel:
    def test_a_running_response_stops_and_stays_cancelled(
        self, client: openai.OpenAI, engine: BackgroundServer
    ) -> None:
        created = client.responses.create(input=SILENT, background=True)
        assert eventually(lambda: bool(client.responses.retrieve(created.id).output))
        final = client.responses.cancel(created.id)

        assert strict(final).status == "cancelled"
        assert final.incomplete_details is None
        assert getattr(final.output[0], "status", "") == "incomplete"
        assert client.responses.cancel(created.id) == final
        assert client.responses.retrieve(created.id) == final
        last = list(client.responses.retrieve(created.id, stream=True))[-1]
        assert last.type == "response.incomplete"
        assert last.response == final
        assert eventually(lambda: running(engine.url) == 0)

    def test_a_completed_response_stays_completed(self, client: openai.OpenAI) -> None:
        created = client.responses.create(input="How many?", background=True)
        done = ended(client, created)

        assert client.responses.cancel(created.id) == done

    def test_a_foreground_response_is_refused(self, client: openai.OpenAI) -> None:
        response = client.responses.create(input="How many?")

        with pytest.raises(openai.BadRequestError):
            client.responses.cancel(response.id)

    def test_hanging_up_cancels_a_foreground_response_and_no_background_one(
        self, client: openai.OpenAI, engine: BackgroundServer
    ) -> None:
        def begin(*, background: bool) -> str:
            stream = client.responses.create(input=SILENT, stream=True, background=background)
            event = next(iter(stream))
            stream.close()
            assert event.type == "response.created"
            return event.response.id

        held, background = begin(background=False), begin(background=True)

        assert eventually(lambda: client.responses.retrieve(held).status == "cancelled")
        assert client.responses.retrieve(background).status in ("queued", "in_progress")
        client.responses.cancel(background)
        assert eventually(lambda: running(engine.url) == 0)


def test_a_deleted_response_does_not_exist(client: openai.OpenAI, service: Service) -> None:
    response = client.responses.create(input="How many?")
    with pytest.raises(openai.NotFoundError):
        service.stranger().responses.delete(response.id)
    client.responses.delete(response.id)

    for call in (
        client.responses.retrieve,
        client.responses.cancel,
        client.responses.delete,
        client.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError):
            call(response.id)


def without_times(data: bytes) -> bytes:
    """Return a stream without the times of its job."""
    return re.sub(rb'"(created|completed)_at":\d+', b"", data)


def make_older(service: Service, response_id: str) -> None:
    """Move the times of a job a day into the past, as if the clock had moved on."""
    database = Database(service.stack.database_url)
    try:
        with database.transaction() as transaction:
            job = transaction.session.scalars(
                sa.select(Job).where(Job.id == ids.parse("resp", response_id)).with_for_update()
            ).one()
            day = dt.timedelta(days=1)
            job.created_at -= day
            job.started_at = job.started_at and job.started_at - day
            job.finished_at = job.finished_at and job.finished_at - day
    finally:
        database.close()
