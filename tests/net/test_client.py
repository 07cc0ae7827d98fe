"""The guarded transport: which addresses it connects to, and what it makes of every way not to be answered."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from net.client import GuardedClient, GuardedClientError, Reply
from net.resolver import LookUp
from tests.certificates import Authority, serving
from tests.engines import raw_peer
from tests.receivers import Receiver, answering, receiving

ALLOW = ["127.0.0.0/8"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def egress() -> Iterator[GuardedClient]:
    egress = GuardedClient(ALLOW)
    yield egress
    egress.close()


def send(egress: GuardedClient, url: str, *, seconds: float = 60.0) -> Reply:
    return egress.post(url, body=b"{}", headers={"webhook-id": "evt_1"}, seconds=seconds)


def test_a_name_that_leads_to_a_private_place_is_refused_when_connecting(
    receiver: Receiver,
) -> None:
    url = receiver.url.replace("127.0.0.1", "localhost")

    with pytest.raises(GuardedClientError) as refused:
        send(GuardedClient(), url)

    assert refused.value.reason == "address_forbidden"
    assert receiver.got == []


def test_a_connection_is_kept_for_the_next_request(
    egress: GuardedClient, receiver: Receiver
) -> None:
    replies = [send(egress, receiver.url) for _ in range(3)]

    assert [reply.body for reply in replies] == [b"thanks"] * 3
    assert {reply.address for reply in replies} == {"127.0.0.1"}
    assert len(receiver.peers) == 1


def test_connections_to_many_places_are_not_kept_for_ever() -> None:
    egress = GuardedClient(ALLOW, idle=2)
    with receiving(host="0.0.0.0") as receiver:  # noqa: S104 - all of the loopback's addresses
        port = int(receiver.url.rsplit(":", 1)[1].partition("/")[0])
        urls = [f"http://127.0.0.{number}:{port}/" for number in range(1, 6)]
        for url in urls:
            send(egress, url)
        assert len(receiver.peers) == 5

        send(egress, urls[-1])
        send(egress, urls[-2])
        assert len(receiver.peers) == 5
        send(egress, urls[0])
        assert len(receiver.peers) == 6
        egress.close()


def test_a_connection_that_was_closed_meanwhile_is_made_anew(
    egress: GuardedClient, receiver: Receiver
) -> None:
    send(egress, receiver.url)
    receiver.hang_up()

    assert send(egress, receiver.url).status == 200


def test_an_answer_that_is_only_announced_is_waited_for(egress: GuardedClient) -> None:
    announced = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    with answering(announced + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as url:
        reply = send(egress, url)

    assert (reply.status, reply.body) == (200, b"ok")


def test_bytes_without_a_request_on_a_kept_connection_are_no_response(
    egress: GuardedClient,
) -> None:
    answered, sent = threading.Event(), threading.Event()

    def serve() -> None:
        first, _ = listener.accept()
        with first:
            raw_peer.read_request(first)
            first.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            answered.wait(20)
            first.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            sent.set()
            second, _ = listener.accept()
            with second:
                raw_peer.read_request(second)
                second.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert send(egress, url).status == 500
        answered.set()
        assert sent.wait(20)

        assert send(egress, url).status == 503
        thread.join(20)


def test_a_long_answer_is_cut_and_its_connection_dropped(
    egress: GuardedClient, receiver: Receiver
) -> None:
    receiver.answer = b"x" * 5_000_000

    replies = [send(egress, receiver.url) for _ in range(2)]

    assert [len(reply.body) for reply in replies] == [16 * 1024] * 2
    assert len(receiver.peers) == 2


def test_redirects_are_not_followed(egress: GuardedClient, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 302, {"location": "http://127.0.0.1:9/"}

    assert send(egress, receiver.url).status == 302


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/ok-ü?q=é".encode(), b"/ok-%C3%BC?q=%C3%A9"),
        ("/ok-ü".encode("latin-1"), b"/ok-%FC"),
        (b"/ok-%C3%BC%2F", b"/ok-%C3%BC%2F"),
        ("Ångström/日本".encode(), b"/%C3%85ngstr%C3%B6m/%E6%97%A5%E6%9C%AC"),
    ],
)
def test_a_redirect_to_raw_bytes_is_encoded_once(
    egress: GuardedClient, location: bytes, path: bytes
) -> None:
    asked: list[bytes] = []

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, peer.makefile("rb") as lines:
            for answer in (
                b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ):
                asked.append(lines.readline().split()[1])
                while lines.readline() not in (b"\r\n", b""):
                    pass
                peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        reply = egress.fetch(url, headers={}, seconds=20, cap=100)
        thread.join(20)

    assert reply.body == b"ok"
    assert asked == [b"/", path]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/", "url_invalid"),
        ("https://user:pass@example.com/", "url_invalid"),
        ("https:///path", "url_invalid"),
        ("https://a host.example/", "url_invalid"),
        ("https://a\x7fhost.example/", "url_invalid"),
        ("https://example.com/\ud800", "url_invalid"),
        ("https://example.com:99999/", "url_invalid"),
        ("http://127.0.0.1:9/", "unreachable"),
        ("https://name.invalid/", "name_not_resolved"),
        ("http://2130706433:9/", "unreachable"),
    ],
)
def test_each_way_not_to_get_there_has_its_code(
    egress: GuardedClient, url: str, reason: str
) -> None:
    with pytest.raises(GuardedClientError) as failed:
        send(egress, url)

    assert failed.value.reason == reason


@pytest.mark.parametrize(
    ("answer", "drip", "reason"),
    [
        (b"", False, "answer_broken"),
        (b"nonsense\r\n\r\n", False, "answer_broken"),
        (b"HTTP/1.1 200 OK\r\nx-slow: ", True, "timed_out"),
    ],
)
def test_a_head_that_does_not_come_whole_and_in_time_is_no_answer(
    egress: GuardedClient, answer: bytes, *, drip: bool, reason: str
) -> None:
    # What breaks must have broken by then, also on a busy machine.
    seconds = 0.5 if drip else 60
    with answering(answer, drip=drip) as url, pytest.raises(GuardedClientError) as failed:
        send(egress, url, seconds=seconds)

    assert failed.value.reason == reason
    assert failed.value.address == "127.0.0.1"


HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"content-length: 100\r\n\r\nhalf", b"half"),
        (b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"half"),
        (b"transfer-encoding: chunked\r\n\r\nxyz\r\n", b""),
    ],
)
def test_a_body_that_breaks_leaves_the_status_and_what_arrived(
    egress: GuardedClient, body: bytes, read: bytes
) -> None:
    with answering(b"HTTP/1.1 503 No\r\n" + body) as url:
        reply = send(egress, url)

    assert (reply.status, reply.body, reply.broken) == (503, read, "answer_broken")


def test_a_connection_whose_response_was_malformed_is_not_used_again(
    egress: GuardedClient,
) -> None:
    malformed = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"
    with answering(malformed, hold=True) as url:
        assert send(egress, url).status == 200
        with pytest.raises(GuardedClientError) as second:
            # The server takes one connection.
            send(egress, url, seconds=0.5)

    assert second.value.reason == "timed_out"


def test_tls_without_a_common_version_says_so(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    egress = GuardedClient([*ALLOW, "::1/128"], context=context)
    certificate = authority.issue("localhost")

    with (
        serving(certificate, version=ssl.TLSVersion.TLSv1_3) as port,
        pytest.raises(GuardedClientError) as failed,
    ):
        send(egress, f"https://localhost:{port}/")
    egress.close()

    assert failed.value.reason == "tls_failed"
    assert "no version of TLS" in (failed.value.detail or "")


@pytest.mark.parametrize("reset", [False, True])
def test_a_download_needs_the_whole_body(egress: GuardedClient, *, reset: bool) -> None:
    with answering(HALF, reset=reset) as url, pytest.raises(GuardedClientError) as failed:
        egress.fetch(url, headers={}, seconds=20, cap=1000)

    assert failed.value.reason == "answer_broken"


def test_what_is_compressed_is_not_unpacked(egress: GuardedClient, receiver: Receiver) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    receiver.answer, receiver.headers = bomb, {"content-encoding": "gzip"}

    reply = send(egress, receiver.url)

    assert reply.body == bomb[: 16 * 1024]
    assert receiver.got[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("end", ["%0d%0ax-evil:%201", "\r\nx-evil: 1", "\nx-evil: 1", "é\u2028?ü"])
def test_nothing_in_a_url_becomes_a_header(
    egress: GuardedClient, receiver: Receiver, end: str
) -> None:
    send(egress, receiver.url + end)

    [got] = receiver.got
    assert "x-evil" not in got.headers
    assert got.body == b"{}"
    assert got.path.startswith("/hook")


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "\uff11\uff12\uff17\u3002\uff10.0.1",
        "169.254.169.254",
    ],
)
def test_a_private_address_is_refused_before_anything_is_sent_however_it_is_written(
    host: str,
) -> None:
    assert GuardedClient().refuses(f"https://{host}/") == "address_forbidden"
    assert GuardedClient(["0.0.0.0/0", "::/0"]).refuses(f"https://{host}/") is None


def test_plain_http_where_tls_is_expected_fails(egress: GuardedClient, receiver: Receiver) -> None:
    with pytest.raises(GuardedClientError) as failed:
        send(egress, receiver.url.replace("http:", "https:"))

    assert failed.value.reason == "tls_failed"


@pytest.mark.parametrize(
    ("host", "days", "trusted", "reason"),
    [
        ("localhost", 30, True, None),
        ("localhost", 30, False, "tls_failed"),
        ("localhost", -1, True, "tls_failed"),
        ("elsewhere.example", 30, True, "tls_failed"),
    ],
)
def test_tls_is_verified_against_the_name_though_an_address_is_connected_to(
    tmp_path: Path, *, host: str, days: int, trusted: bool, reason: str | None
) -> None:
    authority = Authority.make(tmp_path)
    egress = GuardedClient([*ALLOW, "::1/128"], context=authority.context() if trusted else None)

    with serving(authority.issue(host, days=days)) as port:
        url = f"https://localhost:{port}/"
        if reason is None:
            assert send(egress, url).status == 204
        else:
            with pytest.raises(GuardedClientError) as failed:
                send(egress, url)
            assert failed.value.reason == reason
    egress.close()


def test_a_resolver_that_does_not_answer_takes_no_longer_than_the_request() -> None:
    answered = threading.Event()

    def look_up(host: str, port: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        del host, port
        answered.wait(20)
        return []

    egress = GuardedClient(ALLOW, look_up=look_up)
    with pytest.raises(GuardedClientError) as failed:
        send(egress, "https://slow.example/", seconds=0.2)
    answered.set()
    egress.close()

    assert failed.value.reason == "timed_out"


def test_an_address_that_swallows_packets_leaves_time_for_the_next_one(receiver: Receiver) -> None:
    port = int(receiver.url.rsplit(":", 1)[1].split("/")[0])
    swallowing = socket.socket()
    swallowing.bind(("127.0.0.2", port))
    swallowing.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(("127.0.0.2", port))
    # Each has an equal share of the time, so that the first one leaves most of it.
    addresses = [ipaddress.ip_address(host) for host in ("127.0.0.2", *["127.0.0.1"] * 59)]
    egress = GuardedClient(ALLOW, look_up=lambda *_: list(addresses))

    reply = send(egress, f"http://two.example:{port}/", seconds=60)

    for one in (*waiting, swallowing):
        one.close()
    egress.close()
    assert reply.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("reason", "address", "seen"),
    [
        ("name_not_resolved", None, "no_public_address"),
        ("address_forbidden", "10.0.0.1", "no_public_address"),
        ("timed_out", None, "no_public_address"),
        ("timed_out", "8.8.8.8", "timed_out"),
        ("unreachable", "8.8.8.8", "unreachable"),
        ("url_invalid", None, "url_invalid"),
    ],
)
def test_what_comes_before_a_connection_is_one_reason_to_customers(
    reason: str, address: str | None, seen: str
) -> None:
    assert GuardedClientError(reason, address=address).disclosed == seen


def refusing(*_: object) -> list[ipaddress.IPv4Address]:
    raise OSError("no such name")


@pytest.mark.parametrize("look_up", [refusing, lambda *_: [ipaddress.IPv4Address("10.0.0.1")]])
def test_a_name_is_refused_after_whole_seconds_whatever_the_resolver_said(look_up: LookUp) -> None:
    pauses: list[float] = []
    egress = GuardedClient(look_up=look_up, pause=pauses.append)
    began = time.monotonic()

    with pytest.raises(GuardedClientError):
        egress.post("https://internal.example/", body=b"", headers={}, seconds=15)

    [pause] = pauses
    # The pause fills up the second that the look-up began, and a pause of nothing would fail.
    assert 0 < pause <= 1
    assert pause + (time.monotonic() - began) >= 1


def test_an_address_is_refused_without_a_pause() -> None:
    pauses: list[float] = []
    egress = GuardedClient(pause=pauses.append)

    with pytest.raises(GuardedClientError, match="address_forbidden"):
        egress.post("https://10.0.0.1/", body=b"", headers={}, seconds=15)

    assert pauses == []
