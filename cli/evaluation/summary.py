"""What an evaluation found: accuracy with its confidence interval, tokens and shares, by kind of question. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: The quantile of the normal distribution for an interval of 95 %.
_Z: Final = 1.959963984540054
#: The code of a question whose line of the batch has not failed, but whose job is not there: as in the batch's files.
_GONE: Final = "response_deleted"


@dataclass(frozen=True)
class Grade:
    """One graded question: a line of the report.

    Attributes:
        expected: the answers that are right.
        text: the answer, or None if the job has none.
        right: whether the answer means the same as the expected one.
        forced: whether a guard forced the answer.
        error: the error code of a job that failed, or its status.
        findings: the kinds of findings.
    """

    id: str
    kind: str
    job: str | None
    question: str
    expected: tuple[str, ...]
    text: str | None
    right: bool
    rule: str | None
    forced: bool
    confidence: float | None
    error: str | None
    findings: tuple[str, ...]
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    engine_seconds: float


@dataclass(frozen=True)
class Summary:
    """The grades of one kind of question, or of all.

    Attributes:
        low: the lower end of the 95 % interval of ``accuracy`` (Wilson's score interval).
        high: its upper end.
        answered: the share of questions with an answer.
        forced: the share of questions whose answer a guard forced.
        failed: jobs without success.
        cached: the share of input tokens from the engine's prefix cache.
        output_tokens: the mean per question.
        engine_seconds: the mean per question.
    """

    kind: str
    questions: int
    right: int
    accuracy: float
    low: float
    high: float
    answered: float
    forced: float
    failed: int
    cached: float
    output_tokens: float
    engine_seconds: float


def wilson(right: int, questions: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927), which unlike the normal one is sound near 0 and 1.

    Args:
        right: successes.
        questions: trials; with 0, the interval is everything.
    """
    if not questions:
        return 0.0, 1.0
    share, spread = right / questions, _Z * _Z / questions
    middle = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / questions + spread / (4 * questions))
    low, high = ((middle + sign * half) / (1 + spread) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def summarize(grades: Sequence[Grade]) -> list[Summary]:
    """Return a summary for each kind, by name, and last one of all if there are several kinds."""
    kinds = sorted({grade.kind for grade in grades})
    parts = [_summary(kind, [grade for grade in grades if grade.kind == kind]) for kind in kinds]
    return parts if len(kinds) < 2 else [*parts, _summary("total", grades)]  # noqa: PLR2004 - one kind is the total


def _summary(kind: str, grades: Sequence[Grade]) -> Summary:
    questions, right = len(grades), sum(grade.right for grade in grades)
    low, high = wilson(right, questions)
    return Summary(
        kind=kind,
        questions=questions,
        right=right,
        accuracy=right / questions,
        low=low,
        high=high,
        answered=_share(grade.text is not None for grade in grades),
        forced=_share(grade.forced for grade in grades),
        failed=sum(grade.error is not None for grade in grades),
        cached=sum(grade.cached_tokens for grade in grades)
        / max(1, sum(grade.input_tokens for grade in grades)),
        output_tokens=sum(grade.output_tokens for grade in grades) / questions,
        engine_seconds=sum(grade.engine_seconds for grade in grades) / questions,
    )


def _share(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def grade(
    item: Mapping[str, Any],
    job: Mapping[str, Any] | None,
    *,
    right: bool,
    refusal: str | None = None,
) -> Grade:
    """Return the grade of a question.

    Args:
        item: ``id``, ``kind``, ``question`` and ``answers`` of the question.
        job: the job as the API returns it; None: the service does not have it, or not any more.
        right: whether its answer is right.
        refusal: the error code of the batch's line, if it failed.
    """
    job = job or {}
    answer, usage = job.get("answer") or {}, job.get("usage") or {}
    status = job.get("status")
    fault = (job.get("error") or {}).get("code") or status or refusal or _GONE
    return Grade(
        id=item["id"],
        kind=item["kind"],
        job=job.get("id"),
        question=item["question"],
        expected=item["answers"],
        text=answer.get("text"),
        right=right,
        rule=answer.get("rule"),
        forced=bool(answer.get("forced")),
        confidence=answer.get("confidence"),
        error=None if status == "succeeded" else str(fault),
        findings=tuple(entry["kind"] for entry in job.get("findings") or ()),
        input_tokens=usage.get("input_tokens") or 0,
        cached_tokens=usage.get("cached_tokens") or 0,
        output_tokens=usage.get("output_tokens") or 0,
        engine_seconds=usage.get("engine_seconds") or 0.0,
    )
