"""``longlook jobs`` against canned answers, as a pipe sees it."""

from __future__ import annotations

import csv
import json
import shlex
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from core import errors
from tests.cli.commands import JOB_ID, everything, longlook
from tests.cli.fake_api import Canned, FakeApi, job, serving


def test_watch_prints_all_events_of_a_job(api: FakeApi) -> None:
    code, printed = longlook(api, "jobs", "watch", JOB_ID, "--json")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert [line.get("delta") for line in lines] == ["One, ", "two.", None]
    assert lines[-1]["answer"] == {"text": "6"}


def test_jobs_are_listed_with_the_filters_that_were_given(api: FakeApi) -> None:
    filters = ("--status", "failed", "--status", "queued", "--metadata", "case=4 2")
    _, printed = longlook(api, "jobs", "ls", *filters, "--limit", "5", "--json")
    assert json.loads(printed)["data"][0]["status"] == "succeeded"
    assert urllib.parse.parse_qsl(api.seen[0].path.partition("?")[2]) == [
        ("metadata[case]", "4 2"),
        ("status", "failed"),
        ("status", "queued"),
        ("limit", "5"),
    ]


def test_a_query_may_be_one_argument_or_several(api: FakeApi) -> None:
    for words in (["status:failed created:<2h"], ["status:failed", "created:<2h"]):
        longlook(api, "jobs", "ls", *words, "--limit", "5")
        query = urllib.parse.parse_qs(api.seen[-1].path.partition("?")[2])
        assert query == {"q": ["status:failed created:<2h"], "limit": ["5"]}


def test_a_job_is_shown_with_its_trace_on_request(api: FakeApi) -> None:
    _, alone = longlook(api, "jobs", "show", JOB_ID, "--json")
    _, whole = longlook(api, "jobs", "show", JOB_ID, "--trace", "--json")
    assert "trace" not in json.loads(alone)
    assert json.loads(whole)["trace"]["generations"][0]["text"] == "One, "


def test_a_job_is_cancelled(api: FakeApi) -> None:
    _, printed = longlook(api, "jobs", "cancel", JOB_ID, "--json")
    assert json.loads(printed)["status"] == "cancelled"


def test_a_text_that_is_no_id_is_refused_before_any_request(api: FakeApi) -> None:
    for verb in ("show", "timeline", "attempts", "watch"):
        for text in ("../images?x=1", "job_", "job_01", "job_" + "A" * 32, "job_" + "0" * 33):
            with pytest.raises(errors.InvalidRequest, match="no ID of a job"):
                longlook(api, "jobs", verb, text)
    assert api.seen == []


PAGES = [
    Canned(
        200,
        {
            "data": [job("failed", id="job_" + "b" * 32, question="=1+1\n")],
            "has_more": True,
            "last_id": "job_" + "b" * 32,
        },
    ),
    Canned(200, {"data": [job("succeeded", id="job_" + "a" * 32)], "has_more": False}),
]


def test_the_hint_to_the_next_page_repeats_every_option() -> None:
    words = ["--status", "failed", "--metadata", "case=4 2", "--account", "web", "--limit", "3"]
    with serving({"GET /v1/jobs": PAGES}) as api:
        printed = everything(api, "jobs", "ls", *words, "created:<2h")
    hint = next(line for line in printed.splitlines() if line.startswith("more: "))
    options = shlex.split(hint)[4:]
    assert options == [*words[:4], *words[4:], "--after", "job_" + "b" * 32, "--", "created:<2h"]


def test_all_pages_are_listed_on_request() -> None:
    with serving({"GET /v1/jobs": PAGES}) as api:
        _, printed = longlook(api, "jobs", "ls", "--all", "-o", "jsonl")
    assert [json.loads(line)["id"][4] for line in printed.splitlines()] == ["b", "a"]
    assert "after=job_" + "b" * 32 in api.seen[1].path


def test_rows_stay_rows_in_a_pipe(api: FakeApi) -> None:
    _, printed = longlook(api, "jobs", "ls")
    header, row = printed.splitlines()
    assert header.split() == ["id", "status", "age", "took", "tries", "answer", "question"]
    assert row.startswith(f"{JOB_ID}  succeeded")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_export_has_every_job_and_can_be_continued(form: str) -> None:
    broken = [PAGES[0], Canned(422, {"detail": "No.", "error": {"code": "not_found"}})]
    with serving({"GET /v1/jobs": broken}) as api, pytest.raises(errors.RequestError):
        longlook(api, "jobs", "export", "--format", form)
    with serving({"GET /v1/jobs": PAGES}) as api:
        _, whole = longlook(api, "jobs", "export", "--format", form)
        _, rest = longlook(api, "jobs", "export", "--format", form, "--after", "job_" + "b" * 32)
    lines = whole.splitlines()
    if form == "csv":
        rows = list(csv.DictReader(lines))
        assert [row["question"] for row in rows] == ["'=1+1\\n", "How many pelicans?"]
        assert json.loads(rows[0]["error"])["code"] == "engine_fault"
    else:
        assert [json.loads(line)["status"] for line in lines] == ["failed", "succeeded"]
    assert rest.splitlines() == lines[-1:]


