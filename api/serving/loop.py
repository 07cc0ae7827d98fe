"""The event loop: one thread that accepts, reads and closes all connections without blocking."""

from __future__ import annotations

import collections
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from gunicorn.config import Config

from api import addresses
from api.serving import heads, identities, transfer
from api.serving.answers import PARTS, Application, drop
from api.serving.connections import (
    ClientConnection,
    ConnectionOutcome,
    ConnectionState,
    RequestCycle,
)
from api.serving.limits import ServerLimits
from api.serving.listeners import Listeners, OutOfFiles
from api.serving.reactor import READ, WRITE, Reactor
from api.serving.refusals import (
    EarlyRefusal,
    malformed,
    malformed_body,
    overloaded,
    too_slow,
    unavailable,
)
from api.serving.request_threads import RequestThreads
from api.serving.room import TransferRoom
from api.serving.shares import TimedPool
from core import errors
from core.spool import Spool, SpooledFile

_log = structlog.get_logger(__name__)

#: Bytes to read from one connection per turn, and from one whose body is being received.
_BYTES: Final = 2**14
_BODY_BYTES: Final = 2**18
#: Seconds between two checks of timeouts, and the pause of accepting without free files.
_TICK_SECONDS: Final = 1.0
#: How long a stopping server keeps connections without a request, in case one arrives.
_STOP_SECONDS: Final = 2.0
#: Seconds between two log lines about refused requests.
_REPORT_SECONDS: Final = 10.0
#: SO_LINGER with a timeout of 0: close with a reset.
_RESET: Final = struct.pack("ii", 1, 0)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Methods whose requests usually have bodies.
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})


