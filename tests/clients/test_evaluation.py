"""``longlook eval`` against the running service: what it reports, and how it ends with faults and interruptions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.client import Client
from cli.evaluation import runs
from core import ids
from core.database import Database
from jobs.records.files import BatchEntry
from tests import children
from tests.api import image_files
from tests.clients.service import Service
from tests.e2e.stack import BIN, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def data_set(folder: Path, *lines: dict[str, Any] | str) -> Path:
    """Write a data set next to two images and a damaged one; return its path."""
    for name, seed in (("a.png", 1), ("b.png", 2)):
        (folder / name).write_bytes(image_files.png(seed=seed))
    (folder / "damaged.png").write_bytes(image_files.png()[:60])
    path = folder / "set.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def command(service: Service, path: Path, *more: str) -> list[str]:
    """Return the command that evaluates a data set with the service."""
    assignments = [
        f"PATH={os.environ['PATH']}",
        f"HOME={path.parent}",
        f"LONGLOOK_HOME={path.parent}",
        f"LONGLOOK_URL={service.stack.url}",
        f"LONGLOOK_API_KEY={service.key}",
    ]
    return ["env", "-i", *assignments, str(BIN / "longlook"), "eval", str(path), *more]


def evaluate(service: Service, path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Evaluate a data set; return the exit code and what was printed."""
    return subprocess.run(
        command(service, path, *more), capture_output=True, text=True, timeout=240, check=False
    )


