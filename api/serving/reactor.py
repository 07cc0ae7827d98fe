"""Waits, in one thread, for events of sockets and for calls from other threads."""

from __future__ import annotations

import collections
import os
import selectors
import socket
from collections.abc import Callable
from typing import Final

from api.serving.connections import ClientConnection

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE
#: Bytes per read of the pipe.
_WAKES: Final = 4096


class Reactor:
    """A selector, and calls from other threads.

    Args:
        wakes: the two ends of a non-blocking pipe; a byte in it ends a wait.
    """

    def __init__(self, wakes: tuple[int, int]) -> None:
        self._wake_in, self._wake_out = wakes
        self._woken = False
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_in, READ, None)

    def wake(self) -> None:
        """End the wait. Any thread and signal handlers may call this."""
        self._woken = True
        try:
            os.write(self._wake_out, b".")
        except BlockingIOError:
            return  # The pipe is full, so the wait ends anyway.

    def call(self, call: Callable[[], None]) -> None:
        """Run ``call`` in the reactor's thread. Any thread may call this."""
        self._calls.append(call)
        if not self._woken:
            self.wake()

    def listen(self, listener: socket.socket) -> None:
        """Start to wait for clients."""
        self._selector.register(listener, READ, listener)

    def ignore(self, listener: socket.socket) -> None:
        """Stop waiting for clients."""
        self._selector.unregister(listener)

    def watch(self, connection: ClientConnection, events: int) -> None:
        """Set the events of a connection to wait for; 0 waits for nothing."""
        if events == connection.events:
            return
        if not connection.events:
            self._selector.register(connection.socket, events, connection)
        elif events:
            self._selector.modify(connection.socket, events, connection)
        else:
            self._selector.unregister(connection.socket)
        connection.events = events

    def turn(
        self,
        seconds: float,
        *,
        ready: Callable[[ClientConnection], None],
        accept: Callable[[socket.socket], None],
    ) -> None:
        """Wait for at most ``seconds``, and handle all events.

        Args:
            seconds: the maximum wait.
            ready: called for each connection with an event.
            accept: called for each listener with waiting clients.
        """
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                os.read(self._wake_in, _WAKES)
                # Before the calls below: a call that arrives from now on ends the next wait.
                self._woken = False
            elif isinstance(key.data, ClientConnection):
                ready(key.data)
            else:
                accept(key.data)
        while self._calls:
            self._calls.popleft()()

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()
