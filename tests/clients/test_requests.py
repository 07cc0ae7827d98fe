"""Requests as the official Python client can send them: each field of its types, nulls, limits, and images."""

from __future__ import annotations

import functools
import http.server
import threading
import typing
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import openai
import pytest
from openai.types.chat import completion_create_params as of_chats
from openai.types.responses import input_token_count_params as of_counts
from openai.types.responses import response_create_params as of_responses

from core import ids
from core.database import Database, utcnow
from jobs.records.files import FileEntry
from scripted.options import ScriptedOptions
from tests.api import image_files
from tests.clients.service import Service

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
PNG = image_files.png()
IMAGE = image_files.data_url(PNG)
#: Not in any character set of one byte, left to right and right to left.
TEXT = "試験 ñ 😀 \u202e\u05e2\u05d1\u202c"
RESPONSE = set(typing.get_type_hints(of_responses.ResponseCreateParamsBase))
CHAT = set(typing.get_type_hints(of_chats.CompletionCreateParamsBase))


@pytest.fixture(scope="module")
def engine_options() -> ScriptedOptions:
    """Answers take no time."""
    return ScriptedOptions(tokens_per_second=4000, markers=True)


class Respond:
    """Sends a question to ``/v1/responses``, with fields that need not be those of the client's types."""

    names = RESPONSE - {"input"}
    place = "input[0].content[1].image_url"

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client

    def __call__(self, **sent: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the answer."""
        return self._client.post(
            "/responses", body={"input": "How many?"} | sent, cast_to=typing.cast("Any", object)
        )

    def show(self, *sources: Json) -> Any:  # noqa: ANN401 - JSON
        """Ask about images."""
        images = [{"type": "input_image"} | source for source in sources]
        content = [{"type": "input_text", "text": "How many?"}, *images]
        return self(input=[{"role": "user", "content": content}])


class Chat(Respond):
    """The same for ``/v1/chat/completions``."""

    names = CHAT - {"messages"}
    place = "messages[0].content[1].image_url.url"

    def __call__(self, **sent: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the answer."""
        asked = {"messages": [{"role": "user", "content": "How many?"}]}
        return self._client.post(
            "/chat/completions", body=asked | sent, cast_to=typing.cast("Any", object)
        )

    def show(self, *sources: Json) -> Any:  # noqa: ANN401 - JSON
        """Ask about images."""
        images = [
            {
                "type": "image_url",
                "image_url": {"url": source["image_url"]}
                | {name: value for name, value in source.items() if name == "detail"},
            }
            for source in sources
        ]
        content = [{"type": "text", "text": "How many?"}, *images]
        return self(messages=[{"role": "user", "content": content}])


@pytest.fixture(params=[Respond, Chat], ids=["responses", "chat"])
def send(request: pytest.FixtureRequest, client: openai.OpenAI) -> Respond:
    """Return what sends a request to either surface."""
    made: Respond = request.param(client)
    return made


def refused(call: Callable[[], object]) -> tuple[openai.BadRequestError, dict[str, str]]:
    """Return the error with which a call is refused, and the code of each fault by its JSON pointer."""
    with pytest.raises(openai.BadRequestError) as caught:
        call()
    faults = caught.value.response.json()["errors"]
    return caught.value, {fault["pointer"]: fault["code"] for fault in faults}


class TestFields:
    def test_all_optional_fields_may_be_null_as_the_clients_types_say(self, send: Respond) -> None:
        assert send(**dict.fromkeys(send.names | {"stream"}))["id"]

    def test_no_field_of_the_clients_types_is_unknown(self, send: Respond) -> None:
        _, faults = refused(lambda: send(**{name: {"a": 1} for name in send.names}))
        names = {f"#/{name}" for name in send.names}
        assert [name for name in names if faults.get(name) == "unknown_parameter"] == []

    def test_fields_of_a_count_are_those_of_a_response(self, client: openai.OpenAI) -> None:
        names = set(typing.get_type_hints(of_counts.InputTokenCountParams)) - {"input"}
        body: Json = {"input": "How many?"} | dict.fromkeys(names)
        counted = client.responses.input_tokens.count(**body)
        assert counted.input_tokens > 0
        error, _ = refused(lambda: client.responses.input_tokens.count(input="x", personality="y"))
        assert error.param == "personality"

    def test_one_error_names_everything_that_is_refused(self, client: openai.OpenAI) -> None:
        """Also with fields whose types are wrong, which make the others no less wrong."""
        _, faults = refused(
            lambda: Respond(client)(
                access_programs=["x"],
                background=True,
                context_management=[{"type": "compaction"}],
                conversation="conv_1",
                image={"context_compression": "auto"},
                include=["message.output_text.logprobs"],
                max_output_tokens="many",
                metadata={"a": 1},
                model="gpt-5",
                moderation={"model": "x"},
                previous_response_id="resp_1",
                prompt={"id": "pmpt_1"},
                store=False,
                stream="true",
                temperature=3,
                text={"format": {"type": "json_schema", "name": "x"}},
                tool_choice="required",
                tools=[{"type": "web_search"}],
                unknown=1,
            )
        )
        assert set(faults) == {
            "#/access_programs", "#/context_management", "#/conversation", "#/image", "#/include",
            "#/max_output_tokens", "#/metadata/a", "#/model", "#/moderation", "#/previous_response_id",
            "#/prompt", "#/store", "#/stream", "#/temperature", "#/text/format/schema", "#/tool_choice",
            "#/tools", "#/unknown",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("access_programs", ["x"]),
            ("context_management", [{"type": "compaction"}]),
            ("conversation", {"id": "conv_1"}),
            ("image", {"context_compression": "auto"}),
            ("include", ["message.output_text.logprobs"]),
            ("moderation", {"model": "x"}),
            ("prompt", {"id": "pmpt_1"}),
            ("tool_choice", {"type": "function", "name": "x"}),
            ("tools", [{"type": "function", "name": "x", "parameters": {}}]),
            ("top_logprobs", 2),
        ],
    )
    def test_what_a_response_does_not_serve_is_refused_by_name(
        self, client: openai.OpenAI, name: str, value: object
    ) -> None:
        error, _ = refused(lambda: Respond(client)(**{name: value}))
        assert (error.param, error.code) == (name, "unsupported_parameter")
        assert error.type == "invalid_request_error"

    def test_what_has_no_effect_here_is_accepted(self, client: openai.OpenAI) -> None:
        answer = client.responses.create(
            model=client.models.list().data[0].id,
            input=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "input_text",
                            "text": "How many?",
                            "prompt_cache_breakpoint": {"mode": "explicit"},
                        }
                    ],
                }
            ],
            include=["reasoning.encrypted_content"],
            max_tool_calls=3,
            parallel_tool_calls=True,
            prompt_cache_key="key",
            prompt_cache_retention="24h",
            safety_identifier="someone",
            service_tier="auto",
            text={"format": {"type": "text"}, "verbosity": "low"},
            tool_choice="auto",
            tools=[],
            top_logprobs=0,
            truncation="auto",
            user="someone",
            extra_query={"api-version": "1"},
            extra_headers={"OpenAI-Organization": "org-1", "OpenAI-Project": "proj_1"},
        )
        assert answer.status == "completed"

    @pytest.mark.parametrize("name", ["stream", "store"])
    def test_a_text_is_no_boolean(self, send: Respond, name: str) -> None:
        error, _ = refused(lambda: send(**{name: "true"}))
        assert error.param == name
        assert error.body is not None
        assert "true or false" in str(error.body)

    def test_whole_numbers_are_integers_and_integers_are_numbers(self, send: Respond) -> None:
        """JSON does not tell 100 from 100.0, and OpenAI's own API takes a `top_p` of 0."""
        limit = "max_output_tokens" if send.names == RESPONSE - {"input"} else "max_tokens"
        assert send(**{limit: 100.0, "temperature": 1, "top_p": 0})["id"]
        assert send(**{limit: 2**64 - 1})["id"]
        assert refused(lambda: send(**{limit: 2**64}))[0].param == limit
        error, _ = refused(lambda: send(**{limit: 100.5}))
        assert error.param == limit

    def test_a_client_that_is_set_up_for_azure_needs_no_other_change(
        self, service: Service
    ) -> None:
        """It sends the version of the API with every request."""
        client = service.client(default_query={"api-version": "preview"})
        model = service.model
        response = client.responses.create(input="How many?", model=model)
        assert client.responses.retrieve(response.id).id == response.id
        assert list(client.responses.retrieve(response.id, stream=True))
        assert client.responses.input_items.list(response.id).data
        assert client.models.retrieve(model).id == model
        for pages in (client.files.list, client.batches.list, client.webhooks.list):
            assert pages().has_more is False
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.retrieve(response.id, extra_query={"api_version": "preview"})
        assert caught.value.param == "api_version"

    @pytest.mark.parametrize(
        ("name", "value"), [("temperature", 2.1), ("temperature", -0.1), ("top_p", 1.1)]
    )
    def test_numbers_have_bounds(self, send: Respond, name: str, value: float) -> None:
        assert refused(lambda: send(**{name: value}))[0].param == name
        assert send(temperature=2, top_p=1)["id"]

    def test_a_budget_of_one_token_is_served(self, client: openai.OpenAI) -> None:
        answer = client.responses.create(input="How many?", max_output_tokens=1)
        assert answer.status in ("completed", "incomplete")
        assert answer.usage is not None
        assert answer.usage.output_tokens > 0

    def test_flexible_requests_are_of_low_priority(self, client: openai.OpenAI) -> None:
        for answer, prefix in (
            (Respond(client)(service_tier="flex"), "resp_"),
            (Chat(client)(service_tier="flex"), "chatcmpl-"),
        ):
            job: Any = client.get(f"/jobs/{answer['id'].replace(prefix, 'job_')}", cast_to=object)
            assert job["priority"] == "low"

    def test_an_unknown_tier_is_refused(self, send: Respond) -> None:
        error, _ = refused(lambda: send(service_tier="gold"))
        assert error.param == "service_tier"