def results(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the report."""
    text = (path.parent / f"{path.name}.eval" / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_kind_of_line_is_asked_and_the_figures_are_those_of_the_jobs(
    service: Service, tmp_path: Path
) -> None:
    data = image_files.data_url(image_files.png(seed=3))
    path = data_set(
        tmp_path,
        {"images": ["a.png", "b.png"], "question": "How many?", "answer": list(range(9))},
        {"image": data, "question": "Which?", "answer": "B", "choices": {"A": "x", "B": "y"}},
        "",
        {"question": "Is 2 even?", "answer": [True, False], "kind": "text"},
        {"id": "f", "image": "a.png", "question": "How? [[behavior:no_marker]]", "answer": 1},
        {"id": "r", "image": "a.png", "question": "How? [[behavior:refuse]]", "answer": 1},
        {"id": "u", "image": "http://192.0.2.1/a.png", "question": "How?", "answer": 1},
    )

    completed = evaluate(service, path, "-o", "json")

    assert completed.returncode == 0, completed.stderr
    *_, total = json.loads(completed.stdout)
    lines = results(path)
    assert [line["id"] for line in lines] == ["1", "2", "4", "f", "r", "u"]
    assert [line["right"] for line in lines if line["id"] in {"1", "4"}] == [True, True]
    assert [line["error"] for line in lines[4:]] == ["engine_rejected", "invalid_image_url"]
    assert (total["questions"], total["failed"]) == (6, 2)
    assert total["forced"] == pytest.approx(1 / 6)
    assert total["answered"] == pytest.approx(4 / 6)
    assert total["right"] == sum(line["right"] for line in lines)
    for line in lines[:5]:
        response = service.client().responses.retrieve(f"resp_{line['job'].removeprefix('job_')}")
        assert (response.metadata or {})["eval_line"] in {"1", "2", "4", "5", "6"}
        if line["error"] is None:
            assert response.usage is not None
            assert line["output_tokens"] == response.usage.output_tokens
            assert line["input_tokens"] == response.usage.input_tokens
    assert total["output_tokens"] == sum(line["output_tokens"] for line in lines) / 6


def test_all_images_that_the_service_refuses_are_named_with_their_lines(
    service: Service, tmp_path: Path
) -> None:
    path = data_set(
        tmp_path,
        {"image": "damaged.png", "question": "How many?", "answer": 1},
        {"image": "a.png", "question": "How many?", "answer": 1},
        {"images": ["a.png", "set.jsonl"], "question": "How many?", "answer": 1},
        {"image": "damaged.png", "question": "Which?", "answer": 1},
    )

    refused = evaluate(service, path)

    assert refused.returncode == 2
    places = [line.split(":")[0].strip() for line in refused.stderr.splitlines()[1:]]
    assert places == ["line 1", "line 3", "line 4"]
    # A corrected file needs no other folder: nothing was submitted.
    path.write_text(json.dumps({"image": "a.png", "question": "How many?", "answer": 1}))
    assert evaluate(service, path).returncode == 0


def test_a_fault_of_the_options_is_named_once_and_leaves_nothing_behind(
    service: Service, tmp_path: Path
) -> None:
    line = {"image": "a.png", "question": "How many?", "answer": 1}
    path = data_set(tmp_path, "", line, line)

    refused = evaluate(service, path, "--guard", "lop=off")

    assert refused.returncode == 2
    *_, fault = refused.stderr.strip().splitlines()
    assert fault.strip() == "line 2 and 1 more: options.guards.lop: There is no such field."
    assert evaluate(service, path, "--guard", "loop=off").returncode == 0


def test_an_interrupted_evaluation_goes_on_across_restarts_and_asks_nothing_twice(
    service: Service, tmp_path: Path
) -> None:
    question = {"image": "a.png", "question": "How many?", "answer": 1}
    path = data_set(tmp_path, *[question] * 60)
    state = tmp_path / "set.jsonl.eval" / "state.json"

    def submitted() -> bool:
        return state.exists() and json.loads(state.read_bytes())["batch_id"] is not None

    # No answer comes before the interruption.
    service.stack.stop_workers()
    first = children.spawn(command(service, path), folder=tmp_path)
    assert eventually(submitted)
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    assert "Repeat the command" in (tmp_path / "log").read_text()
    second = children.spawn(command(service, path), folder=tmp_path)
    service.restart()
    assert second.wait(240) in {0, 3}  # 3: it began before the service was back.

    assert evaluate(service, path).returncode == 0

    lines = results(path)
    assert len({line["job"] for line in lines}) == len(lines) == 60
    assert [line["error"] for line in lines] == [None] * 60
    run = json.loads(state.read_bytes())["run"]
    listed = Client(service.stack.url, key=service.key).look(
        "/v1/jobs", q=f"meta.eval:{run}", limit=100
    )
    assert len(listed["data"]) == 60


def test_a_folder_is_used_by_one_evaluation_at_a_time(service: Service, tmp_path: Path) -> None:
    path = data_set(tmp_path, {"image": "a.png", "question": "How many?", "answer": 1})
    folder = tmp_path / "set.jsonl.eval"
    with runs.locked(folder):
        refused = evaluate(service, path)

        assert refused.returncode == 2
        assert "Another `longlook eval` uses the folder" in refused.stderr
        assert [entry.name for entry in folder.iterdir()] == ["lock"]
    assert evaluate(service, path).returncode == 0


def test_an_evaluation_whose_file_is_gone_before_its_batch_uploads_it_again(
    service: Service, tmp_path: Path
) -> None:
    path = data_set(tmp_path, {"image": "a.png", "question": "How many?", "answer": 1})
    state = tmp_path / "set.jsonl.eval" / "state.json"
    assert evaluate(service, path, "--window", "soon").returncode == 2
    service.client().files.delete(json.loads(state.read_bytes())["file_id"])

    completed = evaluate(service, path)

    assert completed.returncode == 0, completed.stderr
    assert results(path)[0]["error"] is None


def test_a_report_stays_when_the_service_no_longer_has_its_answers(
    service: Service, tmp_path: Path
) -> None:
    line = {"image": "a.png", "question": "How many?", "answer": 1}
    path = data_set(tmp_path, line, line)
    assert evaluate(service, path).returncode == 0
    before = results(path)
    job = before[0]["job"].removeprefix("job_")
    service.client().responses.delete(f"resp_{job}")

    again = evaluate(service, path)

    assert again.returncode == 2
    assert "does not have 1 of 2 answers any more" in again.stderr
    assert results(path) == before
    (tmp_path / "set.jsonl.eval" / "report.html").unlink()
    assert evaluate(service, path).returncode == 0
    assert [each["error"] for each in results(path)] == ["response_deleted", None]


def test_a_batch_that_ended_before_it_ran_is_asked_again_by_a_repeat(
    service: Service, tmp_path: Path
) -> None:
    path = data_set(tmp_path, {"image": "a.png", "question": "How many?", "answer": 1})
    assert evaluate(service, path).returncode == 0
    state = tmp_path / "set.jsonl.eval" / "state.json"
    batch_id = ids.parse("batch", json.loads(state.read_bytes())["batch_id"])
    with (
        contextlib.closing(Database(service.stack.database_url)) as database,
        database.transaction() as transaction,
    ):
        # As if it had been cancelled while it was validated.
        transaction.update(
            BatchEntry, BatchEntry.id == batch_id, status="cancelled", in_progress_at=None
        )

    refused = evaluate(service, path)

    assert refused.returncode == 2
    assert "is cancelled and has run no question" in refused.stderr
    assert evaluate(service, path).returncode == 0
    assert ids.parse("batch", json.loads(state.read_bytes())["batch_id"]) != batch_id
