"""The two programs: lmms-eval over ``/v1/chat/completions``, and ``longlook eval``, on the same file."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.environments.build import is_whole
from models.training import exam
from tests.harness.answers import Answer, Answers

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = ROOT / ".venv-harness" / "bin" / "python"
#: The folder of the task, which a user passes, too.
TASKS: Final = Path(__file__).resolve().parent / "lmms-eval"
#: The task reads this file in the current folder.
FILE: Final = "scenes.jsonl"
#: The text that lmms-eval has in place of the answer when a request failed, and when the answer is null.
FAILED: Final = "[LMMS_EVAL_REQUEST_FAILED"
NO_ANSWER: Final = "None"
_TOKENS: Final = 512
_CONCURRENT: Final = 8


class Missing(Exception):
    """lmms-eval is not installed: ``make harness`` installs it."""


class Failed(Exception):
    """A program ended with an error; the message has its output."""


@dataclass(frozen=True)
class Target:
    """The service that is asked."""

    url: str
    key: str
    model: str


def draw(folder: Path, count: int, seed: int) -> list[str]:
    """Write a data set of new scenes of the exam into a folder; return the ids of the questions."""
    lines = []
    for number, sheet in enumerate(exam.sheets(count, seed)):
        sheet.image.save(folder / f"{number}.png")
        lines.append(
            {
                "id": f"scene-{number}",
                "image": f"{number}.png",
                "question": sheet.question,
                "answer": sheet.answer,
                "kind": sheet.kind,
            }
        )
    (folder / FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return [str(line["id"]) for line in lines]


def check() -> None:
    """Raise :class:`Missing` unless lmms-eval is installed."""
    if not is_whole(PYTHON):
        raise Missing("lmms-eval is not installed; run `make harness`.")


def lmms_eval_command(target: Target, output: Path) -> list[str]:
    """Return the command that runs the task in the folder of the data set."""
    model = f"model={target.model},base_url={target.url}/v1,num_concurrent={_CONCURRENT}"
    return [
        *("-m", "lmms_eval", "--model", "openai", "--model_args", model),
        *("--tasks", "scenes", "--include_path", str(TASKS)),
        *("--gen_kwargs", f"max_new_tokens={_TOKENS},temperature=0", "--batch_size", "1"),
        *("--log_samples", "--output_path", str(output)),
    ]


def lmms_eval(folder: Path, target: Target) -> Answers:
    """Return the answers that lmms-eval gets for the data set in a folder.

    Raises:
        Missing: it is not installed.
        Failed: it ended with an error.
    """
    check()
    output = folder / "lmms-eval"
    # It needs no network but the service, and keeps its caches in the home directory.
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HOME": str(folder)}
    command = lmms_eval_command(target, output)
    _run(PYTHON, command, folder, offline | {"OPENAI_API_KEY": target.key})
    [samples] = output.glob("*/*_samples_scenes.jsonl")
    ids = [line["id"] for line in _lines(folder / FILE)]
    return {ids[line["doc_id"]]: _answer(line) for line in _lines(samples)}


def _answer(sample: dict[str, Any]) -> Answer:
    """Return the answer in a line of lmms-eval's log: a failed request is one with a text of its own there."""
    text = str(sample["filtered_resps"])
    return Answer(
        text=None if text == NO_ANSWER or text.startswith(FAILED) else text,
        right=sample["accuracy"] == 1,
        error=text if text.startswith(FAILED) else None,
    )


def longlook_eval(folder: Path, target: Target) -> Answers:
    """Return the answers that ``longlook eval`` gets for the data set in a folder.

    Raises:
        Failed: it ended with an error.
    """
    report = folder / "longlook-eval"
    command = [
        *("eval", FILE, "--to", str(report)),
        *("--max-output-tokens", str(_TOKENS), "--temperature", "0"),
    ]
    service = {"LONGLOOK_URL": target.url, "LONGLOOK_API_KEY": target.key}
    program = Path(sys.executable).with_name("longlook")
    _run(program, command, folder, {"LONGLOOK_HOME": str(folder), "HOME": str(folder), **service})
    return {
        line["id"]: Answer(line["text"], line["right"], line["error"])
        for line in _lines(report / "results.jsonl")
    }


def _run(program: Path, arguments: Sequence[str], folder: Path, variables: dict[str, str]) -> None:
    """Run a program in a folder, with these variables and the search path alone."""
    command = [str(program), *arguments]
    ended = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise Failed(f"{ended.stdout}\nThis failed with {ended.returncode}: {shlex.join(command)}")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
