"""Reads the messages of OpenAI's clients: ``input`` items of Responses, and ``messages`` of chat completions.

:func:`read` turns either into a :class:`ReadConversation`: the conversation whose folding is the question of the job
(:mod:`api.submission.dialogue`), the images of the job (the newest ones, within the limit), and the items as they
are shown again. It raises nothing: the faults of all items are in ``faults``, each with its JSON pointer.

Users of this module pass what only their caller knows:

* ``files``: returns the file for a ``file_id`` that names an uploaded file (``file-…``), of the account of the request.
  An ``img_…`` id names an uploaded image, and needs no file.
* ``earlier``: the messages before those of the request, and ``referenced``: the messages of items that are named by
  their ids alone. :mod:`api.openai.earlier` returns both.

The place of a string that may be long, for :func:`api.framework.loads`, is known by :func:`is_image`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from api import framework
from api.schemas import fields
from api.submission import dialogue, parsing
from core import errors, ids
from core.profiles import Detail
from core.spool import SpooledFile

#: Returns the file of an id, None without one that may be an image.
Files = Callable[[str], SpooledFile | None]
#: Returns the message of an item, from its id and its place (a JSON pointer); None with a fault if it does not exist.
Referenced = Callable[[str, str, list[errors.Fault]], "Message | None"]
Role = Literal["system", "user", "assistant"]

MAX_ITEMS: Final = 1_000
#: The question of a turn that has images and no text.
_NO_TEXT: Final = "Describe what is shown."
ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_DETAILS: Final[Mapping[str, Detail | None]] = {
    "auto": None,
    "low": "low",
    "standard": "standard",
    "high": "high",
    "max": "max",
    "original": "max",
}
#: The types of parts with text, and the member that has it.
_TEXTS: Final = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
}
_IMAGES: Final = frozenset({"input_image", "image_url"})
#: Items that clients send back from an earlier output, and that say nothing that a model could use.
_IGNORED: Final = ("reasoning",)
_REFERENCE: Final = "item_reference"
#: The ids of such items begin with this.
_REASONING: Final = "rs_"
_UNSUPPORTED: Final = "unsupported_parameter"
#: What an id may look like: those that are not read are stored and shown, too.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNKNOWN: Final = "image_file_not_found"
_NO_SUCH_IMAGE: Final = (
    "There is no such image, and no such file with the purpose `vision` or `user_data`."
)


@dataclass(frozen=True)
class SentImage:
    """An image of a message, before it is known whether the job gets it.

    Attributes:
        pointer: the JSON pointer of its source in the request.
        source: a data URL, a link, or the id of an uploaded image or of a file.
        detail: the requested tier; None: the default.
        shown: the part as it is shown again.
    """

    pointer: str
    source: fields.LongText | parsing.ImageLink = field(repr=False)
    detail: Detail | None
    shown: dict[str, Any]


@dataclass
class Message:
    """A message: its texts, its images, and its content as it is shown again."""

    role: Role
    pointer: str
    texts: list[str] = field(default_factory=list, repr=False)
    images: list[SentImage] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ReadConversation:
    """What the messages of a request mean.

    Attributes:
        conversation: its images are positions in ``images``; None with faults.
        images: the images of the job.
        items: the messages of the request, to be shown again; an image has ``image``, its position in ``images``.
        faults: of all messages.
    """

    conversation: dialogue.Conversation | None
    images: tuple[parsing.SubmittedImage, ...]
    items: list[dict[str, Any]] = field(repr=False)
    faults: list[errors.Fault]


def is_image(place: tuple[str | int, ...]) -> bool:
    """Whether the body of a request has an image at ``place``, whose string may be long."""
    content = place[2:]
    return (
        place[:1] in {("input",), ("messages",)}
        and content[:1] == ("content",)
        and content[2:] in {("image_url",), ("image_url", "url")}
    )


def read(
    body: Mapping[str, Any],
    name: Literal["input", "messages"],
    *,
    max_images: int,
    max_system_chars: int | None = None,
    files: Files = lambda _: None,
    instructions: str | None = None,
    earlier: Sequence[Message] = (),
    referenced: Referenced | None = None,
    drops_oldest: bool = False,
    most_chars: int | None = None,
) -> ReadConversation:
    """Read the messages of a request.

    Args:
        body: the JSON of the request.
        name: the member with the messages; ``input`` may be a string.
        max_images: the job gets the newest images, at most this number.
        max_system_chars: the longest system text, with the instructions; None: any. Instructions that are too long by
            themselves are no fault here.
        files: returns the file of an id.
        instructions: a system text before those of the messages.
        earlier: the messages before those of the request.
        referenced: returns the message of a referenced item; None: references are not supported.
        drops_oldest: whether the oldest turns may be left out if all are too long.
        most_chars: the most characters of a question: older turns cannot be a part of it, and are not stored to be
            shown again.
    """
    faults: list[errors.Fault] = []
    sent = body.get(name)
    if isinstance(sent, str) and name == "input":
        messages = [_Reader(faults).string(sent)]
    elif isinstance(sent, list) and sent and len(sent) <= MAX_ITEMS:
        reader = _Reader(faults, referenced)
        read_ones = (reader.item(item, f"#/{name}/{index}") for index, item in enumerate(sent))
        messages = [message for message in read_ones if message is not None]
    else:
        kinds = "text, or a list" if name == "input" else "a list"
        sentence = f"This must be {kinds} of 1 to {MAX_ITEMS:,} messages."
        return ReadConversation(None, (), [], [errors.Fault(f"#/{name}", sentence)])
    every = [*earlier, *messages]
    chosen = _newest_images(every, max_images)
    sent_images = [image for message in every for image in message.images]
    images = _submitted(sent_images, chosen, files, faults)
    faults += _system_faults(messages, instructions or "", max_system_chars)
    if not faults:
        faults += _order_faults(messages, f"#/{name}")
    items = _stored(messages, most_chars)
    if faults:
        return ReadConversation(None, images, items, faults)
    system = [instructions] if instructions else []
    system += ["\n".join(message.texts) for message in every if message.role == "system"]
    turns = _turns([message for message in every if message.role != "system"], chosen)
    place = messages[-1].pointer
    whole = dialogue.Conversation(
        tuple(turns),
        system="\n\n".join(filter(None, system)),
        drops_oldest=drops_oldest,
        place=place,
    )
    return ReadConversation(whole, images, items, [])


class _Reader:
    """Reads messages and appends their faults."""

    def __init__(self, faults: list[errors.Fault], referenced: Referenced | None = None) -> None:
        self._faults = faults
        self._referenced = referenced

    def string(self, text: str) -> Message:
        """Return the message of an ``input`` that is a string."""
        message = Message("user", "#/input")
        self._text(message, text, "#/input")
        message.shown = _shown("user", [{"type": "input_text", "text": text}])
        return message

    def item(self, item: object, pointer: str) -> Message | None:
        """Return the message of an item, None for another kind of item, or with faults."""
        if not isinstance(item, dict):
            self._fault(pointer, "This must be an object.")
            return None
        # References may leave out their type.
        is_reference = "id" in item and item.keys() <= {"id", "type"}
        kind = item.get("type") or (_REFERENCE if is_reference else "message")
        if kind in _IGNORED:
            return None
        if kind == "message":
            return self._message(item, pointer)
        if kind == _REFERENCE and self._referenced is not None:
            return self._reference(item.get("id"), f"{pointer}/id", self._referenced)
        sentence = "Items of this type are not supported; this must be `message`."
        self._fault(f"{pointer}/type", sentence, _UNSUPPORTED)
        return None

    def _message(self, item: Mapping[str, Any], pointer: str) -> Message | None:
        """Return a message, None with faults."""
        role = item.get("role")
        if not isinstance(role, str) or role not in ROLES:
            self._fault(f"{pointer}/role", "This must be user, assistant, system or developer.")
            return None
        message = Message(ROLES[role], pointer)
        content = item.get("content")
        if content is None and role == "assistant" and isinstance(item.get("refusal"), str):
            # As a chat completion has a refusal of the model.
            content = [{"type": "refusal", "refusal": item["refusal"]}]
        if isinstance(content, str):
            self._text(message, content, f"{pointer}/content")
            kind = "output_text" if role == "assistant" else "input_text"
            parts: list[dict[str, Any]] = [{"type": kind, "text": content}]
        elif isinstance(content, list):
            places = ((part, f"{pointer}/content/{index}") for index, part in enumerate(content))
            read_parts = [self._part(message, part, place) for part, place in places]
            parts = [part for part in read_parts if part is not None]
        elif content is None and role == "assistant":
            # Of an answer without a text, as chat completions have it.
            parts = []
        else:
            self._fault(f"{pointer}/content", "This must be text, or a list of parts.")
            return None
        message.shown = _shown(role, parts)
        return message

    def _reference(self, item_id: object, pointer: str, referenced: Referenced) -> Message | None:
        """Return the message of a referenced item, None for a referenced trace."""
        if not isinstance(item_id, str):
            self._fault(pointer, "This must be text.")
            return None
        if item_id.startswith(_REASONING):
            return None
        return referenced(item_id, pointer, self._faults)

    def _part(self, message: Message, part: object, pointer: str) -> dict[str, Any] | None:
        """Add a part to ``message``; return it as it is shown again."""
        if not isinstance(part, dict):
            self._fault(pointer, "This must be an object.")
            return None
        kind = part.get("type")
        if not isinstance(kind, str):
            self._fault(f"{pointer}/type", "This must be text.")
            return None
        if kind in _TEXTS:
            member = _TEXTS[kind]
            text = part.get(member)
            if not isinstance(text, str):
                self._fault(f"{pointer}/{member}", "This must be text.")
                return None
            self._text(message, text, f"{pointer}/{member}")
            shown = "output_text" if message.role == "assistant" else "input_text"
            return {"type": shown, "text": text}
        if kind in _IMAGES and message.role == "user":
            return self._image(message, part, pointer)
        sentence = (
            "Images must be in messages of the user."
            if kind in _IMAGES
            else "Parts of this type are not supported; this must be text or an image."
        )
        self._fault(f"{pointer}/type", sentence, _UNSUPPORTED)
        return None

    def _image(
        self, message: Message, part: Mapping[str, Any], pointer: str
    ) -> dict[str, Any] | None:
        url, place, detail = part.get("image_url"), f"{pointer}/image_url", part.get("detail")
        around = pointer
        if isinstance(url, dict):
            around, detail = place, url.get("detail", detail)
            url, place = url.get("url"), f"{place}/url"
            if url is None:
                self._fault(place, "This is required.")
                return None
        if detail is not None and (not isinstance(detail, str) or detail not in _DETAILS):
            self._fault(f"{around}/detail", f"This must be one of {', '.join(_DETAILS)}.")
            return None
        shown = {"type": "input_image", "detail": detail or "auto", "image": None}
        file_id = part.get("file_id")
        if (url is None) == (file_id is None):
            self._fault(pointer, "This must have exactly one of `image_url` and `file_id`.")
            return None
        tier = _DETAILS[detail or "auto"]
        if file_id is not None:
            return self._file(message, file_id, f"{pointer}/file_id", tier, shown)
        source = self._address(url, place)
        if source is None:
            return None
        if isinstance(source, parsing.ImageLink):
            shown["image_url"] = source.url
        message.images.append(SentImage(place, source, tier, shown))
        return shown

    def _address(self, url: object, place: str) -> fields.LongText | parsing.ImageLink | None:
        """Return the data URL or the link in ``url``, None if it is neither."""
        if not isinstance(url, fields.LongText):
            self._fault(place, "This must be text.")
            return None
        try:
            url = fields.image_url(url)
        except ValueError as error:
            self._fault(place, str(error), "invalid_image_url")
            return None
        if fields.is_data_url(url) or not isinstance(url, str):
            return url
        return parsing.ImageLink(url)

    def _file(
        self,
        message: Message,
        file_id: object,
        pointer: str,
        detail: Detail | None,
        shown: dict[str, Any],
    ) -> dict[str, Any] | None:
        if not isinstance(file_id, str) or _ID.fullmatch(file_id) is None:
            self._fault(pointer, _NO_SUCH_IMAGE, _UNKNOWN)
            return None
        shown["file_id"] = file_id
        # The detail of an uploaded image is that of its upload.
        tier = None if ids.parse("img", file_id) is not None else detail
        message.images.append(SentImage(pointer, file_id, tier, shown))
        return shown

    def _text(self, message: Message, text: str, pointer: str) -> None:
        if "\x00" in text:
            # PostgreSQL cannot store them.
            self._fault(pointer, "This must not contain NUL characters.")
        message.texts.append(text)

    def _fault(self, pointer: str, sentence: str, code: str = errors.Fault.code) -> None:
        self._faults.append(errors.Fault(pointer, sentence, code))


def _shown(role: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": parts}


def _stored(messages: Sequence[Message], most_chars: int | None) -> list[dict[str, Any]]:
    """Return the messages as they are stored to be shown again; each look at the response reads them.

    Those are the system texts, and the newest turns until their texts have more than ``most_chars`` characters. The
    oldest of these turns is cut: that it is there shows that the conversation was longer than any question.
    """
    stored: list[dict[str, Any]] = []
    chars = 0
    for message in reversed(messages):
        if message.role == "system" or most_chars is None:
            stored.append(message.shown)
        elif chars <= most_chars:
            chars += sum(map(len, message.texts))
            stored.append(message.shown if chars <= most_chars else _cut(message, most_chars + 1))
    stored.reverse()
    return stored


def _cut(message: Message, chars: int) -> dict[str, Any]:
    """Return a message as it is shown, with the first ``chars`` characters of its texts."""
    parts: list[dict[str, Any]] = []
    for part in message.shown["content"]:
        text = part.get("text")
        parts.append(part if text is None else {**part, "text": text[:chars]})
        chars -= min(chars, len(text or ""))
    return {**message.shown, "content": parts}


def _newest_images(messages: Sequence[Message], limit: int) -> dict[str, int]:
    """Return the positions of the newest images, at most ``limit``, by their pointers."""
    pointers = [image.pointer for message in messages for image in message.images]
    newest = pointers[max(0, len(pointers) - limit) :]
    return {pointer: position for position, pointer in enumerate(newest)}


def _submitted(
    sent: Sequence[SentImage],
    chosen: Mapping[str, int],
    files: Files,
    faults: list[errors.Fault],
) -> tuple[parsing.SubmittedImage, ...]:
    """Return the chosen images; append the faults of their data URLs and files.

    Only the chosen ones are read: a request can name thousands of files.
    """
    submitted: list[parsing.SubmittedImage] = []
    for image in sent:
        position = chosen.get(image.pointer)
        if position is None:
            continue
        image.shown["image"] = position
        try:
            source = _source(image.source, files)
        except errors.ImageRejected as error:
            faults.append(errors.Fault(image.pointer, error.message, error.specific_code))
            continue
        if source is None:
            faults.append(errors.Fault(image.pointer, _NO_SUCH_IMAGE, _UNKNOWN))
            continue
        submitted.append(parsing.SubmittedImage(image.pointer, source, image.detail))
    return tuple(submitted)


def _source(
    source: fields.LongText | parsing.ImageLink, files: Files
) -> SpooledFile | str | parsing.ImageLink | None:
    """Return the image of a data URL or of a file, and links and the ids of images as they are; None: no such file.

    Raises:
        core.errors.ImageRejected: the data URL is not valid.
    """
    if isinstance(source, parsing.ImageLink):
        return source
    if isinstance(source, framework.LongString) or fields.is_data_url(source):
        return parsing.decoded(source)
    return source if ids.parse("img", source) is not None else files(source)


def _system_faults(
    messages: Sequence[Message], instructions: str, limit: int | None
) -> Iterator[errors.Fault]:
    """Yield the fault of the first system message with which the system text is longer than ``limit``."""
    chars = len(instructions)
    if limit is None or chars > limit:
        return
    for message in messages:
        if message.role == "system":
            chars += sum(map(len, message.texts))
            if chars > limit:
                sentence = f"The system texts of a request must have at most {limit:,} characters together."
                yield errors.Fault(message.pointer, sentence, "context_length_exceeded")
                return


def _order_faults(messages: Sequence[Message], pointer: str) -> Iterator[errors.Fault]:
    """Yield the fault of messages that ask nothing."""
    turns = [message for message in messages if message.role != "system"]
    if not turns:
        yield errors.Fault(pointer, "There must be a message of the user.")
        return
    newest = list(itertools.takewhile(lambda turn: turn.role == "user", reversed(turns)))
    if not newest:
        sentence = "The last message must be the user's: the model starts its answer itself."
        pointer = turns[-1].pointer
        # A reference has no role.
        yield errors.Fault(pointer if pointer.endswith("/id") else f"{pointer}/role", sentence)
    elif not any(turn.images or "".join(turn.texts).strip() for turn in newest):
        yield errors.Fault(newest[0].pointer, "The last message must have text or an image.")


def _turns(messages: Sequence[Message], chosen: Mapping[str, int]) -> Iterator[dialogue.Turn]:
    """Yield the turns: messages of one role in a row are one turn."""
    saying = [message for message in messages if message.images or "".join(message.texts).strip()]
    for role, grouped in itertools.groupby(saying, key=lambda message: message.role):
        together = list(grouped)
        texts = [text for message in together for text in message.texts if text.strip()]
        pointers = [image.pointer for message in together for image in message.images]
        positions = tuple(chosen[pointer] for pointer in pointers if pointer in chosen)
        yield dialogue.Turn(
            "assistant" if role == "assistant" else "user",
            "\n".join(texts) or _NO_TEXT,
            positions,
            left_out=len(pointers) - len(positions),
        )
