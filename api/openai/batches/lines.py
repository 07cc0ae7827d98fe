"""The lines of an input file: where they are, what they ask for, and their faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import structlog
from pydantic import Field, ValidationError

from api import errors as problems
from api import framework
from api.auth import Caller
from api.openai.batches.endpoints import BatchEndpoint
from api.schemas import fields
from api.schemas.requests import RequestModel
from api.submission import ParsedSubmission
from core import errors

_log = structlog.get_logger(__name__)

MAX_CUSTOM_ID_CHARS: Final = 512
#: Longer is the name of no model.
_MAX_MODEL_CHARS: Final = 255
#: The place of a fault of a line as a whole. It has no name: a line has a field `body`.
_WHOLE: Final = "#"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RawLine:
    """A line of a file, with its place in bytes; ``data`` None: it is too long to be read."""

    start: int
    length: int
    data: bytes | None = field(repr=False)

    @property
    def end(self) -> int:
        """The place of the next line."""
        return self.start + self.length

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing but white space."""
        return self.data is not None and not self.data.strip()


def split(pieces: Iterator[bytes], *, start: int, max_bytes: int) -> Iterator[RawLine]:
    """Yield the lines in ``pieces``, the first of which begins at ``start``; at most ``max_bytes`` are in memory.

    A byte order mark at the start of the file belongs to no line.
    """
    pending = bytearray()
    at, skipped = start, 0
    for piece in pieces:
        begin = 0
        while (end := piece.find(b"\n", begin)) >= 0:
            pending += piece[begin : end + 1]
            begin = end + 1
            line = _line(pending, at, skipped, max_bytes)
            yield line
            at, skipped = line.end, 0
            pending.clear()
        pending += piece[begin:]
        if len(pending) > max_bytes:
            skipped += len(pending)
            pending.clear()
    if pending or skipped:
        yield _line(pending, at, skipped, max_bytes)


def _line(pending: bytearray, at: int, skipped: int, max_bytes: int) -> RawLine:
    length = skipped + len(pending)
    data = None if length > max_bytes else bytes(pending)
    if data is not None and at == 0:
        data = without_mark(data)
    return RawLine(at, length, data)


def without_mark(data: bytes) -> bytes:
    """Return the first line of a file without the byte order mark that some editors write."""
    return data.removeprefix(_BYTE_ORDER_MARK)


class LineRequest(RequestModel):
    """A line: a request of its own."""

    custom_id: Annotated[fields.Text, Field(min_length=1, max_length=MAX_CUSTOM_ID_CHARS)]
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


@dataclass(frozen=True)
class ParsedLine:
    """What a line asks for, as far as it can be read, and its faults as the API shows them."""

    custom_id: str | None = None
    model: str | None = None
    submission: ParsedSubmission | None = None
    faults: tuple[dict[str, Any], ...] = ()


def parse(
    line: RawLine,
    number: int,
    *,
    endpoint: BatchEndpoint,
    caller: Caller,
    max_bytes: int,
    read_files: bool,
) -> ParsedLine:
    """Return what a line asks for. The caller must close its submission.

    Args:
        line: the line.
        number: its number.
        endpoint: the route of its batch.
        caller: the creator of the batch.
        max_bytes: the longest line.
        read_files: whether the submission needs the images that the line names by ``file_id``.
    """
    if line.data is None:
        sentence = f"A line must have at most {max_bytes:,} bytes; this one has {line.length:,}."
        return ParsedLine(faults=(_fault(number, "line_too_long", sentence),))
    try:
        value = framework.loads(
            line.data, long=lambda place: place[:1] == ("body",) and endpoint.is_long(place[1:])
        )
    except errors.RequestError as error:
        sentence = error.message.replace("The request body", "The line")
        return ParsedLine(faults=(_fault(number, "invalid_json_line", sentence),))
    custom_id = _custom_id(value)
    faults = _envelope_faults(value, endpoint)
    body = value.get("body") if isinstance(value, dict) else None
    if not isinstance(body, dict) or any(fault.pointer == "#/url" for fault in faults):
        return ParsedLine(custom_id, faults=_faults(number, faults))
    parsed = _parse_body(
        body,
        ParsedLine(custom_id, _model(body)),
        number,
        endpoint=endpoint,
        caller=caller,
        read_files=read_files,
    )
    return dataclasses.replace(parsed, faults=(*_faults(number, faults), *parsed.faults))


