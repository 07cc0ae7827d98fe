"""Idle connections: which one is taken next, and which are closed."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from net.connection import Connection, Origin
from net.pool import Pool


class Places:
    """Listeners at addresses of the loopback, and connections to them."""

    def __init__(self) -> None:
        self.exit = contextlib.ExitStack()
        self._listeners: dict[int, socket.socket] = {}
        self.accepted: dict[Connection, socket.socket] = {}

    def connect(self, place: int = 1) -> Connection:
        """Return a new connection to a place."""
        if place not in self._listeners:
            listener = socket.create_server((f"127.0.0.{place}", 0))
            self._listeners[place] = self.exit.enter_context(listener)
        host, port = self._listeners[place].getsockname()
        connection = Connection(Origin("http", host, port))
        connection.dial([host], until=time.monotonic() + 20)
        self.accepted[connection] = self._listeners[place].accept()[0]
        self.exit.callback(self.accepted[connection].close)
        self.exit.callback(connection.close)
        return connection


@pytest.fixture
def places() -> Iterator[Places]:
    places = Places()
    with places.exit:
        yield places


def closed(connection: Connection) -> bool:
    """Return whether our side of a connection is closed, which only this thread can have done."""
    return connection.stale()


def test_the_connection_used_last_is_used_next(places: Places) -> None:
    pool = Pool(limit=10)
    first, second = places.connect(), places.connect()
    pool.give_back(first)
    pool.give_back(second)

    assert [pool.take(first.origin) for _ in range(3)] == [second, first, None]


def test_a_connection_on_which_something_came_is_never_taken(places: Places) -> None:
    pool = Pool(limit=10)
    quiet, unasked, ended = places.connect(), places.connect(), places.connect()
    for connection in (quiet, unasked, ended):
        pool.give_back(connection)
    places.accepted[unasked].sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    places.accepted[ended].shutdown(socket.SHUT_RDWR)

    assert pool.take(quiet.origin) is quiet
    assert closed(unasked)
    assert closed(ended)


def test_above_a_limit_the_connection_idle_for_longest_is_closed(places: Places) -> None:
    pool = Pool(limit=3, limit_each=2)
    old = [places.connect(1) for _ in range(3)]
    for connection in old:
        pool.give_back(connection)
    assert [closed(connection) for connection in old] == [True, False, False]

    new = [places.connect(place) for place in (2, 3)]
    for connection in new:
        pool.give_back(connection)

    assert [closed(connection) for connection in (*old, *new)] == [True, True, False, False, False]


def test_a_connection_that_is_idle_for_too_long_is_closed(places: Places) -> None:
    pool = Pool(limit=10, idle_seconds=0.0)
    connection = places.connect()
    pool.give_back(connection)

    assert pool.take(connection.origin) is None
    assert closed(connection)


def test_a_closed_pool_keeps_nothing(places: Places) -> None:
    pool = Pool(limit=10)
    before, after = places.connect(), places.connect()
    pool.give_back(before)

    pool.close()
    pool.give_back(after)

    assert closed(before)
    assert closed(after)
