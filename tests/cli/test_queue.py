"""``longlook queue`` against canned answers."""

from __future__ import annotations

import json
from typing import Any

from cli import queue
from tests.cli.commands import longlook
from tests.cli.fake_api import Canned, serving

QUEUE: dict[str, Any] = {
    "object": "queue",
    "depth": 3,
    "due": 2,
    "oldest_age_seconds": 12.3,
    "running": 1,
    "submitted_per_minute": 0.4,
    "finished_per_minute": 2.0,
    "deliveries": {"depth": 2, "oldest_age_seconds": 70.2},
    "pauses": [],
    "workers": [
        {"id": "w", "state": "live", "slots": 4, "heartbeat_age_seconds": 2.1, "version": "1.0"}
    ],
    "engines": [
        {"url": "http://e", "state": "away", "window": None, "model": None, "version": None}
    ],
}


def test_the_queue_of_one_account_is_requested() -> None:
    with serving({"GET /v1/queue": [Canned(200, QUEUE)]}) as api:
        _, printed = longlook(api, "queue", "--account", "web & co", "--json")
    assert json.loads(printed) == QUEUE
    assert api.seen[0].path == "/v1/queue?account=web+%26+co"


def test_the_queue_is_shown_in_the_format_that_is_chosen() -> None:
    with serving({"GET /v1/queue": [Canned(200, QUEUE)]}) as api:
        _, document = longlook(api, "queue", "-o", "json")
    assert json.loads(document) == QUEUE


def test_the_queue_is_shown_as_four_lines_and_two_tables() -> None:
    assert queue.summary(QUEUE) == [
        "queued   3 (2 due, the oldest for 12 s)",
        "running  1",
        "rate     0.4 submitted, 2 finished per minute",
        "webhooks 2 pending, the oldest for 70 s",
    ]
    idle = QUEUE | {"oldest_age_seconds": None, "depth": 0, "due": 0}
    assert queue.summary(idle)[0] == "queued   0 (0 due)"
    assert queue.worker_row(QUEUE["workers"][0]) == ("w", "live", "4", "2 s ago", "1.0")
    assert queue.engine_row(QUEUE["engines"][0]) == ("http://e", "away", "", "", "")
