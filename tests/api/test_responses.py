"""``/v1/responses``: what is accepted, refused and shown; :mod:`tests.clients.test_responses` runs the real clients."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from openai.types.responses import Response
from werkzeug.test import TestResponse

from api.app import service_of
from api.framework import Router
from api.openai.earlier import Earlier
from api.openai.responses import request
from api.schemas.requests import RequestLimits
from core import ids, profiles
from core.database import Database
from jobs.answers.extraction import Answer, JsonRule
from jobs.records.jobs import Job, ResponseEntry
from jobs.store import claims, purge, settle
from tests import databases, factories
from tests.api import asking, image_files, worker
from tests.api.conftest import Caller
from tests.api.test_streams import record, say, succeed
from tests.fakes import RecordingPublisher

Json = dict[str, Any]
Create = Callable[..., TestResponse]
#: Served and ignored: with these the answer is the same.
IGNORED: Json = {
    "include": ["reasoning.encrypted_content"],
    "max_tool_calls": 3,
    "parallel_tool_calls": True,
    "prompt_cache_key": "x",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "x",
    "service_tier": "priority",
    "stream_options": {"include_obfuscation": False},
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "verbosity": "low",
}
LIMITS = RequestLimits(
    model="tiny-qvq",
    question_chars=profiles.TINY.max_question_chars,
    output_tokens=profiles.TINY.max_output_tokens,
    images=4,
    samples=4,
    generations=16,
    special_tokens=profiles.TINY.special_tokens,
)
REFUSED: list[tuple[Json, str]] = [
    ({"tools": [{"type": "web_search"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"access_programs": {"x": 1}}, "access_programs"),
    ({"image": {"context_compression": "enabled"}}, "image"),
    ({"top_logprobs": 1}, "top_logprobs"),
    ({"include": ["message.output_text.logprobs"]}, "include"),
    ({"background": True, "store": False}, "store"),
    (
        {"text": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        "text.format.name",
    ),
    (
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "array"}}}},
        "text.format.schema",
    ),
    (
        {
            "text": {
                "format": {
                    "type": "json_schema",
                    "name": "x",
                    "schema": {"$schema": "\x00", "enum": ["a"], "type": "string"},
                }
            }
        },
        "text.format.schema.$schema",
    ),
    ({"surprise": 1}, "surprise"),
    ({"samples": 2}, "samples"),
    ({"options": {"temperature": 1}}, "options.temperature"),
    ({"options": {"surprise": 1}}, "options.surprise"),
    ({"options": {"samples": 0}}, "options.samples"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": "high"}, "top_p"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"metadata": {"x": 1}}, "metadata.x"),
    ({"model": "gpt-5"}, "model"),
    ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"background_options": {"completion_window": "2h"}}, "background_options.completion_window"),
]


@pytest.fixture
def create(caller: Caller) -> Create:
    def post(headers: dict[str, str] | None = None, **body: Any) -> TestResponse:  # noqa: ANN401 - JSON
        sent = {"input": "How many?", "background": True} | body
        return caller("POST", "/v1/responses", json=sent, headers=headers)

    return post


def shown(answer: TestResponse) -> Json:
    assert answer.status_code == 200, answer.text
    response: Json = answer.get_json()
    strict(response)
    return response


def strict(response: Json) -> None:
    """Validate an object by the types of the official client, which do not convert."""
    Response.model_validate(response, strict=True)
    assert isinstance(response["created_at"], int)


def replay(caller: Caller, path: str) -> bytes:
    """Return the stream of a response that has ended."""
    answer = caller("GET", path, buffered=True)
    assert answer.status_code == 200, answer.text
    data: bytes = answer.data
    return data


def begin(answer: TestResponse, pieces: int = 2) -> list[Json]:
    """Return the events in the first pieces of a stream."""
    sent: Iterator[bytes] = iter(answer.response)  # type: ignore[arg-type] # bytes, for us
    return parsed(b"".join(itertools.islice(sent, pieces)))


def parsed(data: bytes) -> list[Json]:
    return [orjson.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: ")]


def job_of(database: Database, response: Json) -> Job:
    with database.reading() as transaction:
        job = transaction.session.get(Job, ids.parse("resp", response["id"]))
        assert job is not None
        return job


def test_a_text_in_the_background_is_a_job_without_images(
    create: Create, database: Database, caller: Caller
) -> None:
    answer = create(instructions="Be brief.", metadata={"case": "42"})
    response = shown(answer)

    assert response["status"] == "queued"
    assert response["output"] == []
    assert answer.headers["openai-poll-after-ms"]
    job = caller("GET", f"/v1/jobs/{response['id'].replace('resp_', 'job_')}").get_json()
    assert (job["question"], job["images"]) == ("How many?", [])
    assert job["metadata"] == {"case": "42"}
    assert job_of(database, response).options["system"] == "Be brief."
    assert response["instructions"] == "Be brief."


def test_a_response_has_its_reasoning_and_its_answer(
    create: Create, caller: Caller, database: Database
) -> None:
    response = shown(create())
    claimed = factories.claim(database)
    recorder, live = record(database, claimed, RecordingPublisher())
    say(recorder, live, "Let me ")
    recorder.flush()
    running = shown(caller("GET", f"/v1/responses/{response['id']}"))
    say(recorder, live, "look: ", "6.")
    succeed(database, claimed, recorder, live)
    ended = caller("GET", f"/v1/responses/{response['id']}")
    done = shown(ended)

    assert running["status"] == "in_progress"
    assert running["output"][0]["status"] == "in_progress"
    assert running["output"][0]["content"][0]["text"] == "Let me "
    assert done["status"] == "completed"
    assert done["completed_at"] >= done["created_at"]
    reasoning, message = done["output"]
    assert reasoning["summary"] == []
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Let me look: 6."}]
    assert message["content"][0] == {
        "type": "output_text",
        "text": "6",
        "annotations": [],
        "logprobs": [],
    }
    assert done["usage"]["total_tokens"] > 0
    assert "openai-poll-after-ms" not in ended.headers


def test_a_native_job_is_a_response_too(caller: Caller, database: Database) -> None:
    job = caller.job()
    worker.finish(database)
    path = f"/v1/responses/{job['id'].replace('job_', 'resp_')}"

    assert shown(caller("GET", path))["status"] == "completed"
    page = caller("GET", f"{path}/input_items").get_json()
    assert page["data"][0]["content"][0]["file_id"] == job["images"][0]["id"]
    assert parsed(replay(caller, f"{path}?stream=true"))[-1]["type"] == "response.completed"


def test_ignored_fields_are_ignored(create: Create) -> None:
    assert shown(create(**IGNORED))["service_tier"] == "default"
    assert shown(create(**dict.fromkeys([*IGNORED, "prompt", "metadata", "instructions"])))


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=[param for _, param in REFUSED])
def test_what_is_not_served_is_refused_by_name(create: Create, body: Json, param: str) -> None:
    answer = create(**{"background": False} | body)

    assert answer.status_code == 400, answer.text
    assert answer.get_json()["error"]["param"] == param


def test_all_faults_are_named_at_once(create: Create) -> None:
    answer = create(
        input=[{"role": "user", "content": [{"type": "input_image"}]}],
        temperature=3,
        tools=[{"type": "x"}],
    )

    assert answer.status_code == 400
    assert {fault["pointer"] for fault in answer.get_json()["errors"]} == {
        "#/input/0/content/0",
        "#/temperature",
        "#/tools",
    }


def test_an_input_that_is_too_long_and_options_that_are_no_object_hide_no_other_fault(
    create: Create, caller: Caller
) -> None:
    text = "x" * (LIMITS.question_chars + 1)
    faulty: Json = {"temperature": 3, "top_p": "high", "metadata": {"a": 1}, "options": [1]}
    others = {"#/temperature", "#/top_p", "#/metadata/a", "#/options"}
    chat = {"messages": [{"role": "user", "content": text}], "seed": "x"} | faulty

    answers = [create(input=text, **faulty), caller("POST", "/v1/chat/completions", json=chat)]

    named = [{fault["pointer"] for fault in answer.get_json()["errors"]} for answer in answers]
    assert named == [others | {"#/input"}, others | {"#/messages/0", "#/seed"}]


@pytest.mark.parametrize("sent", ["[]", "1", "{", "{}"])
def test_a_body_that_is_no_request_is_refused(caller: Caller, sent: str) -> None:
    answer = caller("POST", "/v1/responses", data=sent, content_type="application/json")

    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("effort", "share"), [("none", 0.125), ("minimal", 0.25), ("low", 0.5), ("medium", 1)]
)
def test_the_effort_is_a_token_budget(
    create: Create, database: Database, effort: str, share: float
) -> None:
    default = job_of(database, shown(create())).options["max_output_tokens"]
    response = shown(create(reasoning={"effort": effort}))

    assert job_of(database, response).options["max_output_tokens"] == default * share
    assert response["reasoning"] == {"effort": effort, "summary": None}


def test_more_effort_is_more_tokens_and_a_limit_still_holds(
    create: Create, database: Database
) -> None:
    budgets = [
        job_of(database, shown(create(reasoning={"effort": effort}))).options["max_output_tokens"]
        for effort in ("none", "minimal", "low", "medium", "high", "xhigh")
    ]
    limited = shown(create(reasoning={"effort": "high"}, max_output_tokens=100))
    huge = shown(create(max_output_tokens=10**6))

    assert budgets == sorted(set(budgets))
    assert job_of(database, limited).options["max_output_tokens"] == 100
    assert huge["max_output_tokens"] == 10**6
    assert job_of(database, huge).options["max_output_tokens"] == budgets[-1]


def test_extra_options_have_their_native_meaning(create: Create, database: Database) -> None:
    response = shown(
        create(
            options={"samples": 3, "seed": 7, "guards": {"loop": False}, "priority": "low"},
            service_tier="flex",
            top_p=0.5,
        )
    )

    job = job_of(database, response)
    assert job.options["samples"] == 3
    assert job.options["guards"]["loop"] is False
    assert job.priority == "low"
    assert (response["service_tier"], response["top_p"]) == ("flex", 0.5)


def test_images_come_as_data_urls_and_by_the_id_of_an_upload(
    create: Create, caller: Caller, database: Database
) -> None:
    uploaded = caller.image(image_files.png(seed=2))
    data = image_files.data_url(image_files.png())
    response = shown(
        create(
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": data},
                        {"type": "input_text", "text": "Compare."},
                        {"type": "input_image", "file_id": uploaded["id"], "detail": "high"},
                    ],
                }
            ]
        )
    )

    job = caller("GET", f"/v1/jobs/{response['id'].replace('resp_', 'job_')}").get_json()
    assert job["question"] == "Compare."
    assert job["images"][1]["id"] == uploaded["id"]
    content = caller("GET", f"/v1/responses/{response['id']}/input_items").get_json()["data"][0]
    assert [part.get("file_id") for part in content["content"]] == [
        job["images"][0]["id"],
        None,
        uploaded["id"],
    ]
    with database.reading() as transaction:
        entry = transaction.session.scalars(sa.select(ResponseEntry)).one()
    assert b"base64" not in orjson.dumps(entry.requested)


def test_an_unknown_image_is_a_fault_at_its_place(create: Create) -> None:
    part = {"type": "input_image", "file_id": "img_" + "0" * 32}
    answer = create(input=[{"role": "user", "content": [part]}])

    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"] == "input[0].content[0].file_id"


class TestLongConversations:
    def turns(self, chars: int) -> list[Json]:
        return [
            {"role": "user", "content": "First. " + "x" * chars},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "How many?"},
        ]

    def test_are_refused_by_default(self, create: Create) -> None:
        answer = create(input=self.turns(30_000))

        error = answer.get_json()["error"]
        assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
        assert error["param"] == "input[2]"

    def test_lose_their_oldest_turns_when_the_client_allows_it(
        self, create: Create, database: Database
    ) -> None:
        response = shown(create(input=self.turns(30_000), truncation="auto"))

        job = job_of(database, response)
        assert job.question is not None
        assert "First." not in job.question
        assert job.question.endswith("How many?")
        assert response["truncation"] == "auto"

    def test_show_each_image_where_it_was_after_older_ones_were_left_out(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        def turn(text: str, seed: int) -> Json:
            url = image_files.data_url(image_files.png(seed=seed))
            image = {"type": "input_image", "image_url": url}
            return {"role": "user", "content": [image, {"type": "input_text", "text": text}]}

        first = shown(
            create(
                input=[
                    turn("Old. " + "x" * 23_990, 1),
                    {"role": "assistant", "content": "Yes."},
                    turn("Green.", 2),
                    {"role": "assistant", "content": "No."},
                    turn("Blue.", 3),
                ],
                truncation="auto",
            )
        )
        worker.finish(database)
        second = shown(create(truncation="auto", previous_response_id=first["id"]))

        jobs = [
            caller("GET", f"/v1/jobs/{one['id'].replace('resp_', 'job_')}").get_json()
            for one in (first, second)
        ]
        green, blue = (image["id"] for image in jobs[0]["images"])
        items = caller(
            "GET", f"/v1/responses/{first['id']}/input_items?order=asc&limit=100"
        ).get_json()["data"]
        assert [
            part["file_id"]
            for item in items
            for part in item["content"]
            if part["type"] == "input_image"
        ] == [None, green, blue]
        assert [image["id"] for image in jobs[1]["images"]] == [green, blue]
        assert "User (image 1): Green." in jobs[1]["question"]
        assert "User (image 2): Blue." in jobs[1]["question"]

    def test_do_not_lose_the_newest_turn(self, create: Create) -> None:
        answer = create(input="x" * 30_000, truncation="auto")

        assert answer.get_json()["error"]["code"] == "context_length_exceeded"


def test_a_response_that_is_deleted_before_its_request_shows_it_ends_with_an_error(
    app: Router, create: Create, caller: Caller, database: Database
) -> None:
    service_of(app).foreground.silence_seconds = 0.01
    answer = create(background=False)
    sent: Iterator[bytes] = iter(answer.response)  # type: ignore[arg-type] # bytes, for us
    read = [next(sent), next(sent)]
    worker.finish(database)
    [job_id] = stored_jobs(database)
    assert caller("DELETE", f"/v1/responses/{ids.show('resp', job_id)}").status_code == 200

    read += sent
    answer.close()

    assert b"There is no such response." in b"".join(read)


def stored_jobs(database: Database) -> list[uuid.UUID]:
    with database.reading() as transaction:
        return list(transaction.session.scalars(sa.select(Job.id)))


def test_a_request_in_the_background_never_gets_the_job_of_a_client_that_waits(
    caller: Caller,
) -> None:
    """Such a job is cancelled when that client hangs up."""
    key = {"Idempotency-Key": "one"}
    waiting = caller(
        "POST", "/v1/responses", json={"input": "How many?"}, headers=key, buffered=False
    )
    answer = caller(
        "POST", "/v1/responses", json={"input": "How many?", "background": True}, headers=key
    )
    waiting.close()
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (
        422,
        "idempotency_key_reused",
    )


class TestEarlierResponses:
    def test_come_before_the_input_with_their_images(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        data = image_files.data_url(image_files.png())
        first = shown(
            create(
                input=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "How many?"},
                            {"type": "input_image", "image_url": data},
                        ],
                    }
                ],
                instructions="Not for later.",
            )
        )
        worker.finish(database, answer="6")
        second = shown(create(input="Sure?", previous_response_id=first["id"]))
        worker.finish(database, answer="Yes")
        third = shown(create(input="Really?", previous_response_id=second["id"]))

        job = caller("GET", f"/v1/jobs/{third['id'].replace('resp_', 'job_')}").get_json()
        assert job["question"] == (
            "This is the conversation so far.\n\nUser (image 1): How many?\n\nAssistant: 6\n\nUser: Sure?\n\n"
            "Assistant: Yes\n\nAnswer this message:\n\nReally?"
        )
        assert len(job["images"]) == 1
        assert third["previous_response_id"] == second["id"]
        assert "system" not in job_of(database, third).options

    def test_of_another_account_do_not_exist(
        self, create: Create, stranger: Caller, database: Database
    ) -> None:
        first = shown(create())
        worker.finish(database)

        body = {"input": "x", "background": True, "previous_response_id": first["id"]}
        answer = stranger("POST", "/v1/responses", json=body)

        assert answer.status_code == 400
        assert answer.get_json()["error"]["code"] == "previous_response_not_found"

    def test_that_do_not_fit_are_not_read(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        """A hundred responses can have gigabytes of text, which no job gets."""
        oldest = shown(create())
        worker.finish(database)
        long = [
            {"role": "user", "content": "x" * 30_000},
            {"role": "assistant", "content": "6"},
            {"role": "user", "content": "Sure?"},
        ]
        second = shown(create(input=long, truncation="auto", previous_response_id=oldest["id"]))
        worker.finish(database)
        assert caller("DELETE", f"/v1/responses/{oldest['id']}").status_code == 200

        third = shown(create(truncation="auto", previous_response_id=second["id"]))
        refused = create(truncation="disabled", previous_response_id=second["id"])

        assert "User: Sure?" in str(job_of(database, third).question)
        assert refused.get_json()["error"]["code"] == "context_length_exceeded"

    @pytest.mark.parametrize("truncation", [None, "auto"])
    def test_are_too_many_unless_the_oldest_may_be_left_out(
        self, create: Create, database: Database, truncation: str | None
    ) -> None:
        ids_: list[str] = []
        for number in range(3):
            before = ids_[-1] if ids_ else None
            made = shown(create(input=f"Question {number}?", previous_response_id=before))
            ids_.append(made["id"])
            worker.finish(database)

        def parsed_after(response_id: str) -> tuple[str, list[str]]:
            read = request.parse(
                {"input": "And?", "previous_response_id": response_id, "truncation": truncation},
                profile=profiles.TINY,
                limits=LIMITS,
                earlier=Earlier(database, account_id=None, most_responses=2),
            ).submission
            asked = read.conversation.whole().question if read.conversation is not None else ""
            return asked, [f"{fault.pointer} {fault.code}" for fault in read.faults]

        question, faults = parsed_after(ids_[1])
        assert "Question 0?" in question
        assert faults == []
        question, faults = parsed_after(ids_[2])
        assert "Question 0?" not in question
        assert faults == ([] if truncation else ["#/previous_response_id context_length_exceeded"])

    def test_that_were_deleted_end_the_conversation_unless_the_oldest_may_be_left_out(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        """Also those whose retention is over: a conversation can be longer than that."""
        made: list[str] = []
        for number in range(3):
            before = made[-1] if made else None
            made.append(
                shown(create(input=f"Question {number}?", previous_response_id=before))["id"]
            )
            worker.finish(database)
        caller("DELETE", f"/v1/responses/{made[0]}")

        error = create(previous_response_id=made[2]).get_json()["error"]
        rest = shown(create(previous_response_id=made[2], truncation="auto"))
        direct = create(previous_response_id=made[0], truncation="auto").get_json()["error"]

        assert (error["param"], error["code"]) == (
            "previous_response_id",
            "previous_response_not_found",
        )
        assert made[0] in error["message"]
        assert "truncation" in error["message"]
        question = str(job_of(database, rest).question)
        assert "Question 0?" not in question
        assert question.index("Question 1?") < question.index("Question 2?")
        assert direct["code"] == "previous_response_not_found"

    def test_must_have_ended(self, create: Create) -> None:
        answer = create(previous_response_id=shown(create())["id"])

        assert answer.status_code == 400
        assert answer.get_json()["error"]["param"] == "previous_response_id"


def test_a_repeated_request_is_the_same_response(create: Create) -> None:
    first = create({"Idempotency-Key": "k"})
    again = create({"Idempotency-Key": "k"})
    other = create({"Idempotency-Key": "k"}, instructions="Be brief.")

    assert shown(again)["id"] == shown(first)["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.get_json()["error"]["code"]) == (
        422,
        "idempotency_key_reused",
    )
    assert other.headers["x-should-retry"] == "false"


class TestCancel:
    def test_a_queued_response_ends_at_once_and_stays_cancelled(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        path = f"/v1/responses/{shown(create())['id']}"
        first = shown(caller("POST", f"{path}/cancel"))

        assert first["status"] == "cancelled"
        assert first["incomplete_details"] is None
        assert shown(caller("POST", f"{path}/cancel")) == first
        assert claims.claim(database, owner="x", lease=factories.LEASE) is None
        assert parsed(replay(caller, f"{path}?stream=true"))[-1]["response"] == first

    def test_a_completed_response_stays_completed(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        path = f"/v1/responses/{shown(create())['id']}"
        worker.finish(database)

        assert shown(caller("POST", f"{path}/cancel"))["status"] == "completed"

    def test_a_foreground_response_is_refused(self, create: Create, caller: Caller) -> None:
        answer = create(background=False, stream=True)
        path = f"/v1/responses/{begin(answer)[0]['response']['id']}"
        refused = caller("POST", f"{path}/cancel")
        answer.close()

        assert (refused.status_code, refused.get_json()["error"]["code"]) == (
            400,
            "response_not_cancellable",
        )
        assert shown(caller("GET", path))["status"] == "cancelled"

    def test_strangers_find_nothing(self, create: Create, stranger: Caller) -> None:
        path = f"/v1/responses/{shown(create())['id']}"

        for method, where in (
            ("POST", "/cancel"),
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/input_items"),
            ("GET", "?stream=true"),
        ):
            assert stranger(method, path + where).status_code == 404


class TestDelete:
    def test_a_deleted_response_is_gone_with_what_was_sent(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        path = f"/v1/responses/{shown(create(instructions='Secret.', input='Private?'))['id']}"
        early = caller("DELETE", path)
        worker.finish(database, text="The secret trace")
        answer = caller("DELETE", path)

        assert (early.status_code, early.get_json()["error"]["code"]) == (
            409,
            "response_not_deletable",
        )
        assert answer.get_json() == {
            "id": path.rpartition("/")[2],
            "object": "response",
            "deleted": True,
        }
        assert caller("GET", path).status_code == 404
        with database.reading() as transaction:
            assert transaction.session.scalars(sa.select(ResponseEntry)).one().requested is None
            job = transaction.session.scalars(sa.select(Job)).one()
        assert "Secret" not in repr(job.options)


class TestEndings:
    def test_a_used_up_budget_without_an_answer_is_incomplete(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        path = f"/v1/responses/{shown(create())['id']}"
        claimed = worker.start(database)
        ended = factories.make_ended("I see", finish_reason="length")
        assert settle.succeed(database, claimed, answer=None, generation=ended)
        response = shown(caller("GET", path))

        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert [item["type"] for item in response["output"]] == ["reasoning"]
        assert response["output"][0]["status"] == "incomplete"
        last = parsed(replay(caller, f"{path}?stream=true"))[-1]
        assert (last["type"], last["response"]) == ("response.incomplete", response)

    def test_a_forced_answer_is_complete(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        path = f"/v1/responses/{shown(create())['id']}"
        claimed = worker.start(database)
        ended = factories.make_ended("I see", finish_reason="length")
        answer = Answer(text="6", rule="boxed")
        assert settle.succeed(database, claimed, answer=answer, generation=ended, forced=True)

        assert shown(caller("GET", path))["status"] == "completed"

    @pytest.mark.parametrize("answer", [None, "6"])
    def test_an_end_stays_what_it_was_when_retention_takes_the_content(
        self,
        create: Create,
        caller: Caller,
        database: Database,
        clock: databases.Clock,
        answer: str | None,
    ) -> None:
        path = f"/v1/responses/{shown(create())['id']}"
        claimed = worker.start(database)
        ended = factories.make_ended("I see", finish_reason="length")
        given = None if answer is None else Answer(answer, "boxed")
        status = "incomplete" if answer is None else "completed"
        assert settle.succeed(database, claimed, answer=given, generation=ended)
        before = shown(caller("GET", path))["status"]
        clock.advance(31 * 86_400)
        month = timedelta(days=30)
        purge.batch(database, purge.Periods(answer=month, trace=month), actor="sweeper:test")

        after = shown(caller("GET", path))

        assert (before, after["status"]) == (status, status)
        assert (after["incomplete_details"] is None) is (status == "completed")
        assert parsed(replay(caller, f"{path}?stream=true"))[-1]["type"] == f"response.{status}"

    @pytest.mark.parametrize("kind", ["json_schema", "json_object"])
    def test_the_usage_of_an_answer_in_json_stays_when_retention_takes_the_content(
        self,
        create: Create,
        caller: Caller,
        database: Database,
        clock: databases.Clock,
        kind: JsonRule,
    ) -> None:
        properties = {"n": {"type": "integer"}}
        schema = {"type": "object", "properties": properties, "required": ["n"]}
        more = {"name": "n", "schema": schema} if kind == "json_schema" else {}
        created = shown(create(text={"format": {"type": kind, **more}}))
        path = f"/v1/responses/{created['id']}"
        claimed = worker.start(database)
        reasoned = factories.make_ended("I see")
        assert claims.follow(
            database, claimed, ended=reasoned, finding=None, rid="r", stored=0, inserted=""
        )
        ended = factories.make_ended('{"n": 1}', generation=1)
        assert settle.succeed(database, claimed, answer=Answer('{"n": 1}', kind), generation=ended)
        before = shown(caller("GET", path))["usage"]
        assert before["output_tokens_details"]["reasoning_tokens"] < before["output_tokens"]
        clock.advance(31 * 86_400)
        month = timedelta(days=30)
        purge.batch(database, purge.Periods(answer=month, trace=month), actor="sweeper:test")

        response = caller("GET", path)

        assert response.status_code == 200, response.text
        assert shown(response)["usage"] == before
        assert shown(response)["text"]["format"]["type"] == kind
        last = parsed(replay(caller, f"{path}?stream=true"))[-1]
        assert last["response"]["usage"] == before

    def test_json_that_was_cut_off_is_incomplete_and_not_shown(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        schema = {
            "type": "object",
            "properties": {"n": {"type": "integer"}},
            "required": ["n"],
            "additionalProperties": False,
            "$schema": "http://json-schema.org/draft-07/schema#",
        }
        text_format = {"type": "json_schema", "name": "n", "strict": True, "schema": schema}
        response = shown(create(text={"format": text_format}))
        path = f"/v1/responses/{response['id']}"
        claimed = worker.start(database)
        failure = settle.Failure("answer_format_unmet", settle.ANSWER_CUT, retryable=True)
        ended = factories.make_ended("I see", finish_reason="length")
        assert settle.fail(database, claimed, failure, generation=ended)
        cut = shown(caller("GET", path))

        assert (cut["status"], cut["error"]) == ("incomplete", None)
        assert [item["type"] for item in cut["output"]] == ["reasoning"]
        assert response["text"]["format"]["name"] == "n"

    def test_a_failure_has_a_known_code_and_the_native_one(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        path = f"/v1/responses/{shown(create())['id']}"
        worker.fail(database)
        response = shown(caller("GET", path))

        assert response["status"] == "failed"
        assert response["error"] == {
            "code": "server_error",
            "message": "The engine cannot take this.",
            "type": "engine_rejected",
            "param": None,
        }
        assert parsed(replay(caller, f"{path}?stream=true"))[-1]["response"] == response


class TestInputItems:
    def test_are_paged_in_both_orders(self, create: Create, caller: Caller) -> None:
        turns = [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "Two"},
            {"role": "user", "content": "Three"},
        ]
        path = f"/v1/responses/{shown(create(input=turns))['id']}/input_items"
        first = caller("GET", f"{path}?limit=2").get_json()
        second = caller("GET", f"{path}?limit=2&after={first['last_id']}").get_json()
        forward = caller("GET", f"{path}?order=asc").get_json()

        def texts(page: Json) -> list[str]:
            return [item["content"][0]["text"] for item in page["data"]]

        assert (texts(first), first["has_more"]) == (["Three", "Two"], True)
        assert (texts(second), second["has_more"]) == (["One"], False)
        assert texts(forward) == ["One", "Two", "Three"]
        elsewhere = first["last_id"][:-1] + "7"
        for after in ("x", elsewhere):
            answer = caller("GET", f"{path}?after={after}")
            assert (answer.status_code, list(asking.faults(answer))) == (400, ["after"])
        assert caller("GET", f"{path}?limit=101").status_code == 400


def test_input_tokens_are_counted_without_a_job(caller: Caller, database: Database) -> None:
    def count(*parts: Json) -> int:
        body = {"input": [{"role": "user", "content": list(parts)}]}
        answer = caller("POST", "/v1/responses/input_tokens", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.get_json()["object"] == "response.input_tokens"
        tokens: int = answer.get_json()["input_tokens"]
        return tokens

    text = {"type": "input_text", "text": "How many?"}
    data = image_files.data_url(image_files.png())
    alone = count(text)

    assert count({"type": "input_text", "text": "How many are there?"}) > alone
    assert count(text, {"type": "input_image", "image_url": data}) > alone
    with database.reading() as transaction:
        assert transaction.session.scalars(sa.select(Job)).first() is None


class TestStreams:
    def test_a_replay_is_equal_from_every_number(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        path = f"/v1/responses/{shown(create(reasoning={'summary': 'auto'}))['id']}?stream=true"
        worker.finish(database)
        whole = replay(caller, path)
        listed = parsed(whole)

        assert replay(caller, path) == whole
        assert [event["sequence_number"] for event in listed] == list(range(len(listed)))
        for number in range(len(listed) + 2):
            rest = parsed(replay(caller, f"{path}&starting_after={number}"))
            assert rest == listed[number + 1 :]

    def test_a_background_stream_outlives_its_client(
        self, create: Create, caller: Caller, database: Database
    ) -> None:
        answer = create(stream=True)
        begun = begin(answer)
        answer.close()
        worker.finish(database)

        assert [event["type"] for event in begun] == ["response.created", "response.queued"]
        path = f"/v1/responses/{begun[0]['response']['id']}"
        assert shown(caller("GET", path))["status"] == "completed"

    def test_no_id_lines(self, create: Create, caller: Caller, database: Database) -> None:
        path = f"/v1/responses/{shown(create())['id']}?stream=true"
        worker.finish(database)
        lines = replay(caller, path).split(b"\n")

        assert {line.partition(b":")[0] for line in lines} == {b"event", b"data", b""}


@pytest.fixture(autouse=True)
def drained(caller: Caller) -> Iterator[None]:
    yield
    service_of(caller.client.application).drain()
