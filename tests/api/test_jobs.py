"""Jobs in the API: submit in every form, get, list, cancel, rerun, delete."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable
from datetime import datetime

import pytest

from core.database import Database
from jobs.answers import votes
from jobs.answers.extraction import Answer
from jobs.findings import Action, Finding, FindingKind
from jobs.store import settle
from tests import factories
from tests.api import image_files, worker
from tests.api.conftest import Caller
from tests.fakes import RecordingWakeup

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_an_accepted_job_is_answered_with_202_its_place_and_the_whole_job(
    caller: Caller, wakeup: RecordingWakeup
) -> None:
    answer = caller.submit(metadata={"case": "42"}, priority="high", seed=7)
    job = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["openai-poll-after-ms"] == "1000"
    assert wakeup.rung == 1
    assert (
        job
        | {
            "object": "job",
            "status": "queued",
            "model": "tiny-qvq",
            "question": "How many circles are there?",
            "queue": {"position": 1, "at_least": False, "eta_seconds": None, "paused": False},
            "progress": None,
            "answer": None,
            "usage": None,
            "error": None,
            "attempt": 0,
            "priority": "high",
            "metadata": {"case": "42"},
            "reruns": [],
            "rerun_of": None,
            "data_removed": False,
            "started_at": None,
        }
        == job
    )
    assert job["options"] == {
        "max_output_tokens": 512,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 7,
        "samples": 1,
        "answer_format": None,
        "guards": {
            "loop": True,
            "budget": True,
            "convergence": False,
            "language": True,
            "verify": False,
        },
        "max_attempts": 5,
    }
    assert TIME.fullmatch(job["created_at"])
    image = job["images"][0]
    assert (image["width"] % 28, image["height"] % 28, image["detail"]) == (0, 0, "standard")
    assert caller("GET", job["urls"]["self"]).get_json() == job


def test_a_job_is_found_by_metadata_with_any_characters(caller: Caller) -> None:
    key = 'a "quoted" \\ key\n'
    job, _ = caller.job(metadata={key: "x"}), caller.job(metadata={"a": "x"})
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')

    for query in ({f"metadata[{key}]": "x"}, {"q": f'meta."{quoted}":x'}):
        found = caller("GET", f"/v1/jobs?{urllib.parse.urlencode(query)}").get_json()
        assert [one["id"] for one in found["data"]] == [job["id"]], query


def test_a_form_and_json_make_the_same_job(caller: Caller) -> None:
    options = {"temperature": 0.7, "metadata": {"a": "ä\n"}, "detail": "low"}
    form = caller.form(
        "/v1/jobs",
        {
            "question": "What differs? 🦩",
            "options": json.dumps(options),
            "image": [image_files.png(seed=1), image_files.png(seed=2)],
        },
    ).get_json()
    images = [{"data": image_files.data_url(image_files.png(seed=seed))} for seed in (1, 2)]
    body = {"question": "What differs? 🦩", "images": images, "options": options}
    as_json = caller("POST", "/v1/jobs", json=body).get_json()
    same = ("question", "images", "options", "metadata", "model")
    assert {name: form[name] for name in same} == {name: as_json[name] for name in same}
    assert [image["detail"] for image in form["images"]] == ["low", "low"]


def test_images_keep_their_order_however_they_come(caller: Caller) -> None:
    stored = [caller.image(image_files.png(seed=seed)) for seed in range(3)]
    images = [{"image_id": image["id"]} for image in reversed(stored)]
    images.insert(1, {"data": image_files.data_url(image_files.png(seed=9))})
    job = caller("POST", "/v1/jobs", json={"question": "Which?", "images": images}).get_json()
    shown = [image["id"] for image in job["images"]]
    assert [shown[0], *shown[2:]] == [image["id"] for image in reversed(stored)]


def test_a_job_may_have_one_image_twice(caller: Caller) -> None:
    image = {"data": image_files.data_url(image_files.png())}
    job = caller("POST", "/v1/jobs", json={"question": "Same?", "images": [image, image]})
    assert job.status_code == 202
    assert len({shown["id"] for shown in job.get_json()["images"]}) == 1


def test_the_answer_has_the_room_that_images_and_question_leave(caller: Caller) -> None:
    short = caller.job(question="?", max_output_tokens=1536)
    long = caller.job(question="x" * 1000, max_output_tokens=1536)
    assert short["options"]["max_output_tokens"] == 1536
    assert 64 <= long["options"]["max_output_tokens"] < 1024


@pytest.mark.parametrize(
    ("header", "option", "seconds"),
    [("10m", 3, 3), ("30s", 600, 30), ("2h", None, 7200), ("45", None, 45), (None, None, 3600)],
)
def test_the_earlier_of_two_deadlines_holds(
    caller: Caller, header: str | None, option: int | None, seconds: int
) -> None:
    headers = {} if header is None else {"Cancel-After": header}
    job = caller.job(headers=headers, deadline_seconds=option)
    created, deadline = (
        datetime.fromisoformat(job[name]) for name in ("created_at", "deadline_at")
    )
    assert abs((deadline - created).total_seconds() - seconds) < 1


def test_a_running_job_shows_its_progress_and_its_partial_trace(
    caller: Caller, database: Database
) -> None:
    job = caller.job()
    worker.start(database, text="I see circ")
    shown = caller("GET", job["urls"]["self"])
    assert shown.get_json()["status"] == "running"
    assert shown.get_json()["progress"] == {"output_tokens": 10, "samples_done": 0}
    assert shown.get_json()["queue"] is None
    assert shown.headers["Retry-After"] == "1"
    trace = caller("GET", job["urls"]["trace"]).get_json()
    assert (trace["object"], trace["job_id"], trace["complete"]) == ("trace", job["id"], False)
    generation = trace["generations"][0]
    assert (generation["attempt"], generation["index"], generation["text"]) == (1, 0, "I see circ")
    assert (generation["complete"], generation["usage"]) == (False, None)
    [step] = generation["steps"]
    assert (step["kind"], step["start"], step["end"]) == ("observation", 0, 10)
    assert (step["started_at"], step["ended_at"]) == (None, None)
    assert generation["steps_version"] == 3


def test_a_finding_is_shown_with_the_job_and_in_lists_and_the_answer_as_forced(
    caller: Caller, database: Database
) -> None:
    caller.job(guards={"language": False})
    found = Finding(
        FindingKind.LOOP,
        generation=0,
        start=3,
        end=8,
        action=Action.FORCED,
        evidence={"copies": 4},
        tokens_saved=9,
    )
    worker.end(database, worker.start(database), forced=True, found=[found])

    [job] = caller("GET", "/v1/jobs").get_json()["data"]

    assert job["answer"]["forced"] is True
    assert job["options"]["guards"] == {
        "loop": True,
        "budget": True,
        "convergence": False,
        "language": False,
        "verify": False,
    }
    assert job["findings"] == [
        {
            "kind": "loop",
            "attempt": 1,
            "generation": 0,
            "start": 3,
            "end": 8,
            "action": "forced",
            "evidence": {"copies": 4},
            "tokens_saved": 9,
        }
    ]
    trace = caller("GET", job["urls"]["trace"]).get_json()
    assert trace["generations"][0]["continues"] is None


@pytest.mark.parametrize(
    ("action", "confidence"),
    [(Action.CONFIRMED, 1.0), (Action.CORRECTED, 0.5), (Action.DOUBTED, 0.5), (Action.NONE, None)],
)
def test_a_second_look_is_shown_with_the_answer(
    caller: Caller, database: Database, action: Action, confidence: float | None
) -> None:
    caller.job(guards={"verify": True})
    found = Finding(FindingKind.VERIFY, generation=0, start=0, end=8, action=action)
    worker.end(database, worker.start(database), found=[found])

    [job] = caller("GET", "/v1/jobs", query_string={"q": "finding:verify"}).get_json()["data"]

    shown = (job["answer"]["verdict"], job["answer"]["confidence"])
    assert shown == (None if action is Action.NONE else str(action), confidence)
    assert job["findings"][0]["action"] == str(action)


def test_each_sample_shows_its_answer_and_each_step_its_script(
    caller: Caller, database: Database
) -> None:
    job = caller.job()
    worker.finish(
        database, text="图里有六个圆。\n\nSo it is six.\n\n**Final Answer** 6", answer="6"
    )

    [generation] = caller("GET", job["urls"]["trace"]).get_json()["generations"]

    assert generation["answer"] == "6"
    assert [step["cjk_share"] for step in generation["steps"]] == [1.0, 0.0, 0.0]


def test_a_finished_job_shows_its_answer_its_cost_and_its_times(
    caller: Caller, database: Database
) -> None:
    job = caller.job()
    worker.finish(database, text="**Final Answer** 6", answer="6")
    answer = caller("GET", job["urls"]["self"])
    shown = answer.get_json()
    assert "Retry-After" not in answer.headers
    assert shown["status"] == "succeeded"
    assert shown["answer"] == {
        "text": "6",
        "tex": None,
        "value": None,
        "rule": "heading",
        "forced": False,
        "verdict": None,
        "confidence": None,
    }
    assert shown["finish_reason"] == "stop"
    usage = shown["usage"]
    assert usage.pop("engine_seconds") >= 0
    assert usage == {
        "input_tokens": 50,
        "cached_tokens": 40,
        "image_tokens": 4,
        "output_tokens": 11,
    }
    assert shown["timings"]["queued_seconds"] >= 0
    assert shown["timings"]["run_seconds"] >= 0
    assert TIME.fullmatch(shown["finished_at"])
    trace = caller("GET", job["urls"]["trace"]).get_json()
    assert (trace["complete"], trace["generations"][0]["text"]) == (True, "**Final Answer** 6")
    assert trace["generations"][0]["usage"]["cached_tokens"] == 40
    [step] = trace["generations"][0]["steps"]
    assert (step["kind"], step["start"], step["end"]) == ("answer", 0, 18)
    assert TIME.fullmatch(step["started_at"])
    assert step["started_at"] == step["ended_at"]


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ({"type": "number"}, 6),
        ({"type": "choice", "options": ["5", "6"]}, "6"),
        ({"type": "boolean"}, None),
        ({"type": "free"}, None),
    ],
)
def test_an_answer_has_the_requested_value(
    caller: Caller, database: Database, wanted: dict[str, object], value: object
) -> None:
    job = caller.job(answer_format=wanted)
    worker.finish(database, text="**Final Answer** 6", answer="6")
    shown = caller("GET", job["urls"]["self"]).get_json()
    assert shown["answer"] == {
        "text": "6",
        "tex": None,
        "value": value,
        "rule": "heading",
        "forced": False,
        "verdict": None,
        "confidence": None,
    }
    assert shown["votes"] is None
    assert shown["options"]["answer_format"] == wanted


def test_a_job_with_several_samples_shows_their_votes_until_its_data_is_removed(
    caller: Caller, database: Database
) -> None:
    job = caller.job(samples=5)
    assert job["options"]["samples"] == 5
    assert job["options"]["temperature"] == 1.0
    ranked = (votes.AnswerClass("6", (0, 2)), votes.AnswerClass("7", (1,)))
    cast = {0: 0, 1: 1, 2: 4, 3: 3}
    tally = votes.Tally(requested=5, begun=5, classes=ranked, abstained=(3,), generations=cast)

    worker.end(database, worker.start(database), tally=tally)

    shown = caller("GET", job["urls"]["self"]).get_json()
    assert (shown["answer"]["text"], shown["answer"]["confidence"]) == ("6", 0.5)
    assert shown["votes"] == {
        "requested": 5,
        "begun": 5,
        "counted": 4,
        "classes": [{"text": "6", "generations": [0, 4]}, {"text": "7", "generations": [1]}],
        "abstained": [3],
    }
    caller("DELETE", job["urls"]["self"])
    gone = caller("GET", job["urls"]["self"]).get_json()
    assert (gone["answer"], gone["votes"]) == (None, None)


def test_an_answer_in_json_is_shown_as_its_value(caller: Caller, database: Database) -> None:
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer"}, "kind": {"enum": ["a", None]}},
        "required": ["count"],
    }
    job = caller.job(answer_format={"type": "json_schema", "schema": schema})
    answer = Answer('{"count": 6, "kind": null}', "json_schema")
    generation = factories.make_ended(answer.text)
    assert settle.succeed(database, worker.start(database), answer=answer, generation=generation)
    shown = caller("GET", job["urls"]["self"]).get_json()
    assert shown["answer"]["value"] == {"count": 6, "kind": None}
    assert (shown["answer"]["text"], shown["answer"]["rule"]) == (answer.text, "json_schema")
    assert shown["options"]["answer_format"] == {"type": "json_schema", "schema": schema}
    rerun = caller("POST", job["urls"]["rerun"]).get_json()
    assert rerun["options"]["answer_format"]["schema"] == schema


def test_attempts_show_their_prompt_engine_and_outcome(caller: Caller, database: Database) -> None:
    job = caller.job()
    assert caller("GET", job["urls"]["attempts"]).get_json()["data"] == []
    worker.fail(database)
    shown = caller("GET", job["urls"]["self"]).get_json()
    assert shown["error"] == {
        "code": "engine_rejected",
        "message": "The engine cannot take this.",
        "retryable": False,
    }
    attempts = caller("GET", job["urls"]["attempts"]).get_json()["data"]
    assert len(attempts) == 1
    attempt = attempts[0]
    assert (attempt["number"], attempt["worker"], attempt["outcome"]) == (1, "worker-1", "failed")
    assert attempt["error"]["code"] == "engine_rejected"
    assert (attempt["engine"], attempt["engine_version"]) == ("http://engine", "1.0")
    assert attempt["sampling"] == {"temperature": 0.5}
    assert attempt["prompt"]["messages"][0]["content"] == job["question"]
    assert re.fullmatch("[0-9a-f]{32}", attempt["generations"][0]["rid"])


def test_a_trace_can_be_requested_by_attempt(caller: Caller, database: Database) -> None:
    job = caller.job()
    worker.finish(database)
    trace = caller("GET", job["urls"]["trace"] + "?attempt=1").get_json()
    assert [generation["attempt"] for generation in trace["generations"]] == [1]
    assert caller("GET", job["urls"]["trace"] + "?attempt=2").status_code == 404
    assert caller("GET", job["urls"]["trace"] + "?attempt=0").status_code == 422


class TestSteering:
    def test_a_queued_job_is_cancelled_at_once_and_again_without_harm(self, caller: Caller) -> None:
        job = caller.job()
        for _ in range(2):
            # The OpenAI client sends no body here, but the content type of one.
            answer = caller("POST", job["urls"]["cancel"], content_type="application/json")
            assert (answer.status_code, answer.get_json()["status"]) == (200, "cancelled")

    def test_a_running_job_is_requested_to_stop(self, caller: Caller, database: Database) -> None:
        job = caller.job()
        worker.start(database)
        answer = caller("POST", job["urls"]["cancel"])
        assert (answer.status_code, answer.get_json()["status"]) == (200, "running")
        assert TIME.fullmatch(answer.get_json()["cancel_requested_at"])

    @pytest.mark.parametrize("end", [worker.finish, worker.fail])
    def test_a_job_that_has_ended_otherwise_cannot_be_cancelled(
        self, caller: Caller, database: Database, end: Callable[[Database], None]
    ) -> None:
        job = caller.job()
        end(database)
        answer = caller("POST", job["urls"]["cancel"])
        assert answer.status_code == 409
        assert answer.headers["x-should-retry"] == "false"

    def test_a_rerun_is_a_new_job_with_the_same_input_and_both_name_each_other(
        self, caller: Caller, database: Database, wakeup: RecordingWakeup
    ) -> None:
        job = caller.job(temperature=0.3, priority="low", metadata={"a": "b"}, deadline_seconds=60)
        worker.finish(database)
        answer = caller("POST", job["urls"]["rerun"])
        rerun = answer.get_json()
        assert answer.status_code == 202
        assert answer.headers["Location"] == rerun["urls"]["self"]
        assert wakeup.rung == 2
        assert rerun["id"] != job["id"]
        assert rerun["rerun_of"] == job["id"]
        same = ("question", "images", "options", "priority", "metadata", "model")
        assert {name: rerun[name] for name in same} == {name: job[name] for name in same}
        assert caller("GET", job["urls"]["self"]).get_json()["reruns"] == [rerun["id"]]

    def test_a_rerun_with_a_key_happens_once(self, caller: Caller) -> None:
        job = caller.job()
        headers = {"Idempotency-Key": "again"}
        first, second = (caller("POST", job["urls"]["rerun"], headers=headers) for _ in range(2))
        assert first.get_json()["id"] == second.get_json()["id"]
        assert second.headers["Idempotent-Replayed"] == "true"
        other = caller.job(question="Another?")
        assert caller("POST", other["urls"]["rerun"], headers=headers).status_code == 422

    def test_deleted_data_are_gone_and_the_counters_stay(
        self, caller: Caller, database: Database
    ) -> None:
        job = caller.job()
        assert caller("DELETE", job["urls"]["self"]).status_code == 409
        worker.finish(database)
        for _ in range(2):
            answer = caller("DELETE", job["urls"]["self"])
            assert answer.get_json() == {
                "id": job["id"],
                "object": "job",
                "deleted": True,
                "data_removed": True,
            }
        shown = caller("GET", job["urls"]["self"]).get_json()
        assert (shown["data_removed"], shown["question"], shown["answer"]) == (True, None, None)
        assert shown["removed"] == ["image", "trace", "answer"]
        assert shown["usage"]["output_tokens"] == 11
        trace = caller("GET", job["urls"]["trace"]).get_json()
        assert (trace["data_removed"], trace["generations"][0]["text"]) == (True, "")
        assert trace["generations"][0]["steps"] == []
        assert caller("GET", f"/v1/images/{job['images'][0]['id']}").status_code == 404
        assert caller("POST", job["urls"]["rerun"]).status_code == 409

    def test_a_job_whose_image_is_gone_cannot_be_run_again(
        self, caller: Caller, database: Database
    ) -> None:
        image = caller.image()["id"]
        body = {"question": "How many?", "images": [{"image_id": image}]}
        job = caller("POST", "/v1/jobs", json=body).get_json()
        worker.finish(database)
        assert caller("DELETE", f"/v1/images/{image}").status_code == 200
        assert caller("POST", job["urls"]["rerun"]).status_code == 409


def test_models_are_listed_with_their_limits(caller: Caller) -> None:
    page = caller("GET", "/v1/models").get_json()
    model = page["data"][0]
    assert (model["id"], model["object"], page["has_more"]) == ("tiny-qvq", "model", False)
    assert model["limits"]["context_tokens"] == 2048
    assert model["limits"]["detail_tokens"]["low"] == 1280
    assert caller("GET", "/v1/models/tiny-qvq").get_json() == model
    assert caller("GET", "/v1/models/other").status_code == 404
