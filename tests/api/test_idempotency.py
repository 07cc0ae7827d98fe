"""A request that comes twice with one key is one job."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from core.database import Database
from tests import databases, races
from tests.api import image_files, worker
from tests.api.conftest import Caller
from tests.fakes import RecordingWakeup

KEY = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}


def ids(*answers: TestResponse) -> set[str]:
    assert all(answer.status_code == 202 for answer in answers), [a.text for a in answers]
    return {answer.get_json()["id"] for answer in answers}


def test_the_same_request_again_is_answered_with_the_job_as_it_is_now(
    caller: Caller, database: Database, wakeup: RecordingWakeup
) -> None:
    first = caller.submit(headers=KEY)
    worker.finish(database)
    second = caller.submit(headers=KEY)
    assert len(ids(first, second)) == 1
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert second.get_json()["status"] == "succeeded"
    assert wakeup.rung == 1


def test_a_file_a_data_url_and_an_image_id_of_one_image_are_the_same_request(
    caller: Caller,
) -> None:
    data = image_files.png()
    image = caller.image(data)["id"]
    question = "How many?"

    def as_json(source: dict[str, str]) -> TestResponse:
        body = {"question": question, "images": [source], "options": {"seed": 1}}
        return caller("POST", "/v1/jobs", json=body, headers=KEY)

    answers = [
        caller.form(
            "/v1/jobs", {"question": question, "image": data, "options": '{"seed":1}'}, headers=KEY
        ),
        as_json({"data": image_files.data_url(data)}),
        as_json({"image_id": image}),
        as_json({"data": image_files.data_url(data), "detail": "standard"}),
    ]
    assert len(ids(*answers)) == 1


def test_a_key_means_the_same_quoted_and_not(caller: Caller) -> None:
    plain = caller.submit(headers={"Idempotency-Key": 'a "key"'})
    quoted = caller.submit(headers={"Idempotency-Key": r'"a \"key\""'})
    assert len(ids(plain, quoted)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Another?"},
        {"image": image_files.png(seed=2)},
        {"temperature": 1.0},
        {"metadata": {"a": "b"}},
        {"detail": "low"},
        {"deadline_seconds": 5},
        {"headers": KEY | {"Cancel-After": "5s"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_same_key_with_another_request_is_refused(
    caller: Caller, change: dict[str, Any]
) -> None:
    caller.job(headers=KEY)
    answer = caller.submit(**({"headers": KEY} | change))
    assert answer.status_code == 422
    assert answer.get_json()["error"]["code"] == "idempotency_key_reused"
    assert answer.get_json()["error"]["param"] == "Idempotency-Key"
    assert answer.headers["x-should-retry"] == "false"


def test_a_refused_request_leaves_the_key_free(caller: Caller) -> None:
    assert caller.submit(image=b"no image", headers=KEY).status_code == 422
    answer = caller.submit(headers=KEY)
    assert "Idempotent-Replayed" not in answer.headers
    assert len(ids(answer)) == 1


def test_a_key_belongs_to_its_account(caller: Caller, stranger: Caller) -> None:
    answers = [caller.submit(headers=KEY), stranger.submit(question="Mine?", headers=KEY)]
    assert len(ids(*answers)) == 2


def test_a_key_can_be_used_again_when_its_time_is_over(
    caller: Caller, clock: databases.Clock
) -> None:
    first = caller.submit(headers=KEY)
    clock.advance(24 * 3600 + 1)
    second = caller.submit(question="Another?", headers=KEY)
    assert len(ids(first, second)) == 2
    assert "Idempotent-Replayed" not in second.headers


def test_a_replay_needs_neither_the_image_nor_its_decoding(
    caller: Caller, database: Database
) -> None:
    image = caller.image()
    body = {"question": "How many?", "images": [{"image_id": image["id"]}]}
    first = caller("POST", "/v1/jobs", json=body, headers=KEY)
    worker.finish(database)
    assert caller("DELETE", image["urls"]["self"]).status_code == 200
    assert len(ids(first, caller("POST", "/v1/jobs", json=body, headers=KEY))) == 1


def test_of_requests_at_the_same_time_one_makes_the_job_and_the_others_get_it(
    caller: Caller, wakeup: RecordingWakeup
) -> None:
    answers = races.race(*[lambda: caller.submit(headers=KEY)] * 6)
    assert len(ids(*answers)) == 1
    assert sorted("Idempotent-Replayed" in answer.headers for answer in answers) == [
        False, True, True, True, True, True,
    ]  # fmt: skip
    assert wakeup.rung == 1


def test_without_a_key_the_same_request_is_two_jobs(caller: Caller) -> None:
    assert len(ids(caller.submit(), caller.submit())) == 2