class TestMetadata:
    def test_the_limits_are_openais(self, send: Respond) -> None:
        most = {f"{number:02}".ljust(64, "ü"): "試" * 512 for number in range(16)}
        assert send(metadata=most)["id"]
        for beyond in ({"k" * 65: ""}, {"k": "v" * 513}, {f"{number}": "" for number in range(17)}):
            error, _ = refused(functools.partial(send, metadata=beyond))
            assert (error.param or "").startswith("metadata")

    def test_any_text_comes_back_as_it_was_sent(self, client: openai.OpenAI) -> None:
        created = client.responses.create(
            input=TEXT, instructions=TEXT, metadata={"試 ñ": TEXT}, user=TEXT, background=True
        )
        response = client.responses.retrieve(created.id)
        assert (response.instructions, response.metadata) == (TEXT, {"試 ñ": TEXT})
        assert response.model_dump()["user"] == TEXT
        [item] = client.responses.input_items.list(created.id).data
        assert item.model_dump()["content"][0]["text"] == TEXT


class TestInput:
    @pytest.mark.parametrize("sent", ["", "  ", [], None, [{"role": "user", "content": ""}]])
    def test_an_input_that_asks_nothing_is_refused(
        self, client: openai.OpenAI, sent: object
    ) -> None:
        error, _ = refused(lambda: Respond(client)(input=sent))
        assert (error.param or "").startswith("input")

    def test_instructions_that_are_too_long_have_a_code(self, client: openai.OpenAI) -> None:
        error, _ = refused(lambda: Respond(client)(instructions="試" * 200_000))
        assert (error.param, error.code) == ("instructions", "context_length_exceeded")

    def test_system_texts_that_are_too_long_are_refused_before_the_job_exists(
        self, client: openai.OpenAI
    ) -> None:
        """A job that the engine refuses would end a chat with an error after its headers."""
        long: Json = {"role": "system", "content": "Be brief. " * 1000}
        brief: Json = {"role": "user", "content": "How many?"}
        by_chat, _ = refused(lambda: Chat(client)(messages=[long, brief]))
        by_response, _ = refused(lambda: Respond(client)(input=[long, brief]))
        assert (by_chat.param, by_chat.code) == ("messages[0]", "context_length_exceeded")
        assert (by_response.param, by_response.code) == ("input[0]", "context_length_exceeded")

    def test_messages_that_clients_resend_are_read(self, client: openai.OpenAI) -> None:
        """Short and long forms, explicit nulls, and items of an earlier output."""
        short = [{"type": "output_text", "text": "Two."}]
        long = [{"type": "output_text", "text": "Two.", "annotations": [], "logprobs": []}]
        answer = Respond(client)(
            input=[
                {"type": None, "role": "developer", "content": "Be brief."},
                {"role": "user", "content": "How many?", "id": None, "status": None},
                {"role": "assistant", "content": short},
                {"role": "user", "content": [{"type": "input_text", "text": "Sure?"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None},
                {"type": "message", "id": "msg_1", "role": "assistant", "content": long, "phase": None},
                {"role": "user", "content": "Really?"},
            ]
        )  # fmt: skip
        assert answer["status"] == "completed"

    @pytest.mark.parametrize(
        ("item", "param"),
        [
            ({"type": "function_call", "call_id": "1"}, "input[0].type"),
            ({"type": "item_reference", "id": "msg_1"}, "input[0].id"),
            ({"type": "configuration_update"}, "input[0].type"),
            ({"role": "tool", "content": "x"}, "input[0].role"),
            ({"role": "user", "content": [{"type": "input_file"}]}, "input[0].content[0].type"),
            ({"role": "user", "content": [{"type": "input_audio"}]}, "input[0].content[0].type"),
        ],
    )
    def test_other_items_are_refused_with_their_place(
        self, client: openai.OpenAI, item: Json, param: str
    ) -> None:
        error, _ = refused(lambda: Respond(client)(input=[item, {"role": "user", "content": "x"}]))
        assert error.param == param


class TestImages:
    def test_images_alone_are_an_input(self, client: openai.OpenAI) -> None:
        parts = [{"type": "input_image", "image_url": IMAGE}]
        assert Respond(client)(input=[{"role": "user", "content": parts}])["status"] == "completed"

    def test_more_images_than_a_job_takes_are_served_with_the_newest(self, send: Respond) -> None:
        assert send.show(*[{"image_url": IMAGE}] * 100)["id"]

    @pytest.mark.parametrize("detail", ["auto", "low", "high", "original", None])
    def test_every_detail_is_served(self, send: Respond, detail: str | None) -> None:
        assert send.show({"image_url": IMAGE, "detail": detail})["id"]

    def test_an_unknown_detail_has_its_place(self, send: Respond) -> None:
        error, _ = refused(lambda: send.show({"image_url": IMAGE, "detail": "ultra"}))
        assert error.param == send.place.removesuffix(".url").replace(
            "image_url", "image_url.detail" if send.place.endswith(".url") else "detail"
        )

    def test_a_url_that_is_missing_has_its_place(self, client: openai.OpenAI) -> None:
        error, _ = refused(lambda: Chat(client).show({"image_url": None}))
        assert error.param == Chat.place

    @pytest.mark.parametrize("kind", ["image/webp", "image/jpg", "text/plain", ""])
    def test_the_bytes_say_what_an_image_is(self, send: Respond, kind: str) -> None:
        assert send.show({"image_url": IMAGE.replace("image/png", kind)})["id"]

    @pytest.mark.parametrize(
        ("url", "code"),
        [
            ("data:image/png;base64,@@@@", "invalid_base64_image"),
            ("data:image/png;base64,", "empty_image_file"),
            ("data:image/png;base64,aGVsbG8=", "invalid_image_format"),
            ("ftp://example.com/a.png", "invalid_image_url"),
            ("file:///etc/passwd", "invalid_image_url"),
            ("http://169.254.169.254/latest", "invalid_image_url"),
        ],
    )
    def test_what_is_no_image_is_refused_with_its_place(
        self, send: Respond, url: str, code: str
    ) -> None:
        error, _ = refused(lambda: send.show({"image_url": url}))
        assert (error.param, error.code) == (send.place, code)

    @pytest.mark.parametrize("name", ["include", "include[]"])
    def test_the_url_of_an_image_is_shown_when_it_is_asked_for(
        self, client: openai.OpenAI, server: str, name: str
    ) -> None:
        """The clients write `include[]`; OpenAI's reference, and who follows it, `include`."""
        url = f"{server}/image.png"
        path = f"/responses/{Respond(client).show({'image_url': url})['id']}"

        def shown(**query: object) -> str | None:
            page: Any = client.get(f"{path}/input_items", cast_to=object, options={"params": query})
            return typing.cast("str | None", page["data"][0]["content"][1]["image_url"])

        included = {name: "message.input_image.image_url"}
        assert shown() is None
        assert shown(**included) == url
        assert client.get(path, cast_to=object, options={"params": included})

    def test_a_url_is_downloaded(self, send: Respond, server: str) -> None:
        assert send.show({"image_url": f"{server}/image.png"})["id"]
        assert send.show({"image_url": f" {server}/image.png\n"})["id"]

    @pytest.mark.parametrize(
        ("path", "code"),
        [("missing", "failed_to_download_image"), ("inside", "invalid_image_url")],
    )
    def test_a_url_that_fails_or_leads_inside_is_refused(
        self, send: Respond, server: str, path: str, code: str
    ) -> None:
        error, _ = refused(lambda: send.show({"image_url": f"{server}/{path}"}))
        assert (error.param, error.code) == (send.place, code)


class TestFileIds:
    def test_only_the_accounts_own_images_that_have_not_expired_are_found(
        self, client: openai.OpenAI, service: Service
    ) -> None:
        own = client.files.create(file=("a.png", PNG), purpose="vision").id
        foreign = service.stranger().files.create(file=("a.png", PNG), purpose="vision").id
        other = client.files.create(file=("a.png", PNG), purpose="evals").id
        expired = client.files.create(
            file=("a.png", PNG),
            purpose="vision",
            expires_after={"anchor": "created_at", "seconds": 3600},
        ).id
        send = Respond(client)
        assert send.show({"file_id": expired})["status"] == "completed"
        expire(service, expired)

        assert send.show({"file_id": own}, {"file_id": own})["status"] == "completed"
        for file_id in (foreign, other, expired, f"file-{'0' * 32}", "no id", "f" * 1000):
            error, _ = refused(functools.partial(send.show, {"file_id": file_id}))
            place = "input[0].content[1].file_id"
            assert (error.param, error.code) == (place, "image_file_not_found")

    def test_a_file_of_user_data_may_be_an_image(self, client: openai.OpenAI) -> None:
        image = client.files.create(file=("a.png", PNG), purpose="user_data").id
        text = client.files.create(file=("a.txt", b"text"), purpose="user_data").id
        send = Respond(client)
        assert send.show({"file_id": image})["status"] == "completed"
        error, _ = refused(lambda: send.show({"file_id": text}))
        assert (error.param, error.code) == ("input[0].content[1].file_id", "invalid_image_format")

    def test_a_response_outlives_the_file_of_its_image(self, client: openai.OpenAI) -> None:
        file = client.files.create(file=("a.png", PNG), purpose="vision")
        answer = Respond(client).show({"file_id": file.id})
        client.files.delete(file.id)
        [item] = client.responses.input_items.list(answer["id"]).data
        assert item.model_dump()["content"][1]["file_id"] == file.id
        again = client.responses.create(input="Sure?", previous_response_id=answer["id"])
        assert again.status == "completed"


def expire(service: Service, file_id: str) -> None:
    """Let the period of a file end."""
    with (
        closing(Database(service.stack.database_url)) as database,
        database.transaction() as transaction,
    ):
        file = transaction.session.get_one(FileEntry, ids.parse("file", file_id))
        file.expires_at = utcnow() - timedelta(seconds=1)


class _Images(http.server.BaseHTTPRequestHandler):
    """Has an image, a redirect to an address inside, and nothing else."""

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/image.png":
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(PNG)
        elif self.path == "/inside":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Return the URL of a server with images; the settings of the tests allow its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Images) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
