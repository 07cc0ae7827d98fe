"""Names whose servers are silent keep neither other names, nor other parties, nor the end of a process waiting."""

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
#: A process that asked for a name whose server is silent, and has nothing more to do.
ENDS = """
import socket, threading
from net.client import GuardedClient, GuardedClientError

known = socket.getaddrinfo

def silent(host, *arguments, flags=0, **rest):
    if flags & socket.AI_NUMERICHOST:
        return known(host, *arguments, flags=flags, **rest)
    threading.Event().wait()

socket.getaddrinfo = silent
egress = GuardedClient()
try:
    egress.post("https://silent.example/", body=b"", headers={}, seconds=0.1)
except GuardedClientError as error:
    print(error.reason)
egress.close()
"""


class Names:
    """A resolver that says nothing of names that begin with ``silent`` until it is let go."""

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
    """Ask for a name that nobody answers for; its look-up stays."""
    with pytest.raises(TimeoutError):
        resolve(resolver, host, party=party, seconds=0.01)


def test_a_name_is_looked_up_each_time_it_is_needed(names: Names) -> None:
    resolver = Resolver(names)

    assert [resolve(resolver, "a.example") for _ in range(2)] == [[HERE], [HERE]]
    assert names.requested == ["a.example"] * 2
    with pytest.raises(OSError, match="resolved"):
        resolve(resolver, "none.example")


def test_one_silent_name_is_asked_for_once_however_many_want_it(names: Names) -> None:
    resolver = Resolver(names, threads=2, each=2)
    for _ in range(10):
        hang(resolver, "silent.example")

    assert eventually(lambda: names.requested == ["silent.example"])
    assert resolve(resolver, "b.example") == [HERE]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(resolve, resolver, "silent.example") for _ in range(4)]
        names.speaks.set()
        assert [one.result() for one in waiting] == [[HERE]] * 4


def test_silent_names_of_one_party_keep_no_other_one_waiting(names: Names) -> None:
    resolver = Resolver(names, threads=8, each=2)
    for number in range(2):
        hang(resolver, f"silent{number}.example", party="a")

    hang(resolver, "more.example", party="a")

    assert "more.example" not in names.requested
    assert resolve(resolver, "other.example", party="b") == [HERE]


def test_a_party_goes_on_when_one_of_its_names_was_answered_for(names: Names) -> None:
    resolver = Resolver(names, threads=2, each=1)
    hang(resolver, "silent.example")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(resolve, resolver, "a.example")
        names.speaks.set()

        assert waiting.result() == [HERE]


def test_all_parties_together_have_so_many_threads_at_the_most(names: Names) -> None:
    resolver = Resolver(names, threads=3, each=2)
    for number in range(3):
        hang(resolver, f"silent{number}.example", party=str(number))

    hang(resolver, "silent3.example", party="3")

    assert "silent3.example" not in names.requested


def test_parties_with_many_silent_names_leave_a_thread_to_another_one(names: Names) -> None:
    resolver = Resolver(names, threads=8, each=4)
    for party in "ab":
        for number in range(4):
            hang(resolver, f"silent{party}{number}.example", party=party)

    assert resolve(resolver, "other.example", party="c") == [HERE]


def test_a_silent_name_keeps_no_process_from_ending() -> None:
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
def test_an_address_is_one_however_it_is_written(host: str, address: str) -> None:
    assert numeric(host) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "host", ["localhost", "a.example", "127.0.0.1.example", "", "a" * 300, "a\0b"]
)
def test_a_name_is_no_address(host: str) -> None:
    assert numeric(host) is None
