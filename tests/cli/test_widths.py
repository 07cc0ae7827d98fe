"""Every command that lists something, on terminals with 80 and 140 columns: one line per row, and a whole hint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.cells import cell_len

from cli import main
from tests.cli import terminals
from tests.cli.commands import local
from tests.cli.fake_api import Canned, job, serving

#: Runs the commands of a file, one per line, and prints a line before each.
PROGRAM = """
import pathlib, shlex, sys
from cli.main import run
for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    print("$", line, flush=True)
    try:
        run(shlex.split(line))
    except SystemExit as end:
        assert not end.code, line
"""
TIME = "2026-11-23T10:00:00.000Z"
DIGITS = "0190abcdef0123456789abcdef012345"
ENGINE_URL = "http://gpu-node-01.cluster.internal:30000"
WORKER_ID = "gpu-node-01.cluster.internal:4711:0a1b2c3d"
ACTOR = f"key:key_{DIGITS}"
LONG = "How many pelicans stand on the pier, and which of them look at the camera? 鹈鹕" * 3
JOBS = [
    job(
        status,
        id=f"job_{DIGITS}",
        question=LONG,
        account=f"acct_{DIGITS[:-1]}{number}",
        usage={"input_tokens": 10**9, "output_tokens": 10**9, "engine_seconds": 1e8},
        priority="normal",
        timings={"run_seconds": 120},
    )
    for number, status in enumerate(("succeeded", "cancelled", "running"))
]
OPERATION: dict[str, Any] = {
    "id": f"op_{DIGITS}",
    "action": "run_now",
    "status": "succeeded",
    "done": 1_000_000,
    "skipped": 1_000_000,
    "failed": 1_000_000,
    "total": 1_000_000,
    "key_name": "a key with a long name",
    "query": "status:failed error:engine_fault 'created:<2h' rerun:none meta.customer:\"a name\"",
    "created_at": TIME,
    "finished_at": TIME,
    "reasons": {},
    "waiting_for": None,
    "error": None,
}
LEFT = {"job_id": f"job_{DIGITS}", "result": "skipped", "reason": "already_requested"}
ENGINE: dict[str, Any] = {
    "url": ENGINE_URL,
    "state": "away",
    "running": 64,
    "window": 64,
    "model": "Qwen/QVQ-72B-Preview",
    "version": "0.5.6.post2",
    "cordoned": False,
    "cordoned_at": TIME,
    "cordoned_by": ACTOR,
    "reason": "a new driver is installed on this machine",
}
WORKER: dict[str, Any] = {
    "id": WORKER_ID,
    "state": "draining",
    "running": 64,
    "slots": 64,
    "version": "1.2.3.dev456+g0123456",
    "heartbeat_age_seconds": 3600.0,
    "drain_requested_at": None,
    "drain_requested_by": ACTOR,
}
QUEUE = {
    "depth": 0,
    "due": 0,
    "oldest_age_seconds": None,
    "running": 0,
    "submitted_per_minute": 0.0,
    "finished_per_minute": 0.0,
    "deliveries": {"depth": 0, "oldest_age_seconds": None},
    "pauses": [],
    "workers": [WORKER | {"state": "live"}],
    "engines": [ENGINE | {"state": "resting", "cordoned": True, "reason": None}],
}
IMAGE = {
    "image_id": f"img_{DIGITS}",
    "account_id": f"acct_{DIGITS}",
    "crashes": 3,
    "last_crashed_at": TIME,
    "quarantined_at": TIME,
}
ENDPOINT: dict[str, Any] = {
    "id": f"we_{DIGITS}",
    "disabled_at": TIME,
    "disabled_reason": "too_many_failures",
    "failing_since": TIME,
    "name": "the production receiver of the web shop",
    "url": "https://receiver.example.com/hooks/longlook/production?token=0123456789",
    "event_types": ["job.succeeded", "job.failed", "job.cancelled"],
}
TRY: dict[str, Any] = {
    "number": 10,
    "kind": "automatic",
    "state": "ended",
    "outcome": "failed",
    "status_code": None,
    "error_code": "connection_refused",
    "error_detail": "the receiver's certificate is for another name",
    "seconds": 15.0,
    "address": "192.0.2.255",
    "started_at": TIME,
}
DELIVERY: dict[str, Any] = {
    "id": f"dlv_{DIGITS}",
    "status": "delivered",
    "event_type": "job.succeeded",
    "origin": "https://receiver.example.com",
    "created_at": TIME,
    "attempts": [TRY] * 3,
    "attempt_count": 31,
    "payload": {},
}
ATTEMPT: dict[str, Any] = {
    "number": 1,
    "worker": WORKER_ID,
    "outcome": "succeeded",
    "error": {"code": "context_length_exceeded"},
    "engine": ENGINE_URL,
    "claimed_at": TIME,
    "ended_at": "2026-11-23T10:02:00.000Z",
    "generations": [{"usage": {"output_tokens": 16_384}}],
}
CHANGE = {
    "id": 1,
    "at": TIME,
    "actor": ACTOR,
    "action": "cancel_requested",
    "changes": {"status": "succeeded", "answer": LONG},
}
BATCH: dict[str, Any] = {
    "id": f"batch_{DIGITS}",
    "status": "in_progress",
    "request_counts": {"total": 50_000, "completed": 10_000, "failed": 10_000},
    "endpoint": "/v1/chat/completions",
    "created_at": 1_764_000_000,
}
FILE: dict[str, Any] = {
    "id": f"file-{DIGITS}",
    "purpose": "batch_output",
    "bytes": 200 * 2**20,
    "created_at": 1_764_000_000,
    "filename": "the questions of the night from the production database of the web shop.jsonl",
}
PATHS = {
    "/v1/batches": [BATCH] * 3,
    "/v1/files": [FILE] * 3,
    "/v1/jobs": JOBS,
    "/v1/operations": [OPERATION] * 3,
    f"/v1/operations/op_{DIGITS}/jobs": [LEFT] * 3,
    "/v1/engines": [ENGINE] * 3,
    "/v1/workers": [WORKER] * 3,
    "/v1/quarantine": [IMAGE] * 3,
    "/v1/webhook_endpoints": [ENDPOINT] * 3,
    f"/v1/webhook_endpoints/we_{DIGITS}/deliveries": [DELIVERY] * 3,
    f"/v1/jobs/job_{DIGITS}/deliveries": [DELIVERY] * 3,
    "/v1/deliveries": [DELIVERY] * 3,
    f"/v1/jobs/job_{DIGITS}/attempts": [ATTEMPT] * 3,
    f"/v1/jobs/job_{DIGITS}/timeline": [CHANGE] * 3,
}
#: Lists that end with a hint to the next page -> the beginning of their rows.
PAGED = {
    "jobs ls --status failed --metadata 'case=4 2' --limit 3 -- 'created:<2h'": "job_",
    "operations ls --limit 3": "op_",
    "batches ls --limit 3": "batch_",
    "files ls --limit 3": "file-",
    f"operations show op_{DIGITS} --left": "job_",
    "quarantine ls --limit 3": "img_",
    "webhooks ls --limit 3": "we_",
    "webhooks ls --failed --limit 3": "dlv_",
    f"webhooks show we_{DIGITS}": "dlv_",
    f"webhooks show job_{DIGITS}": "dlv_",
}
#: Other lists -> the beginning of their rows.
WHOLE = {
    "jobs ls": "job_",
    "jobs stats 'created:<1d'": "acct_",
    "engines ls": ENGINE_URL,
    "workers ls": WORKER_ID,
    f"jobs attempts job_{DIGITS}": "1 ",
    f"jobs timeline job_{DIGITS}": TIME,
    f"webhooks show dlv_{DIGITS}": "10 ",
    "queue": WORKER_ID,
    "keys ls": "key_",
    "accounts ls": "acct_",
}


def lists() -> dict[str, list[Canned]]:
    """Return the responses of the API; those about jobs are for the commands in their order."""
    answers = {
        f"GET {path}": [
            Canned(200, {"data": rows, "has_more": True, "last_id": next(iter(rows[-1].values()))})
        ]
        for path, rows in PATHS.items()
    }
    # All pages of a timeline, and those of a sum, are read.
    answers[f"GET /v1/jobs/job_{DIGITS}/timeline"] = [
        Canned(200, {"data": [CHANGE] * 3, "has_more": False})
    ]
    first, last = (
        {"data": JOBS, "has_more": more, "last_id": JOBS[0]["id"]} for more in (True, False)
    )
    answers["GET /v1/jobs"] = [Canned(200, first), Canned(200, first), Canned(200, last)]
    answers |= {
        "GET /v1/queue": [Canned(200, QUEUE)],
        f"GET /v1/operations/op_{DIGITS}": [Canned(200, OPERATION)],
        f"GET /v1/webhook_endpoints/we_{DIGITS}": [Canned(200, ENDPOINT)],
        f"GET /v1/deliveries/dlv_{DIGITS}": [Canned(200, DELIVERY)],
    }
    return answers


@pytest.fixture(scope="module")
def home(upgraded: Path) -> Path:
    for number, expires in enumerate(([], ["--expires", "90d"])):
        account = f"a-customer-with-a-long-name-{number}"
        name = ["--account", account, "--name", "the key of the web shop"]
        assert local(upgraded, "keys", "create", *name, *expires)[0] == 0
    return upgraded


@pytest.fixture(scope="module", params=[80, 140])
def printed(
    request: pytest.FixtureRequest,
    home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[int, dict[str, list[str]]]:
    """Return the width of the terminal, and the lines that each command prints there."""
    script = tmp_path_factory.mktemp("widths") / "commands"
    script.write_text("\n".join([*PAGED, *WHOLE]) + "\n")
    with serving(lists()) as api:
        text = terminals.on_a_terminal(
            api,
            str(script),
            width=request.param,
            program=PROGRAM,
            LONGLOOK_HOME=str(home),
            LONGLOOK_PEPPER="pepper",
        )
    commands: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            lines = commands.setdefault(line.removeprefix("$ "), [])
        else:
            lines.append(line)
    return request.param, commands


def rows(lines: list[str], begin: str) -> list[str]:
    """Return the lines that begin like this: with fewer digits of an id, where it is cut."""
    return [line for line in lines if line.startswith(begin)]


@pytest.mark.parametrize(("command", "begin"), [*PAGED.items(), *WHOLE.items()])
def test_each_row_is_one_line(
    printed: tuple[int, dict[str, list[str]]], command: str, begin: str
) -> None:
    width, commands = printed
    lines = [line for line in commands[command] if not line.startswith("more: ")]
    assert [line for line in lines if cell_len(line) > width] == []
    begins = rows(lines, begin)
    assert len(begins) >= (1 if command == "queue" else 2 if "s ls" in command else 3)
    # All rows follow each other: none was wrapped or became a block.
    at = lines.index(begins[0])
    assert lines[at : at + len(begins)] == begins
    assert at > 0
    assert lines[at - 1].strip(), "the names of the columns are missing"
    # Whole ids where there is room, and enough of them to name one where there is not.
    digits = 16 if width < 120 else 32
    if begin.endswith("_") and not command.startswith("operations show"):
        kind, _, rest = begins[0].split()[0].partition("_")
        assert (kind, len(rest)) == (begin.removesuffix("_"), digits)


@pytest.mark.parametrize("command", PAGED)
def test_the_hint_to_the_next_page_is_one_line_and_repeats_all(
    printed: tuple[int, dict[str, list[str]]], command: str
) -> None:
    _, commands = printed
    [hint] = [line for line in commands[command] if line.startswith("more: ")]
    words, given = shlex.split(hint.removeprefix("more: longlook ")), shlex.split(command)
    at = words.index("--after")
    assert words[at + 1].endswith(DIGITS)
    assert sorted([*words[:at], *words[at + 2 :]]) == sorted(given)


def test_every_list_is_tried() -> None:
    tried = {tuple(shlex.split(command)[:2]) for command in [*PAGED, *WHOLE]}
    app = main.make_app(main.COMMANDS)
    for group in app.registered_groups:
        assert isinstance(group.typer_instance, typer.Typer)
        for command in group.typer_instance.registered_commands:
            if command.name == "ls":
                assert (group.name, "ls") in tried
