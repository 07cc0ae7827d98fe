"""The stream of a chat completion: its chunks as server-sent events, computed from the native events of the job.

The role comes once, then the reasoning as it arrives, then the answer when it is settled, then the finish reason, then,
if asked for, the usage with no choices, then ``[DONE]``. A chunk that was sent cannot be taken back: the reasoning of
an attempt that was lost stays, and that of the next attempt follows after an empty line. A client that asks for the
usage finds a ``usage`` in each chunk, as OpenAI documents it: null, but for the last one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from api.openai.chat import results
from api.openai.errors_in_body import error_body
from core import errors, escapes
from jobs.records.jobs import Job
from jobs.store.event_log import EventKind
from jobs.store.traces import GenerationTrace

_DONE: Final = b"data: [DONE]\n\n"
_BREAK: Final = "\n\n"


@dataclass(frozen=True)
class FinishedJob:
    """The row of a job, and the generations of its last attempt."""

    job: Job
    generations: Sequence[GenerationTrace]


class ChunkTranscript:
    """Writes the stream of one chat completion.

    Args:
        read: returns the row of a job and the trace of its last attempt.
        stop: texts before which the answer ends.
        include_usage: whether the stream ends with the usage.
        after_end: called when the job has finished and its content was read.
    """

    def __init__(
        self,
        read: Callable[[uuid.UUID], FinishedJob],
        *,
        stop: Sequence[str] = (),
        include_usage: bool = False,
        after_end: Callable[[uuid.UUID], None] = lambda _: None,
    ) -> None:
        self._read = read
        self._stop = stop
        self._include_usage = include_usage
        self._after_end = after_end
        self._head: dict[str, Any] = {}
        self._job_id: uuid.UUID | None = None
        self._several = False
        self._attempt = 0
        #: The reasoning of this attempt that was sent.
        self._sent: list[str] = []
        self._sent_before = False

    def begin(self, job_id: uuid.UUID) -> bytes:
        """Return the chunk with the role."""
        job = self._read(job_id).job
        self._job_id = job_id
        self._several = (job.options.get("samples") or 1) > 1
        self._head = {
            "id": results.completion_id(job),
            "object": "chat.completion.chunk",
            "created": results.created(job),
            "model": job.model,
        }
        return self._delta({"role": "assistant", "content": ""})

    def feed(self, event: Mapping[str, Any]) -> bytes:
        """Return what an event adds: the reasoning of a delta, or the end of the stream."""
        if event["type"] == EventKind.DELTA:
            return self._reasoning(event)
        if event["type"] == EventKind.FINISHED:
            return self._end()
        return b""

    def failed(self, error: errors.RequestError | errors.Unavailable) -> bytes:
        """Return the end of a stream that fails: clients raise an error for it."""
        return _frame(error_body(error))

    def _reasoning(self, event: Mapping[str, Any]) -> bytes:
        # Samples run at the same time: the first one is shown while it runs.
        if self._several and event["generation"] != 0:
            return b""
        text = event["delta"]
        if event["attempt"] != self._attempt:
            if self._sent:
                self._sent_before = True
                text = _BREAK + text
            self._attempt, self._sent = event["attempt"], []
        self._sent.append(event["delta"])
        return self._delta({"reasoning_content": text})

    def _end(self) -> bytes:
        assert self._job_id is not None  # noqa: S101 - the stream has begun
        ended = self._read(self._job_id)
        self._after_end(self._job_id)
        job, generations = ended.job, ended.generations
        try:
            reason = results.finish_reason(job, generations)
        except results.JobFailed as error:
            return self.failed(error)
        frames = [self._rest(results.reasoning(job, generations))]
        content = results.content(job, self._stop)
        if content is not None:
            frames.append(self._delta({"content": content}))
        elif (refusal := results.refusal(job, generations)) is not None:
            frames.append(self._delta({"refusal": refusal}))
        frames.append(self._delta({}, finish_reason=reason))
        if self._include_usage:
            usage = results.usage(job, generations).model_dump()
            frames.append(_frame({**self._head, "choices": [], "usage": usage}))
        return b"".join([*frames, _DONE])

    def _rest(self, reasoning: str) -> bytes:
        """Return the part of the reasoning that was not sent, or all of it if another one was sent."""
        sent = "".join(self._sent)
        rest = reasoning.removeprefix(sent) if reasoning.startswith(sent) else _BREAK + reasoning
        return self._delta({"reasoning_content": rest}) if rest else b""

    def _delta(self, delta: Mapping[str, Any], *, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return _frame({**self._head, "choices": [choice], **usage})


def _frame(data: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % escapes.in_one_line(orjson.dumps(data))
