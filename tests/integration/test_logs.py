"""Logs: one renderer writes all of them, one JSON object per line, including errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

_PROGRAM = """
import logging, sys, threading
import sqlalchemy as sa
import structlog
from core import logs
from core.settings import Settings

settings = Settings.read({}, log_format=sys.argv[1], log_level=sys.argv[2])
logs.configure(settings, service="tests")
log = structlog.get_logger("jobs.test")
logs.bind(request_id="req_1", job_id="job_1")
log.info("job_claimed", attempt=2)
log.debug("not_shown")
logging.getLogger("celery.worker").warning("lost %s of %d", "one", 3)
logging.getLogger("sqlalchemy.engine").info("a statement and its parameters")
logging.getLogger("urllib3.connectionpool").warning("retrying")
thread = threading.Thread(target=lambda: log.info("elsewhere"))
thread.start()
thread.join()
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.exception("job_crashed")
    logging.getLogger("gunicorn.error").exception("worker crashed")
logs.clear()
hostile = "x\\x9b2J\\u202e\\n\\x1b]0;owned\\x07"
log.info("said", **{hostile: hostile})
logging.getLogger("celery.worker").warning("took %s", hostile)
try:
    raise ValueError(hostile)
except ValueError:
    log.exception("failed_by")
log.warning("over", text="x" * 5000, things=object, umlaut="ü圆")
print("this is no log line", flush=True)
"""


HOSTILE = "x\x9b2J\u202e\n\x1b]0;owned\x07"


def run(log_format: str = "json", log_level: str = "INFO") -> list[str]:
    """Run a program that logs in many ways; return the lines of its standard error."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, log_format, log_level],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    assert ended.stdout == "this is no log line\n"
    return ended.stderr.splitlines()


@pytest.fixture(scope="module")
def events() -> dict[str, dict[str, Any]]:
    """Return the log entries by event."""
    lines = [json.loads(line) for line in run()]
    return {line["event"]: line for line in lines}


def test_each_event_is_one_line_of_json(events: dict[str, dict[str, Any]]) -> None:
    assert list(events) == [
        "job_claimed",
        "lost one of 3",
        "retrying",
        "elsewhere",
        "job_crashed",
        "worker crashed",
        "said",
        f"took {HOSTILE}",
        "failed_by",
        "over",
    ]
    for event in events.values():
        assert {"event", "level", "logger", "service", "ts"} <= set(event)
        assert event["service"] == "tests"
        assert event["ts"].endswith("Z")


def test_log_events_include_their_data_and_the_bound_context(
    events: dict[str, dict[str, Any]],
) -> None:
    claimed = events["job_claimed"]

    assert (claimed["attempt"], claimed["request_id"], claimed["job_id"]) == (2, "req_1", "job_1")
    assert (claimed["level"], claimed["logger"]) == ("info", "jobs.test")


def test_the_bound_context_is_on_the_lines_of_libraries_too_and_of_this_thread_only(
    events: dict[str, dict[str, Any]],
) -> None:
    assert events["lost one of 3"]["job_id"] == "job_1"
    assert "job_id" not in events["elsewhere"]
    assert "job_id" not in events["over"]


@pytest.mark.parametrize("event", ["job_crashed", "worker crashed"])
def test_a_traceback_is_a_part_of_its_line(events: dict[str, dict[str, Any]], event: str) -> None:
    assert events[event]["level"] == "error"
    assert events[event]["exception"].startswith("Traceback (most recent call last):")
    assert events[event]["exception"].endswith("ValueError: two\nlines")


def test_a_long_value_is_truncated_and_any_value_can_be_written(
    events: dict[str, dict[str, Any]],
) -> None:
    assert events["over"]["text"] == "x" * 2000 + "…"
    assert events["over"]["things"] == "<class 'object'>"
    assert events["over"]["umlaut"] == "ü圆"


def test_the_level_applies_to_quiet_libraries_too() -> None:
    lines = [json.loads(line) for line in run(log_level="ERROR")]

    assert [line["event"] for line in lines] == ["job_crashed", "worker crashed", "failed_by"]


def test_columns_are_for_people() -> None:
    lines = run("columns")

    assert "job_claimed" in lines[0]
    assert not lines[0].startswith("{")


@pytest.mark.parametrize("log_format", ["columns", "json"])
def test_logged_text_cannot_control_a_terminal_or_forge_a_line(log_format: str) -> None:
    # The renderer adds the colors.
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in run(log_format)]

    assert re.findall("[\x00-\x1f\x7f-\x9f\u202e]", "".join(lines)) == []
    assert [line for line in lines if line.startswith(("\x1b", r"\x1b"))] == []
    if log_format == "json":
        [entry] = [event for line in lines if (event := json.loads(line))["event"] == "said"]
        assert entry[HOSTILE] == HOSTILE
