"""Waiting, in one thread, for sockets and for what other threads have to say."""

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
#: Bytes taken out of the pipe at once.
_WAKES: Final = 4096


class Reactor:
    """A selector, and calls from other threads.

    Args:
        wakes: the two ends of a pipe that never blocks; a byte in it ends a wait.
    """

    def __init__(self, wakes: tuple[int, int]) -> None:
        self._wake_in, self._wake_out = wakes
        self._woken = False
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_in, READ, None)

    def wake(self) -> None:
        """End the wait. A signal handler may call it, and any thread."""
        self._woken = True
        try:
            os.write(self._wake_out, b".")
        except BlockingIOError:
            return  # It is full: the wait ends anyway.

    def call(self, call: Callable[[], None]) -> None:
        """Have the reactor's thread do something. Any thread may call it."""
        self._calls.append(call)
        if not self._woken:
            self.wake()

    def listen(self, listener: socket.socket) -> None:
        """Begin to wait for clients."""
        self._selector.register(listener, READ, listener)

    def ignore(self, listener: socket.socket) -> None:
        """End to wait for clients."""
        self._selector.unregister(listener)

    def watch(self, connection: ClientConnection, events: int) -> None:
        """Wait for other events of a connection than before; 0 is none."""
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
        """Wait for ``seconds`` at most, and handle all that has happened.

        Args:
            seconds: the longest wait.
            ready: called for each connection with an event.
            accept: called for each listener with clients.
        """
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                os.read(self._wake_in, _WAKES)
                # Before the calls are looked at: one that comes from now on ends the next wait.
                self._woken = False
            elif isinstance(key.data, ClientConnection):
                ready(key.data)
            else:
                accept(key.data)
        while self._calls:
            self._calls.popleft()()

    def close(self) -> None:
        """Let go of everything."""
        self._selector.close()
