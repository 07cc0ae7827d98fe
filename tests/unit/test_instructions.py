"""The instruction about the format of the answer: its place, its language, and the models that get one."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Any

import pytest

from core import profiles
from jobs.answers import instructions, values
from jobs.store import claims
from worker.run import prompt

SCHEMA = {"type": "object", "properties": {"数": {"type": "integer"}}, "required": ["数"]}
FORMATS: list[dict[str, Any]] = [
    {"type": "number"},
    {"type": "boolean"},
    {"type": "choice", "options": ["red", "深绿"]},
    {"type": "json_schema", "schema": SCHEMA},
]


@pytest.mark.parametrize(
    "answer_format", FORMATS, ids=lambda answer_format: str(answer_format["type"])
)
def test_the_instruction_is_in_the_questions_language(answer_format: dict[str, Any]) -> None:
    english = instructions.suffix("How many pelicans?", answer_format, profiles.QVQ)
    chinese = instructions.suffix("图中有几只鹈鹕？", answer_format, profiles.QVQ)  # noqa: RUF001 - Chinese as written

    assert english.startswith("\n\n")
    assert "final answer" in english
    assert chinese.startswith("\n\n")
    assert "最终答案" in chinese


def test_options_have_letters_that_an_answer_can_name() -> None:
    options = [f"option {number}" for number in range(26)]
    text = instructions.suffix("Which?", {"type": "choice", "options": options}, profiles.QVQ)

    lines = text.split("\n")
    assert lines[2] == "A. option 0"
    for line, option in zip(lines[2:28], options, strict=True):
        assert values.choice(line[0], options) == option
        assert values.choice(line, options) == option


def test_the_instruction_contains_the_whole_schema() -> None:
    text = instructions.suffix("What?", {"type": "json_schema", "schema": SCHEMA}, profiles.QVQ)

    assert json.loads(text.rpartition("\n")[2]) == SCHEMA


@pytest.mark.parametrize("answer_format", [None, {"type": "free"}])
def test_without_a_format_there_is_no_instruction(answer_format: dict[str, Any] | None) -> None:
    assert instructions.suffix("How many?", answer_format, profiles.QVQ) == ""


def test_a_model_not_trained_on_instructions_gets_none() -> None:
    assert [
        instructions.suffix("How many?", answer_format, profiles.TINY) for answer_format in FORMATS
    ] == [""] * 4


def test_the_instruction_follows_the_question_and_the_images() -> None:
    claim = claims.Claim(
        job_id=uuid.uuid4(),
        attempt=1,
        owner="me",
        account_id=uuid.uuid4(),
        model="qvq",
        question="How many?",
        options={"answer_format": {"type": "number"}},
        images=(),
        failures=0,
        max_attempts=1,
        request_id="req_test",
        quarantined=False,
    )

    built = prompt.build(claim, images=(), profile=profiles.QVQ, rid="a" * 32)
    plain = dataclasses.replace(built, instruction="")

    assert built.question == "How many?"
    assert built.requested == "How many?" + instructions.suffix(
        "How many?", {"type": "number"}, profiles.QVQ
    )
    text = prompt.messages(built)["messages"][1]["content"][-1]["text"]
    assert text == built.requested
    assert prompt.messages(plain)["messages"][0] == prompt.messages(built)["messages"][0]
