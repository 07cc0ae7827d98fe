"""Reads request bodies, JSON and multipart forms, within limits."""

from __future__ import annotations

import io
import itertools
import re
import urllib.parse
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from werkzeug import Request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, MultipartDecoder, NeedData
from werkzeug.sansio.multipart import File as FilePart

from api import errors as problems
from api.framework import spooling, strict_json, wire
from api.framework.parameters import faults_of
from core import errors
from core.spool import SpooledFile

Model = TypeVar("Model", bound=BaseModel)
#: A text field of a form: its name, its bytes, its encoding.
_Field = tuple[str, bytes, str]

#: Maximum bytes of all text fields of a form together, and of what stands outside its parts.
_MAX_TEXT_BYTES = 2**20
_MAX_PARTS = 128
_MAX_PART_HEADER_BYTES = 4096
#: Bytes per read: a photo takes few of them.
_CHUNK = 2**18
#: The file name in a Content-Disposition line: ``filename``, ``filename*`` (RFC 8187) or ``filename*0*`` (RFC 2231).
#: A quoted one ends at the first quote that ends the parameter: the last byte of a character in Shift-JIS, GBK or
#: Big5 may be a backslash, which would escape the closing quote.
_FILE_NAME = re.compile(
    rb";[ \t]*+filename(?:\*\d*+\*?)?[ \t]*+=[ \t]*+"
    rb'(?:"((?:[^"]++|"(?![ \t]*+(?:;|$)))*+)"|([^;]*+))',
    re.IGNORECASE,
)
#: The break before a line that continues the one above.
_CONTINUED = re.compile(rb"\r?\n[ \t]++")
_DISPOSITION = b"content-disposition"
#: The start of an extended value (RFC 8187), and characters that clients escape in quoted ones.
_EXTENDED = re.compile(rb"^([A-Za-z0-9._-]+)'[^']*'")
_ESCAPED = re.compile(r'\\(["\\])')
_MAX_FILE_NAME_CHARS = 255


@dataclass
class FormFile:
    """A file of a form.

    Attributes:
        field: its name in the form.
        content: its bytes, none if there are too many.
        size: the number of its bytes.
        name: its file name, without control characters; empty if it has none.
    """

    field: str
    content: SpooledFile
    size: int = 0
    name: str = ""


@dataclass(frozen=True)
class FormBody:
    """A multipart form.

    Attributes:
        fields: the text fields, each with all its values; bytes that are not text are replaced.
        files: the files in order, without the empty ones that browsers send for inputs without a choice.
        unnamed: the fields for files whose part has no file name, so that it is not a file.
        undecodable: the text fields that are not valid in their encoding, with its name.
    """

    fields: dict[str, list[str]]
    files: list[FormFile]
    unnamed: frozenset[str]
    undecodable: dict[str, str]

    def refuse_undecodable(self, known: Container[str]) -> None:
        """Raise :class:`core.errors.RequestError` if one of the ``known`` text fields is not valid in its encoding."""
        invalid = [
            f"`{name}` is not valid {encoding.upper()}."
            for name, encoding in self.undecodable.items()
            if name in known
        ]
        if invalid:
            raise errors.RequestError(" ".join(invalid))


def read_body(request: Request) -> SpooledFile:
    """Return the whole body.

    Raises:
        core.errors.Overloaded: the body exceeds the caller's share of the disk space for large bodies.
        core.errors.MalformedBody: the body ends early, or is not encoded as its header says.
        werkzeug.exceptions.RequestEntityTooLarge: the body exceeds its limit.
    """
    file = wire.received(request)
    if file is None:
        file = spooling.new_file()
        # Only a read past the limit shows that there is more: without a length, the part that fits may not be all.
        while piece := request.stream.read(_CHUNK):
            file.write(piece)
    return file


def read_model(request: Request, model: type[Model]) -> Model:
    """Return the body as ``model``. An empty body, with or without a length, counts as an empty object.

    Raises:
        core.errors.RequestError: the body is not JSON, or does not match ``model``; lists every fault.
    """
    if request.mimetype not in ("", "application/json"):
        raise errors.UnsupportedMediaType(
            "The Content-Type header must be application/json; it is "
            f"`{problems.shortened(request.mimetype)}`.",
            param="Content-Type",
        )
    body = read_body(request).getvalue()
    try:
        return model.model_validate(strict_json.loads(body) if body else {})
    except ValidationError as error:
        raise problems.refused(faults_of(error)) from None


