"""The commands on a real terminal, with jobs and deliveries that contain hostile text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.cli.commands import local
from tests.cli.fake_api import Canned, FakeApi, delta, events, job, serving, trace
from tests.cli.terminals import PROGRAM, environment, on_a_terminal

WIDTH = 60
JOB = "job_0123456789abcdef0123456789abcdef"
REFUSED, FAILED_JOB = "job_" + "1" * 32, "job_" + "2" * 32
DELIVERY_ID, ENDPOINT_ID = "dlv_" + "3" * 32, "we_" + "4" * 32
CONTROLS = "\x9b2J\x9d0;owned\x9c\x1b]0;owned\x07\x08\x7f\r"
HIDDEN = "\u202e\u2066\u200b\u2028\u2029\x85\ufeff\U000e0041\u00ad\ufe01"
#: The spaces fill the line, so that a terminal would wrap the rest to its left edge.
FORGED = "\nstatus       stopped\nanswer: forged\n" + " " * (2 * WIDTH - 13) + "answer: forged"
HOSTILE = f"x{CONTROLS}{HIDDEN}{FORGED}"
NESTED = {"text": HOSTILE, "value": HOSTILE}
DONE = job(
    "succeeded",
    question=HOSTILE,
    answer=NESTED,
    options={"answer_format": {"type": "choice", "options": [HOSTILE]}},
    votes={
        "requested": 2,
        "counted": 2,
        "abstained": [],
        "classes": [{"text": HOSTILE, "generations": [0]}, {"text": HOSTILE, "generations": [1]}],
    },
    findings=[{"kind": "loop", "action": HOSTILE}],
)
FAILED = job("failed", question=HOSTILE, error={"code": "engine_fault", "message": HOSTILE})
ATTEMPT = {
    "number": 1,
    "kind": "automatic",
    "state": "ended",
    "outcome": "failed",
    "status_code": None,
    "error_code": HOSTILE,
    "seconds": 0.1,
    "address": None,
    "started_at": "2026-11-23T10:00:00.000Z",
}
DELIVERY = {
    "id": DELIVERY_ID,
    "status": "failed",
    "event_type": "job.failed",
    "origin": HOSTILE,
    "created_at": "2026-11-23T10:00:00.000Z",
    "attempts": [ATTEMPT],
    "payload": {"data": HOSTILE},
}
ENDPOINT = {
    "id": ENDPOINT_ID,
    "disabled_at": None,
    "failing_since": None,
    "event_types": ["job.failed"],
    "name": HOSTILE,
    "url": HOSTILE,
}
QUEUE = {
    "depth": 0,
    "due": 0,
    "oldest_age_seconds": None,
    "running": 0,
    "submitted_per_minute": 0.0,
    "finished_per_minute": 0.0,
    "deliveries": {"depth": 0, "oldest_age_seconds": None},
    "pauses": [
        {
            "account": HOSTILE,
            "priority": "low",
            "paused_at": "2026-11-23T10:00:00.000Z",
            "paused_by": HOSTILE,
            "paused_by_name": HOSTILE,
            "reason": HOSTILE,
        }
    ],
    "workers": [
        {"id": "w", "state": "live", "slots": 1, "heartbeat_age_seconds": 1.0, "version": HOSTILE}
    ],
    "engines": [{"url": "e", "state": "ok", "window": 1, "model": HOSTILE, "version": HOSTILE}],
}
RUN = {
    "number": 1,
    "worker": HOSTILE,
    "outcome": "failed",
    "error": {"code": HOSTILE},
    "engine": HOSTILE,
    "claimed_at": "2026-11-23T10:00:00.000Z",
    "ended_at": "2026-11-23T10:00:02.000Z",
    "generations": [{"usage": {"output_tokens": 3}}],
}
CHANGE = {
    "id": 1,
    "at": "2026-11-23T10:00:00.000Z",
    "actor": HOSTILE,
    "actor_name": HOSTILE,
    "action": "failed",
    "changes": {"status": "failed", "error_message": HOSTILE},
}
GROUP = {"id": "grp_1", "object": "group", "jobs": [DONE]}
COMMANDS = {
    "show": ["jobs", "show", JOB, "--trace"],
    "ls": ["jobs", "ls"],
    "attempts": ["jobs", "attempts", JOB],
    "timeline": ["jobs", "timeline", JOB],
    "watch": ["jobs", "watch", JOB],
    "cancel": ["jobs", "cancel", JOB],
    "submit": ["submit", "IMAGE", "How many?", "--wait"],
    "stream": ["submit", "IMAGE", "How many?", "--stream"],
    "group": ["submit", "IMAGE", "How many?", "Which?"],
    "refused": ["jobs", "show", REFUSED],
    "failed": ["jobs", "show", FAILED_JOB],
    "deliveries": ["webhooks", "ls", "--failed"],
    "endpoints": ["webhooks", "ls"],
    "delivery": ["webhooks", "show", DELIVERY_ID],
    "test": ["webhooks", "test", ENDPOINT_ID],
    "queue": ["queue"],
}
UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufe01\U000e0000-\U000e0fff]"
)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    refusal = {"detail": HOSTILE, "errors": [{"pointer": "#/q", "detail": HOSTILE, "code": "x"}]}
    answers = {
        "POST /v1/jobs": [Canned(202, job("queued"))],
        f"GET /v1/jobs/{JOB}": [Canned(200, DONE)],
        f"GET /v1/jobs/{FAILED_JOB}": [Canned(200, FAILED)],
        f"GET /v1/jobs/{JOB}/attempts": [Canned(200, {"data": [RUN]})],
        f"GET /v1/jobs/{FAILED_JOB}/attempts": [Canned(200, {"data": [RUN]})],
        f"GET /v1/jobs/{JOB}/timeline": [Canned(200, {"data": [CHANGE], "has_more": False})],
        f"GET /v1/jobs/{REFUSED}": [Canned(422, refusal)],
        f"GET /v1/jobs/{JOB}/trace": [Canned(200, trace(HOSTILE))],
        f"POST /v1/jobs/{JOB}/cancel": [Canned(200, DONE)],
        f"GET /v1/jobs/{JOB}/events": [
            events(
                delta(HOSTILE),
                delta(HOSTILE),
                {"type": "attempt.restarted", "attempt": 2},
                delta(HOSTILE, attempt=2),
                {"type": "finding", "finding": {"kind": "loop", "action": HOSTILE}},
                {"type": "job.finished", "job": DONE},
            )
        ],
        "GET /v1/jobs": [Canned(200, {"object": "list", "data": [DONE, FAILED]})],
        "POST /v1/groups": [Canned(202, GROUP)],
        "GET /v1/groups/grp_1": [Canned(200, GROUP)],
        "GET /v1/deliveries": [Canned(200, {"data": [DELIVERY]})],
        f"GET /v1/deliveries/{DELIVERY_ID}": [Canned(200, DELIVERY)],
        "GET /v1/webhook_endpoints": [Canned(200, {"data": [ENDPOINT]})],
        f"POST /v1/webhook_endpoints/{ENDPOINT_ID}/test": [
            Canned(200, {"status_code": None, "error_code": HOSTILE})
        ],
        "GET /v1/queue": [Canned(200, QUEUE)],
    }
    with serving(answers) as fake:
        yield fake


def filled(words: list[str], image: Path) -> list[str]:
    return [str(image) if word == "IMAGE" else word for word in words]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(b"picture")
    return path


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_text_controls_a_terminal_or_imitates_a_line(
    api: FakeApi, image: Path, words: list[str]
) -> None:
    shown = on_a_terminal(api, *filled(words, image), width=WIDTH)

    assert "owned" in shown or "cancel" in words
    assert UNSAFE.findall(shown) == []
    lines = shown.split("\n")
    # The terminal would wrap a longer line and continue at its left edge.
    assert [line for line in lines if cell_len(line) > WIDTH] == []
    assert [line for line in lines if line.startswith("answer: forged")] == []
    assert [line for line in lines if line.startswith("status       stopped")] == []


@pytest.mark.parametrize(
    ("name", "piped"),
    [(name, False) for name in COMMANDS if name != "refused"]
    + [(name, True) for name in ("show", "watch", "group")],
)
def test_json_controls_no_terminal_and_preserves_its_values(
    api: FakeApi, image: Path, *, name: str, piped: bool
) -> None:
    arguments = [*filled(COMMANDS[name], image), "--json"]
    if piped:
        shown = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            capture_output=True,
            check=False,
            env=environment(api),
            timeout=60,
        ).stdout.decode()
    else:
        shown = on_a_terminal(api, *arguments, width=WIDTH)

    assert UNSAFE.findall(shown) == []
    texts = list(values(documents(shown)))
    assert HOSTILE in texts
    assert [text for text in texts if "owned" in text and text != HOSTILE] == []


def documents(text: str) -> list[Any]:
    """Return the JSON documents in a text."""
    decoder, decoded, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        document, at = decoder.raw_decode(text, at)
        decoded.append(document)
        while text[at : at + 1].isspace():
            at += 1
    return decoded


def values(tree: object) -> Iterator[str]:
    """Yield the strings of a JSON value."""
    if isinstance(tree, str):
        yield tree
    for branch in (
        tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    ):
        yield from values(branch)


MATCHED = {
    "object": "operation.preview",
    "action": "cancel",
    "query": "x",
    "matched": 250,
    "confirmation_required": True,
}
STARTED: dict[str, Any] = {
    "id": "op_1",
    "object": "operation",
    "status": "queued",
    "total": None,
    "done": 0,
    "skipped": 0,
    "failed": 0,
    "reasons": {},
    "waiting_for": None,
    "error": None,
}


@pytest.mark.parametrize(("typed", "sent"), [("250", 2), ("25", 1), ("y", 1)])
def test_many_jobs_are_confirmed_by_typing_their_number(typed: str, sent: int) -> None:
    answers = {"POST /v1/operations": [Canned(200, MATCHED), Canned(202, STARTED)]}
    with serving(answers) as fake:
        shown = on_a_terminal(fake, "jobs", "cancel", "status:queued", typed=typed, width=WIDTH)
        bodies = [json.loads(seen.body) for seen in fake.seen]

    assert "250 jobs match" in shown
    assert len(bodies) == sent
    assert bodies[0]["dry_run"] is True
    assert [body["confirm"] for body in bodies[1:]] == [250] * (sent - 1)
    assert ("nothing was changed" in shown) == (sent == 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home directory of an installation with a key whose name is long and hostile."""
    folder = tmp_path_factory.mktemp("widths") / "home"
    assert local(folder, "db", "upgrade")[0] == 0
    options = ("--role", "operate", "--account", "a-customer-with-a-long-name", "--expires", "9d")
    assert local(folder, "keys", "create", "--name", f"frontend {HOSTILE}", *options)[0] == 0
    return folder


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["keys", "ls"], ["operate", "never", "a-custom", "frontend"]),
        (["config", "show"], ["LONGLOOK_PORT", "Port the API listens on."]),
        (["config", "show", "webhook"], ["LONGLOOK_WEBHOOK_SECONDS"]),
    ],
)
def test_lists_of_operators_fit_on_terminals(
    api: FakeApi, home: Path, width: int, words: list[str], expected: list[str]
) -> None:
    shown = on_a_terminal(
        api, *words, width=width, LONGLOOK_HOME=str(home), LONGLOOK_PEPPER="pepper"
    )

    assert UNSAFE.findall(shown) == []
    lines = shown.splitlines()
    assert [line for line in lines if cell_len(line) > width] == []
    assert [text for text in expected if text not in shown] == []
    if words == ["keys", "ls"]:
        [heading, row] = lines
        assert row.startswith("key_")
        assert ("created by" in heading) == (width == 140)
