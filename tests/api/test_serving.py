"""The server's loop, on real sockets: what it reads, whom it serves, whom it closes."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Any

import orjson
import pytest

from api.serving.limits import ServerLimits
from api.serving.shares import Share
from core.settings import Settings
from tests.api import wire
from tests.e2e.stack import eventually
from tests.fakes import HandTimer

A, B = "127.0.0.2", "127.0.0.3"
CLOSE = "Connection: close\r\n"


def key(name: str) -> str:
    return f"Authorization: Bearer {name}\r\n"


# What is read


def test_requests_that_come_together_or_in_bytes_are_answered_in_their_order() -> None:
    with wire.running() as served:
        client = served.client()
        client.ask("/1").ask("/2", method="POST", body=b"GET /smuggled HTTP/1.1\r\n\r\n").ask("/3")
        reported = [client.answer() for _ in range(3)]
        assert [b'"path":"/%d"' % number in one.body for number, one in enumerate(reported, 1)] == [
            True
        ] * 3
        for byte in b"\r\nPOST /4 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n":
            client.send(bytes([byte]))
        assert b'"size":2' in client.answer().body
        assert served.application.ran == ["/1", "/2", "/3", "/4"]


def test_a_chunked_body_is_whole_and_has_its_length_when_it_is_handled() -> None:
    body = b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-Trailer: 1\r\n\r\n"
    with wire.running() as served:
        client = served.client()
        client.ask("/", method="POST", headers="Transfer-Encoding: chunked\r\n").send(body)
        answer = client.answer()
        assert b'"length":"6"' in answer.body
        assert b'"body":"hello!"' in answer.body
        # The connection is as good as before.
        assert client.ask("/next").answer().status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_come_through(*, chunked: bool) -> None:
    body = bytes(range(256)) * 2**13
    with wire.running() as served:
        client = served.client()
        if chunked:
            client.ask("/", method="PUT", headers="Transfer-Encoding: chunked\r\n")
            for start in range(0, len(body), 100_000):
                piece = body[start : start + 100_000]
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
        else:
            client.ask("/", method="PUT", body=body)
        assert b'"size":%d' % len(body) in client.answer().body


@pytest.mark.parametrize(
    "chunks",
    [
        b"0x2\r\nab\r\n0\r\n\r\n",
        b"+2\r\nab\r\n0\r\n\r\n",
        b"-2\r\nab\r\n0\r\n\r\n",
        b"2 \r\nab\r\n0\r\n\r\n",
        b" 2\r\nab\r\n0\r\n\r\n",
        b"2\nab\n0\n\n",
        b"2\r\nab\n0\r\n\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        b"\r\nab\r\n0\r\n\r\n",
        b"zz\r\nab\r\n0\r\n\r\n",
        b"2_0\r\nab\r\n0\r\n\r\n",
        b"2;a\x00b\r\nab\r\n0\r\n\r\n",
        b"2;" + b"a" * 5000 + b"\r\nab\r\n0\r\n\r\n",
        b"0" * 5000 + b"2\r\nab\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nab\r\n0\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nA: b\n\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
        b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n",
    ],
    ids=lambda chunks: repr(chunks[:24]),
)
def test_a_malformed_chunk_is_the_clients_fault_and_ends_the_connection(chunks: bytes) -> None:
    with wire.running(body=2**20) as served:
        client = served.client()
        client.ask("/", method="POST", headers="Transfer-Encoding: chunked\r\n")
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.send(chunks)
        answer = client.answer()
        assert (answer.status, answer.headers["Connection"]) == (400, "close")
        assert answer.problem["error"]["code"] == "malformed_body"
        assert client.ended()
        assert served.application.ran == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        (b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n X: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 90000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 20000, 431),
    ],
    ids=lambda value: f"{value[:48]!r}-{len(value)}" if isinstance(value, bytes) else None,
)
def test_an_invalid_head_is_refused_with_our_messages(head: bytes, status: int) -> None:
    with wire.running() as served:
        client = served.client().send(head + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.answer()
        assert answer.status == answer.problem["status"] == status
        assert answer.headers["Connection"] == "close"
        assert answer.headers["x-request-id"] == answer.problem["request_id"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert client.ended()
        assert served.application.ran == []


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_body_over_the_limit_is_refused_before_it_is_sent(method: str) -> None:
    limit = {"POST": wire.LIMITS.body, "GET": wire.LIMITS.needless_body}[method]
    with wire.running() as served:
        head = f"Expect: 100-continue\r\nContent-Length: {limit + 1}\r\n"
        client = served.client().ask("/", method=method, headers=head)
        answer = client.answer()
        assert answer.status == 413
        assert f"at most {limit} bytes" in answer.problem["detail"]
        assert client.ended()
        chunked = served.client().ask("/", method=method, headers="Transfer-Encoding: chunked\r\n")
        assert chunked.send(b"%x\r\n" % (limit + 1)).answer().status == 413
        assert served.application.ran == []


def test_a_client_that_expects_100_continue_gets_it() -> None:
    with wire.running() as served:
        client = served.client()
        client.ask("/", method="POST", headers="Expect: 100-Continue\r\nContent-Length: 2\r\n")
        interim = client.socket.recv(1000)
        assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert b'"size":2' in client.send(b"ab").answer().body


def test_http_1_0_and_head_are_answered_as_they_have_to_be() -> None:
    with wire.running() as served:
        old = served.client().send(b"GET / HTTP/1.0\r\n\r\n")
        assert old.answer().status == 200
        assert old.ended()
        client = served.client()
        assert client.ask("/", method="HEAD").answer("HEAD").body == b""
        assert client.ask("/").answer().status == 200


def test_what_the_application_does_not_answer_is_our_fault_and_a_part_is_not_the_whole() -> None:
    with wire.running() as served:
        failed = served.get("/fail")
        assert (failed.status, failed.problem["error"]["code"]) == (500, "server_error")
        broken = served.client().ask("/break")
        received = b"".join(iter(lambda: broken.socket.recv(1000), b""))
        assert b"begun" in received
        assert not received.endswith(b"0\r\n\r\n")
        assert served.get("/").status == 200


# Whom headers are believed


def test_no_header_changes_the_path_the_scheme_or_the_address() -> None:
    headers = "SCRIPT_NAME: /v1\r\nSCRIPT-NAME: /v1\r\nPATH_INFO: /x\r\n"
    headers += "X-Forwarded-Proto: https\r\nX-Forwarded-For: 9.9.9.9\r\n"
    with wire.running() as served:
        reported = orjson.loads(served.get("/v1/metrics", headers=headers).body)
    assert (reported["path"], reported["script"], reported["scheme"]) == ("/v1/metrics", "", "http")
    assert reported["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("9.9.9.9", "9.9.9.9"),
        ("8.8.8.8, 9.9.9.9", "9.9.9.9"),
        ("8.8.8.8, 9.9.9.9, 127.0.0.7", "9.9.9.9"),
        ("8.8.8.8, nonsense", "127.0.0.2"),
        ("nonsense, 127.0.0.7", "127.0.0.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("", "127.0.0.2"),
    ],
)
def test_a_trusted_proxy_says_whose_request_it_is(forwarded: str, address: str) -> None:
    with wire.running(trusted=wire.networks("127.0.0.0/29")) as served:
        headers = f"X-Forwarded-For: {forwarded}\r\n"
        reported = orjson.loads(served.get(address=A, headers=headers).body)
        assert reported["address"] == address
        stranger = orjson.loads(served.get(address="127.0.0.9", headers=headers).body)
        assert stranger["address"] == "127.0.0.9"


@pytest.mark.parametrize(
    ("forwarded", "prefix"),
    [
        ("/longlook", "/longlook"),
        ("/longlook/", "/longlook"),
        ("/a/b-c", "/a/b-c"),
        ("/elsewhere, /longlook", "/longlook"),
        ("/", ""),
        ("longlook", ""),
        ("//other.example", ""),
        ("/a/../b", ""),
        ("https://other.example/x", ""),
        ("/a?b", ""),
        ('/"><script>', ""),
        ("/" + "a" * 5000, ""),
    ],
)
def test_a_trusted_proxy_says_which_prefix_it_has_removed(forwarded: str, prefix: str) -> None:
    headers = f"X-Forwarded-Prefix: {forwarded}\r\n"
    with wire.running(trusted=wire.networks("127.0.0.0/29")) as served:
        reported = orjson.loads(served.get("/v1/jobs", address=A, headers=headers).body)
        assert (reported["script"], reported["path"]) == (prefix, "/v1/jobs")
        stranger = served.get("/v1/jobs", address="127.0.0.9", headers=headers)
        assert orjson.loads(stranger.body)["script"] == ""


def test_a_prefix_that_a_proxy_leaves_in_the_path_is_removed() -> None:
    with wire.running(prefix="/longlook") as served:
        for path, script, rest in [
            ("/longlook/v1/jobs?a=b", "/longlook", "/v1/jobs"),
            ("/longlook/livez", "/longlook", "/livez"),
            # Health checks come without the proxy.
            ("/livez", "", "/livez"),
            ("/longlooks/v1", "", "/longlooks/v1"),
        ]:
            reported = orjson.loads(served.get(path).body)
            assert (reported["script"], reported["path"]) == (script, rest)


# Whom it waits for


def test_a_client_that_does_not_close_delays_no_other_client() -> None:
    with wire.running(lingering=8) as served:
        requests = (b"GET / HTTP/1.0\r\n\r\n", b"BAD\r\n\r\n")
        staying = [served.client(A).send(requests[turn % 2]) for turn in range(20)]
        assert served.get(address=B).status == 200
        answers = [client.answer().status for client in staying]
        assert answers == [200, 400] * 10


def test_a_head_that_does_not_come_is_waited_for_no_longer_than_the_limit() -> None:
    with wire.running(timer=HandTimer(), head_seconds=30) as served:
        half, silent, again = served.client().send(b"GET / HT"), served.client(), served.client()
        assert again.ask().answer().status == 200
        # Its thread has told the loop that it has been served.
        assert eventually(lambda: served.loop.running == 0)
        again.send(b"G")
        served.pass_time(29)
        assert all(client.open() for client in (half, silent, again))
        served.pass_time(2)
        assert half.answer().status == 408
        assert silent.ended()
        assert again.answer().status == 408


@pytest.mark.parametrize(
    "limits", [{"body_seconds": 30}, {"rate": 10**6, "head_seconds": 30}], ids=["time", "rate"]
)
@pytest.mark.parametrize("length", ["Content-Length: 9", "Transfer-Encoding: chunked"])
def test_a_body_that_comes_too_slowly_is_refused(limits: dict[str, Any], length: str) -> None:
    with wire.running(timer=HandTimer(), **limits) as served:
        client = served.client().ask("/", method="POST", headers=f"{length}\r\n").send(b"5\r\na")
        served.pass_time(29)
        assert client.open()
        served.pass_time(2)
        answer = client.answer()
        assert (answer.status, answer.problem["error"]["code"]) == (408, "request_timeout")
        assert client.ended()
        assert served.application.ran == []


def test_an_idle_connection_is_closed_in_time() -> None:
    with wire.running(idle_seconds=0.1) as served:
        client = served.client().ask()
        assert client.answer().status == 200
        assert client.ended()


def test_an_answer_that_is_not_taken_keeps_no_thread() -> None:
    with wire.running(threads=1) as served:
        lazy = [served.client(A).ask("/big") for _ in range(3)]
        assert served.get(address=B).status == 200
        assert lazy[0].answer().body == served.application.big


def test_a_client_that_asks_on_and_on_is_not_read_further_ahead_than_it_is_answered() -> None:
    requested = memoryview(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 2**20)
    with wire.running() as served:
        client = served.client()
        sent = 0
        for _ in range(2_000):
            client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += client.socket.send(requested[sent:])
            client.socket.settimeout(wire.PATIENCE)
            assert client.answer().status == 200
        # The rest is what the system keeps.
        assert sent < len(requested) // 2


def test_the_system_takes_little_ahead_of_a_client_so_that_one_that_reads_slowly_is_seen_to_read() -> (
    None
):
    with wire.running(buffer=None) as served:
        client = served.client()
        # The client's system would take megabytes of its own accord.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        client.ask("/big")
        # The answer has begun: the loop waits a second for it to do so, and not for the client.
        client.socket.recv(1, socket.MSG_PEEK)
        served.stop()
        served.thread.join(wire.PATIENCE)
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := client.socket.recv(2**16):
                taken += len(piece)
        assert 0 < taken < 2**19


def test_an_answer_that_is_not_taken_is_given_up() -> None:
    with wire.running(write_seconds=0.1, rate=10**9) as served:
        served.client(A).ask("/big")
        assert eventually(lambda: served.application.ran == ["/big"])
        assert eventually(lambda: served.loop.connections == 0)


def test_a_large_answer_is_whole_for_a_client_that_takes_it() -> None:
    with wire.running() as served:
        client = served.client().ask("/big").ask("/after")
        assert client.answer().body == served.application.big
        assert client.answer().status == 200


def test_a_request_that_is_held_open_takes_no_place_and_ends_when_its_client_hangs_up() -> None:
    with wire.running(threads=1) as served:
        held = served.client().ask("/hold")
        assert held.receive(b"begun")
        assert served.get().status == 200
        # What is sent meanwhile is the next request, not the end.
        held.send(b"GET /next HTTP/1.1\r\n")
        assert not served.application.hung_up.is_set()
        held.socket.shutdown(socket.SHUT_WR)
        assert served.application.hung_up.wait(wire.PATIENCE)


def test_requests_that_wait_for_something_shared_take_no_place_until_they_go_on() -> None:
    with wire.running(threads=2) as served:
        waiting = [served.client().ask(f"/aside/{number}") for number in range(5)]
        assert eventually(lambda: len(served.application.ran) == 5)
        assert served.get().status == 200
        served.application.gate.set()
        assert [client.answer().status for client in waiting] == [200] * 5
        assert served.get("/again").status == 200


def test_threads_take_turns_more_often_only_while_several_requests_run() -> None:
    with wire.running(threads=2) as served:
        default = sys.getswitchinterval()
        running = [served.client().ask(f"/wait/{number}") for number in range(2)]
        assert eventually(lambda: sys.getswitchinterval() < default / 5)
        served.application.gate.set()
        assert [client.answer().status for client in running] == [200] * 2
        assert eventually(lambda: sys.getswitchinterval() == default)
        aside = [served.client().ask(f"/aside/{number}") for number in range(2)]
        assert [client.answer().status for client in aside] == [200] * 2
        assert eventually(lambda: sys.getswitchinterval() == default)


def test_health_is_answered_while_all_threads_and_all_places_to_wait_are_taken() -> None:
    with wire.running(threads=1, waiting=1) as served:
        served.client().ask("/wait/1")
        assert eventually(lambda: served.application.ran == ["/wait/1"])
        served.client().ask("/wait/2")
        assert eventually(lambda: served.loop.waiting == 1)
        refused = served.get("/3")
        assert (refused.status, refused.problem["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert served.get("/livez").status == 200


def test_a_request_that_waits_too_long_for_a_thread_is_refused() -> None:
    with wire.running(timer=HandTimer(), threads=1, queue_seconds=30) as served:
        served.client(A).ask("/wait/1")
        assert eventually(lambda: served.application.ran == ["/wait/1"])
        late = served.client(B).ask("/2")
        served.pass_time(29)
        assert late.open()
        served.pass_time(2)
        assert late.answer().status == 503
        assert served.application.ran == ["/wait/1"]


def test_a_stop_finishes_what_has_begun_and_accepts_nothing_more() -> None:
    timer = HandTimer()
    # It stops within a second, which does not pass while the requests are answered.
    with wire.running(timer=timer) as served:
        begun = served.client().ask("/wait/1")
        assert eventually(lambda: served.application.ran == ["/wait/1"])
        stored = served.client().ask("/kept")
        assert stored.answer().headers["Connection"] == "keep-alive"
        served.stop()
        last = stored.ask("/last").answer()
        assert (last.status, last.headers["Connection"]) == (200, "close")
        served.application.gate.set()
        assert begun.answer().status == 200
        timer.seconds += 1
        served.loop.wake()
        served.thread.join(wire.PATIENCE)
        assert not served.thread.is_alive()


# Whose share it is


def test_connections_without_a_head_give_way_to_those_of_other_addresses() -> None:
    with wire.running(heads=6) as served:
        first, *others = [served.client(A).send(b"GET / HT") for _ in range(6)]
        assert served.get(address=B).status == 200
        # One address alone may have all but the one that came.
        assert first.ended()
        assert all(client.open() for client in others)
        mine = served.client(B).send(b"GET / HT")
        for _ in range(12):
            served.client(A).send(b"G")
        assert served.get(address=B).status == 200
        assert mine.send(b"TP/1.1\r\nHost: x\r\n\r\n").answer().status == 200


def test_idle_connections_give_way_to_those_of_other_addresses() -> None:
    with wire.running(idle=4) as served:
        mine = served.client(B).ask()
        assert mine.answer().status == 200
        many = [served.client(A).ask() for _ in range(8)]
        assert {client.answer().status for client in many} == {200}
        # Which ones are closed depends on the order in which the loop learned that they had been served.
        assert eventually(lambda: sum(client.open() for client in many) == 3)
        assert mine.ask().answer().status == 200


def test_threads_go_to_accounts_in_turns() -> None:
    with wire.running(threads=4) as served:
        ran = served.application.ran
        for name in "ab":
            assert served.get("/known", headers=key(name)).status == 200
        for number in range(8):
            served.client(A).ask(f"/one/a{number}", headers=key("a"))
            # In this order.
            served.catch_up()
        # Three of four: no group has all.
        assert eventually(lambda: len(ran) == 5)
        served.client(A).ask("/wait/b", headers=key("b"))
        assert eventually(lambda: "/wait/b" in ran)
        assert (len(ran), served.loop.waiting) == (6, 5)
        for number in range(2):
            served.client(A).ask(f"/b{number}", headers=key("b"))
            served.catch_up()
        # One place at a time becomes free, so requests are run in the order in which they get it.
        for count in (7, 9, 11):
            served.application.permits.release()
            assert eventually(lambda count=count: len(ran) == count)  # type: ignore[misc] # bound now
        # Turn by turn, though all of A's came before.
        assert ran[6:] == ["/one/a3", "/b0", "/one/a4", "/b1", "/one/a5"]


def test_an_account_may_ask_for_all_its_streams_at_once() -> None:
    settings = Settings.read({})
    limits = ServerLimits.of(settings, connections=settings.max_connections, idle_seconds=75)
    places = Share(limits.waiting)

    waiting = sum(places.take("a") for _ in range(settings.max_streams))

    assert waiting >= settings.max_streams * 3 // 4


def test_places_to_wait_are_shared_between_accounts() -> None:
    with wire.running(threads=1, waiting=4) as served:
        for name in "ab":
            assert served.get("/known", headers=key(name)).status == 200
        served.client().ask("/wait", headers=key("a"))
        assert eventually(lambda: "/wait" in served.application.ran)
        waiting = [served.client().ask(f"/a{number}", headers=key("a")) for number in range(9)]
        mine = served.client().ask("/b", headers=key("b"))
        assert eventually(lambda: served.loop.waiting == 4)
        assert sum(not client.open() for client in waiting) == 6
        assert mine.open()
        served.application.gate.set()
        assert mine.answer().status == 200
        # Before the second of A.
        assert served.application.ran.index("/b") <= 4


def test_slow_bodies_of_one_account_leave_room_to_another_one_and_to_unknown_keys() -> None:
    with wire.running(transfers=8) as served:
        for name in "ab":
            assert served.get("/known", headers=key(name)).status == 200
        slow = "Content-Length: 9\r\n" + key("a")
        many = [
            served.client(B).ask("/", method="POST", headers=slow).send(b"1") for _ in range(20)
        ]
        mine = served.client(B).ask("/", method="POST", body=b"12", headers=key("b"))
        assert mine.answer().status == 200
        assert served.client(A).ask("/", method="POST", body=b"12").answer().status == 200
        served.catch_up()
        refused = [client for client in many if not client.open()]
        assert len(refused) == 14
        assert {client.answer().status for client in refused} == {503}


def test_unknown_keys_count_for_their_address() -> None:
    with wire.running(transfers=8) as served:
        many = [
            served.client(A).ask("/", method="POST", headers=f"Content-Length: 9\r\n{key(str(n))}")
            for n in range(20)
        ]
        mine = served.client(B).ask("/", method="POST", body=b"12", headers=key("b"))
        assert mine.answer().status == 200
        served.catch_up()
        assert sum(not client.open() for client in many) == 15


def test_a_key_is_known_however_it_is_spelled() -> None:
    with wire.running(transfers=8) as served:
        assert served.get("/known", headers=key("a")).status == 200
        for number in range(20):
            served.client(A).ask(
                "/", method="POST", headers=f"Content-Length: 9\r\n{key(str(number))}"
            )
        # Its address has all that it may have.
        served.catch_up()
        spelled = "authorization:bEARER \t a  \r\n"
        mine = served.client(A).ask("/", method="POST", body=b"12", headers=spelled)
        assert mine.answer().status == 200


def test_memory_of_bodies_is_shared_between_accounts_and_given_back() -> None:
    with wire.running(memory=2**22, body=2**20) as served:
        for name in "ab":
            assert served.get("/known", headers=key(name)).status == 200
        begun = [
            served.client().ask(
                "/", method="POST", headers=f"Content-Length: {2**20}\r\n{key('a')}"
            )
            for _ in range(4)
        ]
        for client in begun:
            try:
                client.send(bytes(2**20 - 1))
            except (ConnectionResetError, BrokenPipeError):
                continue
        # The loop has read all: three of four, which is what one account may have.
        assert eventually(lambda: served.loop.memory == 3 * (2**20 - 1))
        mine = served.client().ask("/", method="POST", body=bytes(2**19), headers=key("b"))
        assert mine.answer().status == 200
        refused = [client for client in begun if not client.open()]
        assert [client.answer().problem["error"]["code"] for client in refused] == ["overloaded"]
        for client in begun:
            client.close()
        whole = served.client()
        assert eventually(
            lambda: (
                whole.ask("/", method="POST", body=bytes(2**20), headers=key("a")).answer().status
                == 200
            )
        )


@pytest.mark.parametrize("limits", [{"memory": 2**22}, {"transfers": 8}], ids=repr)
def test_bodies_from_many_addresses_leave_room_to_a_known_account(limits: dict[str, Any]) -> None:
    with wire.running(body=2**20, **limits) as served:
        assert served.get("/known", headers=key("a")).status == 200
        begun = [served.client(f"127.0.1.{number}") for number in range(1, 31)]
        for client in begun:
            client.ask("/", method="POST", headers=f"Content-Length: {2**20}\r\n")
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                client.send(bytes(2**19))
        # Some of them have got too much.
        assert eventually(lambda: any(not client.open() for client in begun))
        mine = served.client().ask(
            "/", method="POST", headers=f"Content-Length: {2**19}\r\n{key('a')}"
        )
        assert mine.send(bytes(2**19)).answer().status == 200


def test_answers_that_are_not_taken_count_for_their_account() -> None:
    with wire.running(memory=2**26) as served:
        for name in "ab":
            assert served.get("/known", headers=key(name)).status == 200
        before = served.loop.connections
        for _ in range(6):
            served.client().ask("/big", headers=key("a"))
        # A fourth one would be more than three quarters of all.
        assert eventually(lambda: served.application.ran.count("/big") == 6)
        assert eventually(lambda: served.loop.connections == before + 3)
        mine = served.client().ask("/big", headers=key("b"))
        assert mine.answer().body == served.application.big
        assert served.loop.connections == before + 3 + 1


def test_answers_that_are_not_taken_are_counted_however_small_the_rest_is() -> None:
    with wire.running(transfers=8) as served:
        served.application.big = bytes(2**20)
        for name in "ab":
            assert served.get("/known", headers=key(name)).status == 200
        before = served.loop.connections
        for _ in range(10):
            served.client().ask("/big", headers=key("a"))
        # Of eight places one group has six at most.
        assert eventually(lambda: served.application.ran.count("/big") == 10)
        assert eventually(lambda: served.loop.connections == before + 6)
        mine = served.client().ask("/big", headers=key("b"))
        assert mine.answer().body == served.application.big
        assert served.loop.connections == before + 6 + 1
