"""The answers of two programs to the same questions: accuracy, and where they differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cli.evaluation.summary import wilson


@dataclass(frozen=True)
class Answer:
    """What a program got for a question.

    Attributes:
        text: the answer; None if the model gave none.
        right: the program's grade.
        error: why the request failed; None if it succeeded.
    """

    text: str | None
    right: bool
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.text!r}, {'right' if self.right else 'wrong'}"


#: By id of the question.
Answers = Mapping[str, Answer]


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a program.

    Attributes:
        low: the lower end of the 95 % interval of ``share`` (Wilson's score interval).
        high: its upper end.
        failed: requests that failed; their questions count as wrong.
    """

    right: int
    questions: int
    low: float
    high: float
    failed: int

    @property
    def share(self) -> float:
        """The share of right answers."""
        return self.right / self.questions


def accuracy(answers: Answers) -> Accuracy:
    """Return the accuracy of at least one answer."""
    right, questions = sum(one.right for one in answers.values()), len(answers)
    failed = sum(one.error is not None for one in answers.values())
    return Accuracy(right, questions, *wilson(right, questions), failed)


def faults(ids: Sequence[str], programs: Mapping[str, Answers]) -> Iterator[str]:
    """Yield what must not be, a sentence each: failed requests, questions without a line, answers that differ.

    The same model without sampling gives the same answer to the same question, however it is sent. Programs that
    grade the same answer differently do not measure the same thing.

    Args:
        ids: the questions.
        programs: the answers by name of the program.
    """
    for number in ids:
        answers = {name: given.get(number) for name, given in programs.items()}
        there = {name: answer for name, answer in answers.items() if answer is not None}
        yield from (f"{number}: {name} has no line" for name in answers if name not in there)
        failed = {name: answer.error for name, answer in there.items() if answer.error is not None}
        yield from (f"{number}: {name} failed: {error}" for name, error in failed.items())
        if not failed and len(set(there.values())) > 1:
            said = "; ".join(f"{name}: {answer}" for name, answer in there.items())
            yield f"{number}: the answers differ: {said}"
