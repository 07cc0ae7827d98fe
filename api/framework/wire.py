"""A request body on its way in: which codings are read, how many bytes, and what a broken transfer means."""

from __future__ import annotations

from typing import Protocol

from werkzeug import Request
from werkzeug.exceptions import HTTPException

from api import errors as problems
from core import errors

#: Bytes of a request body that carries no images, at most.
PLAIN_BODY_BYTES = 2**20


class _Input(Protocol):
    """What a server gives for reading a body, as far as it is used here."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""


def prepare(request: Request, *, carries_images: bool) -> None:
    """Have the body of ``request`` read within its limits, once somebody reads it.

    Args:
        request: nothing of its body has been read.
        carries_images: whether its route takes images; the bodies of all others are small.

    Raises:
        core.errors.UnsupportedContentEncoding: the body is compressed.
        core.errors.MalformedBody: it comes in a transfer coding other than ``chunked``.
        core.errors.BodyTooLarge: its length says that it is over the limit.
    """
    coded = _codings(request.headers.get("Transfer-Encoding"))
    if coded not in ([], ["chunked"]):
        raise errors.MalformedBody(
            "The transfer coding of the body is not read here; send it with a length, or chunked.",
            param="Transfer-Encoding",
        )
    length = request.content_length
    if _codings(request.headers.get("Content-Encoding")) and (coded or length):
        raise errors.UnsupportedContentEncoding(
            "An encoded body is not read here: send it without Content-Encoding, or as `identity`.",
            param="Content-Encoding",
        )
    most = request.max_content_length
    if not carries_images:
        most = PLAIN_BODY_BYTES if most is None else min(PLAIN_BODY_BYTES, most)
        request.max_content_length = most
    if most is not None and length is not None and length > most:
        raise problems.body_too_large(limit=most, seen=length)
    request.environ["wsgi.input"] = _FromCaller(request.environ["wsgi.input"], length=length)


class _FromCaller:
    """The body as the server reads it. A failure in there is the caller's, or the network's, and not ours."""

    def __init__(self, source: _Input, *, length: int | None) -> None:
        self._source = source
        #: Bytes that are still to come, if that is known.
        self._left = length

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes; none at the end.

        Raises:
            core.errors.MalformedBody: the transfer broke off, or is not HTTP.
            core.errors.BodyTimeout: it took too long.
        """
        try:
            data = self._source.read(size)
        except (errors.LonglookError, HTTPException, MemoryError):
            raise
        except TimeoutError as error:
            raise errors.BodyTimeout("The request body did not arrive in time.") from error
        except Exception as error:
            # Servers have exceptions of their own for bad chunks, with no base in common.
            raise errors.MalformedBody("The request body is malformed.") from error
        if self._left is not None:
            self._left -= len(data)
            if size and not data and self._left > 0:
                raise errors.MalformedBody(
                    f"The request body ended {self._left:,} bytes before its Content-Length."
                )
        return data


def _codings(header: str | None) -> list[str]:
    """Return what a header says was done to the body, in lower case; ``identity`` is nothing."""
    names = [name.strip().lower() for name in (header or "").split(",")]
    return [name for name in names if name not in ("", "identity")]
