"""Limits a request body while it is read: its codings, its size, and errors of its transfer."""

from typing import IO

from werkzeug import Request
from werkzeug.exceptions import HTTPException

from api import errors as problems
from core import errors

#: Maximum bytes of a request body without images.
PLAIN_BODY_BYTES = 2**20


def prepare(request: Request, *, carries_images: bool) -> None:
    """Check the head of the body of ``request``, and limit all later reads of it.

    Args:
        request: one whose body has not been read.
        carries_images: whether its route takes images; all other bodies must be small.

    Raises:
        core.errors.UnsupportedContentEncoding: the body is compressed.
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
    if _codings(request.headers.get("Content-Encoding")) and (coded or length):
        raise errors.UnsupportedContentEncoding(
            "Encoded bodies are not supported: send it without Content-Encoding, or as `identity`.",
            param="Content-Encoding",
        )
    limit = request.max_content_length
    if not carries_images:
        limit = PLAIN_BODY_BYTES if limit is None else min(PLAIN_BODY_BYTES, limit)
        request.max_content_length = limit
    if limit is not None and length is not None and length > limit:
        raise problems.body_too_large(limit=limit, seen=length)
    request.environ["wsgi.input"] = _FromCaller(request.environ["wsgi.input"], length=length)


class _FromCaller:
    """The body as the server reads it. Its failures are the caller's or the network's, not the service's."""

    def __init__(self, source: IO[bytes], *, length: int | None) -> None:
        self._source = source
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


def _codings(header: str | None) -> list[str]:
    """Return the codings in a header, in lower case, without ``identity``."""
    names = [name.strip().lower() for name in (header or "").split(",")]
    return [name for name in names if name not in ("", "identity")]
