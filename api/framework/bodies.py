"""Reads request bodies, JSON and multipart forms, within limits."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError
from werkzeug import Request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, MultipartDecoder, NeedData
from werkzeug.sansio.multipart import File as FilePart

from api import errors as problems
from api.framework import strict_json
from api.framework.parameters import faults_of
from core import errors

Model = TypeVar("Model", bound=BaseModel)
#: A text field of a form: its name, its bytes, its encoding.
_Field = tuple[str, bytes, str]

#: Maximum bytes of all text fields of a form together, and of what stands outside its parts.
_MAX_TEXT_BYTES = 2**20
_MAX_PARTS = 128
_MAX_PART_HEADER_BYTES = 4096
#: Maximum number of invalid text fields that one error names.
_MAX_REPORTED = 10
#: Bytes per read: a photo takes few of them.
_CHUNK = 2**18


@dataclass(frozen=True)
class FormFile:
    """A file of a form. One over the limit is cut one byte after it."""

    field: str
    stream: BinaryIO


@dataclass(frozen=True)
class FormBody:
    """A multipart form: the text fields, each with all its values, and the files in order."""

    fields: dict[str, list[str]]
    files: list[FormFile]


def read_json(request: Request) -> Any:  # noqa: ANN401 - JSON
    """Return the body as JSON.

    Raises:
        core.errors.RequestError: the body is not JSON, or exceeds a limit of :mod:`api.framework.strict_json`.
        werkzeug.exceptions.RequestEntityTooLarge: the body exceeds its limit.
    """
    return strict_json.loads(_whole(request))


def read_model(request: Request, model: type[Model]) -> Model:
    """Return the body as ``model``. An empty body, with or without a length, counts as an empty object.

    Raises:
        core.errors.RequestError: the body is not JSON, or does not match ``model``; lists every fault.
    """
    if request.mimetype not in ("", "application/json"):
        raise errors.UnsupportedMediaType("Send application/json.", param="Content-Type")
    body = _whole(request)
    try:
        return model.model_validate(strict_json.loads(body) if body else {})
    except ValidationError as error:
        raise problems.refused(faults_of(error)) from None


def refuse_any(request: Request) -> None:
    """Refuse any body but an empty object, for a route that reads none: ignoring it would mislead the caller.

    Raises:
        core.errors.RequestError: the body has content.
    """
    body = _whole(request)
    if not body:
        return
    if request.mimetype not in ("", "application/json"):
        raise errors.UnsupportedMediaType(
            "This route takes no body: send none, or `{}` as application/json.",
            param="Content-Type",
        )
    try:
        _Nothing.model_validate(strict_json.loads(body))
    except ValidationError as error:
        raise problems.refused(faults_of(error)) from None


class _Nothing(BaseModel, extra="forbid"):
    pass


def _whole(request: Request) -> bytes:
    # Only a read past the limit shows that there is more: without a length, the part that fits may not be all.
    return b"".join(iter(functools.partial(request.stream.read, _CHUNK), b""))


def read_form(request: Request, *, max_file_bytes: int) -> FormBody:
    """Return the body as a form, with up to ``max_file_bytes`` + 1 bytes of each file in memory.

    Raises:
        core.errors.RequestError: the body is not a form, or one of its parts has no name.
        core.errors.BodyTooLarge: the form has too many parts, or too much text.
        werkzeug.exceptions.RequestEntityTooLarge: the body exceeds its limit.
    """
    boundary = request.mimetype_params.get("boundary", "")
    parts = _Parts(max_file_bytes)
    try:
        decoder = _Decoder(
            boundary.encode("ascii"), max_form_memory_size=_MAX_TEXT_BYTES, max_parts=_MAX_PARTS
        )
        ended = False
        while not ended:
            decoder.receive_data(request.stream.read(_CHUNK) or None)
            ended = parts.take(decoder)
    except ValueError:
        raise errors.RequestError("The request body is not a valid multipart form.") from None
    return FormBody(_texts(parts.texts), parts.files)


def _texts(fields: Iterable[_Field]) -> dict[str, list[str]]:
    """Return the texts of ``fields`` by name. Raises :class:`core.errors.RequestError` for undecodable ones."""
    texts: dict[str, list[str]] = {}
    invalid: list[str] = []
    for name, data, encoding in fields:
        try:
            texts.setdefault(name, []).append(data.decode(encoding))
        except UnicodeDecodeError:
            invalid.append(f"`{problems.shortened(name)}` is not valid {encoding.upper()}.")
    if invalid:
        raise errors.RequestError(" ".join(invalid[:_MAX_REPORTED]))
    return texts


class _Decoder(MultipartDecoder):
    """Refuses input that costs much more than its bytes, with our own messages."""

    def receive_data(self, data: bytes | None) -> None:
        """Accept the next bytes. Raises :class:`core.errors.BodyTooLarge` if too many belong to no part."""
        try:
            super().receive_data(data)
        except RequestEntityTooLarge:
            raise errors.BodyTooLarge(
                f"A form must have at most {_MAX_TEXT_BYTES:,} bytes outside its parts, or in a part's header; "
                "this one has more."
            ) from None

    def next_event(self) -> Event:
        """Return the next event. Raises :class:`core.errors.BodyTooLarge` at the first part over the limit."""
        try:
            return super().next_event()
        except RequestEntityTooLarge:
            raise errors.BodyTooLarge(
                f"A form must have at most {_MAX_PARTS} parts; this one has more."
            ) from None

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        # Each line of it becomes several objects.
        if len(data) > _MAX_PART_HEADER_BYTES:
            raise errors.BodyTooLarge(
                f"The header of a form part must have at most {_MAX_PART_HEADER_BYTES:,} bytes; "
                f"one has {len(data):,}."
            )
        return super()._parse_headers(data)


class _Parts:
    """Collects the parts of a form.

    Args:
        max_file_bytes: a larger file is cut one byte after this limit.
    """

    def __init__(self, max_file_bytes: int) -> None:
        self.texts: list[_Field] = []
        self.files: list[FormFile] = []
        self._max_bytes = max_file_bytes + 1
        self._charsets = MultiPartParser()
        self._text_bytes = 0
        self._part: Field | FilePart | None = None
        self._data = io.BytesIO()

    def take(self, decoder: MultipartDecoder) -> bool:
        """Read all events that ``decoder`` has; return whether the form has ended."""
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            if isinstance(event, Data):
                self._more(event)
            elif isinstance(event, Field | FilePart):
                if not event.name:
                    raise errors.RequestError("A form part has no name.")
                self._part = event
                self._data = (
                    io.BytesIO() if isinstance(event, Field) else _CappedFile(self._max_bytes)
                )
        return isinstance(event, Epilogue)

    def _more(self, event: Data) -> None:
        part = self._part
        assert part is not None  # noqa: S101 - data follows the head of its part
        if isinstance(part, Field):
            self._text_bytes += len(event.data)
            if self._text_bytes > _MAX_TEXT_BYTES:
                raise errors.BodyTooLarge(
                    f"The text fields of a form must have at most {_MAX_TEXT_BYTES:,} bytes in all; these have more."
                )
        self._data.write(event.data)
        if event.more_data:
            return
        if isinstance(part, Field):
            encoding = self._charsets.get_part_charset(part.headers)
            self.texts.append((part.name, self._data.getvalue(), encoding))
        else:
            self._data.seek(0)
            self.files.append(FormFile(part.name, self._data))


class _CappedFile(io.BytesIO):
    """A file in memory that stores up to ``limit`` bytes and drops the rest."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        stored = data[: self._left]
        self._left -= super().write(stored)
        return len(data)
