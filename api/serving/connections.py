"""The state of a connection and of its request."""

from __future__ import annotations

import enum
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from api.serving.heads import Head
from api.serving.shares import Group
from api.serving.transfer import Body


class ConnectionState(enum.Enum):
    """The state of a connection."""

    #: Between two requests; nothing of the next one has arrived.
    IDLE = enum.auto()
    #: The head is not complete.
    HEAD = enum.auto()
    BODY = enum.auto()
    #: A thread runs the request, or the request waits for a thread.
    SERVED = enum.auto()
    #: The response is complete, but not all of it is sent.
    REST = enum.auto()
    #: The response is sent; the client has not closed the connection yet.
    LINGER = enum.auto()
    CLOSED = enum.auto()


class ConnectionOutcome(enum.Enum):
    """What to do with a connection after its request."""

    #: Another request may follow.
    REUSE = enum.auto()
    CLOSE = enum.auto()
    #: The response is incomplete, and the client must notice that.
    BREAK = enum.auto()
    #: The client has disconnected.
    CUT_OFF = enum.auto()


@dataclass(eq=False, slots=True)
class ClientConnection:
    """A client's connection. Only the loop changes it.

    Attributes:
        socket: non-blocking.
        peer: the address of the client's socket.
        server: the address of the server's socket.
        group: the group of the peer's address.
        state: what the connection waits for.
        buffer: received bytes that belong to no request yet.
        searched: the length of the part of the buffer without the end of a head.
        requests: the number of heads so far.
        events: the events that the selector watches.
        cycle: the current request.
    """

    socket: socket.socket
    peer: Any
    server: Any
    group: str
    state: ConnectionState = ConnectionState.HEAD
    buffer: bytearray = field(default_factory=bytearray)
    searched: int = 0
    requests: int = 0
    events: int = 0
    cycle: RequestCycle | None = None

    @property
    def host(self) -> str:
        """The peer's address as text, empty for a unix socket."""
        return str(self.peer[0]) if isinstance(self.peer, tuple) else ""


@dataclass(eq=False, slots=True)
class RequestCycle:
    """A request whose head is complete.

    Attributes:
        connection: its connection.
        head: the parsed head.
        body: the received part of its body.
        group: the group of the request.
        address: the group of the client's address.
        key: the digest of its API key, if any.
        began: the time when its head was complete.
        due: the time when its wait ends: for its body, for a thread, or for its client to accept the response.
        charged: the bytes of memory that count for its group.
        hung_up: called when the client disconnects from an open request.
        gone: whether the client has disconnected, or closed its sending side.
        rest: the unsent part of the response.
        outcome: what to do with the connection.
        server: the server, for calls by the thread of the request.
    """

    connection: ClientConnection
    head: Head
    body: Body
    group: Group
    address: str
    key: bytes | None
    server: ServerControl
    began: float
    due: float = 0.0
    charged: int = 0
    hung_up: Callable[[], None] | None = None
    gone: bool = False
    rest: list[memoryview] = field(default_factory=list)
    outcome: ConnectionOutcome = ConnectionOutcome.BREAK

    def hold(self, hung_up: Callable[[], None]) -> None:
        """Mark the request as open. Called by its thread."""
        self.server.hold(self, hung_up)

    def step_aside(self) -> bool:
        """Give up the request's place; return whether it had one. Called by its thread."""
        return self.server.step_aside(self)

    def step_back(self) -> None:
        """Take a place again. Called by its thread."""
        self.server.step_back(self)

    def identify(self, account_id: uuid.UUID) -> None:
        """Remember the account of its key. Called by its thread."""
        if self.key is not None:
            self.server.learn(self.key, account_id)


class ServerControl(Protocol):
    """The methods of the server for a request's thread."""

    def hold(self, cycle: RequestCycle, hung_up: Callable[[], None]) -> None:
        """Give up the request's place, and call ``hung_up`` when its client disconnects."""

    def step_aside(self, cycle: RequestCycle) -> bool:
        """Give up the request's place; return whether it had one."""

    def step_back(self, cycle: RequestCycle) -> None:
        """Take a place for the request again."""

    def learn(self, key: bytes, account_id: uuid.UUID) -> None:
        """Remember the account of a key."""
