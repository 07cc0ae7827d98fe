"""The submissions of a client and its observations; impossible observations are recorded immediately."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobs.lifecycle import Status

Json = dict[str, Any]

#: Fields of a job that must not change after its end.
_ESSENCE = (
    "status",
    "attempt",
    "crashes",
    "failures",
    "answer",
    "error",
    "finish_reason",
    "usage",
    "finished_at",
)


@dataclass
class Order:
    """One job from the client's view; only that client's thread uses it.

    Attributes:
        key: the idempotency key.
        question: the question, which is unique within a run.
        options: the API's options.
        cancel_after: seconds from the first read to the cancel, or None.
        rerun_of: the original job of a rerun, or None for a submission.
        ids: all job ids that the API returned for this key.
        job: the job as last read.
        texts: the longest text of each (attempt, sample).
        wrong: impossible observations.
    """

    key: str
    question: str
    options: Json
    cancel_after: float | None = None
    rerun_of: str | None = None
    ids: set[str] = field(default_factory=set)
    job: Json | None = None
    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The job's id after its acceptance."""
        return next(iter(self.ids), "")

    @property
    def ended(self) -> bool:
        """Whether it was read in a terminal state."""
        return self.job is not None and Status(self.job["status"]).terminal

    def accept(self, job: Json) -> None:
        """Record a 202 response."""
        self.ids.add(job["id"])
        if len(self.ids) > 1:
            self._note("its idempotency key made several jobs")

    def see(self, job: Json) -> None:
        """Compare the job with its previous state."""
        last, self.job = self.job, job
        if last is None:
            return
        for counter in ("attempt", "crashes", "failures"):
            if job[counter] < last[counter]:
                self._note(f"{counter} went from {last[counter]} to {job[counter]}")
        if Status(last["status"]).terminal:
            for name in _ESSENCE:
                if job[name] != last[name]:
                    self._note(f"{name} changed after its end: {last[name]} to {job[name]}")

    def read(self, trace: Json) -> None:
        """Compare the text of each generation with its previous text."""
        for generation in trace["generations"]:
            stream = (generation["attempt"], generation["index"])
            before = self.texts.get(stream, "")
            if not generation["text"].startswith(before):
                self._note(f"the text of attempt {stream[0]} did not grow but changed")
            self.texts[stream] = generation["text"]

    def _note(self, what: str) -> None:
        self.wrong.append(f"{self.id or self.key}: seen by its client: {what}")
