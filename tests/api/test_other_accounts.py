"""What another account has on OpenAI's routes looks as if it did not exist, in each answer."""

from __future__ import annotations

import json
from typing import Final, Literal

import pytest
from werkzeug.test import TestResponse

from core import ids
from core.database import Database
from tests.api import batches, image_files, worker
from tests.api.conftest import Caller, Part

Kind = Literal["resp", "file", "batch"]
_RESPONSE: Final = "resp"
_FILE: Final = "file"
_BATCH: Final = "batch"
ROUTES: list[tuple[Kind, str, str]] = [
    (_RESPONSE, "GET", "/v1/responses/{}"),
    (_RESPONSE, "GET", "/v1/responses/{}?stream=true"),
    (_RESPONSE, "GET", "/v1/responses/{}?stream=true&starting_after=1"),
    (_RESPONSE, "GET", "/v1/responses/{}/input_items"),
    (_RESPONSE, "POST", "/v1/responses/{}/cancel"),
    (_RESPONSE, "DELETE", "/v1/responses/{}"),
    (_FILE, "GET", "/v1/files/{}"),
    (_FILE, "GET", "/v1/files/{}/content"),
    (_FILE, "DELETE", "/v1/files/{}"),
    (_BATCH, "GET", "/v1/batches/{}"),
    (_BATCH, "GET", "/v1/batches/{}/results"),
    (_BATCH, "POST", "/v1/batches/{}/cancel"),
    (_BATCH, "POST", "/v1/batches/{}/retry"),
]


@pytest.fixture
def owned(caller: Caller, database: Database) -> dict[str, str]:
    """Return the ids of what an account has, by their kind."""
    sent = {"input": "How many?", "background": True}
    response = caller("POST", "/v1/responses", json=sent).get_json()
    worker.finish(database)
    image: dict[str, Part] = {"file": image_files.png(), "purpose": "vision"}
    batch = batches.create(caller, batches.lines(1))
    return {
        _RESPONSE: response["id"],
        "vision": caller.form("/v1/files", image).get_json()["id"],
        _FILE: batch["input_file_id"],
        _BATCH: batch["id"],
    }


def shown(answer: TestResponse, named: str) -> tuple[int, str]:
    """Return what a caller can see in an error, without what differs between any two requests."""
    error = answer.get_json()
    del error["request_id"], error["instance"]
    return answer.status_code, json.dumps(error).replace(named, "ID")


def test_on_every_route(owned: dict[str, str], stranger: Caller) -> None:
    for kind, method, path in ROUTES:
        unknown = ids.show(kind, ids.new())
        of_another, of_nobody = (
            shown(stranger(method, path.format(named)), named) for named in (owned[kind], unknown)
        )
        assert of_another == of_nobody, path
        assert of_another[0] == 404, path


@pytest.mark.parametrize("field", ["previous_response_id", "image", "input_file_id"])
def test_in_every_field(owned: dict[str, str], stranger: Caller, field: str) -> None:
    def answer(kind: str, named: str) -> tuple[int, str]:
        path, body = {
            _RESPONSE: ("/v1/responses", {"input": "x", "previous_response_id": named}),
            "vision": (
                "/v1/responses",
                {
                    "input": [
                        {"role": "user", "content": [{"type": "input_image", "file_id": named}]}
                    ]
                },
            ),
            _FILE: (
                "/v1/batches",
                {
                    "input_file_id": named,
                    "endpoint": "/v1/responses",
                    "completion_window": "24h",
                },
            ),
        }[kind]
        return shown(stranger("POST", path, json=body), named)

    kind = {"previous_response_id": _RESPONSE, "image": "vision", "input_file_id": _FILE}[field]
    prefix: Kind = _RESPONSE if kind == _RESPONSE else _FILE
    of_another = answer(kind, owned[kind])
    assert of_another == answer(kind, ids.show(prefix, ids.new()))
    assert of_another[0] == 400
