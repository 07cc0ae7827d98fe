"""The listening sockets: accepting clients, and the options of their connections."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence
from typing import Final

from api import addresses
from api.serving.connections import ClientConnection
from api.serving.reactor import Reactor

#: Maximum connections to accept per turn of the loop.
_ACCEPTS: Final = 64
#: Maximum unsent bytes of a response in the kernel.
_UNSENT: Final = 2**15
_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class OutOfFiles(Exception):
    """The system has no room for another connection."""


class Listeners:
    """The listening sockets of a process.

    Args:
        sockets: they become non-blocking.
        reactor: waits for clients.
        write_seconds: how long a client may accept nothing of its response.
    """

    def __init__(
        self, sockets: Sequence[socket.socket], reactor: Reactor, *, write_seconds: float
    ) -> None:
        self._sockets = sockets
        self._reactor = reactor
        self._write_seconds = write_seconds
        self._accepting = False
        for listener in sockets:
            listener.setblocking(False)

    def resume(self) -> None:
        """Wait for clients, if the listeners do not yet."""
        if not self._accepting:
            self._accepting = True
            for listener in self._sockets:
                self._reactor.listen(listener)

    def pause(self) -> None:
        """Stop waiting for clients."""
        if self._accepting:
            self._accepting = False
            for listener in self._sockets:
                self._reactor.ignore(listener)

    def accept(self, listener: socket.socket) -> Iterator[ClientConnection]:
        """Yield the connections of the clients that wait at ``listener``.

        Raises:
            OutOfFiles: the system has no room for another one.
        """
        for _ in range(_ACCEPTS):
            try:
                accepted, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_FILES:
                    raise OutOfFiles from error
                continue  # The client has disconnected.
            accepted.setblocking(False)
            self._bound_system(accepted)
            host = str(peer[0]) if isinstance(peer, tuple) else ""
            yield ClientConnection(accepted, peer, listener.getsockname(), addresses.group(host))

    def _bound_system(self, accepted: socket.socket) -> None:
        """Make the kernel close connections of vanished hosts, and buffer little unsent data.

        Otherwise it buffers megabytes, and a client that accepts its response steadily but slowly seems to accept
        nothing for minutes. Connections from before the start of the loop inherit no options of the listener.
        """
        milliseconds = round(1000 * self._write_seconds)
        with contextlib.suppress(
            OSError, AttributeError
        ):  # Unix sockets, and systems without these options.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
