"""The content of the current request, which is kept in memory or in the spool: bodies, files of forms, decoded images.

All of it is freed at the end of the request, and earlier where it is no longer needed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final

import flask
import structlog

from core.spool import SpooledFile

_OPEN: Final = "longlook_spool"
_PARTY: Final = "longlook_spool_party"


class SpooledInput:
    """A request body that the server has received completely, as the input of WSGI.

    Attributes:
        file: the body.
    """

    def __init__(self, file: SpooledFile) -> None:
        self.file = file
        self._pieces = file.pieces()
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, or the rest if ``size`` is negative."""
        if size < 0:
            return self._rest + b"".join(self._pieces)
        if not self._rest:
            self._rest = next(self._pieces, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def install(app: flask.Flask, *, make: Callable[[Hashable], SpooledFile]) -> None:
    """Let :func:`new_file` work in the requests of ``app``.

    Args:
        app: the application.
        make: returns new content that counts for a party; None: for the client of the current request.
    """
    app.extensions[_OPEN] = make
    app.teardown_request(_close)


def new_file() -> SpooledFile:
    """Return new content, which is freed at the end of the current request or of :func:`outside_request`.

    Outside both it stays in memory, and its user closes it.
    """
    if not flask.has_app_context():
        return SpooledFile()
    make: Callable[[Hashable], SpooledFile] = flask.current_app.extensions[_OPEN]
    file = make(flask.g.get(_PARTY))
    flask.g.setdefault(_OPEN, []).append(file)
    return file


@contextlib.contextmanager
def outside_request(app: flask.Flask, *, party: Hashable) -> Iterator[Callable[[], None]]:
    """Let :func:`new_file` work in a block without a request, for a party; yield what frees all content so far."""
    with app.app_context():
        flask.g.setdefault(_PARTY, party)
        try:
            yield functools.partial(_close, None)
        finally:
            _close(None)


def carried(run: Callable[[], None]) -> Callable[[], None]:
    """Return ``run`` as another thread can call it, even after the end of the current request.

    The content of the request goes with it, and is freed when ``run`` returns.
    """
    content = flask.g.pop(_OPEN, [])
    bound = structlog.contextvars.get_contextvars()

    @flask.copy_current_request_context
    def carry() -> None:
        flask.g.setdefault(_OPEN, []).extend(content)
        flask.g.request_id = bound.get("request_id", "")
        with structlog.contextvars.bound_contextvars(**bound):
            run()

    return carry


def received(stream: Any) -> SpooledFile | None:  # noqa: ANN401 - the input of any server
    """Return the whole body if ``stream`` has it as one file, else None."""
    return stream.file if isinstance(stream, SpooledInput) else None


def _close(_error: BaseException | None) -> None:
    for file in flask.g.pop(_OPEN, ()):
        file.close()
