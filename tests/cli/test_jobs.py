"""``longlook jobs`` against canned answers, as a pipe sees it."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from core import errors
from tests.cli.commands import JOB_ID, longlook
from tests.cli.fake_api import FakeApi


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


def test_an_id_is_quoted_in_the_path(api: FakeApi) -> None:
    with pytest.raises(errors.NotFound):
        longlook(api, "jobs", "show", "../images?x=1")
    assert api.seen[0].path == "/v1/jobs/..%2Fimages%3Fx%3D1"