def _envelope_faults(value: object, endpoint: BatchEndpoint) -> list[errors.Fault]:
    """Return the faults of a line outside its body."""
    if not isinstance(value, dict):
        return [errors.Fault(_WHOLE, "A line must be a JSON object.")]
    try:
        request = LineRequest.model_validate(value)
    except ValidationError as error:
        return framework.faults_of(error)
    if request.url == endpoint.path:
        return []
    sentence = f"This must be the endpoint of the batch, `{endpoint.path}`."
    return [errors.Fault("#/url", sentence)]


def _parse_body(
    body: dict[str, Any],
    parsed: ParsedLine,
    number: int,
    *,
    endpoint: BatchEndpoint,
    caller: Caller,
    read_files: bool,
) -> ParsedLine:
    faults: list[errors.Fault] = []
    submission: ParsedSubmission | None = None
    try:
        submission = endpoint.parse(caller, body, read_files=read_files)
        faults = list(submission.faults)
    except errors.Unavailable:
        # Not the line's fault: it is read again later.
        raise
    except errors.RequestError as error:
        faults = list(error.faults)
        if not faults:
            fault = _fault(number, error.specific_code, error.message, error.param)
            return ParsedLine(parsed.custom_id, parsed.model, faults=(fault,))
    except Exception:  # noqa: BLE001 - the boundary of one line
        # One line must not stop the batch, nor the process that would meet it again and again.
        _log.exception("line_not_parsed", line=number)
        fault = _fault(number, "server_error", "The service failed to read this line.")
        return ParsedLine(parsed.custom_id, parsed.model, faults=(fault,))
    within = [
        errors.Fault(f"#/body{fault.pointer.removeprefix('#')}", fault.detail, fault.code)
        for fault in faults
    ]
    return ParsedLine(parsed.custom_id, parsed.model, submission, _faults(number, within))


def _custom_id(value: object) -> str | None:
    """Return the ``custom_id`` of a line that may have other faults."""
    text = value.get("custom_id") if isinstance(value, dict) else None
    if not isinstance(text, str) or "\0" in text or not 0 < len(text) <= MAX_CUSTOM_ID_CHARS:
        return None
    return text


def _model(body: dict[str, Any]) -> str | None:
    """Return the model that a line asks for, which need not exist; None: it could not be the name of one."""
    model = body.get("model")
    if not isinstance(model, str) or "\0" in model or len(model) > _MAX_MODEL_CHARS:
        return None
    return model


def storable(text: str) -> str:
    """Return a sentence or a place, which may name what a line has, as PostgreSQL can store it: without NUL."""
    return text.replace("\0", "\ufffd")


def repeated(number: int, custom_id: str) -> dict[str, Any]:
    """Return the fault of a line whose ``custom_id`` an earlier one has."""
    sentence = f"An earlier line has the custom_id `{problems.shortened(custom_id)}`."
    return _fault(number, "duplicate_custom_id", sentence, "custom_id")


def _faults(number: int, faults: list[errors.Fault]) -> tuple[dict[str, Any], ...]:
    return tuple(
        _fault(
            number,
            fault.code,
            fault.detail,
            None if fault.pointer == _WHOLE else problems.name_of(fault.pointer),
        )
        for fault in faults
    )


def _fault(number: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    return {
        "code": code,
        "line": number,
        "message": storable(message),
        "param": None if param is None else storable(param),
    }


def of_file(code: str, message: str) -> dict[str, Any]:
    """Return a fault of a whole file."""
    return {"code": code, "line": None, "message": message, "param": None}
