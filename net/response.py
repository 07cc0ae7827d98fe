"""An HTTP response whose head is believed if it arrives whole, whatever happens to the body.

A receiver whose head says 200 has taken the message, even if the body is cut afterwards. So half a head counts as
none, hundreds of headers do no harm, and what comes after the head is the reader's concern.
"""

import http.client
import io
from http import HTTPStatus
from typing import Final, cast

#: Header lines that are read; the parser of the standard library refuses a response with more than 100.
_MAX_HEADERS: Final = 90
#: The longest head, in bytes, skipped headers included.
_MAX_HEAD_BYTES: Final = 256 * 1024
#: Bytes of a body that are read at a time.
_PART_BYTES: Final = 64 * 1024


class Response(http.client.HTTPResponse):
    """A response that skips informational ones (102, 103): the next request must not read what follows them."""

    def begin(self) -> None:
        """Read status and headers.

        Raises:
            http.client.HTTPException: the response is not HTTP, or its head ends early or never.
        """
        stream = self.fp
        head = _Head(stream)
        self.fp = cast("io.BufferedReader", head)
        try:
            super().begin()
            while HTTPStatus.SWITCHING_PROTOCOLS < self.status < HTTPStatus.OK:
                self.headers = None  # type: ignore[assignment] # as before the first one
                super().begin()
        finally:
            if self.fp is not None:
                self.fp = stream
        if self.length is None and not self.chunked:
            self.length = _repeated(self.headers.get("content-length", ""))

    def read_into(self, parts: list[bytes], *, cap: int) -> None:
        """Append the body to ``parts`` as it arrives, up to ``cap`` bytes: a failure leaves what came before it.

        Raises:
            OSError: the connection broke.
            http.client.HTTPException: the body is malformed or ends early.
            ValueError: the body is malformed.
        """
        left = cap
        while left and (part := self._part(min(left, _PART_BYTES))):
            parts.append(part)
            left -= len(part)
        if left and self.length:
            raise http.client.IncompleteRead(b"".join(parts), self.length)

    def _part(self, size: int) -> bytes:
        """Return up to ``size`` bytes as soon as there are some, nothing at the end of the body."""
        if self.chunked:
            return self.read1(size)
        waiting = self.peek() if self.length != 0 else b""
        # Without anything to read, this closes the response.
        return self.read(min(size, len(waiting)) or 1)


class _Head:
    """The lines of a response up to the empty one, for a parser that takes the end of a connection for that line."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._lines = 0
        self._bytes = 0

    def readline(self, size: int) -> bytes:
        """Return the status line, then headers, then an empty line, and so on."""
        line = self._read(size)
        if self._lines == 0:
            self._lines = 1
            return line
        while self._lines > _MAX_HEADERS and line.strip():
            line = self._read(size)
        if not line:
            raise http.client.IncompleteRead(b"")
        self._lines = self._lines + 1 if line.strip() else 0
        return line

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _read(self, size: int) -> bytes:
        line = self._stream.readline(size)
        self._bytes += len(line)
        if self._bytes > _MAX_HEAD_BYTES:
            raise http.client.HTTPException("The head of the response is too long.")
        return line


def _repeated(value: str) -> int | None:
    """Return the number in a ``Content-Length`` that a proxy has joined, as in ``2, 2`` (RFC 9110, 8.6)."""
    numbers = {part.strip() for part in value.split(",")}
    number = numbers.pop() if len(numbers) == 1 else ""
    return int(number) if number.isascii() and number.isdigit() else None
