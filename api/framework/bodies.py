"""Request bodies: JSON and multipart forms, bounded while they are read."""

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
#: A text of a form: its name, its bytes, its encoding.
_Field = tuple[str, bytes, str]

#: Bytes of a form's text fields, all of them together at most; likewise of what stands outside of its parts.
_MAX_TEXT_BYTES = 2**20
_MAX_PARTS = 128
_MAX_PART_HEADER_BYTES = 4096
#: Bad texts that are named in one answer, at most.
_MAX_REPORTED = 10
#: Bytes read at a time; a photo takes few turns.
_CHUNK = 2**18


@dataclass(frozen=True)
class FormFile:
    """A file of a form. Of one over the limit there is one byte more than allowed."""

    field: str
    stream: BinaryIO


@dataclass(frozen=True)
class FormBody:
    """A multipart form: text fields, each with all its values, and files in their order."""

    fields: dict[str, list[str]]
    files: list[FormFile]


def read_json(request: Request) -> Any:  # noqa: ANN401 - JSON
    """Return the body as JSON.

    Raises:
        core.errors.RequestError: it is not JSON, or has more in it than :mod:`api.framework.strict_json` takes.
        werkzeug.exceptions.RequestEntityTooLarge: it is over the limit for bodies.
    """
    return strict_json.loads(_whole(request))


def read_model(request: Request, model: type[Model]) -> Model:
    """Return the body as ``model``; an empty body is an empty object, with or without a length.

    Raises:
        core.errors.RequestError: it is no JSON, or no such thing; then every fault is named.
    """
    if request.mimetype not in ("", "application/json"):
        raise errors.UnsupportedMediaType("Send application/json.", param="Content-Type")
    body = _whole(request)
    try:
        return model.model_validate(strict_json.loads(body) if body else {})
    except ValidationError as error:
        raise problems.refused(faults_of(error)) from None


def refuse_any(request: Request) -> None:
    """Take no body, or an empty object: the route reads none, and what it says must not be ignored.

    Raises:
        core.errors.RequestError: there is more in it.
    """
    body = _whole(request)
    if not body:
        return
    if request.mimetype not in ("", "application/json"):
        raise errors.UnsupportedMediaType(
            "This route reads no body; send none, or `{}` as application/json.",
            param="Content-Type",
        )
    try:
        _Nothing.model_validate(strict_json.loads(body))
    except ValidationError as error:
        raise problems.refused(faults_of(error)) from None


class _Nothing(BaseModel, extra="forbid"):
    pass


def _whole(request: Request) -> bytes:
    # Only a read past the limit tells that there is more: what fits is not the whole, if no length was given.
    return b"".join(iter(functools.partial(request.stream.read, _CHUNK), b""))


def read_form(request: Request, *, max_file_bytes: int) -> FormBody:
    """Return the body as a form, files in memory up to ``max_file_bytes`` each and one byte.

    Raises:
        core.errors.RequestError: it is not a form, or one of its parts has no name.
        core.errors.BodyTooLarge: it has too many parts, or too much text.
        werkzeug.exceptions.RequestEntityTooLarge: it is over the limit for bodies.
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
    """Return the texts of ``fields`` by name. Raises :class:`core.errors.RequestError` when some are none."""
    texts: dict[str, list[str]] = {}
    strange: list[str] = []
    for name, data, encoding in fields:
        try:
            texts.setdefault(name, []).append(data.decode(encoding))
        except UnicodeDecodeError:
            strange.append(f"`{problems.shown(name)}` is not valid {encoding.upper()}.")
    if strange:
        raise errors.RequestError(" ".join(strange[:_MAX_REPORTED]))
    return texts


class _Decoder(MultipartDecoder):
    """Refuses what costs much more than its bytes, with words of ours."""

    def receive_data(self, data: bytes | None) -> None:
        """Take the next bytes. Raises :class:`core.errors.BodyTooLarge` when they cannot be of any part."""
        try:
            super().receive_data(data)
        except RequestEntityTooLarge:
            raise errors.BodyTooLarge(
                f"The form has more than {_MAX_TEXT_BYTES:,} bytes outside of its parts, or in a part's header."
            ) from None

    def next_event(self) -> Event:
        """Return what comes next. Raises :class:`core.errors.BodyTooLarge` at the first part too many."""
        try:
            return super().next_event()
        except RequestEntityTooLarge:
            raise errors.BodyTooLarge(
                f"A form may have at most {_MAX_PARTS} parts; this one has more."
            ) from None

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        # Each line becomes several objects.
        if len(data) > _MAX_PART_HEADER_BYTES:
            raise errors.BodyTooLarge(
                f"The header of a form part may have at most {_MAX_PART_HEADER_BYTES:,} bytes; "
                f"one here has {len(data):,}."
            )
        return super()._parse_headers(data)


class _Parts:
    """Collects the parts of a form.

    Args:
        max_file_bytes: of a larger file one byte more than that is kept.
    """

    def __init__(self, max_file_bytes: int) -> None:
        self.texts: list[_Field] = []
        self.files: list[FormFile] = []
        self._most = max_file_bytes + 1
        self._charsets = MultiPartParser()
        self._text_bytes = 0
        self._part: Field | FilePart | None = None
        self._data = io.BytesIO()

    def take(self, decoder: MultipartDecoder) -> bool:
        """Take all that ``decoder`` has, and return whether the form is at its end."""
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            if isinstance(event, Data):
                self._more(event)
            elif isinstance(event, Field | FilePart):
                if not event.name:
                    raise errors.RequestError("A form part has no name.")
                self._part = event
                self._data = io.BytesIO() if isinstance(event, Field) else _CappedFile(self._most)
        return isinstance(event, Epilogue)

    def _more(self, event: Data) -> None:
        part = self._part
        assert part is not None  # noqa: S101 - data follow the head of their part
        if isinstance(part, Field):
            self._text_bytes += len(event.data)
            if self._text_bytes > _MAX_TEXT_BYTES:
                raise errors.BodyTooLarge(
                    f"The text fields of a form may have at most {_MAX_TEXT_BYTES:,} bytes in all; these have more."
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
    """A file in memory that takes no more than ``limit`` bytes and drops the rest."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        stored = data[: self._left]
        self._left -= super().write(stored)
        return len(data)