def refuse_any(request: Request) -> None:
    """Refuse any body but an empty object, for a route that reads none: ignoring it would mislead the caller.

    Raises:
        core.errors.RequestError: the body has content.
    """
    body = read_body(request).getvalue()
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


def read_form(
    request: Request, body: SpooledFile, *, files: Collection[str], max_file_bytes: int
) -> FormBody:
    """Return a body as a form, whose files no longer need the body.

    Args:
        request: its header has the boundary of the form.
        body: the form.
        files: the names of the fields for files.
        max_file_bytes: of a larger file only the size is kept.

    Raises:
        core.errors.Overloaded: the files exceed the caller's share of the disk space for large bodies.
        core.errors.RequestError: the body is not a form, or one of its parts has no name.
        core.errors.BodyTooLarge: the form has too many parts, or too much text.
    """
    boundary = _boundary(request)
    pieces = body.pieces()
    parts = _Parts(files, max_file_bytes)
    try:
        decoder = _decoder(boundary)
        ended = False
        while not ended:
            decoder.receive_data(next(pieces, None) or None)
            ended = parts.take(decoder)
    except _TooManyParts:
        raise errors.BodyTooLarge(
            f"A form must have at most {_MAX_PARTS} parts; this one has "
            f"{_MAX_PARTS + _parts_left(decoder, pieces):,}."
        ) from None
    except ValueError:
        raise errors.RequestError("The request body is not a valid multipart form.") from None
    return parts.form()


def file_pieces(request: Request, body: SpooledFile, field: str) -> Iterator[bytes]:
    """Yield the content of the file in ``field`` from a form that :func:`read_form` has read, without a copy of it."""
    decoder = _decoder(_boundary(request))
    within = False
    for piece in itertools.chain(body.pieces(), [None]):
        decoder.receive_data(piece or None)
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            if isinstance(event, Field | FilePart):
                within = isinstance(event, FilePart) and event.name == field
            elif isinstance(event, Data) and within:
                yield event.data


def _boundary(request: Request) -> str:
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary:
        raise errors.RequestError(
            "The Content-Type header has no boundary, so the form cannot be read; most clients set the header "
            "themselves.",
            param="Content-Type",
        )
    return boundary


def _decoder(boundary: str) -> _Decoder:
    """Return a new decoder. Raises :class:`ValueError` if the boundary cannot be one."""
    return _Decoder(
        boundary.encode("ascii"), max_form_memory_size=_MAX_TEXT_BYTES, max_parts=_MAX_PARTS
    )


def _parts_left(decoder: MultipartDecoder, pieces: Iterator[bytes]) -> int:
    """Read the rest of the body; return the number of its parts, with the one that has begun."""
    delimiter = b"\r\n--" + decoder.boundary
    # The end of the whole form is one more delimiter, and the part that has begun has none before it.
    count, rest = 0, bytes(decoder.buffer)
    while True:
        count += rest.count(delimiter)
        more = next(pieces, b"")
        if not more:
            return max(1, count)
        # A delimiter may lie across two reads; one that is complete is not in the rest.
        rest = rest[len(rest) - len(delimiter) + 1 :] + more


class _Decoder(MultipartDecoder):
    """Refuses input that costs much more than its bytes, with our own messages.

    Attributes:
        file_name: the file name in the header of the last part.
    """

    file_name = ""

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
        """Return the next event. Raises :class:`_TooManyParts` at the first part over the limit."""
        try:
            return super().next_event()
        except RequestEntityTooLarge:
            raise _TooManyParts from None

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        # Each line of it becomes several objects.
        if len(data) > _MAX_PART_HEADER_BYTES:
            raise errors.BodyTooLarge(
                f"The header of a form part must have at most {_MAX_PART_HEADER_BYTES:,} bytes; "
                f"one has {len(data):,}."
            )
        lines = _CONTINUED.sub(b" ", data).splitlines()
        self.file_name = next((name for name in map(file_name_in, lines) if name), "")
        return super()._parse_headers(b"\r\n".join(_without_file_name(line) for line in lines))


def _without_file_name(line: bytes) -> bytes:
    """Return a line of a part's header as UTF-8, with a fixed file name in place of the given one.

    Only whether there is a name, and whether it is empty, matters. Clients write names in all sorts of encodings.
    """
    if line[: len(_DISPOSITION)].lower() == _DISPOSITION:
        line = _FILE_NAME.sub(_fixed_name, line)
    return line.decode(errors="replace").encode()


