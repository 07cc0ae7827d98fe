"""What commands show while they wait, in pipes and on terminals, and after Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import job_waiting
from tests.cli.commands import GROUP, GROUP_ID, JOB, JOB_ID, group
from tests.cli.fake_api import Canned, FakeApi, delta, events, job, serving
from tests.cli.terminals import UPDATE, environment, on_a_terminal, screen

#: A shell may have started the tests with SIGINT ignored.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from cli.main import run; run(sys.argv[1:])"
)
AT_ONCE = {"Retry-After": "0"}
QUEUED = job("queued", queue={"position": 2, "eta_seconds": 40})
STATES = [
    job("queued", queue={"position": 2, "eta_seconds": 40}),
    job("queued", queue={"position": 1, "eta_seconds": 5, "paused": True}),
    job("running", progress={"output_tokens": 12, "samples_done": 0}),
    job("running", progress={"output_tokens": 12, "samples_done": 0}),
    job("running", progress={"output_tokens": 40, "samples_done": 1}, options={"samples": 3}),
]
NO_WORKER = {"checks": {"database": "ok", "workers": "degraded"}}
NO_ENGINE = {"checks": {"database": "ok", "workers": "ok", "engines": "degraded"}}
READY = {"checks": {"database": "ok", "workers": "ok"}}


def answers(*, ready: list[Canned] | None = None) -> dict[str, list[Canned]]:
    """Return the life of a job, as a command that waits for it sees it."""
    lives = [*(Canned(200, state, AT_ONCE) for state in STATES), Canned(200, job("succeeded"))]
    return {
        "POST /v1/jobs": [Canned(202, QUEUED)],
        f"GET {JOB}": lives,
        "GET /readyz": ready or [Canned(200, NO_WORKER), Canned(200, READY)],
    }


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    path.write_bytes(b"picture")
    return str(path)


def piped(api: FakeApi, *words: str) -> tuple[str, str]:
    """Run a command in a pipe; return stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        check=True,
        text=True,
        env=environment(api),
        timeout=60,
    )
    return done.stdout, done.stderr


LINES = [
    f"{JOB_ID} is queued, position 2, starts in about 40s; {job_waiting.LACKS['workers']}",
    f"{JOB_ID} is queued, position 2, starts in about 40s",
    f"{JOB_ID} is queued, position 1, starts in about 5s, its part of the queue is paused",
    f"{JOB_ID} is running, 12 tokens so far",
    f"{JOB_ID} is running, 40 tokens so far, 1 of 3 samples done",
]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_pipe_gets_the_result_and_stderr_each_change(image: str, *, as_json: bool) -> None:
    with serving(answers()) as api:
        out, err = piped(
            api, "submit", image, "How many?", "--wait", *(["--json"] if as_json else [])
        )
    assert err.splitlines() == LINES
    if as_json:
        assert json.loads(out)["status"] == "succeeded"
    else:
        assert out.splitlines()[0] == "answer: 6"


def test_a_terminal_has_one_line_that_is_updated_and_removed(image: str) -> None:
    with serving(answers()) as api:
        text = on_a_terminal(api, "submit", image, "How many?", "--wait", width=200, updates=True)
    shown = text.split(UPDATE)
    assert [part for part in shown if part.startswith(JOB_ID)] == LINES
    assert screen(text)[0] == "answer: 6"
    assert JOB_ID not in "\n".join(screen(text))


def test_the_line_of_a_terminal_is_cut_and_never_wrapped(image: str) -> None:
    with serving(answers()) as api:
        text = on_a_terminal(api, "submit", image, "How many?", "--wait", width=60, updates=True)
    parts = [part for part in text.split(UPDATE) if part.startswith(JOB_ID)]
    assert len(parts) == len(LINES)
    assert max(map(len, parts)) < 60


def test_operators_read_why_the_engine_is_away(image: str) -> None:
    away = [Canned(200, NO_ENGINE)]
    queue = {"engines": [{"url": "http://gpu1:30000", "reason": "it refused the connection"}]}
    with serving(answers(ready=away) | {"GET /v1/queue": [Canned(200, queue)]}) as api:
        _, err = piped(api, "submit", image, "How many?", "--wait")
    assert "no engine answers: jobs wait" in err
    assert "http://gpu1:30000: it refused the connection" in err.splitlines()[0]


