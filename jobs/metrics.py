"""Metrics of jobs for Prometheus, counted from the commits of a process. Labels come from closed sets.

A process counts only its own work: the API counts submissions, workers count runs. The API reads global numbers (the
queue, the workers) from SQL. docs/reference/metrics.md has the table.
"""

import functools
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from core import errors
from core.database import Database
from jobs.answers.votes import Tally
from jobs.findings import Finding
from jobs.lifecycle import Status
from jobs.store import images, timeline, traces

#: Each error code of a failed job has its own label; a code of a later version is ``other``.
CODES: Final = frozenset(
    {
        errors.AnswersNotCompared.code,
        errors.DeadlineExceeded.code,
        errors.EngineBusy.code,
        errors.EngineFault.code,
        errors.EngineRejected.code,
        errors.EngineSilent.code,
        errors.EngineUnavailable.code,
        errors.LonglookError.code,
        errors.ImageQuarantined.code,
        errors.SchemaTimedOut.code,
        "answer_format_unmet",
        "image_removed",
        "worker_lost",
    }
)
#: A job runs from a second to half an hour; it can wait for hours.
_RUN_SECONDS: Final = (1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
_QUEUE_SECONDS: Final = (0.05, 0.25, 1, 5, 15, 60, 300, 900, 3600, 14400)
#: From its submission, so the waiting time is included.
_TOTAL_SECONDS: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)
_IMAGE_BYTES: Final = tuple(2**power for power in range(12, 26))
_FIRST_TOKEN_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
_TOKEN_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)


class JobMetrics:
    """Counts the jobs of this process.

    Args:
        database: the source of the counted commits.
        registry: the registry of the metrics.
        model: the served model, a label.
    """

    def __init__(self, database: Database, *, registry: CollectorRegistry, model: str) -> None:
        self._model = model
        counter = functools.partial(Counter, registry=registry)
        histogram = functools.partial(Histogram, registry=registry)
        self._submitted = counter("longlook_jobs_submitted_total", "Accepted jobs.", ["priority"])
        self._finished = counter(
            "longlook_jobs_finished_total",
            "Ended jobs, by status.",
            ["priority", "outcome", "error_code"],
        )
        self._attempts = counter(
            "longlook_job_attempts_total", "Ended attempts, by outcome.", ["outcome"]
        )
        self._expired = counter("longlook_leases_expired_total", "Attempts whose lease expired.")
        self._queue = histogram(
            "longlook_job_queue_seconds",
            "Time from the submission of a job to its first attempt.",
            ["priority"],
            buckets=_QUEUE_SECONDS,
        )
        self._run = histogram(
            "longlook_job_run_seconds",
            "Time from the first attempt of a job to its end.",
            ["model", "outcome"],
            buckets=_RUN_SECONDS,
        )
        self._total = histogram(
            "longlook_job_total_seconds",
            "Time from the submission of a job to its end.",
            ["outcome"],
            buckets=_TOTAL_SECONDS,
        )
        self._findings = counter(
            "longlook_findings_total",
            "Findings of guards in traces, by kind and action.",
            ["kind", "action"],
        )
        self._samples = counter(
            "longlook_vote_samples_total",
            "Requested samples of jobs with several: counted, begun in vain, or spared.",
            ["result"],
        )
        for result in ("counted", "unneeded", "spared"):
            self._samples.labels(result)
        self._streams = _StreamMetrics(registry, model=model)
        self._images = _ImageMetrics(registry)
        database.listen(self._on_note)

    def _on_note(self, note: object) -> None:
        if isinstance(note, timeline.Move):
            self._count(note)
        elif isinstance(note, traces.GenerationEnded):
            self._streams.count(note)
        elif isinstance(note, images.ImageReceived):
            self._images.count(note)
        elif isinstance(note, Finding):
            self._findings.labels(note.kind, note.action).inc()
        elif isinstance(note, Tally):
            self._samples.labels("counted").inc(note.counted)
            self._samples.labels("unneeded").inc(note.begun - note.counted)
            self._samples.labels("spared").inc(note.requested - note.begun)

    def _count(self, move: timeline.Move) -> None:
        if move.source is None:
            self._submitted.labels(move.priority).inc()
        elif move.target is Status.RUNNING and move.source is Status.QUEUED and move.attempt == 1:
            waited = (move.at - move.created_at).total_seconds()
            self._queue.labels(move.priority).observe(max(0.0, waited))
        if move.source is Status.RUNNING and move.target is not Status.RUNNING:
            self._attempts.labels(move.action).inc()
            if move.action == "lost":
                self._expired.inc()
        if move.target.terminal and move.source is not move.target:
            code = move.error_code or ""
            known = code if code in CODES or not code else "other"
            self._finished.labels(move.priority, move.target, known).inc()
            took = (move.at - move.created_at).total_seconds()
            self._total.labels(move.target).observe(max(0.0, took))
            if move.started_at is not None:
                ran = (move.at - move.started_at).total_seconds()
                self._run.labels(self._model, move.target).observe(max(0.0, ran))


class _ImageMetrics:
    """Counts the images that jobs and uploads bring or reference."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "longlook_cache_requests_total",
            "Uploaded or referenced images, by whether the account had them already.",
            ["cache", "result"],
            registry=registry,
        )
        self._bytes = Histogram(
            "longlook_image_bytes",
            "Sizes of uploaded image files.",
            buckets=_IMAGE_BYTES,
            registry=registry,
        )

    def count(self, taken: images.ImageReceived) -> None:
        """Count an image."""
        self._requests.labels("image", "hit" if taken.known else "miss").inc()
        if taken.size is not None:
            self._bytes.observe(taken.size)


class _StreamMetrics:
    """Counts times and tokens of ended engine streams."""

    def __init__(self, registry: CollectorRegistry, *, model: str) -> None:
        self._model = model
        self._first_token = Histogram(
            "longlook_time_to_first_token_seconds",
            "Time from the request to the first token, including the engine's queue.",
            ["model"],
            buckets=_FIRST_TOKEN_SECONDS,
            registry=registry,
        )
        self._token = Histogram(
            "longlook_time_per_output_token_seconds",
            "Mean time between two tokens of a stream.",
            ["model"],
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "longlook_tokens_total",
            "Tokens of ended streams; input tokens include cached and image tokens.",
            ["model", "kind"],
            registry=registry,
        )

    def count(self, finished: traces.GenerationEnded) -> None:
        """Count a stream."""
        ended = finished.ended
        for kind, tokens in (
            ("input", ended.input_tokens),
            ("cached", ended.cached_tokens),
            ("image", ended.image_tokens),
            ("output", ended.output_tokens),
        ):
            self._tokens.labels(self._model, kind).inc(tokens or 0)
        if ended.first_token_at is None:
            return
        waited = (ended.first_token_at - finished.started_at).total_seconds()
        self._first_token.labels(self._model).observe(max(0.0, waited))
        if ended.output_tokens > 1:
            wrote = (ended.ended_at - ended.first_token_at).total_seconds()
            self._token.labels(self._model).observe(max(0.0, wrote) / (ended.output_tokens - 1))
