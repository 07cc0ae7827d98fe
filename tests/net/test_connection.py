"""One connection: which address it takes, and how it is limited and cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from net.connection import Connection, DialError, Origin
from tests.e2e.stack import free_port
from tests.engines import raw_peer
from tests.engines.raw_peer import RawPeer


@contextlib.contextmanager
def swallowing(port: int) -> Iterator[str]:
    """Yield an address that takes no further connection on ``port``, and does not refuse it."""
    listener = socket.socket()
    listener.bind(("127.0.0.2", port))
    listener.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for connection in waiting:
        connection.setblocking(False)
        connection.connect_ex(listener.getsockname())
    yield "127.0.0.2"
    for connection in (*waiting, listener):
        connection.close()


def soon() -> float:
    return time.monotonic() + 20


def test_an_address_that_refuses_gives_way_to_the_next_one() -> None:
    with RawPeer(raw_peer.answering(raw_peer.status(200))) as peer:
        connection = Connection(Origin.split(peer.url)[0])
        connection.dial(["127.0.0.9", "127.0.0.1"], until=soon())

        with contextlib.closing(connection), connection.deadline(soon()):
            assert connection.send("GET", "/", body=None, headers={}).status == 200
        assert connection.address == "127.0.0.1"


def test_the_reason_of_a_failed_dial_is_that_of_the_last_address() -> None:
    port = free_port()
    connection = Connection(Origin("http", "two.example", port))

    with swallowing(port) as silent, pytest.raises(DialError) as timed_out:
        connection.dial(["127.0.0.9", silent], until=time.monotonic() + 0.2)
    with pytest.raises(DialError) as refused:
        connection.dial(["127.0.0.9"], until=soon())

    assert (timed_out.value.reason, timed_out.value.address) == ("timed_out", "127.0.0.2")
    assert (refused.value.reason, refused.value.address) == ("unreachable", "127.0.0.9")
    assert not connection.dialed


def test_a_cut_ends_a_dial_and_tries_no_further_address() -> None:
    with RawPeer(raw_peer.holding()) as peer:
        origin = Origin.split(peer.url)[0]
        connection = Connection(origin)
        with swallowing(origin.port) as silent:
            cutter = threading.Timer(0.1, connection.cut)
            cutter.start()
            with pytest.raises(ConnectionAbortedError):
                connection.dial([silent, "127.0.0.1"], until=time.monotonic() + 60)
            cutter.join()

        assert peer.connections == 0


def test_a_connection_that_was_cut_is_not_dialed() -> None:
    connection = Connection(Origin("http", "127.0.0.1", 9))
    connection.cut()

    with pytest.raises(ConnectionAbortedError):
        connection.dial(["127.0.0.1"], until=soon())


def test_a_deadline_ends_a_response_whose_end_a_cut_looks_like() -> None:
    endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nfirst"
    with RawPeer(raw_peer.holding(endless)) as peer:
        connection = Connection(Origin.split(peer.url)[0])
        connection.dial(["127.0.0.1"], until=soon())

        with (
            contextlib.closing(connection),
            pytest.raises(TimeoutError),
            connection.deadline(time.monotonic() + 0.2),
        ):
            connection.send("GET", "/", body=None, headers={}).read()


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://a.example", Origin("http", "a.example", 80), "/"),
        ("https://a.example/b?c=d e", Origin("https", "a.example", 443), "/b?c=d%20e"),
        ("http://[::1]:30000/v1", Origin("http", "::1", 30000), "/v1"),
        ("https://bücher.example/", Origin("https", "xn--bcher-kva.example", 443), "/"),
    ],
)
def test_a_url_is_an_origin_and_a_path(url: str, origin: Origin, path: str) -> None:
    assert Origin.split(url) == (origin, path)
