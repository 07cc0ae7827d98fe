"""What the application may say to the server about the request that the current thread runs.

Outside of the server, such as in Flask's test client, all of it does nothing.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Hashable, Iterator
from typing import Protocol


class CurrentRequest(Protocol):
    """The request that a thread runs, as the server knows it."""

    @property
    def group(self) -> Hashable:
        """See :func:`group`."""

    def hold(self, hung_up: Callable[[], None]) -> None:
        """See :func:`hold`."""

    def step_aside(self) -> bool:
        """Give the request's place to another one; return whether it had one."""

    def step_back(self) -> None:
        """Take a place again, after :meth:`step_aside` returned True."""

    def identify(self, account_id: uuid.UUID) -> None:
        """See :func:`identify`."""


class _Current(threading.local):
    request: CurrentRequest | None = None


_current = _Current()


def hold(hung_up: Callable[[], None]) -> None:
    """Say that the current request is held open from now on: it takes no other request's place any more.

    Only requests that have a bound and shares of their own may be held open, for each keeps a thread.

    Args:
        hung_up: called when the client hangs up, by any thread and perhaps twice; it must not block.
    """
    if _current.request is not None:
        _current.request.hold(hung_up)


def group() -> Hashable:
    """Return for whom the current request counts: an account, or an address; None outside of a request."""
    return None if _current.request is None else _current.request.group


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Say that the current request waits during the block and computes nothing: it takes no other request's place.

    Only for what has a bound and shares of its own, such as image decoders, for each request keeps its thread.
    """
    request = _current.request
    if request is None or not request.step_aside():
        yield
        return
    try:
        yield
    finally:
        request.step_back()


def identify(account_id: uuid.UUID) -> None:
    """Say which account the current request's key belongs to, so that its next requests count for the account."""
    if _current.request is not None:
        _current.request.identify(account_id)


@contextlib.contextmanager
def running(request: CurrentRequest) -> Iterator[None]:
    """Make ``request`` the current one of this thread."""
    _current.request = request
    try:
        yield
    finally:
        _current.request = None
