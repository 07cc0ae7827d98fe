"""Request bodies: JSON and multipart forms, bounded while they are read."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import orjson
from pydantic import BaseModel, ValidationError
from werkzeug import Request
from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.formparser import MultiPartParser

from api import errors as problems
from api.framework.parameters import faults_of
from jobs import errors

if TYPE_CHECKING:
    from werkzeug.formparser import TStreamFactory

Model = TypeVar("Model", bound=BaseModel)
#: A text of a form: its name, its bytes, its encoding.
_Field = tuple[str, bytes, str]

#: Bytes of a form's text fields, all of them together at most.
_MAX_TEXT_BYTES = 2**20
_MAX_PARTS = 128
#: Bytes read at a time; a photo takes few turns.
_CHUNK = 2**18
#: An encoding in which all bytes are text, and stay what they are.
_BYTES = "iso-8859-1"


@dataclass(frozen=True)
class File:
    """A file of a form. Of one over the limit there is one byte more than allowed."""

    field: str
    stream: BinaryIO


@dataclass(frozen=True)
class Form:
    """A multipart form: text fields, each with all its values, and files in their order."""

    fields: dict[str, list[str]]
    files: list[File]


def read_json(request: Request) -> Any:  # noqa: ANN401 - JSON
    """Return the body as JSON.

    Raises:
        jobs.errors.RequestError: it is none (RFC 8259: UTF-8, no lone surrogates, no NaN).
        werkzeug.exceptions.RequestEntityTooLarge: it is over the limit for bodies.
    """
    # Only a read past the limit tells that there is more: what fits is not the whole, if no length was given.
    body = b"".join(iter(functools.partial(request.stream.read, _CHUNK), b""))
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise errors.RequestError("The request body is not valid JSON.") from None


def read_model(request: Request, model: type[Model]) -> Model:
    """Return the body as ``model``; none at all is an empty object.

    Raises:
        jobs.errors.RequestError: it is no JSON, or no such thing; then every fault is named.
    """
    if request.mimetype not in ("", "application/json"):
        raise errors.UnsupportedMediaType("Send application/json.", param="Content-Type")
    empty = request.content_length in (None, 0)
    try:
        return model.model_validate({} if empty else read_json(request))
    except ValidationError as error:
        raise problems.refused(faults_of(error)) from None


def read_form(request: Request, *, max_file_bytes: int) -> Form:
    """Return the body as a form, files in memory up to ``max_file_bytes`` each and one byte.

    Raises:
        jobs.errors.RequestError: it is none.
        werkzeug.exceptions.RequestEntityTooLarge: it, or its text, is over the limit.
    """

    def file(
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None,
        content_length: int | None = None,
    ) -> _CappedFile:
        del total_content_length, content_type, filename, content_length  # A client's word for it.
        return _CappedFile(max_file_bytes + 1)

    boundary = request.mimetype_params.get("boundary", "")
    try:
        fields, files = _Parser(file).read(
            request.stream, boundary.encode("ascii"), request.content_length
        )
    except ValueError:
        raise errors.RequestError("The request body is not a valid multipart form.") from None
    return Form(_texts(fields), [File(name, cast("BinaryIO", file.stream)) for name, file in files])


def _texts(fields: Iterable[_Field]) -> dict[str, list[str]]:
    """Return the texts of ``fields`` by name. Raises :class:`jobs.errors.RequestError` when some are none."""
    texts: dict[str, list[str]] = {}
    strange: list[str] = []
    for name, data, encoding in fields:
        try:
            texts.setdefault(name, []).append(data.decode(encoding))
        except UnicodeDecodeError:
            strange.append(f"`{name}` is not valid {encoding.upper()}.")
    if strange:
        raise errors.RequestError(" ".join(strange))
    return texts


class _Parser(MultiPartParser):
    """Gives the bytes of texts, where werkzeug's own puts a sign for what is none in the part's encoding."""

    def __init__(self, file: TStreamFactory) -> None:
        super().__init__(
            file,
            max_form_memory_size=_MAX_TEXT_BYTES,
            # All that it makes of them is a list of pairs.
            cls=cast("type[MultiDict[str, Any]]", list),
            buffer_size=_CHUNK,
            max_form_parts=_MAX_PARTS,
        )
        self._encodings: list[str] = []

    def get_part_charset(self, headers: Headers) -> str:
        """Note the encoding of a text, for which this is called once; return one in which all bytes are text."""
        self._encodings.append(super().get_part_charset(headers))
        return _BYTES

    def read(
        self, stream: IO[bytes], boundary: bytes, length: int | None
    ) -> tuple[list[_Field], list[tuple[str, FileStorage]]]:
        """Return the texts and the files of a form in their order. Raises ValueError when it is none."""
        fields, files = cast(
            "tuple[list[tuple[str, str]], list[tuple[str, FileStorage]]]",
            self.parse(stream, boundary, length),
        )
        texts = [
            (name, text.encode(_BYTES), encoding)
            for (name, text), encoding in zip(fields, self._encodings, strict=True)
        ]
        return texts, files


class _CappedFile(io.BytesIO):
    """A file in memory that takes no more than ``limit`` bytes and drops the rest."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        kept = data[: self._left]
        self._left -= super().write(kept)
        return len(data)