def file_name_in(line: bytes) -> str:
    """Return the file name in a Content-Disposition line as text; empty if the line has none.

    Clients send UTF-8 (RFC 7578), and some the extended form of RFC 8187, which has priority. Other encodings have no
    mark: a byte that is not UTF-8 is read as Latin-1.
    """
    if line[: len(_DISPOSITION)].lower() != _DISPOSITION:
        return ""
    names: dict[bool, str] = {}
    for match in _FILE_NAME.finditer(line):
        value = (match[1] if match[1] is not None else match[2] or b"").strip()
        extended = _EXTENDED.match(value) if b"*" in match[0].partition(b"=")[0] else None
        if extended is not None:
            text = _decoded(urllib.parse.unquote_to_bytes(value[extended.end() :]))
        else:
            text = _ESCAPED.sub(r"\1", _decoded(value))
            # How browsers and httpx escape them in a quoted name (the form of HTML).
            for code, character in (("%22", '"'), ("%0D", ""), ("%0A", "")):
                text = text.replace(code, character)
        names.setdefault(extended is not None, text)
    name = names.get(True) or names.get(False, "")
    return "".join(char for char in name if char.isprintable())[:_MAX_FILE_NAME_CHARS]


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _fixed_name(match: re.Match[bytes]) -> bytes:
    return b'; filename="%b"' % (b"file" if match[1] or match[2] else b"")


class _TooManyParts(Exception):
    """A form has more parts than allowed."""


class _Parts:
    """Collects the parts of a form.

    Args:
        files: the names of the fields for files.
        max_file_bytes: of a larger file only the size is kept.
    """

    def __init__(self, files: Collection[str], max_file_bytes: int) -> None:
        self._texts: list[_Field] = []
        self._files: list[FormFile] = []
        #: Parts as browsers send them for inputs without a choice.
        self._not_chosen: list[FormFile] = []
        self._unnamed: set[str] = set()
        self._file_fields = files
        self._max_bytes = max_file_bytes
        self._charsets = MultiPartParser()
        self._text_bytes = 0
        self._part: Field | FilePart | None = None
        self._text = io.BytesIO()
        self._file: FormFile | None = None

    def take(self, decoder: _Decoder) -> bool:
        """Read all events that ``decoder`` has; return whether the form has ended."""
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            if isinstance(event, Data):
                self._more(event)
            elif isinstance(event, Field | FilePart):
                self._begin(event, decoder.file_name)
        return isinstance(event, Epilogue)

    def form(self) -> FormBody:
        """Return the form."""
        texts: dict[str, list[str]] = {}
        undecodable: dict[str, str] = {}
        for name, data, encoding in self._texts:
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                undecodable[name] = encoding
                text = data.decode(encoding, errors="replace")
            texts.setdefault(name, []).append(text)
        files = self._files or self._not_chosen
        return FormBody(texts, files, frozenset(self._unnamed), undecodable)

    def _begin(self, part: Field | FilePart, file_name: str) -> None:
        if not part.name:
            raise errors.RequestError(
                "A form part has no name; its Content-Disposition header must have a `name`."
            )
        self._part = part
        if isinstance(part, FilePart):
            self._file = FormFile(part.name, spooling.new_file(), name=file_name)

    def _is_text(self, part: Field | FilePart) -> bool:
        return isinstance(part, Field) and part.name not in self._file_fields

    def _more(self, event: Data) -> None:
        part = self._part
        assert part is not None  # noqa: S101 - data follows the head of its part
        if self._file is not None:
            self._add(self._file, event.data)
        elif self._is_text(part):
            self._text_bytes += len(event.data)
            if self._text_bytes > _MAX_TEXT_BYTES:
                raise errors.BodyTooLarge(
                    f"The text fields of a form must have at most {_MAX_TEXT_BYTES:,} bytes in all; these have more."
                )
            self._text.write(event.data)
        if not event.more_data:
            self._end(part)

    def _add(self, file: FormFile, data: bytes) -> None:
        file.size += len(data)
        if file.size > self._max_bytes:
            file.content.close()
        else:
            file.content.write(data)

    def _end(self, part: Field | FilePart) -> None:
        file, self._file = self._file, None
        text, self._text = self._text.getvalue(), io.BytesIO()
        if isinstance(part, FilePart) and file is not None:
            chosen = part.filename or file.size
            (self._files if chosen else self._not_chosen).append(file)
        elif self._is_text(part):
            encoding = self._charsets.get_part_charset(part.headers)
            self._texts.append((part.name, text, encoding))
        else:
            self._unnamed.add(part.name)
