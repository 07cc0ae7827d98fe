"""A job as callers get it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, cast

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import JobError, ResponseModel, Usage, fault, rate, seconds
from core import ids
from jobs import findings, records
from jobs.answers import values
from jobs.store import history, positions
from jobs.store.images import ImageView

#: The classes of what is kept, each for a time of its own.
Removed = Literal["image", "trace", "answer", "timeline"]


class JobImage(ResponseModel):
    """A picture of a job."""

    id: str
    sha256: str = Field(description="Of the file as it was sent.")
    width: int = Field(description="In pixels, as the model sees it.")
    height: int
    tokens: int = Field(description="Visual tokens it costs.")
    detail: str

    @classmethod
    def of(cls, view: ImageView) -> Self:
        """Return what callers see of ``view``."""
        image = view.image
        return cls(
            id=ids.show("img", image.id),
            sha256=image.original_sha256,
            width=image.width,
            height=image.height,
            tokens=view.tokens,
            detail=image.detail,
        )


class JobAnswer(ResponseModel):
    """The final answer, and the rule by which it was found in the text."""

    text: str
    value: values.Value = Field(
        description="The text as `answer_format` asks for it; null without one, and when it says no such value."
    )
    rule: str | None
    forced: bool = Field(description="Whether a guard made the model answer; see `findings`.")
    verdict: Literal["confirmed", "corrected", "doubted"] | None = Field(
        description="What a second look (`guards.verify`) came to: the same answer, this one instead of the first, or "
        "none; null when there was no second look. Both answers are in the trace."
    )
    confidence: float | None = Field(
        description="The share of the votes that this answer has, of all that count. Without a vote, the share of the "
        "looks: 1, or 0.5 when a second look corrected or doubted it; null without either. Samples "
        "err together where all of them see the same picture wrong: it is no probability of being right."
    )

    @classmethod
    def of(cls, view: history.JobView) -> Self | None:
        """Return the answer of the job in ``view``, if it has one."""
        job = view.job
        if job.answer_text is None:
            return None
        return cls(
            text=job.answer_text,
            value=cast("values.Value", job.answer_value),
            rule=job.answer_rule,
            forced=bool(job.answer_forced),
            verdict=_verdict(view),
            confidence=job.confidence,
        )


class AnswerClass(ResponseModel):
    """Answers that say the same."""

    text: str = Field(description="The first of them.")
    generations: list[int] = Field(
        description="Who gave them: `index` of the trace's generations, in the attempt that ended the job."
    )


class Votes(ResponseModel):
    """How the samples voted on the answer."""

    requested: int = Field(description="Samples that the job asked for, at most.")
    begun: int = Field(description="Those that the engine was asked for.")
    counted: int = Field(
        description="Those that came to their end; the others were stopped or spared, for they could not have "
        "changed the winner."
    )
    classes: list[AnswerClass] = Field(
        description="The winner first; of two with as many votes the one that has the earliest."
    )
    abstained: list[int] = Field(description="`index` of generations that ended without an answer.")

    @classmethod
    def of(cls, job: records.Job) -> Self | None:
        """Return how the samples of ``job`` voted, if they did."""
        if job.votes is None:
            return None
        return cls.model_validate({name: job.votes[name] for name in cls.model_fields})


class Finding(ResponseModel):
    """What a guard found in a trace, and what was done about it."""

    kind: Literal[
        "loop", "paraphrase_loop", "budget", "converged", "language", "verify", "no_answer"
    ]
    attempt: int
    generation: int = Field(description="The `index` of the trace's generation.")
    start: int = Field(description="First character of the place in the generation's text.")
    end: int = Field(description="The character after the place.")
    action: Literal["forced", "stopped", "confirmed", "corrected", "doubted", "none"] = Field(
        description="`forced`: cut back, and made to answer; `stopped`: cut back, the answer before it, if any, "
        "stands; of a second look, what it came to."
    )
    evidence: dict[str, float]
    tokens_saved: int = Field(
        description="What the stream had left of its budget when it was cut: an upper bound."
    )

    @classmethod
    def of(cls, entry: records.FindingEntry) -> Self:
        """Return what callers see of ``entry``."""
        return cls.model_validate(
            {
                "kind": entry.kind,
                "attempt": entry.attempt,
                "generation": entry.generation,
                "start": entry.start_char,
                "end": entry.end_char,
                "action": entry.action,
                "evidence": entry.evidence,
                "tokens_saved": entry.tokens_saved,
            }
        )


class JobUsage(Usage):
    """What a job cost, all its attempts."""

    engine_seconds: float | None


class Queue(ResponseModel):
    """The place of a queued job."""

    position: int = Field(
        description="1 is next. Accounts take turns, so it is not the number of older jobs."
    )
    at_least: bool = Field(
        description="Whether counting stopped at `position`, so that there may be more jobs ahead: after about 10,000, "
        "in the answer to a submission after about 100."
    )
    eta_seconds: int | None = Field(
        description="Until it may begin, at the pace of the last 20 jobs. Null until so many have finished. "
        "With `at_least`, it may be longer."
    )

    @classmethod
    def of(cls, place: positions.QueuePosition) -> Self:
        """Return what callers see of ``place``."""
        return cls(position=place.position, at_least=place.at_least, eta_seconds=place.eta_seconds)


class Notice(ResponseModel):
    """Something about an accepted job that its caller should know."""

    code: Literal["deadline_before_eta"]
    message: str

    @classmethod
    def late(cls, place: positions.QueuePosition | None, job: records.Job) -> list[Self]:
        """Return a notice when ``job`` may not begin before its deadline, else nothing."""
        deadline = round((job.deadline_at - job.created_at).total_seconds())
        if place is None or place.eta_seconds is None or place.eta_seconds <= deadline:
            return []
        return [
            cls(
                code="deadline_before_eta",
                message=f"The estimated start is {place.eta_seconds} s away, the deadline is {deadline} s after the "
                "submission. A job that has not ended by its deadline fails with `deadline_exceeded`.",
            )
        ]


class Progress(ResponseModel):
    """How far a running job is."""

    output_tokens: int
    samples_done: int


class Timings(ResponseModel):
    """How long things took, in seconds."""

    queued_seconds: float | None
    run_seconds: float | None
    time_to_first_token: float | None = Field(description="From the start.")
    tokens_per_second: float | None = Field(description="From the first token on.")

    @classmethod
    def of(cls, job: records.Job) -> Self:
        """Return the timings of ``job``, those that are known."""
        left_queue = job.started_at or job.finished_at
        return cls(
            queued_seconds=seconds(job.created_at, left_queue),
            run_seconds=seconds(job.started_at, job.finished_at),
            time_to_first_token=seconds(job.started_at, job.first_token_at),
            tokens_per_second=rate(job.output_tokens, job.first_token_at, job.finished_at),
        )


class EffectiveOptions(ResponseModel):
    """The options as they hold for the job."""

    max_output_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    samples: int
    answer_format: dict[str, Any] | None
    guards: dict[str, bool]
    max_attempts: int

    @classmethod
    def of(cls, job: records.Job) -> Self:
        """Return the options of ``job``."""
        return cls(
            max_output_tokens=job.options.get("max_output_tokens"),
            temperature=job.options.get("temperature"),
            top_p=job.options.get("top_p"),
            seed=job.options.get("seed"),
            samples=job.options.get("samples") or 1,
            answer_format=job.options.get("answer_format"),
            guards=job.options.get("guards") or {},
            max_attempts=job.max_attempts,
        )


class JobUrls(ResponseModel):
    """Where to go on."""

    self: str
    trace: str
    events: str
    attempts: str
    timeline: str
    cancel: str
    run_now: str
    rerun: str


class Job(ResponseModel):
    """A question about images, and all that has become of it."""

    id: str
    object: Literal["job"] = "job"
    account: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    model: str
    question: str | None = Field(description="Null when the job's data was removed.")
    images: list[JobImage]
    answer: JobAnswer | None
    votes: Votes | None = Field(description="With several `samples`, once they have voted.")
    findings: list[Finding] = Field(description="What the guards found, oldest attempt first.")
    finish_reason: str | None = Field(
        description="Why the model stopped: `stop`, or `length` when it had no tokens left; of several samples, "
        "the one that gave the answer."
    )
    error: JobError | None
    usage: JobUsage | None
    queue: Queue | None = Field(description="While queued; null in lists.")
    warnings: list[Notice] = Field(
        description="What the caller should know while the job waits; empty in lists."
    )
    progress: Progress | None = Field(description="While running; null in lists.")
    attempt: int = Field(description="0 before the first one.")
    crashes: int = Field(description="Attempts whose worker was lost.")
    failures: int = Field(description="Attempts that failed in the engine.")
    priority: Literal["high", "normal", "low"]
    options: EffectiveOptions
    metadata: dict[str, str]
    group: str | None = Field(
        default=None,
        exclude_if=lambda group: group is None,
        description="The group that it belongs to; left out when there is none.",
    )
    rerun_of: str | None
    reruns: list[str] | None = Field(
        description=f"Jobs that run this one again, the newest {history.MAX_RERUNS}; null in lists."
    )
    data_removed: bool = Field(
        description="Whether question and answer are gone, by request or by retention."
    )
    removed: list[Removed] = Field(
        description="What is gone. `event`: the timeline, but for one entry that sums it up."
    )
    created_at: Time
    deadline_at: Time
    started_at: Time | None
    first_token_at: Time | None
    cancel_requested_at: Time | None
    finished_at: Time | None
    timings: Timings
    urls: JobUrls

    @classmethod
    def of(cls, view: history.JobView, *, listed: bool = False) -> Self:
        """Return what callers see of ``view``; a ``listed`` one lacks what costs a query each."""
        job = view.job
        shown = ids.show("job", job.id)
        removed = _removed(view)
        return cls(
            id=shown,
            account=ids.show("acct", job.account_id),
            status=job.status.value,
            model=job.model,
            question=job.question,
            images=[JobImage.of(image) for image in view.images],
            answer=JobAnswer.of(view),
            votes=Votes.of(job),
            findings=[Finding.of(entry) for entry in view.findings],
            finish_reason=job.finish_reason,
            error=fault(job.error_code, job.error_message, retryable=job.error_retryable),
            usage=_job_usage(job),
            queue=view.queue and Queue.of(view.queue),
            warnings=Notice.late(view.queue, job),
            progress=view.progress
            and Progress(
                output_tokens=view.progress.output_tokens, samples_done=view.progress.samples_done
            ),
            attempt=job.attempt,
            crashes=job.crashes,
            failures=job.failures,
            priority=job.priority.value,
            options=EffectiveOptions.of(job),
            metadata=job.metadata_,
            group=job.group_id and ids.show("grp", job.group_id),
            rerun_of=job.rerun_of and ids.show("job", job.rerun_of),
            reruns=None if listed else [ids.show("job", rerun) for rerun in view.reruns],
            data_removed="answer" in removed,
            removed=removed,
            created_at=job.created_at,
            deadline_at=job.deadline_at,
            started_at=job.started_at,
            first_token_at=job.first_token_at,
            cancel_requested_at=job.cancel_requested_at,
            finished_at=job.finished_at,
            timings=Timings.of(job),
            urls=_urls(shown),
        )


class JobDeleted(ResponseModel):
    """A job whose question, answer and traces are gone."""

    id: str
    object: Literal["job"] = "job"
    deleted: Literal[True] = True
    data_removed: Literal[True] = True


class JobList(ResponseModel):
    """A page of jobs."""

    object: Literal["list"] = "list"
    data: list[Job]
    first_id: str | None
    last_id: str | None = Field(description="`after` of the next page.")
    has_more: bool

    @classmethod
    def of(cls, views: Sequence[history.JobView], *, has_more: bool) -> Self:
        """Return a page of ``views``."""
        data = [Job.of(view, listed=True) for view in views]
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=has_more,
        )


def _verdict(view: history.JobView) -> Literal["confirmed", "corrected", "doubted"] | None:
    """Return what the second look at the job's answer came to, if there was one."""
    classes = (view.job.votes or {}).get("classes")
    # Of several samples each has been looked at by itself: the one that the answer is of counts.
    chosen = (view.job.votes or {}).get("look", classes[0]["generations"][0]) if classes else None
    for entry in view.findings:
        if chosen is not None and entry.generation != chosen:
            continue
        if entry.attempt == view.job.attempt and entry.kind == findings.FindingKind.VERIFY:
            match findings.Action(entry.action):
                case findings.Action.CONFIRMED:
                    return "confirmed"
                case findings.Action.CORRECTED:
                    return "corrected"
                case findings.Action.DOUBTED:
                    return "doubted"
    return None


def _removed(view: history.JobView) -> list[Removed]:
    """Return what is gone of a job."""
    job = view.job
    gone: dict[Removed, bool] = {
        "image": any(image.image.removed_at for image in view.images),
        "trace": job.trace_removed,
        "answer": job.answer_removed,
        "timeline": job.timeline_removed_at is not None,
    }
    return [kind for kind, is_gone in gone.items() if is_gone]


def _job_usage(job: records.Job) -> JobUsage | None:
    if job.input_tokens is None:
        return None
    return JobUsage(
        input_tokens=job.input_tokens,
        cached_tokens=job.cached_tokens,
        image_tokens=job.image_tokens,
        output_tokens=job.output_tokens or 0,
        engine_seconds=job.engine_seconds,
    )


def _urls(shown: str) -> JobUrls:
    here = f"/v1/jobs/{shown}"
    return JobUrls(
        self=here,
        trace=f"{here}/trace",
        events=f"{here}/events",
        attempts=f"{here}/attempts",
        timeline=f"{here}/timeline",
        cancel=f"{here}/cancel",
        run_now=f"{here}/run_now",
        rerun=f"{here}/rerun",
    )
