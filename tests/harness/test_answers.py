"""What the comparison with a public harness finds, and that its page and its lock file name the same version."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cli.evaluation.summary import wilson
from tests.harness import programs
from tests.harness.answers import Answer, accuracy, faults

RIGHT = Answer("4", right=True)
FAILED = Answer(None, right=False, error="[LMMS_EVAL_REQUEST_FAILED after 5 retries] refused")
PAGE = (programs.ROOT / "docs" / "how-to" / "evaluate.md").read_text(encoding="utf-8")


def test_the_same_answers_are_no_fault_also_when_they_are_wrong_or_missing() -> None:
    same = {"a": RIGHT, "b": Answer("5", right=False), "c": Answer(None, right=False)}

    assert list(faults(["a", "b", "c"], {"one": same, "other": dict(same)})) == []


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (replace(RIGHT, text="5"), "b: the answers differ: one: '4', right; other: '5', right"),
        (replace(RIGHT, right=False), "b: the answers differ: one: '4', right; other: '4', wrong"),
        (FAILED, f"b: other failed: {FAILED.error}"),
        (None, "b: other has no line"),
    ],
)
def test_each_fault_is_named_with_its_question(other: Answer | None, fault: str) -> None:
    given = {"a": RIGHT} | ({} if other is None else {"b": other})

    found = list(faults(["a", "b"], {"one": {"a": RIGHT, "b": RIGHT}, "other": given}))

    assert found == [fault]


def test_failed_requests_count_as_wrong_and_are_counted() -> None:
    counted = accuracy({"a": RIGHT, "b": RIGHT, "c": RIGHT, "d": FAILED})

    assert (counted.right, counted.questions, counted.failed) == (3, 4, 1)
    assert counted.share == 0.75
    assert (counted.low, counted.high) == wilson(3, 4)


def test_the_data_set_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ids = programs.draw(tmp_path / name, 9, seed=3)
        texts.append((tmp_path / name / programs.FILE).read_text())

    lines = [json.loads(line) for line in texts[0].splitlines()]
    assert texts[0] == texts[1]
    assert [line["id"] for line in lines] == ids
    assert all((tmp_path / "one" / line["image"]).is_file() for line in lines)


def test_the_page_has_the_version_and_the_command_of_the_test() -> None:
    config = tomllib.loads((programs.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = (programs.ROOT / "requirements" / "harness.txt").read_text(encoding="utf-8")
    [version] = re.findall(r"lmms_eval==(\S+)", str(config["dependency-groups"]["harness"][0]))
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    [command] = [block for block in blocks if "--tasks scenes" in block]

    shown = set(re.findall(r"--\w+", command))

    target = programs.Target("http://127.0.0.1:8700", "key", "tiny-qvq")
    used = programs.lmms_eval_command(target, Path("results"))
    assert shown == {part for part in used if part.startswith("--")}
    assert used[used.index("--gen_kwargs") + 1] in command
    assert set(re.findall(r"lmms_eval==([\d.]+)", PAGE)) == {version}
    assert f"\nlmms-eval=={version} " in lock
    assert programs.TASKS.relative_to(programs.ROOT).as_posix() in command


def test_the_task_reads_the_file_of_the_data_set_and_grades_with_functions_that_exist() -> None:
    text = (programs.TASKS / "scenes.yaml").read_text(encoding="utf-8")
    # A tag of lmms-eval, before the name of a function.
    task = yaml.safe_load(text.replace("!function ", ""))
    functions = {name for name in task.values() if str(name).startswith("scenes.")}
    code = (programs.TASKS / "scenes.py").read_text(encoding="utf-8")

    assert task["dataset_kwargs"] == {"data_files": {"test": programs.FILE}}
    assert functions == {f"scenes.{name}" for name in re.findall(r"^def (\w+)", code, re.MULTILINE)}
