"""Which addresses guarded requests may connect to."""

from __future__ import annotations

import ipaddress

import pytest

from net.guard import Guard


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.1.2.3",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "2001::1",
        "2001:db8::1",
        "192.0.0.8",
        "192.0.0.192",
        "192.88.99.1",
        "168.63.129.16",
        "fec0::1",
        "3fff::1",
    ],
)
def test_a_private_place_is_never_connected_to(address: str) -> None:
    assert not Guard().permits(ipaddress.ip_address(address), scheme="https", port=443)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f::1", "64:ff9b::5db8:d70e"])
def test_the_internet_is_reached_by_https_on_its_port_alone(address: str) -> None:
    public = ipaddress.ip_address(address)

    assert Guard().permits(public, scheme="https", port=443)
    assert not Guard().permits(public, scheme="https", port=22)
    assert not Guard().permits(public, scheme="http", port=443)


def test_a_network_that_is_allowed_is_reached_in_any_way() -> None:
    guard = Guard(["10.0.0.0/8", "fd00::/8"])

    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1"):
        assert guard.permits(ipaddress.ip_address(address), scheme="http", port=8080), address
    assert not guard.permits(ipaddress.ip_address("127.0.0.1"), scheme="http", port=8080)
