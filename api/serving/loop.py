"""The one thread that accepts, reads and closes all connections. Nothing in it waits for any of them."""

from __future__ import annotations

import collections
import contextlib
import errno
import socket
import struct
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from gunicorn.config import Config

from api import addresses
from api.serving import heads, identities, transfer
from api.serving.answers import PARTS, Application, RequestRunner, drop
from api.serving.connections import (
    ClientConnection,
    ConnectionOutcome,
    ConnectionState,
    RequestCycle,
)
from api.serving.limits import ServerLimits
from api.serving.reactor import READ, WRITE, Reactor
from api.serving.refusals import EarlyRefusal, malformed, malformed_body, overloaded, too_slow
from api.serving.shares import Share, TimedPool
from api.serving.threads import Threads

_log = structlog.get_logger(__name__)

#: Connections accepted in one turn of the loop.
_ACCEPTS: Final = 64
#: Bytes read of one connection in one turn, and of one whose body is being received.
_BYTES: Final = 2**14
_MOST_BYTES: Final = 2**18
#: Between two looks at what has taken too long, and for how long nothing is accepted when there are no files left.
_TICK_SECONDS: Final = 1.0
#: How long a stopping server keeps connections that have no request, for one that may be on its way.
_STOP_SECONDS: Final = 2.0
#: Between two lines in the log about requests that were refused.
_REPORT_SECONDS: Final = 10.0
_AT_ONCE: Final = struct.pack("ii", 1, 0)
#: Bytes of an answer that the system keeps which are not on their way.
_UNSENT: Final = 2**15
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: These have bodies as a rule.
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})
_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Loop:
    """Serves the connections of some listeners.

    Args:
        listeners: sockets that listen.
        application: the WSGI application.
        cfg: gunicorn's configuration.
        limits: of everything.
        apart: paths that have a thread each for themselves, whatever else happens.
        wakes: the two ends of a pipe; a byte in it wakes the loop.
        timer: seconds that never go back.
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
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listeners = listeners
        self._cfg = cfg
        self._limits = limits
        self._timer = timer
        self._reactor = Reactor(wakes)
        self._stopping = False
        self._accepting = False
        self._known = identities.Identities()
        self._heads = TimedPool[ClientConnection](limits.heads, seconds=limits.head_seconds)
        self._idle = TimedPool[ClientConnection](limits.idle, seconds=limits.idle_seconds)
        self._lingering = TimedPool[ClientConnection](
            limits.lingering, seconds=limits.linger_seconds
        )
        self._connections: set[ClientConnection] = set()
        self._bodies: dict[RequestCycle, None] = {}
        self._rests: dict[RequestCycle, None] = {}
        self._transfers = Share(limits.transfers, unknown_keys=_most_of(limits.transfers))
        self._memory = Share(limits.memory, unknown_keys=_most_of(limits.memory))
        #: With a request that a thread has or that waits for one.
        self._served = 0
        #: What is done with a connection that is ready.
        self._steps: dict[ConnectionState, Callable[[ClientConnection], None]] = {
            ConnectionState.IDLE: self._read_head,
            ConnectionState.HEAD: self._read_head,
            ConnectionState.BODY: self._read_body,
            ConnectionState.SERVED: self._read_meanwhile,
            ConnectionState.REST: self._write_rest,
            ConnectionState.LINGER: self._read_to_end,
        }
        self._refused: collections.Counter[str] = collections.Counter()
        self._reported = timer()
        self._next_tick = 0.0
        runner = RequestRunner(
            application,
            cfg=cfg,
            seconds=limits.write_seconds,
            alive=lambda: not self._stopping,
            refused=self._known.forget,
        )
        self._runner = runner
        self._threads = self._make_threads(limits.threads, name="request")
        self._apart = {path: self._make_threads(1, name=path.strip("/")) for path in apart}

    def run(self, *, alive: Callable[[], bool], beat: Callable[[], None], grace: float) -> None:
        """Serve until ``alive`` says no; then finish what has begun, for ``grace`` seconds at most.

        Args:
            alive: asked at least once a second.
            beat: called about once a second.
            grace: seconds.
        """
        for listener in self._listeners:
            listener.setblocking(False)
        self._accept_more()
        while alive():
            self._turn(beat)
        self._stopping = True
        self._accept_no_more()
        end = self._timer() + grace
        quiet = self._timer() + min(_STOP_SECONDS, grace)
        while self._timer() < end and self._open(but_quiet=self._timer() > quiet):
            self._turn(beat)
        for connection in list(self._connections):
            self._close(connection)
        self._reactor.close()

    @property
    def waiting(self) -> int:
        """How many complete requests wait for a thread."""
        return self._threads.waiting

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def wake(self) -> None:
        """Have the loop look around. A signal handler may call it."""
        self._reactor.wake()

    def hold(self, cycle: RequestCycle, hung_up: Callable[[], None]) -> None:
        """Give the request's place away, and tell when its client hangs up. Called by its thread."""
        cycle.hung_up = hung_up
        if cycle.gone:
            # Before the loop knew whom to tell.
            hung_up()
        if cycle.head.path not in self._apart:
            self._threads.step_aside(cycle)

    def step_aside(self, cycle: RequestCycle) -> bool:
        """Give the request's place to another one; return whether it had one. Called by its thread."""
        return cycle.head.path not in self._apart and self._threads.step_aside(cycle)

    def step_back(self, cycle: RequestCycle) -> None:
        """Take a place for the request again. Called by its thread."""
        self._threads.step_back(cycle)

    def learn(self, key: bytes, account_id: uuid.UUID) -> None:
        """Remember the account of a key. Called by the thread of a request."""
        self._known.learn(key, account_id)

    def _make_threads(self, places: int, *, name: str) -> Threads[RequestCycle]:
        return Threads(places, waiting=self._limits.waiting, run=self._run, name=name)

    def _run(self, cycle: RequestCycle) -> None:
        """Run a request, in a thread, and give it back to the loop."""
        self._runner.run(cycle)
        self._reactor.call(lambda: self._finished(cycle))

    # One turn

    def _turn(self, beat: Callable[[], None]) -> None:
        self._reactor.turn(_TICK_SECONDS, ready=self._ready, accept=self._accept)
        if self._timer() >= self._next_tick:
            beat()
            self._tick()

    def _guarded(
        self, connection: ClientConnection, step: Callable[[ClientConnection], None]
    ) -> None:
        """Take a step with a connection; whatever goes wrong is the end of this connection only."""
        try:
            step(connection)
        except EarlyRefusal as refusal:
            self._refuse(connection, refusal)
        except OSError:
            self._close(connection)
        except Exception:  # noqa: BLE001 - the boundary: the loop serves the others too
            _log.exception("connection_failed", state=connection.state.name)
            self._close(connection)

    def _ready(self, connection: ClientConnection) -> None:
        step = self._steps.get(connection.state)
        if step is not None:  # It may have been closed in this very turn.
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
        for cycle in [one for one in self._bodies if self._body_is_late(one, now)]:
            detail = (
                f"The request body took over {self._limits.body_seconds:g} seconds, or came with less than "
                f"{self._limits.rate} bytes a second."
            )
            self._refuse(cycle.connection, too_slow(detail))
        for cycle in [one for one in self._rests if one.due < now]:
            self._cut_off(cycle.connection)
        for threads in (self._threads, *self._apart.values()):
            for cycle in threads.overdue(now):
                self._served -= 1
                self._release(cycle)
                self._refuse(cycle.connection, _no_thread(self._limits))
        if not self._stopping:
            self._accept_more()
        if now >= self._reported + _REPORT_SECONDS:
            self._report(now)

    def _report(self, now: float) -> None:
        self._reported = now
        if self._refused:
            _log.warning("requests_refused_by_server", **self._refused)
            self._refused.clear()

    def _open(self, *, but_quiet: bool) -> int:
        busy = self._served + len(self._bodies) + len(self._rests) + len(self._lingering)
        return busy + (0 if but_quiet else len(self._heads) + len(self._idle))

    # Accepting

    def _accept_more(self) -> None:
        if not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                self._reactor.listen(listener)

    def _bound_system(self, accepted: socket.socket) -> None:
        """Have the system cut off clients whose host has vanished, and take little ahead of a client.

        Otherwise it takes megabytes at once, and a client that takes its answer steadily, but slowly, seems to take
        nothing for minutes. Connections that came before the loop began inherit no option of the listener.
        """
        milliseconds = round(1000 * self._limits.write_seconds)
        with contextlib.suppress(OSError, AttributeError):  # Unix sockets, and systems without it.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)

    def _accept_no_more(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._reactor.ignore(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                accepted, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_FILES:
                    self._make_room()
                    return
                continue  # The client has gone meanwhile.
            accepted.setblocking(False)
            self._bound_system(accepted)
            host = str(peer[0]) if isinstance(peer, tuple) else ""
            connection = ClientConnection(
                accepted, peer, listener.getsockname(), addresses.group(host)
            )
            self._connections.add(connection)
            self._add(self._heads, connection)
            self._guarded(connection, self._read_head)

    def _make_room(self) -> None:
        """Close a connection that has no request; without one accept nothing for a moment."""
        victim = self._idle.evict() or self._lingering.evict() or self._heads.evict()
        if victim is None:
            self._accept_no_more()
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
        """Go on with what is in the buffer, which is not empty."""
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
                raise malformed("A line of the request's head does not end with CRLF.")
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
            detail = (
                f"The request's head was not complete after {self._limits.head_seconds:g} seconds."
            )
            self._refuse(connection, too_slow(detail))
        else:
            self._close(connection)

    # Bodies

    def _begin(self, connection: ClientConnection, head: heads.Head) -> None:
        """Begin with a request whose head is complete."""
        head.client = heads.client_of(head, connection.host, trusted=self._limits.trusted)
        address = addresses.group(head.client)
        key = identities.digest(head.field("AUTHORIZATION"))
        own = self._limits.body if head.method in _BODY_METHODS else self._limits.needless_body
        body = transfer.receive(head, limit=own)
        group = self._known.account(key) or address
        cycle = RequestCycle(connection, head, body, group, address, key, self, began=self._timer())
        connection.cycle = cycle
        if body.complete:
            self._serve(cycle)
            return
        if not self._memory.fits(group, body.wanted() or 1):
            raise _no_memory(self._limits)
        if not self._transfers.take(group):
            raise overloaded(
                f"The server receives request bodies, and keeps answers that are not taken, of up to "
                f"{self._limits.transfers} requests at once, and of an account or address a share of them. This "
                "request has no place left."
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
        # Never beyond the body, if its end is known.
        data = _receive(connection, cycle.body.wanted() or _MOST_BYTES)
        if data:
            self._take_body(cycle, data)
        elif data is not None:
            missing = cycle.body.wanted()
            raise malformed_body(
                f"The request body ended {missing} bytes before its Content-Length."
                if missing
                else "The request body ended before its last chunk."
            )

    def _take_body(self, cycle: RequestCycle, data: bytes) -> None:
        before = cycle.body.content.size
        connection = cycle.connection
        rest = cycle.body.feed(data)
        more = cycle.body.content.size - before
        if more and not self._memory.take(cycle.group, more):
            raise _no_memory(self._limits)
        cycle.charged += more
        self._extend(cycle, more, seconds=self._limits.head_seconds)
        if cycle.body.complete:
            connection.buffer += rest
            self._leave_bodies(cycle)
            self._serve(cycle)

    def _leave_bodies(self, cycle: RequestCycle) -> None:
        if cycle in self._bodies:
            del self._bodies[cycle]
            self._transfers.give_back(cycle.group)

    def _body_is_late(self, cycle: RequestCycle, now: float) -> bool:
        return cycle.due < now or cycle.began + self._limits.body_seconds < now

    def _extend(self, cycle: RequestCycle, size: int, *, seconds: float) -> None:
        """Give a transfer more time for ``size`` bytes that have moved, but never more than ``seconds`` from now."""
        most = self._timer() + seconds
        rate = self._limits.rate
        cycle.due = min(most, cycle.due + size / rate) if rate else most

    # Requests

    def _serve(self, cycle: RequestCycle) -> None:
        connection = cycle.connection
        cycle.due = self._timer() + self._limits.queue_seconds
        threads = self._apart.get(cycle.head.path)
        if threads is not None:
            cycle.group = cycle.group if cycle.charged else cycle.address
        if not (threads or self._threads).submit(cycle):
            raise _no_thread(self._limits)
        connection.state = ConnectionState.SERVED
        self._served += 1
        self._watch_meanwhile(connection)

    def _watch_meanwhile(self, connection: ClientConnection) -> None:
        """Watch for the client's hanging up, but read no more requests ahead than one head may have bytes."""
        self._reactor.watch(connection, 0 if len(connection.buffer) > heads.MAX_BYTES else READ)

    def _read_meanwhile(self, connection: ClientConnection) -> None:
        """Read what comes while a request is served: the client's end, or the beginning of its next request."""
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
        """Go on with a connection whose request a thread has run."""
        connection = cycle.connection
        self._served -= 1
        self._release(cycle)
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

    def _release(self, cycle: RequestCycle) -> None:
        """Free what the body of a request takes."""
        cycle.body.content.close()
        self._memory.give_back(cycle.group, cycle.charged)
        cycle.charged = 0

    def _answered(self, connection: ClientConnection) -> None:
        """Go on after an answer that the client has."""
        cycle = _cycle(connection)
        connection.cycle = None
        if cycle.outcome is ConnectionOutcome.CLOSE:
            self._linger(connection)
            return
        if connection.buffer[:2] == b"\r\n":
            # Some clients end a body with an empty line that does not belong to it.
            del connection.buffer[:2]
        connection.state = ConnectionState.IDLE
        if connection.buffer:
            self._take_head(connection)
        else:
            self._add(self._idle, connection)
            self._reactor.watch(connection, READ)

    # What the client has not taken

    def _begin_rest(self, connection: ClientConnection) -> None:
        cycle = _cycle(connection)
        size = sum(map(len, cycle.rest))
        if not (self._memory.fits(cycle.group, size) and self._transfers.take(cycle.group)):
            # The answer has begun, so nothing can be said any more.
            self._refused["unsent_answer"] += 1
            self._cut_off(connection)
            return
        self._memory.take(cycle.group, size)
        cycle.charged = size
        self._rests[cycle] = None
        cycle.due = self._timer() + self._limits.write_seconds
        connection.state = ConnectionState.REST
        self._reactor.watch(connection, WRITE)

    def _leave_rests(self, cycle: RequestCycle) -> None:
        if cycle in self._rests:
            del self._rests[cycle]
            self._transfers.give_back(cycle.group)

    def _write_rest(self, connection: ClientConnection) -> None:
        cycle = _cycle(connection)
        parts = collections.deque(cycle.rest)
        sent = connection.socket.sendmsg(cycle.rest[:PARTS])
        drop(parts, sent)
        cycle.rest = list(parts)
        self._extend(cycle, sent, seconds=self._limits.write_seconds)
        if not parts:
            self._leave_rests(cycle)
            self._release(cycle)
            self._answered(connection)

    # Closing

    def _refuse(self, connection: ClientConnection, refusal: EarlyRefusal) -> None:
        """Answer instead of the application, and close."""
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
        """End our side, and wait for the client's: an answer may be lost if both end at once."""
        connection.state = ConnectionState.LINGER
        connection.buffer.clear()
        connection.socket.shutdown(socket.SHUT_WR)
        self._add(self._lingering, connection)
        self._reactor.watch(connection, READ)

    def _read_to_end(self, connection: ClientConnection) -> None:
        if _receive(connection, _MOST_BYTES) == b"":
            self._close(connection)

    def _forget(self, connection: ClientConnection) -> None:
        """Take a connection out of everything that it is in."""
        self._heads.discard(connection)
        self._idle.discard(connection)
        self._lingering.discard(connection)
        cycle, connection.cycle = connection.cycle, None
        if cycle is not None and connection.state is not ConnectionState.SERVED:
            self._leave_bodies(cycle)
            self._leave_rests(cycle)
            self._release(cycle)

    def _cut_off(self, connection: ClientConnection) -> None:
        """Close so that the client notices, and what the system still holds of an answer is freed."""
        with contextlib.suppress(OSError):
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
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
    """Return what has come in, nothing at the end, None if there is nothing now."""
    try:
        return connection.socket.recv(min(size, _MOST_BYTES))
    except BlockingIOError:
        return None


def _most_of(total: int) -> int:
    """Return what of ``total`` clients may have that are not known yet, as each is by its first request."""
    return total - total // 4


def _cycle(connection: ClientConnection) -> RequestCycle:
    assert connection.cycle is not None  # noqa: S101 - for the type checker
    return connection.cycle


def _no_memory(limits: ServerLimits) -> EarlyRefusal:
    return overloaded(
        f"Request bodies and unsent answers may have {limits.memory // 2**20:,} MiB in memory, and an account or "
        "address a share of that. This request has no room left."
    )


def _no_thread(limits: ServerLimits) -> EarlyRefusal:
    return overloaded(
        f"Up to {limits.waiting} requests may wait for a thread, each for {limits.queue_seconds:g} seconds, and an "
        "account or address has a share of these places. This request has no place left."
    )
