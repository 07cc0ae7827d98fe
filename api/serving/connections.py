"""A connection, and a request on it, as the loop keeps them."""

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
    """What a connection is at."""

    #: Between two requests, nothing of the next one is there.
    IDLE = enum.auto()
    #: The head is not complete.
    HEAD = enum.auto()
    BODY = enum.auto()
    #: A thread has the request, or it waits for one.
    SERVED = enum.auto()
    #: The answer is made, and the client has not taken all of it.
    REST = enum.auto()
    #: The answer is sent; the client has not closed yet.
    LINGER = enum.auto()
    CLOSED = enum.auto()


class ConnectionOutcome(enum.Enum):
    """What has to be done with a connection once its request has been run."""

    #: Another request may follow.
    REUSE = enum.auto()
    CLOSE = enum.auto()
    #: The answer broke off: the client must not take it for whole.
    BREAK = enum.auto()
    #: The client is gone.
    CUT_OFF = enum.auto()


@dataclass(eq=False, slots=True)
class ClientConnection:
    """A client's connection. Only the loop changes it.

    Attributes:
        socket: never blocks.
        peer: the address as the socket has it.
        server: the address it came to, likewise.
        group: what the peer's address counts for.
        state: what it is at.
        buffer: what has come in and belongs to no request yet.
        searched: bytes of the buffer in which no head ends.
        requests: heads that were read.
        events: what the selector watches it for.
        cycle: the request that is being read or served.
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
        connection: where it came in.
        head: parsed.
        body: what has come of it.
        group: what the request counts for.
        address: what the client's address counts for.
        key: the digest of the request's key, if it has one.
        began: when its head was complete.
        due: when it has waited for too long: for bytes of its body, for a thread, for its client to take its answer.
        charged: bytes that count for its group.
        hung_up: what is called when the client hangs up, once the request is held open.
        gone: whether the client has hung up, or has closed its sending side.
        rest: what the client has not taken of the answer.
        outcome: what has to be done with the connection.
        server: what is told by the thread that runs it.
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
        """Hold the request open. Called by the thread that runs it."""
        self.server.hold(self, hung_up)

    def step_aside(self) -> bool:
        """Give the request's place to another one; return whether it had one. Called by the thread that runs it."""
        return self.server.step_aside(self)

    def step_back(self) -> None:
        """Take a place again. Called by the thread that runs it."""
        self.server.step_back(self)

    def identify(self, account_id: uuid.UUID) -> None:
        """Remember the account of its key. Called by the thread that runs it."""
        if self.key is not None:
            self.server.learn(self.key, account_id)


class ServerControl(Protocol):
    """What a request can say to the server, from its thread."""

    def hold(self, cycle: RequestCycle, hung_up: Callable[[], None]) -> None:
        """Give the request's place away, and tell when its client hangs up."""

    def step_aside(self, cycle: RequestCycle) -> bool:
        """Give the request's place to another one; return whether it had one."""

    def step_back(self, cycle: RequestCycle) -> None:
        """Take a place for the request again."""

    def learn(self, key: bytes, account_id: uuid.UUID) -> None:
        """Remember the account of a key."""
