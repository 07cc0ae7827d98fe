"""The resolver: names with silent servers delay neither other names, nor other parties, nor the exit of a process."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from net.resolver import IP, Resolver, numeric
from tests.databases import ROOT
from tests.e2e.stack import eventually

HERE = ipaddress.ip_address("127.0.0.1")
#: A process that resolves a name whose server is silent, and has nothing else to do.
ENDS = """
import socket, threading
from net.client import GuardedClient, GuardedClientError

known = socket.getaddrinfo

def silent(host, *arguments, flags=0, **rest):
    if flags & socket.AI_NUMERICHOST:
        return known(host, *arguments, flags=flags, **rest)
    threading.Event().wait()

socket.getaddrinfo = silent
client = GuardedClient()
try:
    client.post("https://silent.example/", body=b"", headers={}, seconds=0.1)
except GuardedClientError as error:
    print(error.reason)
client.close()
"""


class Names:
    """A resolver that does not answer for names that start with ``silent`` until the test releases it."""

    def __init__(self) -> None:
        self.requested: list[str] = []
        self.speaks = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int) -> list[IP]:
        del port
        with self._lock:
            self.requested.append(host)
        if host.startswith("silent"):
            self.speaks.wait(60)
        if host.startswith("none"):
            raise UnicodeError
        return [HERE]


@pytest.fixture
def names() -> Iterator[Names]:
    names = Names()
    yield names
    names.speaks.set()


def resolve(resolver: Resolver, host: str, *, party: str = "a", seconds: float = 30) -> list[IP]:
    return resolver.resolve(host, 443, party=party, until=time.monotonic() + seconds)


def hang(resolver: Resolver, host: str, *, party: str = "a") -> None:
    """Resolve a name that gets no answer; its lookup stays pending."""
    with pytest.raises(TimeoutError):
        resolve(resolver, host, party=party, seconds=0.01)


def test_a_name_is_resolved_for_each_call(names: Names) -> None:
    resolver = Resolver(names)

    assert [resolve(resolver, "a.example") for _ in range(2)] == [[HERE], [HERE]]
    assert names.requested == ["a.example"] * 2
    with pytest.raises(OSError, match="looked up"):
        resolve(resolver, "none.example")


def test_concurrent_callers_share_one_lookup_of_a_silent_name(names: Names) -> None:
    resolver = Resolver(names, threads=2, each=2)
    for _ in range(10):
        hang(resolver, "silent.example")

    assert eventually(lambda: names.requested == ["silent.example"])
    assert resolve(resolver, "b.example") == [HERE]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(resolve, resolver, "silent.example") for _ in range(4)]
        names.speaks.set()
        assert [future.result() for future in waiting] == [[HERE]] * 4


def test_silent_names_of_one_party_do_not_delay_another_party(names: Names) -> None:
    resolver = Resolver(names, threads=8, each=2)
    for number in range(2):
        hang(resolver, f"silent{number}.example", party="a")

    hang(resolver, "more.example", party="a")

    assert "more.example" not in names.requested
    assert resolve(resolver, "other.example", party="b") == [HERE]


def test_a_party_continues_when_one_of_its_lookups_returns(names: Names) -> None:
    resolver = Resolver(names, threads=2, each=1)
    hang(resolver, "silent.example")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(resolve, resolver, "a.example")
        names.speaks.set()

        assert waiting.result() == [HERE]


def test_the_threads_of_all_parties_are_limited(names: Names) -> None:
    resolver = Resolver(names, threads=3, each=2)
    for number in range(3):
        hang(resolver, f"silent{number}.example", party=str(number))

    hang(resolver, "silent3.example", party="3")

    assert "silent3.example" not in names.requested


def test_parties_with_many_silent_names_leave_a_thread_to_another_party(names: Names) -> None:
    resolver = Resolver(names, threads=8, each=4)
    for party in "ab":
        for number in range(4):
            hang(resolver, f"silent{party}{number}.example", party=party)

    assert resolve(resolver, "other.example", party="c") == [HERE]


def test_a_silent_name_does_not_prevent_the_exit_of_a_process() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (ended.stdout, ended.returncode) == ("timed_out\n", 0), ended.stderr


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
def test_an_address_is_recognized_in_every_notation(host: str, address: str) -> None:
    assert numeric(host) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "host", ["localhost", "a.example", "127.0.0.1.example", "", "a" * 300, "a\0b"]
)
def test_a_name_is_not_an_address(host: str) -> None:
    assert numeric(host) is None