class Loop:
    """Serves the connections of listeners.

    Args:
        listeners: the listening sockets.
        application: the WSGI application.
        cfg: gunicorn's configuration.
        limits: the limits of the server.
        apart: paths with a thread of their own.
        wakes: the two ends of a pipe; a byte in it wakes the loop.
        spool: the folder for large bodies; None: they stay in memory.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        application: Application,
        *,
        cfg: Config,
        limits: ServerLimits,
        apart: Sequence[str],
        wakes: tuple[int, int],
        spool: Spool | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cfg = cfg
        self._limits = limits
        self._timer = timer
        self._spool = spool
        self._reactor = Reactor(wakes)
        self._listeners = Listeners(listeners, self._reactor, write_seconds=limits.write_seconds)
        self._stopping = False
        self._known = identities.Identities()
        self._heads = TimedPool[ClientConnection](limits.heads, seconds=limits.head_seconds)
        self._idle = TimedPool[ClientConnection](limits.idle, seconds=limits.idle_seconds)
        self._lingering = TimedPool[ClientConnection](
            limits.lingering, seconds=limits.linger_seconds
        )
        self._connections: set[ClientConnection] = set()
        self._bodies: dict[RequestCycle, None] = {}
        self._rests: dict[RequestCycle, None] = {}
        self._room = TransferRoom(limits, spool)
        #: Connections with a request that runs or waits for a thread.
        self._served = 0
        #: The step for a ready connection, by its state.
        self._steps: dict[ConnectionState, Callable[[ClientConnection], None]] = {
            ConnectionState.IDLE: self._read_head,
            ConnectionState.HEAD: self._read_head,
            ConnectionState.BODY: self._read_body,
            ConnectionState.SERVED: self._read_meanwhile,
            ConnectionState.REST: self._write_rest,
            ConnectionState.LINGER: self._read_to_end,
        }
        self._refused: collections.Counter[str] = collections.Counter()
        self._reported_at = timer()
        self._next_tick = 0.0
        self._requests = RequestThreads(
            application,
            cfg=cfg,
            limits=limits,
            apart=apart,
            known=self._known,
            alive=lambda: not self._stopping,
            finished=lambda cycle: self._reactor.call(lambda: self._finished(cycle)),
        )

    def run(self, *, alive: Callable[[], bool], beat: Callable[[], None], grace: float) -> None:
        """Serve until ``alive`` returns False; then finish open requests, for at most ``grace`` seconds.

        Args:
            alive: called at least once a second.
            beat: called about once a second.
            grace: the maximum time of the shutdown, in seconds.
        """
        self._listeners.resume()
        while alive():
            self._turn(beat)
        self._stopping = True
        self._listeners.pause()
        end = self._timer() + grace
        quiet = self._timer() + min(_STOP_SECONDS, grace)
        while self._timer() < end and self._open(but_quiet=self._timer() > quiet):
            self._turn(beat)
        for connection in list(self._connections):
            self._close(connection)
        self._reactor.close()

    @property
    def waiting(self) -> int:
        """The number of complete requests that wait for a thread."""
        return self._requests.waiting

    @property
    def running(self) -> int:
        """The number of requests that threads run."""
        return self._requests.running

    @property
    def memory(self) -> int:
        """The bytes of request bodies and unsent responses in memory."""
        return self._room.memory

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def wake(self) -> None:
        """Wake the loop. Safe in a signal handler."""
        self._reactor.wake()

    # One turn

    def _turn(self, beat: Callable[[], None]) -> None:
        self._reactor.turn(_TICK_SECONDS, ready=self._ready, accept=self._accept)
        if self._timer() >= self._next_tick:
            beat()
            self._tick()

    def _guarded(
        self, connection: ClientConnection, step: Callable[[ClientConnection], None]
    ) -> None:
        """Run a step for a connection; an error closes only this connection."""
        try:
            step(connection)
        except EarlyRefusal as refusal:
            self._refuse(connection, refusal)
        except OSError:
            self._close(connection)
        except Exception:  # noqa: BLE001 - the boundary: the loop serves other connections, too
            _log.exception("connection_failed", state=connection.state.name)
            self._close(connection)

    def _ready(self, connection: ClientConnection) -> None:
        step = self._steps.get(connection.state)
        if step is not None:  # Another step of this turn may have closed it.
            self._guarded(connection, step)

    def _tick(self) -> None:
        now = self._timer()
        self._next_tick = now + _TICK_SECONDS
        for connection in self._idle.expired(now):
            self._close(connection)
        for connection in self._lingering.expired(now):
            self._close(connection)
        for connection in self._heads.expired(now):
            self._head_is_late(connection)
        for cycle in [cycle for cycle in self._bodies if self._body_is_late(cycle, now)]:
            detail = (
                f"The request body must arrive within {self._limits.body_seconds:g} seconds, and with at least "
                f"{self._limits.rate} bytes a second."
            )
            self._refuse(cycle.connection, too_slow(detail))
        for cycle in [cycle for cycle in self._rests if cycle.due < now]:
            self._cut_off(cycle.connection)
        for cycle in self._requests.overdue(now):
            self._served -= 1
            self._room.release(cycle)
            self._refuse(cycle.connection, self._requests.no_thread())
        if not self._stopping:
            self._listeners.resume()
        if now >= self._reported_at + _REPORT_SECONDS:
            self._report(now)

    def _report(self, now: float) -> None:
        self._reported_at = now
        if self._refused:
            _log.warning("requests_refused_by_server", **self._refused)
            self._refused.clear()

    def _open(self, *, but_quiet: bool) -> int:
        busy = self._served + len(self._bodies) + len(self._rests) + len(self._lingering)
        return busy + (0 if but_quiet else len(self._heads) + len(self._idle))

    # Accepting

    def _accept(self, listener: socket.socket) -> None:
        try:
            for connection in self._listeners.accept(listener):
                self._connections.add(connection)
                self._add(self._heads, connection)
                self._guarded(connection, self._read_head)
        except OutOfFiles:
            self._make_room()

    def _make_room(self) -> None:
        """Close a connection without a request; without such a connection, stop accepting for a moment."""
        victim = self._idle.evict() or self._lingering.evict() or self._heads.evict()
        if victim is None:
            self._listeners.pause()
        else:
            self._close(victim)

    def _add(self, pool: TimedPool[ClientConnection], connection: ClientConnection) -> None:
        victim = pool.add(connection, connection.group, now=self._timer())
        if victim is not None:
            self._close(victim)

    # Heads

    def _read_head(self, connection: ClientConnection) -> None:
        data = _receive(connection)
        if data is None:
            self._reactor.watch(connection, READ)
        elif data:
            connection.buffer += data
            self._take_head(connection)
        else:
            self._close(connection)

    def _take_head(self, connection: ClientConnection) -> None:
        """Process the buffer, which is not empty."""
        if connection.state is ConnectionState.IDLE:
            self._idle.discard(connection)
            connection.state = ConnectionState.HEAD
            self._add(self._heads, connection)
        buffer = connection.buffer
        end = buffer.find(heads.END, max(0, connection.searched - len(heads.END) + 1))
        if end < 0:
            if len(buffer) >= heads.MAX_BYTES:
                raise heads.too_long(buffer)
            if buffer.count(b"\n", connection.searched) != buffer.count(
                b"\r\n", max(0, connection.searched - 1)
            ):
                raise malformed("Each line of the request's head must end with CRLF.")
            connection.searched = len(buffer)
            self._reactor.watch(connection, READ)
            return
        data = bytes(buffer[: end + len(heads.END)])
        del buffer[: len(data)]
        connection.searched = 0
        connection.requests += 1
        self._heads.discard(connection)
        self._begin(
            connection,
            heads.parse(data, cfg=self._cfg, peer=connection.peer, number=connection.requests),
        )

    def _head_is_late(self, connection: ClientConnection) -> None:
        if connection.buffer:
            detail = f"The request's head must arrive within {self._limits.head_seconds:g} seconds."
            self._refuse(connection, too_slow(detail))
        else:
            self._close(connection)

    # Bodies

    def _begin(self, connection: ClientConnection, head: heads.Head) -> None:
        """Start a request whose head is complete."""
        head.client = heads.client_of(head, connection.host, trusted=self._limits.trusted)
        head.prefix = heads.prefix_of(head, connection.host, trusted=self._limits.trusted)
        head.mount(self._limits.prefix)
        address = addresses.group(head.client)
        key = identities.digest(head.field("AUTHORIZATION"))
        own = (
            self._limits.of_body(head.method, head.path)
            if head.method in _BODY_METHODS
            else self._limits.needless_body
        )
        group = self._known.account(key) or address
        body = transfer.receive(head, SpooledFile(self._spool, party=group), limit=own)
        cycle = RequestCycle(
            connection, head, body, group, address, key, self._requests, began=self._timer()
        )
        connection.cycle = cycle
        if body.complete:
            self._serve(cycle)
            return
        self._room.require(cycle)
        if not self._room.transfers.take(group):
            raise overloaded(
                f"At most {self._limits.transfers} requests may send a body or receive a delayed response at once, and "
                "each account or address has a share of them. This request exceeds its share."
            )
        self._bodies[cycle] = None
        cycle.due = cycle.began + self._limits.head_seconds
        connection.state = ConnectionState.BODY
        if connection.buffer:
            data = bytes(connection.buffer)
            connection.buffer.clear()
            self._take_body(cycle, data)
        elif head.expects_continue:
            connection.socket.send(_CONTINUE)
        if connection.state is ConnectionState.BODY:
            self._reactor.watch(connection, READ)

    def _read_body(self, connection: ClientConnection) -> None:
        cycle = _cycle(connection)
        # Never read past the end of the body, if it is known.
        data = _receive(connection, cycle.body.missing() or _BODY_BYTES)
        if data:
            self._take_body(cycle, data)
        elif data is not None:
            missing = cycle.body.missing()
            raise malformed_body(
                f"The request body ended {missing} bytes before its Content-Length."
                if missing
                else "The request body ended before its last chunk."
            )

    def _take_body(self, cycle: RequestCycle, data: bytes) -> None:
        content = cycle.body.content
        before = content.size
        connection = cycle.connection
        try:
            rest = cycle.body.feed(data)
        except errors.Unavailable as error:
            raise unavailable(error) from error
        more = content.size - before
        self._room.charge(cycle, content.in_memory)
        self._extend(cycle, more, seconds=self._limits.head_seconds)
        if cycle.body.complete:
            connection.buffer += rest
            self._leave_bodies(cycle)
            self._serve(cycle)

    def _leave_bodies(self, cycle: RequestCycle) -> None:
        if cycle in self._bodies:
            del self._bodies[cycle]
            self._room.transfers.give_back(cycle.group)

    def _body_is_late(self, cycle: RequestCycle, now: float) -> bool:
        return cycle.due < now or cycle.began + self._limits.body_seconds < now

    def _extend(self, cycle: RequestCycle, size: int, *, seconds: float) -> None:
        """Extend the time of a transfer for ``size`` bytes, to at most ``seconds`` from now."""
        latest = self._timer() + seconds
        rate = self._limits.rate
        cycle.due = min(latest, cycle.due + size / rate) if rate else latest

    # Requests

    def _serve(self, cycle: RequestCycle) -> None:
        connection = cycle.connection
        cycle.due = self._timer() + self._limits.queue_seconds
        self._requests.submit(cycle)
        connection.state = ConnectionState.SERVED
        self._served += 1
        self._watch_meanwhile(connection)

    def _watch_meanwhile(self, connection: ClientConnection) -> None:
        """Watch for a disconnect of the client, but buffer no more than the maximum size of a head."""
        self._reactor.watch(connection, 0 if len(connection.buffer) > heads.MAX_BYTES else READ)

    def _read_meanwhile(self, connection: ClientConnection) -> None:
        """Read while a request is served: a disconnect, or the start of the next request."""
        cycle = _cycle(connection)
        try:
            data = _receive(connection)
        except OSError:
            data = b""
        if data is None:
            return
        connection.buffer += data
        self._watch_meanwhile(connection)
        if not data:
            self._reactor.watch(connection, 0)
            cycle.gone = True
            if cycle.hung_up is not None:
                cycle.hung_up()

    def _finished(self, cycle: RequestCycle) -> None:
        """Continue with a connection after a thread has run its request."""
        connection = cycle.connection
        self._served -= 1
        self._room.release(cycle)
        if connection.state is ConnectionState.CLOSED:
            return
        if cycle.outcome is ConnectionOutcome.CUT_OFF:
            self._cut_off(connection)
        elif cycle.outcome is ConnectionOutcome.BREAK:
            self._close(connection)
        elif cycle.rest:
            self._guarded(connection, self._begin_rest)
        else:
            self._guarded(connection, self._answered)

    def _answered(self, connection: ClientConnection) -> None:
        """Continue with a connection after its response is sent."""
        cycle = _cycle(connection)
        connection.cycle = None
        if cycle.outcome is ConnectionOutcome.CLOSE:
            self._linger(connection)
            return
        if connection.buffer[:2] == b"\r\n":
            # Some clients send an extra empty line after a body.
            del connection.buffer[:2]
        connection.state = ConnectionState.IDLE
        if connection.buffer:
            self._take_head(connection)
        else:
            self._add(self._idle, connection)
            self._reactor.watch(connection, READ)

    # Unsent responses

    def _begin_rest(self, connection: ClientConnection) -> None:
        cycle = _cycle(connection)
        if not self._room.take_rest(cycle):
            # The response has started, so there can be no error response.
            self._refused["unsent_answer"] += 1
            self._cut_off(connection)
            return
        self._rests[cycle] = None
        cycle.due = self._timer() + self._limits.write_seconds
        connection.state = ConnectionState.REST
        self._reactor.watch(connection, WRITE)

    def _leave_rests(self, cycle: RequestCycle) -> None:
        if cycle in self._rests:
            del self._rests[cycle]
            self._room.transfers.give_back(cycle.group)

    def _write_rest(self, connection: ClientConnection) -> None:
        cycle = _cycle(connection)
        parts = collections.deque(cycle.rest)
        sent = connection.socket.sendmsg(cycle.rest[:PARTS])
        drop(parts, sent)
        cycle.rest = list(parts)
        self._extend(cycle, sent, seconds=self._limits.write_seconds)
        if not parts:
            self._leave_rests(cycle)
            self._room.release(cycle)
            self._answered(connection)

    # Closing

    def _refuse(self, connection: ClientConnection, refusal: EarlyRefusal) -> None:
        """Answer without the application, and close the connection."""
        self._refused[refusal.code] += 1
        cycle = connection.cycle
        with_body = cycle is None or cycle.head.method != "HEAD"
        self._forget(connection)
        try:
            connection.socket.send(refusal.answer(body=with_body))
            self._linger(connection)
        except OSError:
            self._close(connection)

    def _linger(self, connection: ClientConnection) -> None:
        """Shut down our side and wait for the client, because an immediate close could discard the response."""
        connection.state = ConnectionState.LINGER
        connection.buffer.clear()
        connection.socket.shutdown(socket.SHUT_WR)
        self._add(self._lingering, connection)
        self._reactor.watch(connection, READ)

    def _read_to_end(self, connection: ClientConnection) -> None:
        if _receive(connection, _BODY_BYTES) == b"":
            self._close(connection)

    def _forget(self, connection: ClientConnection) -> None:
        """Remove a connection from all pools, and release its request."""
        self._heads.discard(connection)
        self._idle.discard(connection)
        self._lingering.discard(connection)
        cycle, connection.cycle = connection.cycle, None
        if cycle is not None and connection.state is not ConnectionState.SERVED:
            self._leave_bodies(cycle)
            self._leave_rests(cycle)
            self._room.release(cycle)

    def _cut_off(self, connection: ClientConnection) -> None:
        """Close with a reset, so that the client notices and the kernel frees the unsent response."""
        with contextlib.suppress(OSError):
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close(connection)

    def _close(self, connection: ClientConnection) -> None:
        if connection.state is ConnectionState.CLOSED:
            return
        self._forget(connection)
        self._reactor.watch(connection, 0)
        connection.state = ConnectionState.CLOSED
        connection.socket.close()
        self._connections.discard(connection)


def _receive(connection: ClientConnection, size: int = _BYTES) -> bytes | None:
    """Return received bytes, empty at the end, or None if nothing has arrived."""
    try:
        return connection.socket.recv(min(size, _BODY_BYTES))
    except BlockingIOError:
        return None


def _cycle(connection: ClientConnection) -> RequestCycle:
    assert connection.cycle is not None  # noqa: S101 - for the type checker
    return connection.cycle
