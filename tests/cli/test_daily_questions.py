"""The commands of the page of daily questions, each one run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import JOB_ID, longlook
from tests.cli.fake_api import Canned, FakeApi, job, serving
from tests.cli.test_queue import QUEUE

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "daily-questions.md"
TABLE = PAGE.read_text(encoding="utf-8").partition("## Formats")[0]
COMMANDS = [
    command
    for command in dict.fromkeys(re.findall(r"`longlook ([^`]+)`", TABLE))
    # These read the machine and the database, not the API.
    if not command.startswith(("doctor", "keys", "accounts"))
]
ENDPOINT_ID = f"we_{'1' * 32}"
ENDPOINT: dict[str, Any] = {
    "id": ENDPOINT_ID,
    "name": "",
    "url": "https://receiver.example",
    "event_types": [],
    "disabled_at": None,
    "failing_since": None,
}
PAGE_OF_ONE = {"data": [job("failed")], "has_more": False}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    path = f"GET /v1/jobs/{JOB_ID}"
    answers = {
        "GET /v1/jobs": [Canned(200, PAGE_OF_ONE)],
        path: [Canned(200, job("failed", images=[{"id": "img_1", "width": 1, "height": 2}]))],
        f"{path}/attempts": [Canned(200, {"data": []})],
        f"{path}/timeline": [Canned(200, {"data": [], "has_more": False})],
        "POST /v1/operations": [
            Canned(200, {"matched": 3, "confirmation_required": False}),
        ],
        "GET /v1/workers": [Canned(200, {"data": []})],
        "GET /v1/engines": [Canned(200, {"data": []})],
        "GET /v1/deliveries": [Canned(200, {"data": []})],
        f"GET /v1/webhook_endpoints/{ENDPOINT_ID}": [Canned(200, ENDPOINT)],
        f"GET /v1/webhook_endpoints/{ENDPOINT_ID}/deliveries": [Canned(200, {"data": []})],
        "GET /v1/images/img_1/content": [Canned(raw=b"bytes")],
        "GET /v1/queue": [Canned(200, QUEUE)],
    }
    with serving(answers) as fake:
        yield fake


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_runs(
    api: FakeApi, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = ENDPOINT_ID if command.startswith("webhooks") else JOB_ID
    words = [named if word == "ID" else word for word in shlex.split(command)]
    code, _ = longlook(api, *words)
    assert code == 0
    assert api.seen


def test_no_question_takes_more_than_two_commands() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ") and "`longlook" in line]
    assert rows
    assert [row for row in rows if row.count("`longlook ") > 2] == []


def test_the_doctor_of_the_page_says_that_no_worker_is_alive() -> None:
    ready = {"status": "degraded", "checks": {"database": "ok", "workers": "degraded"}}
    with serving({"GET /readyz": [Canned(200, ready)]}) as api:
        _, printed = longlook(api, "doctor")
    [row] = [line for line in printed.splitlines() if line.split()[:2] == ["warning", "workers"]]
    assert "no worker is alive" in row
