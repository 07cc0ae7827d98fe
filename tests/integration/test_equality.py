"""Equality of answers: by the job's format, by text, and by mathematics in a child that can be killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core import errors
from core.sandbox import Sandbox
from jobs.answers import votes
from tests.children import wait_for_names
from tests.fakes import NoSandbox
from tests.integration import formula_targets, sandbox_targets
from worker import equality
from worker.equality import Equality

ACCOUNT, OTHER = (uuid.UUID(int=number) for number in (1, 2))
NO_MATHEMATICS = Equality(NoSandbox(), equality.shares(most_waiting=1))
JSON: dict[str, Any] = {"type": "json_schema", "schema": {"type": "object"}}
CHOICE = {"type": "choice", "options": ["red", "green"]}


class Away:
    """A sandbox whose children cannot be started."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Refuse."""
        del payload, arguments
        self.calls += 1
        raise errors.Unavailable("A sandbox cannot be started.")


def children(target: str = equality.TARGET, processes: int = 1) -> Sandbox:
    return Sandbox(
        target,
        processes=processes,
        seconds=equality.SECONDS,
        memory_mb=equality.MEMORY_MB,
        imports_late=True,
    )


@pytest.fixture(scope="module")
def mathematics() -> Iterator[Equality]:
    with children() as sandbox:
        yield Equality(sandbox, equality.shares(1, most_waiting=1))


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("Red.", " red", True),
        ("left  of it", "left of it", True),
        ("６", "6", True),  # noqa: RUF001 - a full-width digit
        ("10²", "102", False),
        ("red", "blue", False),
        ("6 red", "6 blue", False),
    ],
)
def test_texts_are_equal_apart_from_case_width_spaces_and_a_final_period(
    first: str, second: str, *, equal: bool
) -> None:
    assert NO_MATHEMATICS.of(None, account_id=ACCOUNT)(first, second) is equal


