"""The typed events of a response, from the numbered events of its job. Pure and deterministic.

The events of a response are computed from the first event of its job on, so they are the same at any time: live,
replayed, and after restarts. The grammar is that of the accumulators in the official clients:

* ``response.created``, ``response.queued``, ``response.in_progress``, each once and before the first item.
* Each sample of an attempt is a reasoning item: added, part added, deltas, text done, part done, item done. If an
  attempt is lost, its items end with the status ``incomplete``, and the next attempt has new ones.
* The answer is a message item, which begins only when it is settled. A long one has several deltas. If the model
  refuses to answer, the message has the refusal.
* ``response.completed``, ``response.failed``, or ``response.incomplete``, also for a response that was cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from api.openai.responses import output, response_object
from jobs.store.event_log import EventKind, JobEvent

Json = dict[str, Any]

#: The longest delta of an answer, in characters. It decides the numbers of events, which are permanent.
ANSWER_DELTA_CHARS: Final = 2048

_LAST: Final = {
    response_object.COMPLETED: "response.completed",
    response_object.FAILED: "response.failed",
    response_object.INCOMPLETE: "response.incomplete",
    response_object.CANCELLED: "response.incomplete",
}


@dataclass
class _OpenItem:
    """A reasoning item that grows."""

    id: str
    index: int
    text: list[str] = field(default_factory=list)

    def shown(self, status: str, *, summarized: bool) -> Json:
        """Return the item with its text so far."""
        return output.reasoning(self.id, "".join(self.text), status, summarized=summarized)


class TypedTranscript:
    """Turns the events of one job into those of its response.

    Args:
        digits: the hexadecimal digits of the job's id, for the ids of items.
        created: the response as it was created.
        summarized: whether the trace is sent as a summary, too: some clients show nothing else.
    """

    def __init__(self, digits: str, created: Json, *, summarized: bool) -> None:
        self._digits = digits
        self._created = created
        self._summarized = summarized
        #: The number of the next event.
        self.next_number = 0
        self._started = False
        self._open: dict[tuple[int, int], _OpenItem] = {}
        self._done: dict[int, Json] = {}
        self._next_index = 0

    def begin(self) -> Iterator[Json]:
        """Yield the events before the first event of the job."""
        yield self._event("response.created", response=self._created)
        yield self._event("response.queued", response=self._created)

    def feed(self, event: JobEvent, *, sample: int) -> Iterator[Json]:
        """Yield the events for an event of the job, except for its last one.

        Args:
            event: the next one; findings of guards add nothing.
            sample: the first generation of the sample that the event belongs to.
        """
        match event.kind:
            case EventKind.DELTA:
                yield from self._delta((event.attempt or 0, sample), event.delta or "")
            case EventKind.STARTED:
                yield from self._start()
            case EventKind.QUEUED | EventKind.RESTARTED:
                yield from self._close(response_object.INCOMPLETE)

    def end(
        self,
        status: str,
        answer: str | None,
        response: Callable[[list[Json]], Json],
        *,
        attempt: int,
    ) -> Iterator[Json]:
        """Yield the events for the end of the job.

        Args:
            status: of the response.
            answer: its text; None: it has none.
            response: returns the response with the items of its output.
            attempt: the last one of the job.
        """
        completed = status == response_object.COMPLETED
        yield from self._close_lost(attempt)
        texts = ["".join(item.text) for item in self._open.values()]
        yield from self._close(
            response_object.COMPLETED if completed else response_object.INCOMPLETE
        )
        if completed and (part := output.said(answer, texts)) is not None:
            yield from self._message(part)
        yield self._event(_LAST[status], response=response(self._items()))

    def _start(self) -> Iterator[Json]:
        if not self._started:
            self._started = True
            started = self._created | {"status": response_object.IN_PROGRESS}
            yield self._event("response.in_progress", response=started)

    def _delta(self, place: tuple[int, int], delta: str) -> Iterator[Json]:
        if not delta:
            return
        item = self._open.get(place)
        if item is None:
            attempt, sample = place
            # The timeline of an old job is removed before its text.
            yield from self._start()
            yield from self._close_lost(attempt)
            item_id = output.reasoning_id(self._digits, attempt, sample)
            item = _OpenItem(item_id, self._take_index())
            self._open[place] = item
            yield from self._reasoning_added(item)
        item.text.append(delta)
        yield self._of_part(item, "response.reasoning_text.delta", delta=delta)
        if self._summarized:
            yield self._of_summary(item, "response.reasoning_summary_text.delta", delta=delta)

    def _reasoning_added(self, item: _OpenItem) -> Iterator[Json]:
        empty = item.shown(response_object.IN_PROGRESS, summarized=False) | {"content": []}
        yield self._event("response.output_item.added", output_index=item.index, item=empty)
        part = {"type": "reasoning_text", "text": ""}
        yield self._of_part(item, "response.content_part.added", part=part)
        if self._summarized:
            part = {"type": "summary_text", "text": ""}
            yield self._of_summary(item, "response.reasoning_summary_part.added", part=part)

    def _close_lost(self, attempt: int) -> Iterator[Json]:
        """Yield the ends of the open items if they are of an earlier attempt than ``attempt``."""
        if any(earlier < attempt for earlier, _ in self._open):
            yield from self._close(response_object.INCOMPLETE)

    def _close(self, status: str) -> Iterator[Json]:
        """Yield the ends of all open items."""
        for item in self._open.values():
            shown = item.shown(status, summarized=self._summarized)
            text = shown["content"][0]["text"]
            yield self._of_part(item, "response.reasoning_text.done", text=text)
            part = shown["content"][0]
            yield self._of_part(item, "response.content_part.done", part=part)
            if self._summarized:
                yield self._of_summary(item, "response.reasoning_summary_text.done", text=text)
                part = shown["summary"][0]
                yield self._of_summary(item, "response.reasoning_summary_part.done", part=part)
            yield self._event("response.output_item.done", output_index=item.index, item=shown)
            self._done[item.index] = shown
        self._open.clear()

    def _message(self, part: Json) -> Iterator[Json]:
        item, index = output.message(self._digits, None), self._take_index()
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        yield self._event("response.output_item.added", output_index=index, item=item)
        yield self._event("response.content_part.added", **place, part=output.empty(part))
        if "refusal" in part:
            refusal = part["refusal"]
            yield self._event("response.refusal.delta", **place, delta=refusal)
            yield self._event("response.refusal.done", **place, refusal=refusal)
        else:
            yield from self._answer(part["text"], place)
        yield self._event("response.content_part.done", **place, part=part)
        done = output.message(self._digits, part)
        yield self._event("response.output_item.done", output_index=index, item=done)
        self._done[index] = done

    def _answer(self, answer: str, place: Json) -> Iterator[Json]:
        more: Json = {**place, "logprobs": []}
        for start in range(0, max(1, len(answer)), ANSWER_DELTA_CHARS):
            delta = answer[start : start + ANSWER_DELTA_CHARS]
            yield self._event("response.output_text.delta", **more, delta=delta)
        yield self._event("response.output_text.done", **more, text=answer)

    def _items(self) -> list[Json]:
        return [self._done[index] for index in sorted(self._done)]

    def _of_part(self, item: _OpenItem, kind: str, **members: object) -> Json:
        place = {"item_id": item.id, "output_index": item.index, "content_index": 0}
        return self._event(kind, **place, **members)

    def _of_summary(self, item: _OpenItem, kind: str, **members: object) -> Json:
        place = {"item_id": item.id, "output_index": item.index, "summary_index": 0}
        return self._event(kind, **place, **members)

    def _take_index(self) -> int:
        index, self._next_index = self._next_index, self._next_index + 1
        return index

    def _event(self, kind: str, **members: object) -> Json:
        number, self.next_number = self.next_number, self.next_number + 1
        return {"type": kind, "sequence_number": number, **members}
