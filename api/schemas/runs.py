"""Traces, attempts and timelines of jobs in responses."""

from typing import Any, Literal, Self

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import JobError, Page, ResponseModel, Usage, fault, rate, seconds
from jobs import records, scripts
from jobs import trace as steps
from jobs.answers import extraction
from jobs.lifecycle import Outcome
from jobs.store import history, traces


class TraceStep(ResponseModel):
    """A step of a trace, and its kind."""

    kind: Literal["observation", "inference", "re-check", "conclusion", "answer"]
    start: int = Field(description="Index of the first character, in code points of `text`.")
    end: int = Field(description="Index after the last character.")
    start_token: int | None = Field(
        description="Tokens before the step, to the precision of the chunks that the engine sent; null if unknown."
    )
    end_token: int | None = Field(
        description="Tokens up to the end of the step, to the same precision."
    )
    cjk_share: float | None = Field(
        description="The share of Chinese, Japanese and Korean in its words, from 0 to 1; null without words."
    )
    started_at: Time | None = Field(
        description="When its first character arrived, to the precision of the chunks."
    )
    ended_at: Time | None = Field(
        description="When its last character arrived, to the same precision."
    )

    @classmethod
    def of(cls, step: steps.Step, text: str) -> Self:
        """Return the response for ``step`` of ``text``."""
        return cls.from_record(step, cjk_share=scripts.cjk_share(text[step.start : step.end]))


class Continued(ResponseModel):
    """The beginning of a generation that continues another one: the start of its text, and inserted words.

    The inserted words begin an answer, or are the question of a verification.
    """

    generation: int = Field(description="The `index` of the stream that it goes on from.")
    valid_chars: int = Field(description="The number of characters of its text that remain valid.")
    inserted: str

    @classmethod
    def of(cls, generation: records.attempts.Generation | traces.GenerationTrace) -> Self | None:
        """Return where ``generation`` goes on from, or None if it continues no other generation."""
        if generation.continues is None or generation.valid_chars is None:
            return None
        return cls(
            generation=generation.continues,
            valid_chars=generation.valid_chars,
            inserted=generation.inserted or "",
        )


class TraceGeneration(ResponseModel):
    """The raw output of one engine stream, as far as it is known."""

    attempt: int
    index: int
    text: str
    steps: list[TraceStep] = Field(
        description="The text in consecutive paragraphs and sentences of one kind, with only white space between them."
    )
    steps_version: int = Field(
        description="The version of the rules that split the text into steps."
    )
    continues: Continued | None = Field(
        description="Set if a guard continued another generation with this one."
    )
    answer: str | None = Field(description="The answer in this generation's own text, if any.")
    complete: bool
    finish_reason: str | None = Field(
        description="`stop`, `length`, `cut` (by a guard), `error`, or the reason why it was stopped: `cancel`, "
        "`deadline`, `drain`, or `unneeded` (the vote was already decided)."
    )
    usage: Usage | None
    started_at: Time
    first_token_at: Time | None
    ended_at: Time | None

    @classmethod
    def of(cls, trace: traces.GenerationTrace) -> Self:
        """Return what callers see of ``trace``."""
        return cls.from_record(
            trace,
            index=trace.number,
            steps=[TraceStep.of(step, trace.text) for step in trace.steps()],
            steps_version=steps.VERSION,
            continues=Continued.of(trace),
            answer=_answer(trace),
            usage=_usage(trace),
        )


class Trace(ResponseModel):
    """The reasoning of a job, attempt by attempt; partial while it runs."""

    object: Literal["trace"] = "trace"
    job_id: str
    complete: bool = Field(description="Whether the trace is complete.")
    data_removed: bool
    omitted_attempts: list[int] = Field(
        description="Attempts that are omitted because the trace is very long: request each one with `attempt`."
    )
    generations: list[TraceGeneration]


class AttemptGeneration(ResponseModel):
    """One engine stream of an attempt."""

    index: int
    rid: str = Field(description="The engine's id of the generation.")
    finish_reason: str | None
    usage: Usage | None
    started_at: Time
    first_token_at: Time | None
    ended_at: Time | None
    time_to_first_token: float | None = Field(description="Seconds.")
    tokens_per_second: float | None

    @classmethod
    def of(cls, generation: records.attempts.Generation) -> Self:
        """Return what callers see of ``generation``."""
        return cls.from_record(
            generation,
            index=generation.number,
            usage=_usage(generation),
            time_to_first_token=seconds(generation.started_at, generation.first_token_at),
            tokens_per_second=rate(
                generation.output_tokens, generation.first_token_at, generation.ended_at
            ),
        )


class Attempt(ResponseModel):
    """One claim of a job by a worker, and its outcome."""

    object: Literal["attempt"] = "attempt"
    number: int
    worker: str
    outcome: Outcome | None = Field(description="Null while it runs.")
    error: JobError | None
    engine: str | None
    engine_version: str | None
    model: str | None
    prompt: dict[str, Any] | None = Field(
        description="The messages as sent, with the keys of images."
    )
    sampling: dict[str, Any] | None
    claimed_at: Time
    ended_at: Time | None
    generations: list[AttemptGeneration]

    @classmethod
    def of(cls, view: history.AttemptView) -> Self:
        """Return the response for ``view``."""
        attempt = view.attempt
        return cls.from_record(
            attempt,
            error=fault(attempt.error_code, attempt.error_message),
            generations=[AttemptGeneration.of(generation) for generation in view.generations],
        )


class AttemptList(ResponseModel):
    """All attempts of a job, in order."""

    object: Literal["list"] = "list"
    data: list[Attempt]
    has_more: Literal[False] = False


class TimelineEntry(ResponseModel):
    """A change of a job: who made it, and the new values of its columns."""

    id: int
    object: Literal["timeline.entry"] = "timeline.entry"
    at: Time
    actor: str = Field(
        description="`key:…`, `worker:…`, `sweeper:…`, or the user of the command line."
    )
    actor_name: str | None = Field(
        description="The name of the key, if the actor is one; keys of other accounts have one for operators only."
    )
    action: str
    changes: dict[str, Any] = Field(
        description="New values by column. If an operation made the change: also `operation` and `key_name`."
    )


class Timeline(Page[TimelineEntry, int]):
    """A page of a job's changes, oldest first. Entries never change."""

    last_id: int | None = Field(description="The `after` of the next page.")


def _answer(trace: traces.GenerationTrace) -> str | None:
    """Return the answer in a stream's own text; of one that was put into a box, with the box."""
    inserted = trace.inserted or ""
    text = (inserted if inserted.endswith("{") else "") + trace.text
    answer = extraction.extract(text, ended=trace.finish_reason == "stop")
    return answer.text if answer else None


def _usage(generation: records.attempts.Generation | traces.GenerationTrace) -> Usage | None:
    return None if generation.input_tokens is None else Usage.from_record(generation)
