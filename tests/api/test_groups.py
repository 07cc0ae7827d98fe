"""Several questions about the same images: one submission, linked jobs, one view of them."""

from __future__ import annotations

import pytest
from werkzeug.test import TestResponse

from core.database import Database
from core.settings import Settings
from tests.api import image_files, worker
from tests.api.asking import PNG, faults, rows
from tests.api.conftest import Caller
from tests.fakes import RecordingWakeup

QUESTIONS = ["How many circles?", "How many stars?", "Which colours?"]
PARTS: list[str | bytes] = [*QUESTIONS]
KEY = {"Idempotency-Key": "one"}


def ask(caller: Caller, **body: object) -> TestResponse:
    """Send a JSON body that is right except for ``body``."""
    whole = {"questions": QUESTIONS, "images": [{"data": PNG}], **body}
    return caller("POST", "/v1/groups", json={k: v for k, v in whole.items() if v is not None})


def test_each_question_is_a_job_about_the_same_image_in_order(
    caller: Caller, wakeup: RecordingWakeup
) -> None:
    answer = ask(caller, options={"priority": "high", "metadata": {"case": "42"}})

    group = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (202, group["urls"]["self"])
    assert [job["question"] for job in group["jobs"]] == QUESTIONS
    assert len({job["images"][0]["id"] for job in group["jobs"]}) == 1
    assert {(job["group"], job["priority"]) for job in group["jobs"]} == {(group["id"], "high")}
    assert (group["finished"], group["usage"], group["counts"]["queued"]) == (False, None, 3)
    assert caller("GET", group["urls"]["self"]).get_json() == group
    assert wakeup.rung == 1


def test_a_form_has_a_part_for_each_question(caller: Caller) -> None:
    answer = caller.form("/v1/groups", {"image": image_files.png(), "questions": PARTS})

    assert [job["question"] for job in answer.get_json()["jobs"]] == QUESTIONS


def test_a_group_of_one_is_a_group_and_a_single_job_has_none(
    caller: Caller,
) -> None:
    (job,) = caller.group("How many?")["jobs"]

    assert caller("GET", job["urls"]["self"]).get_json()["group"] == job["group"]
    assert "group" not in caller.job()


def test_a_group_shows_the_status_of_its_jobs_and_shared_tokens(
    caller: Caller, database: Database
) -> None:
    group = caller.group(*QUESTIONS)
    worker.finish(database)
    worker.finish(database)
    caller("POST", group["jobs"][2]["urls"]["cancel"])

    reported = caller("GET", group["urls"]["self"]).get_json()

    assert reported["finished"] is True
    assert reported["counts"] == {
        "queued": 0, "running": 0, "succeeded": 2, "failed": 0, "cancelled": 1,
    }  # fmt: skip
    assert reported["usage"] == {
        "jobs": 2, "input_tokens": 100, "cached_tokens": 80, "prefilled_tokens": 20, "output_tokens": 22,
    }  # fmt: skip


def test_the_jobs_of_a_group_are_found_in_the_history(caller: Caller) -> None:
    caller.job()
    group = caller.group(*QUESTIONS)

    listed = caller("GET", group["urls"]["jobs"]).get_json()["data"]

    assert [job["id"] for job in listed] == [job["id"] for job in group["jobs"]][::-1]


def test_the_same_group_again_is_the_same_group(caller: Caller) -> None:
    first = caller.group(*QUESTIONS, headers=KEY)

    again = caller.form("/v1/groups", {"image": image_files.png(), "questions": PARTS}, headers=KEY)

    assert (again.status_code, again.get_json()["id"]) == (202, first["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(caller("GET", "/v1/jobs").get_json()["data"]) == 3
    other = ask_with_key(caller, questions=QUESTIONS[:2])
    assert (other.status_code, other.get_json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert caller.submit(question=QUESTIONS[0], headers=KEY).status_code == 422


def ask_with_key(caller: Caller, **body: object) -> TestResponse:
    whole = {"questions": QUESTIONS, "images": [{"data": PNG}], **body}
    return caller("POST", "/v1/groups", json=whole, headers=KEY)


@pytest.mark.parametrize(
    ("questions", "place"),
    [
        ([], "#/questions"),
        (["How many?"] * 65, "#/questions"),
        (["How many?", " "], "#/questions/1"),
        (["How many?", "x" * 100_000], "#/questions/1"),
        ("How many?", "#/questions"),
        (None, "#/questions"),
    ],
)
def test_the_fault_of_a_question_has_its_place_and_nothing_is_stored(
    caller: Caller, database: Database, questions: object, place: str
) -> None:
    answer = ask(caller, questions=questions)

    assert answer.status_code == 422
    assert list(faults(answer)) == [place]
    assert rows(database) == 0


def test_several_questions_for_a_job_are_refused_with_a_hint_at_groups(caller: Caller) -> None:
    body = {"questions": QUESTIONS, "images": [{"data": PNG}]}
    answer = caller("POST", "/v1/jobs", json=body)

    assert answer.status_code == 422
    assert "POST /v1/groups" in faults(answer)["#/questions"][1]


class TestQueue:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"queued_jobs_per_account": 4})

    def test_a_group_counts_as_many_as_it_has_jobs_and_comes_in_whole_or_not_at_all(
        self, caller: Caller, database: Database
    ) -> None:
        caller.group(*QUESTIONS)
        stored = rows(database)

        answer = ask(caller, questions=QUESTIONS[:2], images=[{"data": PNG}])

        assert (answer.status_code, answer.get_json()["error"]["code"]) == (429, "queue_full")
        assert "There is no room for 2 more." in answer.text
        assert rows(database) == stored
        caller.job()
        assert caller.submit().status_code == 429
