"""What a client ordered, and everything it ever saw of it; whatever cannot have been is noted at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobs.lifecycle import Status

Json = dict[str, Any]

#: What of a job may never change again once it has ended.
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
    """One job as its client knows it; only that client's thread touches it.

    Attributes:
        key: its idempotency key.
        question: what is asked; no two orders of a run ask the same.
        options: the API's options.
        cancel_after: seconds after the first look at which it is cancelled, or None.
        rerun_of: the job it runs again, or None for a submission.
        ids: all that the API has answered to this key.
        job: the job as it was seen last.
        texts: the longest text seen of each (attempt, sample).
        wrong: what was seen that cannot be.
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
        """The job's id, once it was accepted."""
        return next(iter(self.ids), "")

    @property
    def ended(self) -> bool:
        """Whether it was seen in a state that is terminal."""
        return self.job is not None and Status(self.job["status"]).terminal

    def accept(self, job: Json) -> None:
        """Note a 202."""
        self.ids.add(job["id"])
        if len(self.ids) > 1:
            self._note("its idempotency key made several jobs")

    def see(self, job: Json) -> None:
        """Compare the job with what it was at the last look."""
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
        """Compare each stream's text with what was seen of it before."""
        for generation in trace["generations"]:
            stream = (generation["attempt"], generation["index"])
            before = self.texts.get(stream, "")
            if not generation["text"].startswith(before):
                self._note(f"the text of attempt {stream[0]} did not grow but changed")
            self.texts[stream] = generation["text"]

    def _note(self, what: str) -> None:
        self.wrong.append(f"{self.id or self.key}: seen by its client: {what}")
