"""Requests through a proxy: the guard checks the target, the proxy gets the checked address, TLS is end to end."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.outbound_proxy import OutboundProxy
from net.client import GuardedClient, GuardedClientError, Reply
from net.resolver import IP
from tests.certificates import Authority, serving
from tests.connect_proxy import proxying
from tests.e2e.stack import free_port
from tests.receivers import receiving

ALLOW = ["127.0.0.0/8"]


def loopback(_host: str, _port: int) -> list[IP]:
    return [ipaddress.ip_address("127.0.0.1")]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


@contextlib.contextmanager
def client(
    url: str, authority: Authority, *, allow: list[str] = ALLOW, direct: tuple[str, ...] = ()
) -> Iterator[GuardedClient]:
    made = GuardedClient(
        allow,
        context=authority.context(),
        look_up=loopback,
        proxy=OutboundProxy.parse(url, direct=direct),
    )
    yield made
    made.close()


def send(egress: GuardedClient, url: str, *, seconds: float = 20.0) -> Reply:
    return egress.post(url, body=b"{}", headers={"webhook-id": "evt_1"}, seconds=seconds)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_target_is_reached_by_its_checked_address_and_tls_is_verified_by_its_name(
    authority: Authority, scheme: str
) -> None:
    own = authority.issue("proxy.example") if scheme == "https" else None
    with proxying(own) as proxy, serving(authority.issue("hooks.example")) as port:
        at = f"{scheme}://user:p%40ss@proxy.example:{proxy.port}"
        with client(at, authority) as egress:
            replies = [send(egress, f"https://hooks.example:{port}/") for _ in range(2)]
            with pytest.raises(GuardedClientError) as failed:
                send(egress, f"https://elsewhere.example:{port}/")

    assert [(reply.status, reply.address) for reply in replies] == [(204, "127.0.0.1")] * 2
    assert set(proxy.targets) == {f"127.0.0.1:{port}"}
    credentials = base64.b64encode(b"user:p@ss").decode()
    assert all(f"Proxy-Authorization: Basic {credentials}" in head for head in proxy.asked)
    assert failed.value.reason == "tls_failed"
    assert (failed.value.detail or "").endswith(
        "is not for elsewhere.example: it is for hooks.example."
    )


def test_a_tunnel_is_kept_for_the_next_request(authority: Authority) -> None:
    with (
        proxying() as proxy,
        receiving() as receiver,
        client(f"http://127.0.0.1:{proxy.port}", authority) as egress,
    ):
        bodies = [send(egress, receiver.url).body for _ in range(3)]

    assert bodies == [b"thanks"] * 3
    assert len(proxy.asked) == 1


def test_a_private_target_is_refused_and_the_proxy_is_not_asked(authority: Authority) -> None:
    with (
        proxying() as proxy,
        receiving() as receiver,
        client(f"http://127.0.0.1:{proxy.port}", authority, allow=[]) as egress,
    ):
        for url in (receiver.url, "https://hooks.example/", "https://169.254.169.254/"):
            with pytest.raises(GuardedClientError) as failed:
                send(egress, url)
            assert failed.value.reason == "address_forbidden"

    assert proxy.asked == []
    assert receiver.got == []


def test_targets_that_need_no_proxy_are_reached_directly(authority: Authority) -> None:
    with proxying() as proxy, receiving() as receiver:
        port = receiver.url.rsplit(":", 1)[1]
        direct = ("corp.example", "10.0.0.0/8")
        with client(f"http://127.0.0.1:{proxy.port}", authority, direct=direct) as egress:
            send(egress, f"http://hooks.CORP.example:{port}")
            assert proxy.asked == []
            send(egress, f"http://notcorp.example:{port}")
            assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", "proxy_failed", "credentials"),
        (b"HTTP/1.1 500 No\r\n\r\n", "proxy_failed", "500"),
        (b"SSH-2.0-x\r\n\r\n", "proxy_failed", "HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "proxy_failed", "HTTP"),
        (b"HTTP/1.1 403 No\r\n\r\n", "proxy_refused", "403"),
        (b"HTTP/1.1 502 No\r\n\r\n", "unreachable", None),
    ],
)
def test_what_a_proxy_answers_tells_its_faults_from_those_of_the_target(
    authority: Authority, answer: bytes, reason: str, detail: str | None
) -> None:
    with proxying() as proxy, client(f"http://127.0.0.1:{proxy.port}", authority) as egress:
        proxy.answer = answer
        with pytest.raises(GuardedClientError) as failed:
            send(egress, "https://hooks.example:9/")

    assert failed.value.reason == reason
    assert (detail or "") in (failed.value.detail or "")
    assert failed.value.address == "127.0.0.1"


def test_a_proxy_that_is_not_there_is_the_proxys_fault(authority: Authority) -> None:
    with (
        client(f"http://127.0.0.1:{free_port()}", authority) as egress,
        pytest.raises(GuardedClientError) as failed,
    ):
        send(egress, "https://hooks.example:9/")

    assert failed.value.reason == "proxy_failed"


def test_a_certificate_of_the_proxy_is_verified(authority: Authority) -> None:
    with (
        proxying(authority.issue("other.example")) as proxy,
        client(f"https://proxy.example:{proxy.port}", authority) as egress,
        pytest.raises(GuardedClientError) as failed,
    ):
        send(egress, "https://hooks.example:9/")

    assert failed.value.reason == "proxy_failed"
    assert proxy.asked == []


def test_a_silent_proxy_takes_no_longer_than_the_request(authority: Authority) -> None:
    with proxying() as proxy, client(f"http://127.0.0.1:{proxy.port}", authority) as egress:
        proxy.silent = True
        with pytest.raises(GuardedClientError) as failed:
            send(egress, "https://hooks.example:9/", seconds=0.5)

    assert failed.value.reason == "timed_out"


@pytest.mark.parametrize(
    "url",
    [
        "proxy.example:3128",
        "socks5://proxy.example",
        "http://",
        "http://p:x",
        "http://p/path",
        "http://p?q",
    ],
)
def test_the_url_of_a_proxy_is_checked(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a URL such as `http://proxy.example:3128`"):
        OutboundProxy.parse(url)


@pytest.mark.parametrize("entry", ["", "*", "a b", "10.0.0.1/8", "300.1.1.1"])
def test_targets_without_a_proxy_are_networks_or_names(entry: str) -> None:
    with pytest.raises(ValueError, match="must be networks"):
        OutboundProxy.parse("http://p", direct=[entry])
