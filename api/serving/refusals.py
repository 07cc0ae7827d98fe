"""Responses of the server without the application, with the same body as all other errors."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from api import errors as problems
from api.framework import middleware
from core import errors, ids

#: The `Retry-After` of an overloaded server, in seconds.
_BUSY_SECONDS: Final = 5


class EarlyRefusal(Exception):
    """A request that the server refuses without the application. It closes the connection afterwards.

    Args:
        status: of the response.
        detail: one sentence for the client, with the limit and the value.
        code: of the error.
        retry_after: seconds until the same request may succeed.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        code: str = errors.RequestError.code,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.retry_after = retry_after

    def answer(self, *, body: bool = True) -> bytes:
        """Return the whole HTTP response, for HEAD without a body."""
        request_id = ids.show("req", ids.new())
        content = problems.body(
            self.status,
            code=self.code,
            title=self.status.phrase,
            detail=self.detail,
            request_id=request_id,
        )
        headers = {
            "Connection": "close",
            "Content-Type": problems.CONTENT_TYPE,
            "Content-Length": str(len(content)),
            "x-request-id": request_id,
            "x-should-retry": "false" if self.retry_after is None else "true",
            **middleware.HEADERS,
        }
        if self.retry_after is not None:
            headers["Retry-After"] = problems.retry_after(self.retry_after)
        return _head(self.status, headers) + (content if body else b"")


def overloaded(detail: str) -> EarlyRefusal:
    """Return the refusal of a request because the server is overloaded."""
    return EarlyRefusal(
        HTTPStatus.SERVICE_UNAVAILABLE, detail, code="overloaded", retry_after=_BUSY_SECONDS
    )


def unavailable(error: errors.Unavailable) -> EarlyRefusal:
    """Return the refusal for an error of the service."""
    return EarlyRefusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        error.message,
        code=error.code,
        retry_after=error.retry_after,
    )


def too_large(limit: int, seen: str) -> EarlyRefusal:
    """Return the refusal of a body over ``limit`` bytes."""
    return EarlyRefusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The request body must have at most {limit} bytes; this one has {seen}.",
        code=errors.BodyTooLarge.code,
    )


def too_slow(detail: str) -> EarlyRefusal:
    """Return the refusal of a request that did not arrive in time."""
    return EarlyRefusal(HTTPStatus.REQUEST_TIMEOUT, detail, code="request_timeout")


def malformed(detail: str) -> EarlyRefusal:
    """Return the refusal of a request that is not valid by RFC 9112."""
    return EarlyRefusal(HTTPStatus.BAD_REQUEST, detail)


def malformed_body(detail: str) -> EarlyRefusal:
    """Return the refusal of a body that is not framed by RFC 9112, or that ends too early."""
    return EarlyRefusal(HTTPStatus.BAD_REQUEST, detail, code=errors.MalformedBody.code)


def failed() -> EarlyRefusal:
    """Return the response if the application failed before it answered."""
    return EarlyRefusal(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The service failed to answer this request.",
        code=errors.LonglookError.code,
    )


def _head(status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
