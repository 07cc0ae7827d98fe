"""The messages before those of a request that names a ``previous_response_id``, from the stored jobs."""

from __future__ import annotations

import uuid
from typing import Any, Final

from api.openai.conversation import Message, SentImage
from core import errors, ids
from core.database import Database
from jobs.answers import model_refusals
from jobs.lifecycle import Status
from jobs.records.jobs import Job
from jobs.store import history, responses, sample_texts
from jobs.store.history import JobView

_PLACE: Final = "#/previous_response_id"
_MAX_RESPONSES: Final = 100


class Earlier:
    """Finds earlier messages.

    Args:
        database: stores jobs.
        account_id: the account whose responses may be named; None: any.
        most_responses: the most responses of a conversation that are read.
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
            view = (
                None
                if job_id is None
                else history.get(self._database, job_id, account_id=self._account_id)
            )
            if view is None or view.job.question is None:
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
            entry = responses.get(self._database, view.job.id)
            requested = (entry.requested if entry is not None else None) or {}
            rounds.append(_of(view, requested, self._said(view.job), len(rounds)))
            chars += sum(len(text) for message in rounds[-1] for text in message.texts)
            named = requested.get("previous_response_id")
        if named is not None and chars <= most_chars and not drops_oldest:
            sentence = (
                f"The conversation has more than {self._most_responses} responses; with `truncation` `auto` it "
                "loses the oldest ones."
            )
            faults.append(errors.Fault(_PLACE, sentence, "context_length_exceeded"))
        return [message for messages in reversed(rounds) for message in messages]

    def _said(self, job: Job) -> str | None:
        """Return what the model said to the user: its answer, or that it refuses to give one."""
        if job.answer_text is not None or job.status is not Status.SUCCEEDED:
            return job.answer_text
        samples = sample_texts.read(self._database, job.id).samples
        return model_refusals.of([one.text for one in samples if one.attempt == job.attempt])


def _of(view: JobView, requested: dict[str, Any], said: str | None, number: int) -> list[Message]:
    """Return the messages of one job; ``number`` makes the places of its images unique."""
    job = view.job
    items = requested.get("input")
    if items is None:
        images = [{"type": "input_image", "image": place} for place in range(len(view.images))]
        question = {"type": "input_text", "text": job.question}
        items = [{"role": "user", "content": [*images, question]}]
    messages: list[Message] = []
    for item in items:
        if item["role"] not in ("user", "assistant"):
            # System texts are not carried over to the next response.
            continue
        message = Message(item["role"], _PLACE)
        for part in item["content"]:
            if part["type"] != "input_image":
                message.texts.append(part["text"])
            elif part.get("image") is not None and part["image"] < len(view.images):
                source = ids.show("img", view.images[part["image"]].image.id)
                pointer = f"{_PLACE}/{number}/{part['image']}"
                message.images.append(SentImage(pointer, source, None, {}))
        messages.append(message)
    if said:
        messages.append(Message("assistant", _PLACE, [said]))
    return messages
