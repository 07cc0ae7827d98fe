"""Jobs in responses."""

from typing import Any, Literal, Self, cast

from pydantic import Field

from api.framework import links
from api.schemas.fields import Time
from api.schemas.parts import JobError, Page, ResponseModel, Usage, fault, rate, seconds
from core import ids
from jobs import findings, records
from jobs.answers import values
from jobs.store import history, positions
from jobs.store.images import ImageView

#: The classes of what is kept, each for a time of its own.
Removed = Literal["image", "trace", "answer", "timeline"]


class JobImage(ResponseModel):
    """An image of a job."""

    id: str
    sha256: str = Field(description="Of the file as sent.")
    width: int = Field(description="In pixels, as the model sees it.")
    height: int
    tokens: int = Field(description="Visual tokens of the image.")
    detail: str

    @classmethod
    def of(cls, view: ImageView) -> Self:
        """Return the response for ``view``."""
        image = view.image
        return cls.from_record(
            image,
            id=ids.show("img", image.id),
            sha256=image.original_sha256,
            tokens=view.tokens,
        )


class JobAnswer(ResponseModel):
    """The final answer, and the rule that extracted it from the text."""

    text: str = Field(
        description="The answer without typesetting: `A red lamp` for `\\text{A red lamp}`, `90°`, `m²`. Mathematics "
        "is LaTeX."
    )
    tex: str | None = Field(
        description="The original of the text, where it differs; null where it does not."
    )
    value: values.Value = Field(
        description="The text as a value of `answer_format`; null without a format, or if the text has no such value."
    )
    rule: str | None
    forced: bool = Field(description="Whether a guard forced the model to answer; see `findings`.")
    verdict: Literal["confirmed", "corrected", "doubted"] | None = Field(
        description="The result of verification (`guards.verify`): the same answer, this answer instead of the first, "
        "or no answer; null without verification. The trace has both answers."
    )
    confidence: float | None = Field(
        description="This answer's share of the counted votes. Without a vote: 1, or 0.5 if verification corrected or "
        "doubted the answer; null without either. Samples share the errors of the model that sees the image, so "
        "this is not the probability that the answer is right."
    )

    @classmethod
    def of(cls, view: history.JobView) -> Self | None:
        """Return the answer of the job in ``view``, if it has one."""
        job = view.job
        if job.answer_text is None:
            return None
        return cls(
            text=job.answer_text,
            tex=job.answer_tex,
            value=cast("values.Value", job.answer_value),
            rule=job.answer_rule,
            forced=bool(job.answer_forced),
            verdict=_verdict(view),
            confidence=job.confidence,
        )


class AnswerClass(ResponseModel):
    """Equal answers."""

    text: str = Field(description="The first of them.")
    generations: list[int] = Field(
        description="Who gave them: `index` of the trace's generations, in the attempt that ended the job."
    )


class Votes(ResponseModel):
    """How the samples voted on the answer."""

    requested: int = Field(description="Maximum number of samples that the job requested.")
    begun: int = Field(description="Samples that the engine started.")
    counted: int = Field(
        description="Samples that ended; the others were stopped or never started, because they could not have "
        "changed the winner."
    )
    classes: list[AnswerClass] = Field(
        description="The winner first; of two with the same number of votes, the one with the earliest sample first."
    )
    abstained: list[int] = Field(
        description="The `index` of each generation that ended without an answer."
    )

    @classmethod
    def of(cls, job: records.jobs.Job) -> Self | None:
        """Return how the samples of ``job`` voted, if they did."""
        if job.votes is None:
            return None
        return cls.model_validate({name: job.votes[name] for name in cls.model_fields})


class Finding(ResponseModel):
    """A problem that a guard found in a trace, and the action it took."""

    kind: Literal[
        "loop",
        "paraphrase_loop",
        "budget",
        "converged",
        "language",
        "verify",
        "no_answer",
        "refusal",
    ]
    attempt: int
    generation: int = Field(description="The `index` of the trace's generation.")
    start: int = Field(description="First character of the place in the generation's text.")
    end: int = Field(description="The character after the place.")
    action: Literal["forced", "stopped", "confirmed", "corrected", "doubted", "none"] = Field(
        description="`forced`: the trace was cut and the model was forced to answer. `stopped`: the trace was cut; an "
        "answer before the cut counts. For `verify`: the verdict."
    )
    evidence: dict[str, float]
    tokens_saved: int = Field(
        description="An upper bound: the tokens that were left when the generation was cut."
    )


class JobUsage(Usage):
    """The tokens and engine time of all attempts of a job."""

    engine_seconds: float | None


class Queue(ResponseModel):
    """The place of a queued job."""

    position: int = Field(
        description="1 is next. Accounts take turns, so this is not the number of older jobs."
    )
    at_least: bool = Field(
        description="Whether counting stopped at `position`, so that more jobs may be ahead: after about 2,000, or "
        "after about 100 in the response to a submission."
    )
    eta_seconds: int | None = Field(
        description="Estimated seconds until the job starts, at the pace of the last 20 jobs; null until 20 jobs have "
        "finished, and while the job is paused. With `at_least`, it may take longer."
    )
    paused: bool = Field(
        description="Whether an operator has paused the job's part of the queue: it starts after the pause."
    )


class Notice(ResponseModel):
    """A warning about an accepted job."""

    code: Literal["deadline_before_eta"]
    message: str

    @classmethod
    def late(cls, place: positions.QueuePosition | None, job: records.jobs.Job) -> list[Self]:
        """Return a warning if ``job`` may not start before its deadline."""
        deadline = round((job.deadline_at - job.created_at).total_seconds())
        if place is None or place.eta_seconds is None or place.eta_seconds <= deadline:
            return []
        return [
            cls(
                code="deadline_before_eta",
                message=f"The estimated start is in {place.eta_seconds} s; the deadline is {deadline} s after the "
                "submission. A job that has not ended by its deadline fails with `deadline_exceeded`.",
            )
        ]