@pytest.mark.parametrize(
    ("answer_format", "first", "second", "equal"),
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
def test_the_typed_values_are_compared(
    answer_format: dict[str, Any], first: str, second: str, *, equal: bool
) -> None:
    assert NO_MATHEMATICS.of(answer_format, account_id=ACCOUNT)(first, second) is equal


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("6", "6.0", True),
        ("\\frac{1}{2}", "0.5", True),
        ("50\\%", "0.5", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("x^2+1", "1+x^2", True),
        ("x=3", "3", True),
        ("3", "x=3", True),
        ("6 \\text{ circles}", "6", False),
        ("6", "2 \\cdot 3", True),
        ("7\\pi", "7π", True),
        ("x + y", "y + x", True),
        ("1/2", "2/4", True),
        ("2\\sqrt{3} \\text{ cm}", "\\sqrt{12} \\text{ cm}", True),
        ("2\\sqrt{3} \\text{ cm}", "\\sqrt{12} \\text{ m}", False),
        ("y = x + 1", "y = 1 + x", True),
        ("z = x + 1", "x + 1", False),
        ("10²", "102", False),
        ("\\sqrt{2}", "1.414214", False),
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
    mathematics: Equality, first: str, second: str, *, equal: bool
) -> None:
    assert mathematics.of(None, account_id=ACCOUNT)(first, second) is equal


def test_formulas_that_never_finish_equal_nothing_and_do_not_affect_the_rest_of_a_vote() -> None:
    with children() as sandbox:
        places = equality.shares(1, most_waiting=1)
        same = Equality(sandbox, places, cpu_seconds=0.5).of(None, account_id=ACCOUNT)

        for bomb in ("10^{10^{10}}", "9^{9^{9^{9}}}", "99999999999!"):
            assert not same(bomb, "7")
            assert not same("7", bomb)
            assert same(bomb, f"{bomb} ")

        assert same("\\sqrt{4}", "2")
        assert not same("\\sqrt{4}", "3")


def test_a_formula_that_never_finishes_is_remembered_for_its_account() -> None:
    with children() as sandbox:
        mathematics = Equality(sandbox, equality.shares(1, most_waiting=1), cpu_seconds=0.5)
        assert not mathematics.of(None, account_id=ACCOUNT)("10^{10^{10}}", "7")
        pids = sandbox.pids

        assert not mathematics.of(None, account_id=ACCOUNT)("10^{10^{10}}", "8")
        assert sandbox.pids == pids

        assert not mathematics.of(None, account_id=OTHER)("10^{10^{10}}", "7")
        assert sandbox.pids != pids


def test_an_account_whose_formulas_never_finish_leaves_a_child_to_every_other_account() -> None:
    with (
        children(formula_targets.COMPARE_OR_HANG, processes=2) as sandbox,
        ThreadPoolExecutor(9) as threads,
    ):
        mathematics = Equality(sandbox, equality.shares(2, most_waiting=64))
        stop = threading.Event()
        hanging = [
            threads.submit(
                mathematics.of(None, account_id=ACCOUNT, stopped=stop.is_set),
                f"{number}{formula_targets.HANG}",
                "7",
            )
            for number in range(8)
        ]
        wait_for_names(sandbox_targets.BEGUN, count=1)

        same = threads.submit(mathematics.of(None, account_id=OTHER), "\\sqrt{4}", "2")

        assert same.result(60)
        assert not any(future.done() for future in hanging)
        stop.set()
        for pid in sandbox.pids:
            os.kill(pid, signal.SIGSTOP)
        sandbox.close()
        assert all(future.exception(60) for future in hanging)


def test_accounts_that_wait_for_the_only_child_take_turns() -> None:
    order: list[uuid.UUID] = []
    first = threading.Event()
    go = threading.Event()

    class Noting(NoSandbox):
        def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
            first.set()
            assert go.wait(60)
            order.append(OTHER if payload == b"1+1" else ACCOUNT)
            return super().call(payload, **arguments)

    places = equality.shares(1, most_waiting=64)
    mathematics = Equality(Noting(), places)
    with ThreadPoolExecutor(6) as threads:
        for number in range(5):
            threads.submit(
                mathematics.compare, ACCOUNT, f"{number}", None, stopped=threading.Event().is_set
            )
        assert first.wait(60)
        while places.waiting < 4:
            os.sched_yield()
        threads.submit(mathematics.compare, OTHER, "1+1", None, stopped=threading.Event().is_set)
        while places.waiting < 5:
            os.sched_yield()
        go.set()

    assert order.index(OTHER) == 1


def test_a_child_that_is_killed_from_outside_changes_no_result() -> None:
    with children() as sandbox, ThreadPoolExecutor(1) as thread:
        places = equality.shares(1, most_waiting=1)
        mathematics = Equality(sandbox, places, pause_seconds=0)
        sandbox.warm()
        killed = sandbox.pids
        for pid in killed:
            os.kill(pid, signal.SIGSTOP)
        same = thread.submit(
            mathematics.compare, ACCOUNT, "\\frac{1}{2}", "0.5", stopped=lambda: False
        )
        while not places.held:
            os.sched_yield()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

        assert same.result(60) is True
        assert sandbox.pids.isdisjoint(killed)


def test_without_children_no_formulas_are_compared() -> None:
    away = Away()
    mathematics = Equality(away, equality.shares(most_waiting=1), pause_seconds=0)

    with pytest.raises(errors.AnswersNotCompared):
        mathematics.of(None, account_id=ACCOUNT)("2+4", "6")

    assert away.calls == 3
    assert mathematics.of(None, account_id=ACCOUNT)("red", "Red")


def test_a_stopped_job_stops_waiting() -> None:
    places = equality.shares(1, most_waiting=1)
    mathematics = Equality(Away(), places, look_seconds=0.01)
    looks = iter([False, False, True])
    with places.hold(OTHER, seconds=0), pytest.raises(equality.ComparisonStopped):
        mathematics.of(None, account_id=ACCOUNT, stopped=lambda: next(looks))("2+4", "6")


VOTES = [
    *(
        "6",
        "six",
        "6.0",
        "\\frac{12}{2}",
        "2 \\cdot 3",
        "x = 6",
        "\\sqrt{36}",
        "6 lamps",
        "six lamps",
    ),
    *("0.5", "50\\%", "\\frac{1}{2}", "1/2", "2^{-1}", "x+y", "y+x", "x + y", "2x", "x+x", "x*2"),
    *("B4", "4B", "\\text{B4}", "3-1", "2-0", "2", "1+1", "\\pi", "3.141593", "3.1415927"),
]


@pytest.mark.parametrize("seed", range(4))
def test_the_classes_of_a_vote_do_not_depend_on_the_order_of_its_answers(
    mathematics: Equality, seed: int
) -> None:
    same = mathematics.of(None, account_id=ACCOUNT)

    def partition(answers: list[str]) -> set[frozenset[str]]:
        classes = votes.classes(dict(enumerate(answers)), same)
        return {frozenset(answers[vote] for vote in entry.votes) for entry in classes}

    shuffled = random.Random(seed).sample(VOTES, len(VOTES))

    assert partition(shuffled) == partition(VOTES)
    assert partition(VOTES) >= {
        frozenset(("6 lamps", "six lamps")),
        frozenset(("0.5", "50\\%", "\\frac{1}{2}", "1/2", "2^{-1}")),
        frozenset(("B4", "\\text{B4}")),
        frozenset(("2", "1+1")),
        frozenset(("\\pi",)),
    }


def test_a_long_text_is_not_a_formula() -> None:
    sandbox = Away()
    same = Equality(sandbox, equality.shares(most_waiting=1)).of(None, account_id=ACCOUNT)

    assert not same("1+" * 200 + "1", "201")
    assert sandbox.calls == 0
