"""The URLs of this service in its responses: behind a reverse proxy they begin with more than their path.

They are absolute if the public URL is known. Otherwise they are paths, which clients resolve against the URL of their
request, after the prefix at which a proxy serves the API.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

import flask

_base: ContextVar[str] = ContextVar("base_of_links", default="")
#: Stands for the base in what is made once for several requests. Nobody can guess it, so no text of a user contains it.
PLACEHOLDER: Final = f"longlook-base-{secrets.token_hex(16)}"
_PLACEHOLDER_BYTES: Final = PLACEHOLDER.encode()
_PATH: Final = "longlook_links"


def to(path: str) -> str:
    """Return the URL of a path of the API, as the client of the current request can use it."""
    return _base.get() + path


def base() -> str:
    """Return what stands before the paths of the API in the current request."""
    return _base.get()


@contextlib.contextmanager
def based_on(start: str) -> Iterator[None]:
    """Let URLs begin with ``start`` during the block."""
    token = _base.set(start)
    try:
        yield
    finally:
        _base.reset(token)


def resolved(data: bytes, start: bytes) -> bytes:
    """Return ``data`` with ``start`` in place of :data:`PLACEHOLDER`."""
    return data.replace(_PLACEHOLDER_BYTES, start)


def install(app: flask.Flask, *, public_url: str) -> None:
    """Set the base of URLs for each request of ``app``.

    Args:
        app: the application.
        public_url: the URL at which clients reach the API; empty: unknown.
    """

    def begin() -> None:
        flask.g.setdefault(_PATH, contextlib.ExitStack()).enter_context(
            based_on(public_url or flask.request.script_root)
        )

    def end(_error: BaseException | None) -> None:
        stack = flask.g.pop(_PATH, None)
        if stack is not None:
            stack.close()

    app.before_request(begin)
    app.teardown_request(end)
