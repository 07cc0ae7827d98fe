"""Connections are kept, replaced when dead, and cut in any phase."""

from __future__ import annotations

import socket

import pytest

from core import errors
from tests.engines import asking, raw_peer, subjects
from tests.engines.raw_peer import RawPeer
from tests.engines.subjects import Connect
from tests.scripted_server import BackgroundServer


def test_a_connection_is_kept_for_the_next_request(connect: Connect) -> None:
    with RawPeer(raw_peer.holding(raw_peer.whole(b"one"), raw_peer.whole(b"two"))) as peer:
        client = connect(peer.url)

        assert asking.text(asking.read(client, asking.ask())) == "one"
        assert asking.text(asking.read(client, asking.ask())) == "two"
        assert peer.connections == 1


def test_a_kept_connection_that_the_engine_closed_is_replaced(connect: Connect) -> None:
    with RawPeer(
        raw_peer.answering(raw_peer.whole(b"one")), raw_peer.answering(raw_peer.whole(b"two"))
    ) as peer:
        client = connect(peer.url)

        assert asking.text(asking.read(client, asking.ask())) == "one"
        assert asking.text(asking.read(client, asking.ask())) == "two"


def test_a_kept_connection_that_dies_under_a_request_is_replaced_once(connect: Connect) -> None:
    def dies(connection: socket.socket) -> None:
        raw_peer.answering(raw_peer.whole(b"one"))(connection)
        raw_peer.read_request(connection)

    with RawPeer(dies, raw_peer.answering(raw_peer.whole(b"two"))) as peer:
        client = connect(peer.url)

        assert asking.text(asking.read(client, asking.ask())) == "one"
        assert asking.text(asking.read(client, asking.ask())) == "two"
        assert peer.connections == 2


def test_a_second_dead_connection_is_the_engines_fault(connect: Connect) -> None:
    def dies(connection: socket.socket) -> None:
        raw_peer.answering(raw_peer.whole(b"one"))(connection)
        raw_peer.read_request(connection)

    with RawPeer(dies, raw_peer.answering()) as peer:
        client = connect(peer.url)
        asking.read(client, asking.ask())

        with pytest.raises(errors.EngineLost):
            asking.read(client, asking.ask())
        assert peer.connections == 2


def test_a_half_read_response_is_never_read_by_the_next_request(connect: Connect) -> None:
    with RawPeer(
        raw_peer.holding(raw_peer.whole(b"mine")), raw_peer.holding(raw_peer.whole(b"yours"))
    ) as peer:
        client = connect(peer.url)
        with client.stream(asking.ask()) as stream:
            assert next(iter(stream)).text == "mine"

        assert asking.text(asking.read(client, asking.ask())) == "yours"


def test_a_response_without_an_end_is_not_kept(connect: Connect) -> None:
    endless = raw_peer.whole(b"one").removesuffix(raw_peer.LAST)
    with RawPeer(raw_peer.holding(endless), raw_peer.answering(raw_peer.whole(b"two"))) as peer:
        client = connect(peer.url)

        assert asking.text(asking.read(client, asking.ask())) == "one"
        assert asking.text(asking.read(client, asking.ask())) == "two"


def test_a_refusal_leaves_its_connection_usable(connect: Connect) -> None:
    with RawPeer(raw_peer.holding(raw_peer.status(400), raw_peer.whole(b"two"))) as peer:
        client = connect(peer.url)

        with pytest.raises(errors.EngineRejected):
            asking.read(client, asking.ask())
        assert asking.text(asking.read(client, asking.ask())) == "two"
        assert peer.connections == 1


def test_closing_frees_a_reader_that_waits_for_the_head(connect: Connect) -> None:
    with BackgroundServer(subjects.OPTIONS) as server:
        client = connect(server.url)
        reader = asking.Reader(client, asking.ask("[[behavior:mute]] What is there?"))
        assert asking.eventually(lambda: client.load().running == 1)

        reader.close()

        assert reader.join() == []
        assert reader.error is None
        assert asking.eventually(lambda: client.load().running == 0)


def test_closing_frees_a_reader_that_waits_for_the_next_event(connect: Connect) -> None:
    with BackgroundServer(subjects.OPTIONS) as server:
        reader = asking.Reader(
            connect(server.url), asking.ask("[[behavior:silent]] What is there?")
        )
        reader.wait_for_text()

        reader.close()

        assert reader.join()
        assert reader.error is None


def test_closing_frees_a_reader_that_is_still_dialling(connect: Connect) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # The queue of those not yet accepted is full, so that further dials get no answer.
        waiting = [_dial(listener) for _ in range(4)]
        reader = asking.Reader(
            connect(f"http://127.0.0.1:{listener.getsockname()[1]}"), asking.ask()
        )

        reader.close()

        assert reader.join() == []
        assert reader.error is None
        for connection in waiting:
            connection.close()


def _dial(listener: socket.socket) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(listener.getsockname())
    return connection


def test_closing_twice_and_after_the_end_is_harmless(connect: Connect) -> None:
    with RawPeer(raw_peer.holding(raw_peer.whole(b"one"), raw_peer.whole(b"two"))) as peer:
        client = connect(peer.url)
        with client.stream(asking.ask()) as stream:
            assert asking.text(list(stream)) == "one"
            stream.close()
            stream.close()

        assert asking.text(asking.read(client, asking.ask())) == "two", "its connection is not cut"
        assert peer.connections == 1


def test_a_connection_over_which_the_engine_failed_is_not_used_again(connect: Connect) -> None:
    # An address can lead to several servers, one of which is starting.
    with RawPeer(
        raw_peer.holding(raw_peer.status(503), raw_peer.whole(b"never")),
        raw_peer.answering(raw_peer.whole(b"one")),
    ) as peer:
        client = connect(peer.url)

        with pytest.raises(errors.EngineUnavailable):
            asking.read(client, asking.ask())
        assert asking.text(asking.read(client, asking.ask())) == "one"
        assert peer.connections == 2
