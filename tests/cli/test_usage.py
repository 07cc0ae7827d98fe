"""``longlook usage`` against canned answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli import usage
from core import errors
from tests.cli.commands import longlook
from tests.cli.fake_api import Canned, serving

USAGE: dict[str, Any] = {
    "object": "usage",
    "account": "acct_1",
    "storage": {
        "images_bytes": 3 * 2**29,
        "traces_bytes": 2_560,
        "jobs_bytes": 12,
        "records_bytes": 1_024,
        "files_bytes": 0,
        "deliveries_bytes": 0,
        "total_bytes": 3 * 2**29 + 3_596,
        "limit_bytes": 10 * 2**30,
    },
    "queue": {"queued": 3, "limit": 50_000},
    "requests": {"limit_per_minute": 6_000, "remaining": 5_999},
}


def test_usage_of_the_keys_account_or_of_another_is_requested() -> None:
    with serving({"GET /v1/usage": [Canned(200, USAGE)]}) as api:
        _, own = longlook(api, "usage", "--json")
        longlook(api, "usage", "--account", "web & co")
    assert json.loads(own) == USAGE
    assert [seen.path for seen in api.seen] == ["/v1/usage", "/v1/usage?account=web+%26+co"]


def test_usage_is_shown_as_three_lines() -> None:
    kinds = "images 1.5 GiB, traces 2.5 KiB, jobs 12 B, records 1.0 KiB, files 0 B, deliveries 0 B"
    assert usage.summary(USAGE) == [
        f"storage  1.5 GiB of 10.0 GiB ({kinds})",
        "queued   3 of 50000",
        "requests 5999 left of 6000 per minute",
    ]
    unlimited = USAGE | {"storage": USAGE["storage"] | {"limit_bytes": None}}
    assert usage.summary(unlimited)[0].startswith("storage  1.5 GiB without a quota (")


REPORT: dict[str, Any] = {
    "since": "2026-11-01T00:00:00.000Z",
    "until": "2026-11-03T00:00:00.000Z",
    "by": ["day", "account"],
    "data": [
        {
            "day": "2026-11-01",
            "model": None,
            "account": "acct_1",
            "account_name": "web \x1b[2J",
            "jobs": 9,
            "succeeded": 7,
            "failed": 1,
            "cancelled": 1,
            "input_tokens": 678,
            "cached_tokens": 36,
            "image_tokens": 170,
            "output_tokens": 1_785,
            "engine_seconds": 35.845,
        }
    ],
}


def test_a_report_is_requested_with_its_range_and_its_rows() -> None:
    with serving({"GET /v1/usage": [Canned(200, USAGE | {"report": REPORT})]}) as api:
        dates = ("--since", "2026-11-01", "--until", "2026-11-03")
        _, shown = longlook(api, "usage", *dates, "--by", "day", "--by", "account")
        _, document = longlook(api, "usage", *dates, "--by", "day", "--by", "account", "--json")

    range_ = "since=2026-11-01T00%3A00%3A00%2B00%3A00&until=2026-11-03T00%3A00%3A00%2B00%3A00"
    assert {seen.path for seen in api.seen} == {f"/v1/usage?{range_}&by=day&by=account"}
    head, line = shown.splitlines()
    assert head.split()[:5] == ["day", "account", "jobs", "succeeded", "failed"]
    assert "storage" not in shown
    assert "\x1b" not in shown
    assert [line.split()[0], *line.split()[-8:]] == [
        "2026-11-01", "9", "7", "1", "1", "678", "36", "1785", "35.8",
    ]  # fmt: skip
    assert json.loads(document)["report"] == REPORT


def test_the_range_of_a_report_needs_a_start() -> None:
    with (
        serving({"GET /v1/usage": [Canned(200, USAGE)]}) as api,
        pytest.raises(errors.InvalidRequest, match="need --since"),
    ):
        longlook(api, "usage", "--by", "model")

    assert api.seen == []
