"""How a job was run, as callers get it: its traces, its attempts and its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import JobError, ResponseModel, Usage, fault, rate, seconds
from jobs import records, scripts
from jobs import trace as steps
from jobs.answers import extraction
from jobs.lifecycle import Outcome
from jobs.store import history, traces


class TraceStep(ResponseModel):
    """A stretch of a trace, and what it does."""

    kind: Literal["observation", "inference", "re-check", "conclusion", "answer"]
    start: int = Field(description="Its first character, in code points of `text`.")
    end: int = Field(description="The character after its last one.")
    start_token: int | None = Field(
        description="Tokens that had come before it, counted in chunks of the engine's stream, as finely as that is "
        "known; null when it is not."
    )
    end_token: int | None = Field(description="Tokens when it was there, whole.")
    cjk_share: float | None = Field(
        description="How much of its words is Chinese, Japanese or Korean, from 0 to 1; null without words."
    )
    started_at: Time | None = Field(
        description="When its first character was there, as finely as that is known."
    )
    ended_at: Time | None = Field(description="When it was there, whole.")

    @classmethod
    def of(cls, step: steps.Step, text: str) -> Self:
        """Return what callers see of ``step`` of ``text``."""
        return cls(
            kind=step.kind.value,
            start=step.start,
            end=step.end,
            start_token=step.start_token,
            end_token=step.end_token,
            cjk_share=scripts.cjk_share(text[step.start : step.end]),
            started_at=step.started_at,
            ended_at=step.ended_at,
        )


class Continued(ResponseModel):
    """Where a stream goes on from: the start of another one's text, and words that were put after it.

    They are the model's own beginning of an answer, or what it is asked by a second look.
    """

    generation: int = Field(description="The `index` of the stream that it goes on from.")
    kept_chars: int = Field(description="So many characters of its text stand.")
    inserted: str

    @classmethod
    def of(cls, generation: records.Generation | traces.GenerationTrace) -> Self | None:
        """Return where ``generation`` goes on from, or None when it began by itself."""
        if generation.continues is None or generation.kept_chars is None:
            return None
        return cls(
            generation=generation.continues,
            kept_chars=generation.kept_chars,
            inserted=generation.inserted or "",
        )


class TraceGeneration(ResponseModel):
    """The raw output of one engine stream, as far as it is known."""

    attempt: int
    index: int
    text: str
    steps: list[TraceStep] = Field(
        description="The text cut into paragraphs and sentences that do the same; only white space is between them."
    )
    steps_version: int = Field(description="Of the rules by which the steps were read.")
    continues: Continued | None = Field(
        description="Set when a guard had this stream go on from another one."
    )
    answer: str | None = Field(description="What this stream came to by itself, if anything.")
    complete: bool
    finish_reason: str | None = Field(
        description="`stop`, `length`, `cut` by a guard, `error`, or what stopped it: `cancel`, `deadline`, `drain`, "
        "`unneeded` (a vote was decided without it)."
    )
    usage: Usage | None
    started_at: Time
    first_token_at: Time | None
    ended_at: Time | None

    @classmethod
    def of(cls, trace: traces.GenerationTrace) -> Self:
        """Return what callers see of ``trace``."""
        return cls(
            attempt=trace.attempt,
            index=trace.number,
            text=trace.text,
            steps=[TraceStep.of(step, trace.text) for step in trace.steps()],
            steps_version=steps.VERSION,
            continues=Continued.of(trace),
            answer=_answer(trace),
            complete=trace.complete,
            finish_reason=trace.finish_reason,
            usage=_usage(trace),
            started_at=trace.started_at,
            first_token_at=trace.first_token_at,
            ended_at=trace.ended_at,
        )


class Trace(ResponseModel):
    """The reasoning of a job, attempt by attempt; partial while it runs."""

    object: Literal["trace"] = "trace"
    job_id: str
    complete: bool = Field(description="Whether nothing will be added.")
    data_removed: bool
    omitted_attempts: list[int] = Field(
        description="Attempts that are left out because the trace is very long: ask for each by `attempt`."
    )
    generations: list[TraceGeneration]


class AttemptGeneration(ResponseModel):
    """One engine stream of an attempt."""

    index: int
    rid: str = Field(description="The engine's id of the stream.")
    finish_reason: str | None
    usage: Usage | None
    started_at: Time
    first_token_at: Time | None
    ended_at: Time | None
    time_to_first_token: float | None = Field(description="Seconds.")
    tokens_per_second: float | None

    @classmethod
    def of(cls, generation: records.Generation) -> Self:
        """Return what callers see of ``generation``."""
        return cls(
            index=generation.number,
            rid=generation.rid,
            finish_reason=generation.finish_reason,
            usage=_usage(generation),
            started_at=generation.started_at,
            first_token_at=generation.first_token_at,
            ended_at=generation.ended_at,
            time_to_first_token=seconds(generation.started_at, generation.first_token_at),
            tokens_per_second=rate(
                generation.output_tokens, generation.first_token_at, generation.ended_at
            ),
        )


class Attempt(ResponseModel):
    """One claim of a job by a worker, and how it ended."""

    object: Literal["attempt"] = "attempt"
    number: int
    worker: str
    outcome: Outcome | None = Field(description="Null while it runs.")
    error: JobError | None
    engine: str | None
    engine_version: str | None
    model: str | None
    prompt: dict[str, Any] | None = Field(
        description="The messages as sent, pictures by their keys."
    )
    sampling: dict[str, Any] | None
    claimed_at: Time
    ended_at: Time | None
    generations: list[AttemptGeneration]

    @classmethod
    def of(cls, view: history.AttemptView) -> Self:
        """Return what callers see of ``view``."""
        attempt = view.attempt
        return cls(
            number=attempt.number,
            worker=attempt.worker,
            outcome=attempt.outcome,
            error=fault(attempt.error_code, attempt.error_message),
            engine=attempt.engine,
            engine_version=attempt.engine_version,
            model=attempt.model,
            prompt=attempt.prompt,
            sampling=attempt.sampling,
            claimed_at=attempt.claimed_at,
            ended_at=attempt.ended_at,
            generations=[AttemptGeneration.of(generation) for generation in view.generations],
        )


class AttemptList(ResponseModel):
    """All attempts of a job, in order."""

    object: Literal["list"] = "list"
    data: list[Attempt]
    has_more: Literal[False] = False


class TimelineEntry(ResponseModel):
    """A change of a job: who made it, and which columns have which values since."""

    id: int
    object: Literal["timeline.entry"] = "timeline.entry"
    at: Time
    actor: str = Field(
        description="`key:…`, `worker:…` or `sweeper:…`, or the person at the command line."
    )
    action: str
    changes: dict[str, Any]

    @classmethod
    def of(cls, entry: records.TimelineEntry) -> Self:
        """Return what callers see of ``entry``."""
        return cls(
            id=entry.id,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            changes=entry.changes,
        )


class Timeline(ResponseModel):
    """A page of a job's changes, oldest first. Entries are appended and never changed."""

    object: Literal["list"] = "list"
    data: list[TimelineEntry]
    first_id: int | None
    last_id: int | None = Field(description="`after` of the next page.")
    has_more: bool

    @classmethod
    def of(cls, entries: Sequence[records.TimelineEntry], *, has_more: bool) -> Self:
        """Return a page of ``entries``."""
        data = [TimelineEntry.of(entry) for entry in entries]
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=has_more,
        )


def _answer(trace: traces.GenerationTrace) -> str | None:
    """Return the answer in a stream's own text; of one that was put into a box, with the box."""
    inserted = trace.inserted or ""
    found = extraction.extract((inserted if inserted.endswith("{") else "") + trace.text)
    return found.text if found else None


def _usage(generation: records.Generation | traces.GenerationTrace) -> Usage | None:
    if generation.input_tokens is None:
        return None
    return Usage(
        input_tokens=generation.input_tokens,
        cached_tokens=generation.cached_tokens,
        image_tokens=generation.image_tokens,
        output_tokens=generation.output_tokens,
    )