class Progress(ResponseModel):
    """The progress of a running job."""

    output_tokens: int
    samples_done: int


class Timings(ResponseModel):
    """Durations in seconds."""

    queued_seconds: float | None
    run_seconds: float | None
    time_to_first_token: float | None = Field(description="From `started_at`.")
    tokens_per_second: float | None = Field(description="After the first token.")

    @classmethod
    def of(cls, job: records.jobs.Job) -> Self:
        """Return the known timings of ``job``."""
        left_queue = job.started_at or job.finished_at
        return cls(
            queued_seconds=seconds(job.created_at, left_queue),
            run_seconds=seconds(job.started_at, job.finished_at),
            time_to_first_token=seconds(job.started_at, job.first_token_at),
            tokens_per_second=rate(job.output_tokens, job.first_token_at, job.finished_at),
        )


class EffectiveOptions(ResponseModel):
    """The options that the job uses, defaults included."""

    max_output_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    samples: int
    answer_format: dict[str, Any] | None
    guards: dict[str, bool]
    max_attempts: int

    @classmethod
    def of(cls, job: records.jobs.Job) -> Self:
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
    """Paths of related resources."""

    self: str
    trace: str
    events: str
    attempts: str
    timeline: str
    cancel: str
    run_now: str
    rerun: str


class Job(ResponseModel):
    """A question about images, its status and its result."""

    id: str
    object: Literal["job"] = "job"
    account: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    model: str
    question: str | None = Field(description="Null if the job's data was removed.")
    images: list[JobImage]
    answer: JobAnswer | None
    votes: Votes | None = Field(
        description="The votes of several `samples`, once the job has ended."
    )
    findings: list[Finding] = Field(description="The findings of the guards, oldest attempt first.")
    finish_reason: str | None = Field(
        description="Why the model stopped: `stop`, or `length` if it ran out of tokens. Of several samples, that of "
        "the sample with the answer."
    )
    error: JobError | None
    usage: JobUsage | None
    queue: Queue | None = Field(
        description="The place in the queue of a queued job; null in lists."
    )
    warnings: list[Notice] = Field(description="Warnings about a queued job; empty in lists.")
    progress: Progress | None = Field(description="The progress of a running job; null in lists.")
    attempt: int = Field(
        description="The number of the current or last attempt; 0 before the first one."
    )
    crashes: int = Field(description="Attempts that were lost with their worker.")
    failures: int = Field(description="Attempts that failed in the engine.")
    priority: Literal["high", "normal", "low"]
    options: EffectiveOptions
    metadata: dict[str, str]
    group: str | None = Field(
        default=None,
        exclude_if=lambda group: group is None,
        description="The job's group; absent without one.",
    )
    rerun_of: str | None
    reruns: list[str] = Field(description=f"The newest {history.MAX_RERUNS} reruns of this job.")
    data_removed: bool = Field(
        description="Whether the question and the answer were removed, by request or by retention."
    )
    removed: list[Removed] = Field(
        description="The kinds of data that were removed. `event`: the timeline, except for one entry with a summary."
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
    def of(cls, view: history.JobView) -> Self:
        """Return the response for ``view``."""
        job = view.job
        job_id = ids.show("job", job.id)
        removed = _removed(view)
        return cls.from_record(
            job,
            id=job_id,
            account=ids.show("acct", job.account_id),
            images=[JobImage.of(image) for image in view.images],
            answer=JobAnswer.of(view),
            votes=Votes.of(job),
            findings=[
                Finding.from_record(entry, start=entry.start_char, end=entry.end_char)
                for entry in view.findings
            ],
            error=fault(job.error_code, job.error_message, retryable=job.error_retryable),
            usage=_job_usage(job),
            queue=view.queue and Queue.from_record(view.queue),
            warnings=Notice.late(view.queue, job),
            progress=view.progress and Progress.from_record(view.progress),
            options=EffectiveOptions.of(job),
            metadata=job.metadata_,
            group=job.group_id and ids.show("grp", job.group_id),
            rerun_of=job.rerun_of and ids.show("job", job.rerun_of),
            reruns=[ids.show("job", rerun) for rerun in view.reruns],
            data_removed="answer" in removed,
            removed=removed,
            timings=Timings.of(job),
            urls=_urls(job_id),
        )


class JobDeleted(ResponseModel):
    """A job whose question, answer and traces are deleted."""

    id: str
    object: Literal["job"] = "job"
    deleted: Literal[True] = True
    data_removed: Literal[True] = True


class JobList(Page[Job, str]):
    """A page of jobs."""

    last_id: str | None = Field(description="The `after` of the next page.")


def _verdict(view: history.JobView) -> Literal["confirmed", "corrected", "doubted"] | None:
    """Return the verdict of the verification of the job's answer, if there was one."""
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
    """Return the kinds of data of a job that were removed."""
    job = view.job
    gone: dict[Removed, bool] = {
        "image": any(image.image.removed_at for image in view.images),
        "trace": job.trace_removed,
        "answer": job.answer_removed,
        "timeline": job.timeline_removed_at is not None,
    }
    return [kind for kind, is_gone in gone.items() if is_gone]


def _job_usage(job: records.jobs.Job) -> JobUsage | None:
    if job.input_tokens is None:
        return None
    return JobUsage.from_record(job, output_tokens=job.output_tokens or 0)


def _urls(job_id: str) -> JobUrls:
    path = links.to(f"/v1/jobs/{job_id}")
    return JobUrls(**{name: f"{path}/{name}" for name in JobUrls.model_fields} | {"self": path})
