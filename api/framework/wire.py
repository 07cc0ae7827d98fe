"""Limits a request body while it is read: its codings, its size, and errors of its transfer."""

import zlib
from typing import IO, Final

from werkzeug import Request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from api import errors as problems
from api.framework import spooling
from core import errors
from core.spool import SpooledFile

#: Maximum bytes of a request body without images.
PLAIN_BODY_BYTES = 2**20
#: The content codings that are decoded, by their names and aliases (RFC 9110, section 8.4.1).
_DECODED: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
#: Encoded bytes per read, and decoded bytes of a read without a size.
_PART: Final = 2**16
#: zlib's windows: for a gzip header, for a zlib header, and for none.
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_BARE: Final = -zlib.MAX_WBITS
#: A zlib header: two bytes with the method in the low half of the first, whose number is a multiple of the check.
_ZLIB_HEAD_BYTES: Final = 2
_ZLIB_METHOD: Final = 8
_ZLIB_CHECK: Final = 31


def prepare(request: Request, *, most: int | None = PLAIN_BODY_BYTES) -> None:
    """Check the head of the body of ``request``, and limit all later reads of it.

    Args:
        request: one whose body has not been read.
        most: the most bytes of a body at its route; the request may have a lower limit.

    Raises:
        core.errors.UnsupportedContentEncoding: the body has a content coding other than gzip and deflate.
        core.errors.MalformedBody: the body has a transfer coding other than ``chunked``.
        core.errors.BodyTooLarge: the announced length exceeds the limit.
    """
    coded = _codings(request.headers.get("Transfer-Encoding"))
    if coded not in ([], ["chunked"]):
        raise errors.MalformedBody(
            "The transfer coding of the body is not supported: send it with a length, or chunked.",
            param="Transfer-Encoding",
        )
    length = request.content_length
    encoding = _encoding(request) if coded or length else None
    limit = request.max_content_length
    if most is not None:
        limit = most if limit is None else min(most, limit)
        request.max_content_length = limit
    if limit is not None and length is not None and length > limit:
        raise problems.body_too_large(limit=limit, seen=length)
    received = _FromCaller(request.environ["wsgi.input"], length=length)
    request.environ["wsgi.input"] = received
    if encoding is not None:
        request.environ["wsgi.input"] = _Decoded(received, encoding)
        # From here on the length is that of the decoded body, which only its end shows.
        request.environ["wsgi.input_terminated"] = True
        request.environ.pop("CONTENT_LENGTH", None)
        vars(request).pop("content_length", None)


def received(request: Request) -> SpooledFile | None:
    """Return the whole body of a prepared ``request`` if the server has it as one file and need not decode it.

    Raises:
        werkzeug.exceptions.RequestEntityTooLarge: the body exceeds its limit.
    """
    body = request.environ["wsgi.input"]
    file = body.file if isinstance(body, _FromCaller) else None
    limit = request.max_content_length
    if file is not None and limit is not None and file.size > limit:
        raise RequestEntityTooLarge
    return file


def _encoding(request: Request) -> str | None:
    """Return the content coding to decode, None if the body has none."""
    names = _codings(request.headers.get("Content-Encoding"))
    if not names:
        return None
    encoding = _DECODED.get(names[0]) if len(names) == 1 else None
    if encoding is None:
        raise errors.UnsupportedContentEncoding(
            f"The content coding must be one of {problems.ACCEPTED_CODINGS}, or none; it is "
            f"`{problems.shortened(', '.join(names))}`.",
            param="Content-Encoding",
        )
    return encoding


class _FromCaller:
    """The body as the server reads it. Its failures are the caller's or the network's, not the service's."""

    def __init__(self, source: IO[bytes], *, length: int | None) -> None:
        self._source = source
        self.file = spooling.received(source)
        #: The number of missing bytes, if known.
        self._left = length

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes; none at the end.

        Raises:
            core.errors.MalformedBody: the transfer ended early, or is not HTTP.
            core.errors.BodyTimeout: the transfer took too long.
        """
        try:
            data = self._source.read(size)
        except (errors.LonglookError, HTTPException, MemoryError):
            raise
        except TimeoutError as error:
            raise errors.BodyTimeout("The request body did not arrive in time.") from error
        except Exception as error:
            # Servers raise exceptions of their own for bad chunks, without a common base.
            raise errors.MalformedBody("The request body is malformed.") from error
        if self._left is not None:
            self._left -= len(data)
            if size and not data and self._left > 0:
                raise errors.MalformedBody(
                    f"The request body ended {self._left:,} bytes before its Content-Length."
                )
        return data


class _Decoded:
    """A body whose content coding is undone while it is read, so that its limit counts decoded bytes."""

    def __init__(self, source: _FromCaller, encoding: str) -> None:
        self._source = source
        self._encoding = encoding
        self._pending = b""
        self._began = False
        #: None before the body, and between two members of a gzip body.
        self._decoder: zlib._Decompress | None = None

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` decoded bytes; none at the end.

        Raises:
            core.errors.MalformedBody: the body is not encoded as its header says, or ends early.
        """
        if size < 0:
            return b"".join(iter(lambda: self._piece(_PART), b""))
        return self._piece(size) if size else b""

    def _piece(self, size: int) -> bytes:
        try:
            while True:
                ended = not self._fill()
                if ended and self._decoder is None:
                    return b""
                if data := self._decode(size):
                    return data
                if ended and self._decoder is not None:
                    raise self._malformed("ends early, so it is not valid")
        except zlib.error:
            raise self._malformed("is not valid") from None

    def _fill(self) -> bool:
        """Read until there is something to decode; return False at the end of the body."""
        least = 1 if self._began else _ZLIB_HEAD_BYTES
        while len(self._pending) < least and (more := self._source.read(_PART)):
            self._pending += more
        return bool(self._pending)

    def _decode(self, size: int) -> bytes:
        if self._decoder is None:
            if self._began and self._encoding != "gzip":
                raise self._malformed("has bytes after its end, so it is not valid")
            self._decoder = zlib.decompressobj(self._window())
            self._began = True
        data = self._decoder.decompress(self._pending, size)
        self._pending = self._decoder.unconsumed_tail or self._decoder.unused_data
        if self._decoder.eof:
            self._decoder = None
        return data

    def _window(self) -> int:
        if self._encoding == "gzip":
            return _GZIP
        # Many clients leave out the zlib header that RFC 9110 requires of deflate; all servers read both.
        head = self._pending[:_ZLIB_HEAD_BYTES]
        has_header = (
            head[0] & 0xF == _ZLIB_METHOD and int.from_bytes(head, "big") % _ZLIB_CHECK == 0
        )
        return _ZLIB if has_header else _BARE

    def _malformed(self, what: str) -> errors.MalformedBody:
        return errors.MalformedBody(
            f"The request body {what} {self._encoding}.", param="Content-Encoding"
        )


def _codings(header: str | None) -> list[str]:
    """Return the codings in a header, in lower case, without ``identity``."""
    names = [name.strip().lower() for name in (header or "").split(",")]
    return [name for name in names if name not in ("", "identity")]
