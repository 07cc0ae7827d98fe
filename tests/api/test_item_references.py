"""Items in ``input`` that are named by their ids alone; the AI SDK sends a conversation like that."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from api.openai.earlier import Earlier
from core import errors, ids
from core.database import Database
from tests.api import image_files, worker
from tests.api.conftest import Caller

Json = dict[str, Any]
_QUESTION: Json = {"role": "user", "content": "Sure?"}


def ask(caller: Caller, *items: Json) -> Json:
    """Create a response in the background; return it, or the error."""
    sent = {"input": list(items), "background": True}
    answer: Json = caller("POST", "/v1/responses", json=sent).get_json()
    return answer


def reference(item_id: str) -> Json:
    return {"type": "item_reference", "id": item_id}


def items_of(caller: Caller, response: Json) -> list[Json]:
    """Return the input items of a response, the oldest first."""
    path = f"/v1/responses/{response['id']}/input_items?order=asc"
    items: list[Json] = caller("GET", path).get_json()["data"]
    return items


@pytest.fixture
def first(caller: Caller, database: Database) -> Json:
    """Return a finished response whose input has an image."""
    image = {"type": "input_image", "image_url": image_files.data_url(image_files.png())}
    text = {"type": "input_text", "text": "How many?"}
    created = ask(caller, {"role": "user", "content": [text, image]})
    worker.finish(database)
    response: Json = caller("GET", f"/v1/responses/{created['id']}").get_json()
    return response


def test_are_the_messages_with_their_images(first: Json, caller: Caller) -> None:
    [question] = items_of(caller, first)
    answers = [reference(item["id"]) for item in first["output"]]
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]

    second = ask(caller, {"id": question["id"]}, *answers, _QUESTION)

    job = caller("GET", f"/v1/jobs/{second['id'].replace('resp_', 'job_')}").get_json()
    assert job["question"] == (
        "This is the conversation so far.\n\nUser (image 1): How many?\n\nAssistant: 6\n\nAnswer this message:\n\nSure?"
    )
    assert len(job["images"]) == 1
    asked, answered, _ = items_of(caller, second)
    assert asked["content"] == question["content"]
    assert answered["content"][0]["text"] == "6"


def test_the_same_image_can_come_twice(first: Json, caller: Caller) -> None:
    [question] = items_of(caller, first)
    second = ask(caller, reference(question["id"]), reference(question["id"]))
    job = caller("GET", f"/v1/jobs/{second['id'].replace('resp_', 'job_')}").get_json()
    assert len(job["images"]) == 2


def test_may_have_a_type_that_is_null(first: Json, caller: Caller) -> None:
    [question] = items_of(caller, first)
    second = ask(caller, {"id": question["id"], "type": None}, _QUESTION)
    assert second["status"] == "queued"


def test_may_not_be_last_if_they_are_answers(first: Json, caller: Caller) -> None:
    error = ask(caller, _QUESTION, reference(first["output"][-1]["id"]))
    assert error["error"]["param"] == "input[1].id"


def test_to_the_items_of_one_response_read_it_once(
    first: Json, caller: Caller, database: Database
) -> None:
    [question] = items_of(caller, first)
    both = [reference(question["id"]), reference(first["output"][-1]["id"])]
    statements: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", count)
    numbers = []
    for times in (1, 100):
        statements.clear()
        # Too many images: nothing is stored.
        refused = ask(caller, *both * times, {"role": "user", "content": 1})
        assert "error" in refused
        numbers.append(len(statements))
    sa.event.remove(database.engine, "before_cursor_execute", count)

    assert numbers[0] == numbers[1] > 0


def test_that_name_nothing_are_refused_with_their_places(first: Json, caller: Caller) -> None:
    unfinished = ask(caller, _QUESTION)["id"].replace("resp_", "msg_")
    deleted = ask(caller, _QUESTION)
    caller("POST", f"/v1/responses/{deleted['id']}/cancel")
    caller("DELETE", f"/v1/responses/{deleted['id']}")
    message = first["output"][-1]["id"]
    names = [
        "msg_1",
        f"msg_{ids.new().hex}",
        f"{message}_in_1",
        f"{message}_in_9999999",
        unfinished,
        f"msg_{deleted['id'].removeprefix('resp_')}_in_0",
    ]

    error = ask(caller, *map(reference, names), {"type": "item_reference"}, _QUESTION)

    assert [(fault["pointer"], fault["code"]) for fault in error["errors"]] == [
        *((f"#/input/{place}/id", "item_not_found") for place in range(len(names))),
        (f"#/input/{len(names)}/id", "invalid_request_error"),
    ]


def test_of_another_account_do_not_exist(first: Json, caller: Caller, stranger: Caller) -> None:
    [question] = items_of(caller, first)
    for item_id in (question["id"], first["output"][-1]["id"]):
        unknown = f"msg_{ids.new().hex}"
        of_another = ask(stranger, reference(item_id), _QUESTION)
        of_nobody = ask(stranger, reference(unknown), _QUESTION)
        assert (
            of_another["error"]["message"].replace(item_id, unknown)
            == (of_nobody["error"]["message"])
        )
        assert of_another["error"]["code"] == "item_not_found"


def test_read_a_limited_number_of_responses(first: Json, database: Database) -> None:
    earlier = Earlier(database, account_id=None, most_responses=1)
    faults: list[errors.Fault] = []
    message = first["output"][-1]["id"]
    for item_id in (message, f"{message}_in_0"):
        assert earlier.referenced(item_id, "#/input/0/id", faults) is not None
    assert earlier.referenced(f"msg_{ids.new().hex}", "#/input/1/id", faults) is None
    assert [(fault.pointer, fault.code) for fault in faults] == [
        ("#/input/1/id", "context_length_exceeded")
    ]


def test_chat_completions_have_none(caller: Caller) -> None:
    sent = {"messages": [reference("msg_1"), _QUESTION]}
    error = caller("POST", "/v1/chat/completions", json=sent).get_json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].type", "unsupported_parameter")
