"""The interface of the application to the server, for the request of the current thread.

Outside the server, for example in Flask's test client, these functions do nothing.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Hashable, Iterator
from typing import Protocol


class CurrentRequest(Protocol):
    """The request that a thread runs."""

    @property
    def group(self) -> Hashable:
        """See :func:`group`."""

    def hold(self, hung_up: Callable[[], None]) -> None:
        """See :func:`hold`."""

    def step_aside(self) -> bool:
        """Give up the request's place; return whether it had one."""

    def step_back(self) -> None:
        """Take a place again, after :meth:`step_aside` returned True."""

    def identify(self, account_id: uuid.UUID) -> None:
        """See :func:`identify`."""


class _Current(threading.local):
    request: CurrentRequest | None = None


_current = _Current()


def hold(hung_up: Callable[[], None]) -> None:
    """Mark the current request as open from now on, which frees its place.

    Only requests with limits of their own may do this, because each keeps a thread.

    Args:
        hung_up: called when the client disconnects, by any thread and perhaps twice; it must not block.
    """
    if _current.request is not None:
        _current.request.hold(hung_up)


def group() -> Hashable:
    """Return the group of the current request, an account or an address; None outside a request."""
    return None if _current.request is None else _current.request.group


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Mark the current request as waiting during the block, which frees its place.

    Only for waits with limits of their own, such as image decoding, because each request keeps its thread.
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
    """Report the account of the current request's key, so that its next requests count for the account."""
    if _current.request is not None:
        _current.request.identify(account_id)


def carried(run: Callable[[], None]) -> Callable[[], None]:
    """Return ``run`` as another thread can call it, as a part of the current request."""
    request = _current.request

    def carry() -> None:
        with contextlib.nullcontext() if request is None else running(request):
            run()

    return carry


class BrokenOff(Exception):
    """A response that has begun cannot be completed: its client must see that the connection breaks."""


@contextlib.contextmanager
def running(request: CurrentRequest) -> Iterator[None]:
    """Make ``request`` the current request of this thread."""
    _current.request = request
    try:
        yield
    finally:
        _current.request = None