def test_a_group_says_how_many_of_its_jobs_have_finished(image: str) -> None:
    more = {
        "POST /v1/groups": [Canned(202, group("queued", "queued"))],
        f"GET {GROUP}": [Canned(200, group("succeeded", "succeeded"))],
    }
    with serving(answers() | more) as api:
        out, err = piped(api, "submit", image, "How many?", "Which?", "--wait")
    assert err.splitlines()[0].startswith(f"0 of 2 jobs have finished; {JOB_ID} is queued")
    assert err.splitlines()[-1].startswith("1 of 2 jobs have finished; ")
    assert out.count("answer: 6") == 2


def test_a_stream_shows_all_samples_and_before_them_the_place_in_the_queue() -> None:
    lives = [
        Canned(200, job("queued", queue={"position": 2}, options={"samples": 2})),
        Canned(200, job("queued", queue={"position": 1})),
        Canned(200, job("running")),
    ]
    stream = events(
        delta("One.\n"),
        delta("Two.\n", sample=1),
        {"type": "job.finished", "job": job("succeeded")},
    )
    more = {f"GET {JOB}": lives, f"GET {JOB}/events": [stream]}
    with serving(answers(ready=[Canned(200, READY)]) | more) as api:
        out, err = piped(api, "jobs", "watch", JOB_ID)
    assert err.splitlines() == [
        f"{JOB_ID} is queued, position 2",
        f"{JOB_ID} is queued, position 1",
    ]
    assert out.splitlines()[:3] == ["│0│ One.", "│1│ Two.", "answer: 6"]


OPERATION: dict[str, Any] = {
    "id": "op_1",
    "status": "running",
    "total": 5,
    "done": 1,
    "skipped": 0,
    "failed": 0,
    "reasons": {},
    "waiting_for": None,
    "error": None,
}
PREVIEW = {"matched": 5, "confirmation_required": False}
WORKER = {
    "id": "w",
    "state": "live",
    "running": 3,
    "slots": 8,
    "version": "1",
    "drain_requested_at": "2026-11-23T10:00:00.000Z",
    "drain_requested_by": "key:key_1",
}
ENGINE = {
    "url": "e",
    "state": "ok",
    "running": 3,
    "cordoned": True,
    "cordoned_at": "2026-11-23T10:00:00.000Z",
    "cordoned_by": "key:key_1",
    "reason": None,
}
#: The wait -> what continues, and how to come back.
WAITS = {
    ("submit", "IMAGE", "How many?", "--wait"): f"longlook jobs watch {JOB_ID}",
    ("submit", "IMAGE", "How many?", "--stream"): f"longlook jobs watch {JOB_ID}",
    ("submit", "IMAGE", "How?", "Which?", "--wait"): f"longlook jobs ls group:{GROUP_ID}",
    ("jobs", "watch", JOB_ID): f"longlook jobs watch {JOB_ID}",
    ("jobs", "cancel", "status:queued", "--wait"): "longlook operations show op_1",
    ("workers", "drain", "w", "--wait"): "longlook workers ls",
    ("engines", "drain", "e"): "longlook engines ls",
}


@pytest.mark.parametrize("words", WAITS, ids=" ".join)
def test_after_ctrl_c_the_command_says_that_it_goes_on_and_how_to_come_back(
    words: tuple[str, ...], image: str
) -> None:
    running = Canned(200, job("running"), {"Retry-After": "1"})
    routes = {
        "POST /v1/jobs": [Canned(202, QUEUED)],
        f"GET {JOB}": [running],
        f"GET {JOB}/events": [Canned(raw=b":\n")],
        "POST /v1/groups": [Canned(202, group("queued", "queued"))],
        "GET /readyz": [Canned(200, READY)],
        "POST /v1/operations": [Canned(200, PREVIEW), Canned(202, OPERATION)],
        "GET /v1/operations/op_1": [Canned(200, OPERATION)],
        "POST /v1/workers/drain": [Canned(200, {"data": [WORKER]})],
        "GET /v1/workers": [Canned(200, {"data": [WORKER]})],
        "POST /v1/engines/cordon": [Canned(200, {"data": [ENGINE]})],
        "GET /v1/engines": [Canned(200, {"data": [ENGINE]})],
    }
    arguments = [image if word == "IMAGE" else word for word in words]
    with (
        serving(routes) as api,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(api),
        ) as command,
    ):
        assert command.stderr is not None
        assert command.stderr.readline()
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert out == ""
    last = err.splitlines()[-1]
    assert "goes on" in last
    assert last.endswith(f"To come back: {WAITS[words]}")
    assert "Traceback" not in err
