"""What a model is told about the form of its answer: behind the question, in its language, if it listens at all."""

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
    {"type": "json_object"},
]


@pytest.mark.parametrize("wanted", FORMATS, ids=lambda wanted: str(wanted["type"]))
def test_the_instruction_is_in_the_questions_language(wanted: dict[str, Any]) -> None:
    english = instructions.behind("How many pelicans?", wanted, profiles.QVQ)
    chinese = instructions.behind("图中有几只鹈鹕？", wanted, profiles.QVQ)  # noqa: RUF001 - Chinese as written

    assert english.startswith("\n\n")
    assert "final answer" in english
    assert chinese.startswith("\n\n")
    assert "最终答案" in chinese


def test_options_are_listed_with_letters() -> None:
    options = [f"option {number}" for number in range(26)]
    reported = instructions.behind("Which?", {"type": "choice", "options": options}, profiles.QVQ)

    lines = reported.split("\n")
    assert lines[2] == "A. option 0"
    for line, option in zip(lines[2:28], options, strict=True):
        assert values.choice(line[0], options) == option
        assert values.choice(line, options) == option


def test_the_instruction_contains_the_complete_schema() -> None:
    reported = instructions.behind("What?", {"type": "json_schema", "schema": SCHEMA}, profiles.QVQ)

    assert json.loads(reported.rpartition("\n")[2]) == SCHEMA


@pytest.mark.parametrize("wanted", [None, {"type": "free"}])
def test_without_an_answer_format_there_is_no_instruction(wanted: dict[str, Any] | None) -> None:
    assert instructions.behind("How many?", wanted, profiles.QVQ) == ""


def test_a_model_that_cannot_follow_instructions_gets_none() -> None:
    assert [instructions.behind("How many?", wanted, profiles.TINY) for wanted in FORMATS] == [
        ""
    ] * len(FORMATS)


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
    assert built.requested == "How many?" + instructions.behind(
        "How many?", {"type": "number"}, profiles.QVQ
    )
    reported = prompt.messages(built)["messages"][1]["content"][-1]["text"]
    assert reported == built.requested
    assert prompt.messages(plain)["messages"][0] == prompt.messages(built)["messages"][0]
