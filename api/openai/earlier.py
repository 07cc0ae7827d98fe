"""Messages of earlier responses, from the stored jobs: for a ``previous_response_id``, and for references to items."""

from __future__ import annotations

import re
import uuid
from typing import Any, Final

from api.openai.conversation import ROLES, Message, SentImage
from core import errors, ids
from core.database import Database
from jobs.answers import model_refusals
from jobs.lifecycle import Status
from jobs.records.jobs import Job
from jobs.store import history, responses, sample_texts
from jobs.store.history import JobView

_PLACE: Final = "#/previous_response_id"
_MAX_RESPONSES: Final = 100
#: The id of an answer, or of an input item: :mod:`api.openai.responses.output` and its ``items`` write them.
_ITEM: Final = re.compile(r"msg_([0-9a-f]{32})(?:_in_([0-9]{1,4}))?")
_TOO_LONG: Final = "context_length_exceeded"


class Earlier:
    """Finds earlier messages.

    Args:
        database: stores jobs.
        account_id: the account whose responses may be named; None: any.
        most_responses: the most responses of a conversation that are read, and the most whose items are.
    """

    def __init__(
        self,
        database: Database,
        *,
        account_id: uuid.UUID | None,
        most_responses: int = _MAX_RESPONSES,
    ) -> None:
        self._database = database
        self._most_responses = most_responses
        self._account_id = account_id
        #: What references of this request have named: hundreds may name items of one job.
        self._named: dict[uuid.UUID, JobView | None] = {}
        self._items_of: dict[uuid.UUID, list[dict[str, Any]]] = {}
        self._said_of: dict[uuid.UUID, str | None] = {}

    def messages(
        self,
        response_id: str,
        faults: list[errors.Fault],
        *,
        most_chars: int,
        drops_oldest: bool = False,
    ) -> list[Message]:
        """Return the input and the answers up to the response ``response_id``, the oldest first.

        Without the response or an older one, with one that has not finished, or with more responses than are read,
        ``faults`` gets one.

        Args:
            response_id: the newest response.
            faults: gets the fault.
            most_chars: once the texts have more characters than a job can get, older ones are not read. A hundred
                responses can have gigabytes of text.
            drops_oldest: whether the oldest responses may be left out: those before the newest ones.
        """
        rounds: list[list[Message]] = []
        named: str | None = response_id
        chars = 0
        while named is not None and len(rounds) < self._most_responses and chars <= most_chars:
            job_id = ids.parse("resp", named)
            view = None if job_id is None else self._get(job_id)
            if view is None:
                if rounds and drops_oldest:
                    break
                sentence = f"There is no response `{named[:64]}`."
                if rounds:
                    sentence = (
                        f"The conversation has the response `{named[:64]}`, which does not exist any more; "
                        "with `truncation` `auto`, it begins after this one."
                    )
                faults.append(errors.Fault(_PLACE, sentence, "previous_response_not_found"))
                return []
            if not view.job.status.terminal:
                faults.append(errors.Fault(_PLACE, f"The response `{named}` has not finished."))
                return []
            requested = self._requested(view)
            rounds.append(_of(view, requested, self._said(view.job), len(rounds)))
            chars += sum(len(text) for message in rounds[-1] for text in message.texts)
            named = requested.get("previous_response_id")
        if named is not None and chars <= most_chars and not drops_oldest:
            sentence = (
                f"The conversation has more than {self._most_responses} responses; with `truncation` `auto` it "
                "loses the oldest ones."
            )
            faults.append(errors.Fault(_PLACE, sentence, _TOO_LONG))
        return [message for messages in reversed(rounds) for message in messages]

    def referenced(self, item_id: str, pointer: str, faults: list[errors.Fault]) -> Message | None:
        """Return the message of an item of a response; without it, ``faults`` gets one, and None comes back.

        Args:
            item_id: the id of an answer, or of an input item.
            pointer: the place of the id in the request, and of the message.
            faults: gets the fault.
        """
        match = _ITEM.fullmatch(item_id)
        view = None
        if match is not None:
            job_id = uuid.UUID(hex=match[1])
            if job_id not in self._named and len(self._named) >= self._most_responses:
                sentence = (
                    f"A request can have references to items of {self._most_responses} responses."
                )
                faults.append(errors.Fault(pointer, sentence, _TOO_LONG))
                return None
            if job_id not in self._named:
                self._named[job_id] = self._get(job_id)
            view = self._named[job_id]
        message = None
        if match is not None and view is not None:
            message = self._item(view, match[2], pointer)
        if message is None:
            sentence = f"There is no item `{item_id[:64]}`."
            faults.append(errors.Fault(pointer, sentence, "item_not_found"))
        return message

    def _item(self, view: JobView, number: str | None, pointer: str) -> Message | None:
        """Return the message of an input item, without a number of the answer."""
        job = view.job
        if number is not None:
            if job.id not in self._items_of:
                self._items_of[job.id] = _items(view, self._requested(view))
            items = self._items_of[job.id]
            return _message(items[int(number)], view, pointer) if int(number) < len(items) else None
        if job.id not in self._said_of:
            self._said_of[job.id] = self._said(job) if job.status.terminal else None
        if (said := self._said_of[job.id]) is None:
            return None
        part = {"type": "output_text", "text": said}
        return _message({"role": "assistant", "content": [part]}, view, pointer)

    def _get(self, job_id: uuid.UUID) -> JobView | None:
        """Return a job of the account whose content has not been removed."""
        view = history.get(self._database, job_id, account_id=self._account_id)
        return None if view is None or view.job.question is None else view

    def _requested(self, view: JobView) -> dict[str, Any]:
        entry = responses.get(self._database, view.job.id)
        return (entry.requested if entry is not None else None) or {}

    def _said(self, job: Job) -> str | None:
        """Return what the model said to the user: its answer, or that it refuses to give one."""
        if job.answer_text is not None or job.status is not Status.SUCCEEDED:
            return job.answer_text
        samples = sample_texts.read(self._database, job.id).samples
        return model_refusals.of([one.text for one in samples if one.attempt == job.attempt])


