"""The commands of the page of daily questions, each one run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import JOB_ID, longlook
from tests.cli.fake_api import Canned, FakeApi, job, serving
from tests.cli.test_queue import QUEUE

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "daily-questions.md"
TABLE = PAGE.read_text(encoding="utf-8").partition("## Formats")[0]
COMMANDS = [
    command
    for command in re.findall(r"`longlook ([^`]+)`", TABLE)
    if not command.startswith("doctor")
]
PAGE_OF_ONE = {"data": [job("failed")], "has_more": False}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    path = f"GET /v1/jobs/{JOB_ID}"
    answers = {
        "GET /v1/jobs": [Canned(200, PAGE_OF_ONE)],
        path: [Canned(200, job("failed", images=[{"id": "img_1", "width": 1, "height": 2}]))],
        f"{path}/attempts": [Canned(200, {"data": []})],
        f"{path}/timeline": [Canned(200, {"data": [], "has_more": False})],
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
    words = [JOB_ID if word == "ID" else word for word in shlex.split(command)]
    code, _ = longlook(api, *words)
    assert code == 0
    assert api.seen


def test_the_doctor_of_the_page_says_that_no_worker_is_alive() -> None:
    ready = {"status": "degraded", "checks": {"database": "ok", "workers": "degraded"}}
    with serving({"GET /readyz": [Canned(200, ready)]}) as api:
        _, printed = longlook(api, "doctor")
    [row] = [line for line in printed.splitlines() if line.split()[:2] == ["warning", "workers"]]
    assert "no worker is alive" in row
