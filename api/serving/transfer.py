"""Receives request bodies: stores their content, and decodes chunks strictly."""

from __future__ import annotations

import collections
import io
from typing import BinaryIO, Final, Protocol

from gunicorn.http import errors as faults
from gunicorn.http.body import CHUNK_EXT_RE

from api.serving.heads import END, Head
from api.serving.refusals import malformed_body, too_large

#: Minimum bytes of a piece that is stored as received; smaller pieces are joined.
_LARGE: Final = 2**14
_PART: Final = 2**16
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
    content: Content

    def feed(self, data: bytes) -> bytes:
        """Process received ``data``; return the part of it after the end of the body.

        Raises:
            EarlyRefusal: the body is malformed or too large.
        """

    def missing(self) -> int | None:
        """Return the number of missing bytes; None if unknown."""


class Content:
    """The bytes of a body, written once and read once."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: collections.deque[bytes] = collections.deque()
        #: Small pieces, after all parts.
        self._small = bytearray()

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        self.size += len(data)
        if len(data) >= _LARGE:
            self._gather()
            self._parts.append(data)
            return
        self._small += data
        if len(self._small) >= _PART:
            self._gather()

    def stream(self) -> BinaryIO:
        """Return the content as a file, which frees each part after it is read."""
        if not self._parts:
            return io.BytesIO(bytes(self._small))
        self._gather()
        return _Stream(self._parts)  # type: ignore[return-value] # readers only need `read`

    def close(self) -> None:
        """Free the memory."""
        self._parts.clear()
        self._small = bytearray()

    def _gather(self) -> None:
        if self._small:
            self._parts.append(bytes(self._small))
            self._small.clear()


class _Stream(io.RawIOBase):
    """Reads parts, and frees each part after it is read."""

    def __init__(self, parts: collections.deque[bytes]) -> None:
        self._parts = parts
        #: The position in the first part.
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, or the rest if ``size`` is negative."""
        return self.readall() if size < 0 else self._piece(size)

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override] # any buffer
        """Read into ``buffer``; return the number of bytes."""
        piece = self._piece(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _piece(self, size: int) -> bytes:
        if not self._parts:
            return b""
        first = self._parts[0]
        piece = first[self._position : self._position + size]
        self._position += len(piece)
        if self._position == len(first):
            self._parts.popleft()
            self._position = 0
        return piece


class Sized:
    """A body of an announced length.

    Args:
        length: the announced length in bytes.
    """

    def __init__(self, length: int) -> None:
        self.content = Content()
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
        head: the head of the request, which checks trailers.
        limit: maximum bytes of content.
    """

    def __init__(self, head: Head, *, limit: int) -> None:
        self.content = Content()
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


def receive(head: Head, *, limit: int) -> Body:
    """Return the body that follows ``head``, of at most ``limit`` bytes.

    Raises:
        EarlyRefusal: the announced length exceeds the limit.
    """
    if head.chunked:
        return Chunked(head, limit=limit)
    if head.length > limit:
        raise too_large(limit, str(head.length))
    return Sized(head.length)
