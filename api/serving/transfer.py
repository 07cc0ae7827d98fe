"""Receives request bodies: stores their content, and decodes chunks strictly."""

from __future__ import annotations

from typing import Final, Protocol

from gunicorn.http import errors as faults
from gunicorn.http.body import CHUNK_EXT_RE

from api.serving.heads import END, Head
from api.serving.refusals import malformed_body, too_large
from core.spool import SpooledFile

_CRLF: Final = b"\r\n"
#: Maximum bytes of the line with a chunk's size, and of all trailers.
_MAX_SIZE_LINE: Final = 256
_MAX_TRAILERS: Final = 8192
#: Maximum digits of a chunk's size.
_MAX_DIGITS: Final = 16
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
#: Maximum bytes of framing in addition to an eighth of the content: each tiny chunk costs time.
_FRAMING: Final = 65536
_FRAMING_PART: Final = 8


class Body(Protocol):
    """A body of which more may arrive."""

    complete: bool
    content: SpooledFile

    def feed(self, data: bytes) -> bytes:
        """Process received ``data``; return the part of it after the end of the body.

        Raises:
            EarlyRefusal: the body is malformed or too large.
        """

    def missing(self) -> int | None:
        """Return the number of missing bytes; None if unknown."""


class Sized:
    """A body of an announced length.

    Args:
        content: empty; gets the content.
        length: the announced length in bytes.
    """

    def __init__(self, content: SpooledFile, length: int) -> None:
        self.content = content
        self._left = length
        self.complete = not length

    def feed(self, data: bytes) -> bytes:
        """Process received ``data``; return the part of it after the end of the body."""
        # A slice of all bytes is not a copy.
        own, rest = data[: self._left], data[self._left :]
        self.content.write(own)
        self._left -= len(own)
        self.complete = not self._left
        return rest

    def missing(self) -> int:
        """Return the number of missing bytes."""
        return self._left


class Chunked:
    """A body in chunks (RFC 9112, section 7.1). Trailers are checked and dropped.

    Args:
        content: empty; gets the content.
        head: the head of the request, which checks trailers.
        limit: maximum bytes of content.
    """

    def __init__(self, content: SpooledFile, head: Head, *, limit: int) -> None:
        self.content = content
        self.complete = False
        self._head = head
        self._limit = limit
        self._pending = bytearray()
        #: Missing bytes of the current chunk and its line end; None between chunks.
        self._left: int | None = None
        self._in_trailers = False
        self._received = 0

    def feed(self, data: bytes) -> bytes:
        """Process received ``data``; return the part of it after the end of the body.

        Raises:
            EarlyRefusal: a chunk is malformed, or the content is too large.
        """
        self._received += len(data)
        self._pending += data
        while not self.complete and self._step():
            pass
        framing = self._received - len(self._pending) - self.content.size
        if framing > _FRAMING + self.content.size // _FRAMING_PART:
            raise malformed_body(
                "The chunks of the request body are too small: their framing must have at most an eighth of its bytes."
            )
        if not self.complete:
            return b""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def missing(self) -> None:
        """Return None: the length is unknown before the end."""

    def _step(self) -> bool:
        """Process one part of the framing; return False if more bytes are needed."""
        if self._in_trailers:
            return self._trailers()
        if self._left is None:
            return self._size_line()
        return self._data(self._left)

    def _data(self, left: int) -> bool:
        if left > len(_CRLF):
            piece = self._pending[: left - len(_CRLF)]
            if not piece:
                return False
            self.content.write(bytes(piece))
            del self._pending[: len(piece)]
            self._left = left - len(piece)
            return True
        if not self._pending.startswith(_CRLF):
            if _CRLF.startswith(self._pending):
                return False
            raise malformed_body("Each chunk of the request body must end with CRLF.")
        del self._pending[: len(_CRLF)]
        self._left = None
        return True

    def _size_line(self) -> bool:
        end = self._pending.find(b"\n", 0, _MAX_SIZE_LINE)
        if end < 0:
            if len(self._pending) >= _MAX_SIZE_LINE:
                raise malformed_body(
                    f"The line with a chunk's size must have at most {_MAX_SIZE_LINE} bytes."
                )
            return False
        size = _chunk_size(bytes(self._pending[: end + 1]))
        del self._pending[: end + 1]
        if self.content.size + size > self._limit:
            raise too_large(self._limit, f"at least {self.content.size + size}")
        self._in_trailers = not size
        self._left = size + len(_CRLF)
        return True

    def _trailers(self) -> bool:
        if self._pending.startswith(_CRLF):
            del self._pending[: len(_CRLF)]
            self.complete = True
            return False
        end = self._pending.find(END, 0, _MAX_TRAILERS)
        if end < 0:
            if len(self._pending) >= _MAX_TRAILERS:
                raise malformed_body(
                    f"The trailers of the request body must have at most {_MAX_TRAILERS} bytes."
                )
            if self._pending.count(b"\n") != self._pending.count(_CRLF):
                raise malformed_body("Each trailer of the request body must end with CRLF.")
            return False
        try:
            self._head.parse_headers(bytes(self._pending[:end]), from_trailer=True)
        except faults.ParseException:
            raise malformed_body("A trailer of the request body is not valid.") from None
        del self._pending[: end + len(END)]
        self.complete = True
        return False


def _chunk_size(line: bytes) -> int:
    """Return the size in a line that ends with LF.

    Raises:
        EarlyRefusal: the line is malformed.
    """
    if not line.endswith(_CRLF):
        raise malformed_body("The line with a chunk's size must end with CRLF.")
    digits, semicolon, extensions = line[:-2].partition(b";")
    if semicolon:
        digits = digits.rstrip(b" \t")
        if not CHUNK_EXT_RE.fullmatch(semicolon + extensions):
            raise malformed_body("A chunk's extension is not valid.")
    if not 0 < len(digits) <= _MAX_DIGITS or not _HEX.issuperset(digits):
        raise malformed_body("The size of a chunk must be a hexadecimal number.")
    return int(digits, 16)


def receive(head: Head, content: SpooledFile, *, limit: int) -> Body:
    """Return the body that follows ``head``, of at most ``limit`` bytes, to be stored as ``content``.

    Raises:
        EarlyRefusal: the announced length exceeds the limit.
    """
    if head.chunked:
        return Chunked(content, head, limit=limit)
    if head.length > limit:
        raise too_large(limit, str(head.length))
    return Sized(content, head.length)