def _of(view: JobView, requested: dict[str, Any], said: str | None, number: int) -> list[Message]:
    """Return the messages of one job; ``number`` makes the places of its images unique."""
    # System texts are not carried over to the next response.
    messages = [
        _message(item, view, f"{_PLACE}/{number}")
        for item in _items(view, requested)
        if item["role"] in ("user", "assistant")
    ]
    if said:
        messages.append(Message("assistant", _PLACE, [said]))
    return messages


def native_items(question: str, images: int) -> list[dict[str, Any]]:
    """Return the input items of a job of the native API: one, with the number of its images before the question."""
    shown = [
        {"type": "input_image", "detail": "auto", "image": position} for position in range(images)
    ]
    text = {"type": "input_text", "text": question}
    return [{"role": "user", "content": [*shown, text]}]


def _items(view: JobView, requested: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the input items of a job."""
    items: list[dict[str, Any]] | None = requested.get("input")
    return native_items(view.job.question or "", len(view.images)) if items is None else items


def _message(item: dict[str, Any], view: JobView, place: str) -> Message:
    """Return the message of an input item; ``place`` is unique, for its images."""
    message = Message(ROLES[item["role"]], place)
    parts: list[dict[str, Any]] = []
    for part in item["content"]:
        if part["type"] != "input_image":
            message.texts.append(part["text"])
            parts.append(part)
        elif part.get("image") is not None and part["image"] < len(view.images):
            source = ids.show("img", view.images[part["image"]].image.id)
            detail = part.get("detail", "auto")
            shown = {"type": "input_image", "detail": detail, "image": None}
            message.images.append(SentImage(f"{place}/{part['image']}", source, None, shown))
            parts.append(shown)
    message.shown = {"type": "message", "role": item["role"], "content": parts}
    return message
