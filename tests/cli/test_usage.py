"""``longlook usage`` against canned answers."""

from __future__ import annotations

import json
from typing import Any

from cli import usage
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
