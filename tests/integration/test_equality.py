"""Whether two answers say the same: by the job's format, by text, by mathematics in a child that can be killed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobs.sandbox import Sandbox, SandboxTimeout
from tests.fakes import NoSandbox
from worker import equality
from worker.equality import Equality

NO_MATHEMATICS = Equality(NoSandbox())
JSON: dict[str, Any] = {"type": "json_schema", "schema": {"type": "object"}}
CHOICE = {"type": "choice", "options": ["red", "green"]}


class Deadly:
    """A sandbox in which every formula takes for ever."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Give up."""
        del payload, arguments
        self.calls += 1
        raise SandboxTimeout("The call took too long.")


@pytest.fixture(scope="module")
def mathematics() -> Iterator[Sandbox]:
    with Sandbox(
        equality.TARGET,
        processes=1,
        seconds=equality.SECONDS,
        memory_mb=equality.MEMORY_MB,
        imports_late=True,
    ) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("Red.", " red", True),
        ("left  of it", "left of it", True),
        ("６", "6", True),  # noqa: RUF001 - a full-width digit
        ("10²", "102", False),
        ("red", "blue", False),
        ("6 red", "6 blue", False),
    ],
)
def test_texts_are_the_same_but_for_case_width_spaces_and_a_full_stop(
    one: str, other: str, *, wanted: bool
) -> None:
    assert NO_MATHEMATICS.of(None)(one, other) is wanted


@pytest.mark.parametrize(
    ("answer_format", "one", "other", "wanted"),
    [
        (CHOICE, "A", "red", True),
        (CHOICE, "(B) green", "Green", True),
        (CHOICE, "A", "B", False),
        ({"type": "number"}, "six circles", "6", True),
        ({"type": "number"}, "50 %", "1/2", True),
        ({"type": "number"}, "6", "7", False),
        ({"type": "boolean"}, "Yes, it is.", "true", True),
        ({"type": "boolean"}, "yes", "no", False),
        (JSON, '{"a": [1, "x"], "b": 2}', '{ "b": 2.0, "a": [1, "x"] }', True),
        (JSON, '{"a": true}', '{"a": 1}', False),
        (JSON, '{"a": [1]}', '{"a": [1, 2]}', False),
        (JSON, '{"a": 1}', '{"b": 1}', False),
    ],
)
def test_what_the_format_reads_is_compared(
    answer_format: dict[str, Any], one: str, other: str, *, wanted: bool
) -> None:
    assert NO_MATHEMATICS.of(answer_format)(one, other) is wanted


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("6", "6.0", True),
        ("\\frac{1}{2}", "0.5", True),
        ("50\\%", "0.5", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("x^2+1", "1+x^2", True),
        ("x=3", "3", True),
        ("3", "x=3", True),
        ("6 \\text{ circles}", "6", True),
        ("6", "7", False),
        ("5 km", "5km", True),
        ("5 km", "5 m", False),
        ("6 \\text{ red}", "6 \\text{ blue}", False),
        ("5 \\text{ m}", "5 \\mathrm{m}", True),
        ("the number 5 bus", "the number 5 tram", False),
        ("e^2", "\\exp(2)", True),
        ("192.168.0.1", "192.168.0.2", False),
        ("\\pi", "3.14", False),
        ("\\boxed{", "6", False),
    ],
)
def test_formulas_are_compared_as_formulas(
    mathematics: Sandbox, one: str, other: str, *, wanted: bool
) -> None:
    assert Equality(mathematics).of(None)(one, other) is wanted


def test_a_formula_that_takes_for_ever_is_compared_as_text_and_the_next_one_as_a_formula() -> None:
    with Sandbox(
        equality.TARGET, processes=1, seconds=0.5, memory_mb=equality.MEMORY_MB
    ) as impatient:
        same = Equality(impatient).of(None)

        assert not same("10^{10^{10}}", "7")
        assert impatient.pids == frozenset()

        assert same("10^{10^{10}}", "10^{10^{10}} ")
        assert same("6", "6.0")


def test_a_vote_on_formulas_that_never_end_gives_the_child_up_to_others_after_two() -> None:
    deadly = Deadly()
    same = Equality(deadly).of(None)

    assert not any(same(f"9^{{9^{number}}}", "7") for number in range(9))

    assert deadly.calls == 2
    assert not Equality(deadly).of(None)("1", "2")
    assert deadly.calls == 3


def test_long_texts_and_plain_words_are_no_formulas() -> None:
    assert not equality.formulas("red", "blue")
    assert not equality.formulas("1" * 400, "2")
    assert equality.formulas("a+b", "b+a")
