"""Whether an answer means the same as an expected one, as votes compare answers, with algebra where it is needed."""

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.sandbox import Sandbox
from jobs.answers import equality as answers
from jobs.answers import sections
from worker import equality

#: The comparisons of an evaluation share nothing with those of a service.
_NOBODY: Final = uuid.UUID(int=0)


@dataclass(frozen=True)
class Grader:
    """Compares answers with expected ones.

    Args:
        mathematics: compares formulas.
    """

    mathematics: equality.Equality

    def right(
        self,
        text: str,
        expected: Iterable[str],
        *,
        answer_format: Mapping[str, Any] | None,
        question: str,
    ) -> bool:
        """Return whether ``text`` is one of the right answers to ``question``.

        In a format with a value (number, boolean, choice), the values must be the same: a text without one is wrong.
        Otherwise the texts must mean the same.

        Args:
            text: the answer of a job.
            expected: the answers that are right.
            answer_format: the job's option ``answer_format``.
            question: the question of the job.
        """
        if (answer_format or {}).get("type") in {"number", "boolean", "choice"}:
            if sections.read(text, answer_format, question) is None:
                return False
            given = answers.read(text, answer_format, question)
            return any(
                given.key == answers.read(one, answer_format, question).key for one in expected
            )
        same = self.mathematics.of(answer_format, account_id=_NOBODY, question=question)
        return any(same(text, one) for one in expected)


@contextlib.contextmanager
def grader() -> Iterator[Grader]:
    """Yield a grader. Its child process starts with the first formula."""
    sandbox = Sandbox(
        equality.TARGET,
        processes=1,
        seconds=equality.SECONDS,
        memory_mb=equality.MEMORY_MB,
        imports_late=True,
    )
    with contextlib.closing(sandbox):
        yield Grader(equality.Equality(sandbox, equality.shares(1, most_waiting=1)))
