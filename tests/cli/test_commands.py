"""The commands against canned answers, as a pipe sees them."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import client, job_output, main, output, quarantine, queue, usage
from core import errors
from tests.cli.fake_api import Canned, FakeApi, delta, events, job, serving, trace

JOB = "/v1/jobs/job_0123456789abcdef0123456789abcdef"
JOB_ID = JOB.removeprefix("/v1/jobs/")
GROUP_ID = "grp_0123456789abcdef0123456789abcdef"
GROUP = f"/v1/groups/{GROUP_ID}"
QUEUE: dict[str, Any] = {
    "object": "queue",
    "depth": 3,
    "due": 2,
    "oldest_age_seconds": 12.3,
    "running": 1,
    "submitted_per_minute": 0.4,
    "finished_per_minute": 2.0,
    "deliveries": {"depth": 2, "oldest_age_seconds": 70.2},
    "workers": [
        {"id": "w", "state": "live", "slots": 4, "heartbeat_age_seconds": 2.1, "version": "1.0"}
    ],
    "engines": [
        {"url": "http://e", "state": "away", "window": None, "model": None, "version": None}
    ],
}


HELD = {
    "image_id": "img_1",
    "account_id": "acct_1",
    "deaths": 3,
    "died_at": "2026-11-23T10:00:00.000Z",
    "quarantined_at": "2026-11-23T10:00:01.000Z",
}


def group(*states: str) -> dict[str, Any]:
    """Return a group as the API shows it."""
    return {"id": GROUP_ID, "object": "group", "jobs": [job(state) for state in states]}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(b"picture")
    return path


@pytest.fixture
def api() -> Iterator[FakeApi]:
    answers = {
        "POST /v1/jobs": [Canned(202, job("queued"))],
        f"GET {JOB}": [
            Canned(200, job("running"), {"Retry-After": "0"}),
            Canned(200, job("succeeded")),
        ],
        "POST /v1/groups": [Canned(202, group("queued", "queued"))],
        f"GET {GROUP}": [Canned(200, group("succeeded", "succeeded"))],
        f"GET {JOB}/trace": [Canned(200, trace("One, "))],
        f"GET {JOB}/events": [
            events(
                delta("One, "),
                delta("two."),
                {"type": "job.finished", "job": job("succeeded")},
            )
        ],
        f"POST {JOB}/cancel": [Canned(200, job("cancelled"))],
        "GET /v1/quarantine": [Canned(200, {"object": "list", "data": [HELD]})],
        "POST /v1/quarantine/img_1/release": [Canned(200, {"image_id": "img_1"})],
        "GET /v1/jobs": [Canned(200, {"object": "list", "data": [job("succeeded")]})],
    }
    with serving(answers) as fake:
        yield fake


def longlook(api: FakeApi, *arguments: str | Path) -> tuple[int, str]:
    """Run a command; return exit code and stdout. A fault that has a name is raised."""
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(
        main.make_app(words[:1]),
        words,
        env={"LONGLOOK_URL": api.url, "LONGLOOK_API_KEY": "ll_key"},
    )
    if isinstance(result.exception, errors.LonglookError):
        raise result.exception
    return result.exit_code, result.stdout


def test_submit_prints_the_job_as_it_was_accepted(api: FakeApi, image: Path) -> None:
    code, printed = longlook(api, "submit", image, "How many?")
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


def test_submit_takes_several_pictures_before_the_question(api: FakeApi, image: Path) -> None:
    longlook(api, "submit", image, image, "What differs?")
    assert api.seen[0].body.count(b'name="image"') == 2
    assert b"What differs?" in api.seen[0].body


def test_submit_asks_several_questions_about_the_same_pictures_as_a_group(
    api: FakeApi, image: Path
) -> None:
    code, printed = longlook(api, "submit", image, image, "How many?", "Which colours?")
    assert (code, json.loads(printed)["id"]) == (0, GROUP_ID)
    (sent,) = api.seen
    assert (sent.path, sent.body.count(b'name="image"')) == ("/v1/groups", 2)
    assert sent.body.count(b'name="questions"') == 2


def test_submit_waits_for_all_jobs_of_a_group(api: FakeApi, image: Path) -> None:
    code, printed = longlook(api, "submit", image, "How many?", "Which?", "--wait")
    assert code == 0
    assert {one["status"] for one in json.loads(printed)["jobs"]} == {"succeeded"}


def test_a_group_in_which_a_job_failed_is_an_exit_code(image: Path) -> None:
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
        ([], "A question is missing"),
        (["typo.png", "How many?"], r"There is no file typo\.png"),
        (["How many?", "Which?", "--stream"], "--stream shows one trace"),
    ],
)
def test_submit_refuses_what_cannot_be_meant_before_it_asks(
    api: FakeApi, image: Path, more: list[str], reason: str
) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason):
        longlook(api, "submit", image, *more)
    assert api.seen == []


def test_submit_sends_only_the_options_that_were_given(api: FakeApi, image: Path) -> None:
    given = ("--priority", "high", "--temperature", "0.5", "--metadata", "case=42")
    longlook(api, "submit", image, "How many?", *given)
    sent = '{"temperature": 0.5, "priority": "high", "metadata": {"case": "42"}}'
    assert sent.encode() in api.seen[0].body


def test_submit_tells_people_what_the_answer_warns_of(capfd: pytest.CaptureFixture[str]) -> None:
    message = "The estimated start is 900 s away."
    job = {
        "id": "job_1",
        "status": "queued",
        "queue": {"position": 101, "at_least": True, "eta_seconds": 900},
        "warnings": [{"code": "deadline_before_eta", "message": message}],
    }

    job_output.show(job, people=True)

    reported = capfd.readouterr()
    assert "job_1 is queued, position 101 or later" in reported.out
    assert f"warning: {message} (deadline_before_eta)" in reported.err


def test_submit_has_several_samples_vote(api: FakeApi, image: Path) -> None:
    longlook(api, "submit", image, "How many?", "--samples", "5")
    assert b'{"samples": 5}' in api.seen[0].body


@pytest.mark.parametrize(
    ("spelled", "sent"),
    [
        ("number", {"type": "number"}),
        ("boolean", {"type": "boolean"}),
        ("choice:red, green", {"type": "choice", "options": ["red", "green"]}),
    ],
)
def test_submit_asks_for_a_form_of_the_answer(
    api: FakeApi, image: Path, spelled: str, sent: dict[str, Any]
) -> None:
    longlook(api, "submit", image, "How many?", "--format", spelled)
    assert json.dumps({"answer_format": sent}).encode() in api.seen[0].body


def test_submit_takes_a_schema_from_its_file(api: FakeApi, image: Path) -> None:
    schema = {"type": "object", "properties": {"数": {"type": "integer"}}}
    (image.parent / "schema.json").write_text(json.dumps(schema))
    spelled = f"json:@{image.parent / 'schema.json'}"

    longlook(api, "submit", image, "How many?", "--format", spelled)

    form = {"answer_format": {"type": "json_schema", "schema": schema}}
    assert json.dumps(form).encode() in api.seen[0].body


@pytest.mark.parametrize(
    "spelled",
    ["verse", "number:3", "choice:", "json:{}", "json:@nowhere.json", "json:@picture.png"],
)
def test_a_form_that_cannot_be_meant_is_wrong_usage(
    api: FakeApi, image: Path, spelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image.parent)
    with pytest.raises(errors.InvalidRequest, match=r"free, number|cannot be read|is no JSON"):
        longlook(api, "submit", image, "How many?", "--format", spelled)
    assert api.seen == []


def test_submit_and_wait_prints_the_finished_job(api: FakeApi, image: Path) -> None:
    code, printed = longlook(api, "submit", image, "How many?", "--wait")
    assert code == 0
    assert json.loads(printed)["answer"] == {"text": "6"}


def test_submit_and_stream_prints_a_line_for_each_event_and_then_the_job(
    api: FakeApi, image: Path
) -> None:
    code, printed = longlook(api, "submit", image, "How many?", "--stream")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert [line["delta"] for line in lines[:-1]] == ["One, ", "two."]
    assert lines[-1]["status"] == "succeeded"


def test_a_job_is_watched_from_its_beginning(api: FakeApi) -> None:
    code, printed = longlook(api, "jobs", "watch", JOB_ID)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert [line.get("delta") for line in lines] == ["One, ", "two.", None]
    assert lines[-1]["answer"] == {"text": "6"}


def test_a_job_that_failed_is_an_exit_code(image: Path) -> None:
    answers = {
        "POST /v1/jobs": [Canned(202, job("queued"))],
        f"GET {JOB}": [Canned(200, job("failed"))],
    }
    with serving(answers) as api:
        code, printed = longlook(api, "submit", image, "How many?", "--wait")
    assert code == output.Exit.FAILED
    assert json.loads(printed)["error"]["code"] == "engine_fault"


def test_metadata_without_a_value_is_wrong_usage(api: FakeApi, image: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="'case' is not NAME=VALUE"):
        longlook(api, "submit", image, "How many?", "--metadata", "case")
    assert api.seen == []


def test_jobs_are_listed_with_the_filters_that_were_given(api: FakeApi) -> None:
    filters = ("--status", "failed", "--status", "queued", "--metadata", "case=4 2")
    _, printed = longlook(api, "jobs", "ls", *filters, "--limit", "5")
    assert json.loads(printed)["data"][0]["status"] == "succeeded"
    assert urllib.parse.parse_qsl(api.seen[0].path.partition("?")[2]) == [
        ("metadata[case]", "4 2"),
        ("status", "failed"),
        ("status", "queued"),
        ("limit", "5"),
    ]


def test_jobs_are_listed_by_a_query_in_one_piece_or_in_several(api: FakeApi) -> None:
    for words in (["status:failed created:<2h"], ["status:failed", "created:<2h"]):
        longlook(api, "jobs", "ls", *words, "--limit", "5")
        requested = urllib.parse.parse_qs(api.seen[-1].path.partition("?")[2])
        assert requested == {"q": ["status:failed created:<2h"], "limit": ["5"]}


def test_a_job_is_shown_with_its_trace_when_asked(api: FakeApi) -> None:
    _, alone = longlook(api, "jobs", "show", JOB_ID)
    _, whole = longlook(api, "jobs", "show", JOB_ID, "--trace")
    assert "trace" not in json.loads(alone)
    assert json.loads(whole)["trace"]["samples"][0]["text"] == "One, "


def test_a_job_is_cancelled(api: FakeApi) -> None:
    _, printed = longlook(api, "jobs", "cancel", JOB_ID)
    assert json.loads(printed)["status"] == "cancelled"


def test_the_queue_is_shown_whole_or_of_one_account() -> None:
    with serving({"GET /v1/queue": [Canned(200, QUEUE)]}) as api:
        _, printed = longlook(api, "queue", "--account", "web & co")
    assert json.loads(printed) == QUEUE
    assert api.seen[0].path == "/v1/queue?account=web+%26+co"


def test_the_queue_is_told_to_people_in_four_lines_and_two_tables() -> None:
    assert queue.summary(QUEUE) == [
        "queued   3 (2 due, the first of them for 12 s)",
        "running  1",
        "a minute 0.4 in, 2 out",
        "webhooks 2 to be told (the first of them for 70 s)",
    ]
    idle = QUEUE | {"oldest_age_seconds": None, "depth": 0, "due": 0}
    assert queue.summary(idle)[0] == "queued   0 (0 due)"
    assert queue.worker_row(QUEUE["workers"][0]) == ("w", "live", "4", "2 s ago", "1.0")
    assert queue.engine_row(QUEUE["engines"][0]) == ("http://e", "away", "", "", "")


USAGE: dict[str, Any] = {
    "object": "usage",
    "account": "acct_1",
    "storage": {
        "images_bytes": 3 * 2**29,
        "traces_bytes": 2_560,
        "jobs_bytes": 12,
        "records_bytes": 1_024,
        "deliveries_bytes": 0,
        "total_bytes": 3 * 2**29 + 3_596,
        "limit_bytes": 10 * 2**30,
    },
    "queue": {"queued": 3, "limit": 50_000},
    "requests": {"limit_per_minute": 6_000, "remaining": 5_999},
}


def test_usage_is_shown_of_the_keys_account_or_of_another() -> None:
    with serving({"GET /v1/usage": [Canned(200, USAGE)]}) as api:
        _, own = longlook(api, "usage")
        longlook(api, "usage", "--account", "web & co")
    assert json.loads(own) == USAGE
    assert [seen.path for seen in api.seen] == ["/v1/usage", "/v1/usage?account=web+%26+co"]


def test_usage_is_told_to_people_in_three_lines() -> None:
    kinds = "images 1.5 GiB, traces 2.5 KiB, jobs 12 B, records 1.0 KiB, deliveries 0 B"
    assert usage.summary(USAGE) == [
        f"storage  1.5 GiB of 10.0 GiB ({kinds})",
        "queued   3 of 50000",
        "requests 5999 left, 6000 a minute",
    ]
    unlimited = USAGE | {"storage": USAGE["storage"] | {"limit_bytes": None}}
    assert usage.summary(unlimited)[0].startswith("storage  1.5 GiB no quota (")


def test_an_id_cannot_leave_its_place_in_the_path(api: FakeApi) -> None:
    with pytest.raises(errors.NotFound):
        longlook(api, "jobs", "show", "../images?x=1")
    assert api.seen[0].path == "/v1/jobs/..%2Fimages%3Fx%3D1"


def test_a_flag_that_does_not_exist_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run(["config", "show", "--no-such-flag"])
    assert ended.value.code == output.Exit.USAGE
    assert "No such option" in capsys.readouterr().err


def test_a_fault_is_told_in_one_line_that_repeats_nothing() -> None:
    fault = errors.Fault(pointer="#/question", detail="This must not be empty.")
    whole = errors.InvalidRequest("question: This must not be empty.", faults=(fault,))
    assert main.reported(whole) == "longlook: question: This must not be empty."
    bare = errors.InvalidRequest("1 fault.", faults=(fault,))
    assert main.reported(bare) == "longlook: 1 fault.\n  #/question: This must not be empty."


def test_the_key_file_is_where_up_leaves_the_key() -> None:
    assert client.KEY_FILE == "admin.key"


def test_images_in_quarantine_are_listed_and_released(api: FakeApi) -> None:
    code, printed = longlook(api, "quarantine", "ls")
    assert (code, json.loads(printed)["data"]) == (0, [HELD])
    assert quarantine.row(HELD)[:3] == ("img_1", "acct_1", "3")

    code, printed = longlook(api, "quarantine", "release", "img_1")
    assert (code, json.loads(printed)) == (0, {"image_id": "img_1"})