def test_a_job_is_named_by_the_beginning_of_its_id_or_as_the_last() -> None:
    found, several = {"data": [job("queued")]}, {"data": PAGES[0].body["data"] * 2}
    answers = {
        "GET /v1/usage": [Canned(200, {"account": "acct_1"})],
        "GET /v1/jobs": [Canned(200, found), Canned(200, found), Canned(200, several)],
        f"POST /v1/jobs/{JOB_ID}/cancel": [Canned(200, job("cancelled"))],
    }
    with serving(answers) as api:
        for name in (JOB_ID[:12], "@last"):
            assert longlook(api, "jobs", "cancel", name)[1] == f"{JOB_ID} is cancelled\n"
        with pytest.raises(errors.InvalidRequest, match="the beginning of several ids: job_bbb"):
            longlook(api, "jobs", "cancel", "job_bbbbbb")
    assert "q=id%3Ajob_01234567" in api.seen[0].path
    assert "q=account%3Aacct_1" in api.seen[3].path


def test_the_image_of_a_job_is_saved(tmp_path: Path) -> None:
    answers = {
        f"GET /v1/jobs/{JOB_ID}": [Canned(200, job("queued", images=[{"id": "img_1"}]))],
        "GET /v1/images/img_1/content": [Canned(raw=b"bytes")],
    }
    with serving(answers) as api:
        longlook(api, "jobs", "image", JOB_ID, "-o", tmp_path / "image")
        assert (tmp_path / "image").read_bytes() == b"bytes"
        with pytest.raises(errors.NotFound, match="has no image 2"):
            longlook(api, "jobs", "image", JOB_ID, "-n", "2", "-o", tmp_path / "image")


def test_the_oldest_jobs_come_first_on_request() -> None:
    with serving({"GET /v1/jobs": PAGES}) as api:
        printed = everything(api, "jobs", "ls", "--oldest")
    assert "order=asc" in api.seen[0].path
    hint = next(line for line in printed.splitlines() if line.startswith("more: "))
    assert hint == f"more: longlook jobs ls --oldest --after job_{'b' * 32}"


def done(account: str, *, hour: int, wait: float, seconds: float) -> dict[str, Any]:
    usage = {"input_tokens": 100, "output_tokens": 10, "engine_seconds": seconds}
    return job(
        "succeeded",
        account=account,
        created_at=f"2026-11-23T{hour:02}:10:00.000Z",
        usage=usage,
        timings={"queued_seconds": wait},
        crashes=1,
    )


def test_jobs_are_summed_up_over_all_pages() -> None:
    listed = [
        *(done("acct_1", hour=10, wait=wait, seconds=1.5) for wait in range(1, 21)),
        done("acct_2", hour=9, wait=7.0, seconds=60.0),
        job("failed", account="acct_2", created_at="2026-11-23T09:59:59.999Z"),
    ]
    pages = [
        Canned(200, {"data": listed[:15], "has_more": True, "last_id": "job_1"}),
        Canned(200, {"data": listed[15:], "has_more": False}),
    ]
    with serving({"GET /v1/jobs": [*pages, *pages, *pages]}) as api:
        _, by_account = longlook(api, "jobs", "stats", "created:<1d", "--json")
        _, by_hour = longlook(api, "jobs", "stats", "--by", "hour", "-o", "tsv")
        _, by_error = longlook(api, "jobs", "stats", "--by", "error", "-o", "jsonl")
    assert "q=created%3A%3C1d" in api.seen[0].path
    first, second = json.loads(by_account)["data"]
    assert first == {
        "account": "acct_2",
        "jobs": 2,
        "succeeded": 1,
        "failed": 1,
        "cancelled": 0,
        "crashes": 1,
        "input_tokens": 100,
        "output_tokens": 10,
        "engine_seconds": 60.0,
        "p50_queued_seconds": 7.0,
        "p95_queued_seconds": 7.0,
    }
    assert (second["account"], second["jobs"], second["engine_seconds"]) == ("acct_1", 20, 30.0)
    assert (second["p50_queued_seconds"], second["p95_queued_seconds"]) == (10, 19)
    assert [line.split("\t")[:2] for line in by_hour.splitlines()[1:]] == [
        ["2026-11-23T09:00Z", "2"],
        ["2026-11-23T10:00Z", "20"],
    ]
    assert [json.loads(line)["error"] for line in by_error.splitlines()] == ["", "engine_fault"]
