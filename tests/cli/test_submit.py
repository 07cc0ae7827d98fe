"""``longlook submit`` against canned answers, as a pipe sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli import job_output, output
from core import errors
from tests.cli.commands import GROUP, GROUP_ID, JOB, group, longlook
from tests.cli.fake_api import Canned, FakeApi, job, serving


def test_submit_prints_the_job_as_it_was_accepted(api: FakeApi, image: Path) -> None:
    code, printed = longlook(api, "submit", image, "How many?", "--json")
    assert code == 0
    assert json.loads(printed)["status"] == "queued"
    assert len(api.seen) == 1


def test_submit_switches_guards(api: FakeApi, image: Path) -> None:
    longlook(api, "submit", image, "How many?", "--guard", "verify=on", "--guard", "loop=off")

    assert b'"guards": {"verify": true, "loop": false}' in api.seen[0].body


@pytest.mark.parametrize("word", ["verify", "verify=yes", "=", ""])
def test_a_guard_is_on_or_off(api: FakeApi, image: Path, word: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="NAME=on or NAME=off"):
        longlook(api, "submit", image, "How many?", "--guard", word)


def test_submit_takes_several_images_before_the_question(api: FakeApi, image: Path) -> None:
    longlook(api, "submit", image, image, "What differs?")
    assert api.seen[0].body.count(b'name="image"') == 2
    assert b"What differs?" in api.seen[0].body


def test_submit_sends_several_questions_about_the_same_images_as_a_group(
    api: FakeApi, image: Path
) -> None:
    code, printed = longlook(api, "submit", image, image, "How many?", "Which colours?", "--json")
    assert (code, json.loads(printed)["id"]) == (0, GROUP_ID)
    (sent,) = api.seen
    assert (sent.path, sent.body.count(b'name="image"')) == ("/v1/groups", 2)
    assert sent.body.count(b'name="questions"') == 2


def test_submit_waits_for_all_jobs_of_a_group(api: FakeApi, image: Path) -> None:
    code, printed = longlook(api, "submit", image, "How many?", "Which?", "--wait", "--json")
    assert code == 0
    assert {entry["status"] for entry in json.loads(printed)["jobs"]} == {"succeeded"}


def test_a_failed_job_of_a_group_sets_the_exit_code(image: Path) -> None:
    answers = {
        "POST /v1/groups": [Canned(202, group("queued", "queued"))],
        f"GET {JOB}": [Canned(200, job("failed"))],
        f"GET {GROUP}": [Canned(200, group("succeeded", "failed"))],
    }
    with serving(answers) as faulty:
        code, _ = longlook(faulty, "submit", image, "How many?", "Which?", "--wait")
    assert code == output.Exit.FAILED


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ([], "The question is missing"),
        (["typo.png", "How many?"], r"There is no file typo\.png"),
        (["How many?", "Which?", "--stream"], "--stream takes one question"),
    ],
)
def test_submit_rejects_invalid_arguments_before_it_sends_a_request(
    api: FakeApi, image: Path, more: list[str], reason: str
) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason):
        longlook(api, "submit", image, *more)
    assert api.seen == []


def test_submit_sends_only_the_options_that_were_given(api: FakeApi, image: Path) -> None:
    options = ("--priority", "high", "--temperature", "0.5", "--metadata", "case=42")
    longlook(api, "submit", image, "How many?", *options)
    sent = '{"temperature": 0.5, "priority": "high", "metadata": {"case": "42"}}'
    assert sent.encode() in api.seen[0].body


def test_warnings_of_a_submission_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    message = "The estimated start is 900 s away."
    job = {
        "id": "job_1",
        "status": "queued",
        "queue": {"position": 101, "at_least": True, "eta_seconds": 900},
        "warnings": [{"code": "deadline_before_eta", "message": message}],
    }

    job_output.show(job, people=True)

    shown = capfd.readouterr()
    assert "job_1 is queued, position 101 or later" in shown.out
    assert f"warning: {message} (deadline_before_eta)" in shown.err


def test_submit_sends_the_number_of_samples(api: FakeApi, image: Path) -> None:
    longlook(api, "submit", image, "How many?", "--samples", "5")
    assert b'{"samples": 5}' in api.seen[0].body


@pytest.mark.parametrize(
    ("spelled", "sent"),
    [
        ("number", {"type": "number"}),
        ("boolean", {"type": "boolean"}),
        ("choice:red, green", {"type": "choice", "options": ["red", "green"]}),
        ("json", {"type": "json_object"}),
    ],
)
def test_submit_sends_the_answer_format(
    api: FakeApi, image: Path, spelled: str, sent: dict[str, Any]
) -> None:
    longlook(api, "submit", image, "How many?", "--format", spelled)
    assert json.dumps({"answer_format": sent}).encode() in api.seen[0].body


def test_submit_reads_a_json_schema_from_a_file(api: FakeApi, image: Path) -> None:
    schema = {"type": "object", "properties": {"数": {"type": "integer"}}}
    (image.parent / "schema.json").write_text(json.dumps(schema))
    spelled = f"json:@{image.parent / 'schema.json'}"

    longlook(api, "submit", image, "How many?", "--format", spelled)

    sent = {"answer_format": {"type": "json_schema", "schema": schema}}
    assert json.dumps(sent).encode() in api.seen[0].body


@pytest.mark.parametrize(
    "spelled",
    ["verse", "number:3", "choice:", "json:", "json:{}", "json:@nowhere.json", "json:@picture.png"],
)
def test_an_invalid_answer_format_is_invalid_usage(
    api: FakeApi, image: Path, spelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image.parent)
    with pytest.raises(
        errors.InvalidRequest, match=r"free, number|cannot be read|is not valid JSON"
    ):
        longlook(api, "submit", image, "How many?", "--format", spelled)
    assert api.seen == []


def test_submit_with_wait_prints_the_finished_job(api: FakeApi, image: Path) -> None:
    code, printed = longlook(api, "submit", image, "How many?", "--wait", "--json")
    assert code == 0
    assert json.loads(printed)["answer"] == {"text": "6"}


def test_submit_with_stream_prints_a_line_for_each_event_and_then_the_job(
    api: FakeApi, image: Path
) -> None:
    code, printed = longlook(api, "submit", image, "How many?", "--stream", "--json")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert [line["delta"] for line in lines[:-1]] == ["One, ", "two."]
    assert lines[-1]["status"] == "succeeded"


def test_a_failed_job_sets_the_exit_code(image: Path) -> None:
    answers = {
        "POST /v1/jobs": [Canned(202, job("queued"))],
        f"GET {JOB}": [Canned(200, job("failed"))],
    }
    with serving(answers) as api:
        code, printed = longlook(api, "submit", image, "How many?", "--wait", "--json")
    assert code == output.Exit.FAILED
    assert json.loads(printed)["error"]["code"] == "engine_fault"


def test_metadata_without_a_value_is_invalid_usage(api: FakeApi, image: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="'case' must have the form NAME=VALUE"):
        longlook(api, "submit", image, "How many?", "--metadata", "case")
    assert api.seen == []
