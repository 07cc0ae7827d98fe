"""The attacks of ``bench.abuse``, each in its own process.

An attack writes one line when it has started and continues until its standard input ends. All attacks connect from
the address of the measured account, so that only the keys distinguish the two.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson
from PIL import Image

#: Above this number of sockets the limit of open files must be raised.
_FILES = 4096
_CONNECT_SECONDS = 5
_DRIP_SECONDS = 10.0
#: Seconds between two rounds of a repeated attack.
_PAUSE_SECONDS = 0.05
_MIB = 2**20


@dataclass(frozen=True)
class Target:
    """The service under attack and the attacker's key."""

    port: int
    key: str
    job: str

    def connect(self) -> socket.socket:
        """Return a new connection. Raises OSError when the service refuses it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=_CONNECT_SECONDS)

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """Return a request's head with the attacker's key."""
        lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {self.key}"]
        return "\r\n".join([*lines, *headers, "", ""]).encode()

    def post(self, path: str, body: bytes, kind: str = "application/json") -> bytes:
        """Return a complete POST."""
        return (
            self.head("POST", path, f"Content-Type: {kind}", f"Content-Length: {len(body)}") + body
        )


def lingering(target: Target) -> None:
    """Twenty clients at a time send ``Connection: close`` and never close their side."""
    held: list[socket.socket] = []
    for _ in _rounds(0.5):
        for one in held[:-200]:
            one.close()
        held = held[-200:]
        for _number in range(20):
            with contextlib.suppress(OSError):
                held.append(
                    _send(target, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                )


def silent(target: Target) -> None:
    """1,744 connections send nothing."""
    _hold(target, 1744, lambda _number: b"")


def one_byte(target: Target) -> None:
    """744 connections have sent one byte of a head."""
    _hold(target, 744, lambda _number: b"G")


def slow_heads(target: Target) -> None:
    """744 connections send a head byte by byte."""
    _hold(target, 744, lambda _number: b"GET /livez HTTP/1.1\r\nX-Slow: ", drip=b"x")


def slow_bodies(target: Target) -> None:
    """744 requests of one key send their body byte by byte."""
    head = target.head(
        "POST", "/v1/jobs", "Content-Type: application/json", "Content-Length: 10000"
    )
    _hold(target, 744, lambda _number: head + b"{", drip=b" ")


def missing_bodies(target: Target) -> None:
    """800 requests without a key announce a body and never send it."""
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    _hold(target, 800, lambda _number: head)


def large_bodies(target: Target) -> None:
    """Twenty requests of one key stop one byte before the end of 60 MiB."""
    size = 60 * _MIB
    head = target.head(
        "POST", "/v1/jobs", "Content-Type: application/json", f"Content-Length: {size}"
    )
    piece = b" " * _MIB
    for _ in _rounds(1.0):
        with contextlib.ExitStack() as stack:
            for _number in range(20):
                with contextlib.suppress(OSError):
                    one = stack.enter_context(target.connect())
                    one.sendall(head)
                    for _piece in range(59):
                        one.sendall(piece)
            _ready()
            _wait(5)


def million_elements(target: Target) -> None:
    """Four clients send 3 MB of JSON with a million empty images."""
    body = b'{"question":"q","images":[' + b",".join([b"{}"] * 1_000_000) + b"]}"
    _repeat(target, [target.post("/v1/jobs", body)], clients=4)


def unknown_fields(target: Target) -> None:
    """Four clients send 300,000 unknown fields."""
    body = b"{" + b",".join(b'"f%d":1' % number for number in range(300_000)) + b"}"
    _repeat(target, [target.post("/v1/webhook_endpoints", body)], clients=4)


def slow_images(target: Target) -> None:
    """Four clients send a small JPEG that occupies a decoder until it is killed."""
    image = _slow_jpeg()
    # All have different bytes, so that none is remembered.
    requests = [
        target.post("/v1/images", image + bytes([number, 0]), "image/jpeg") for number in range(256)
    ]
    _repeat(target, requests, clients=4)


def searches(target: Target) -> None:
    """Forty clients search the account's long traces for frequent words in another order."""
    phrases = [
        f"{first}%20{second}" for first, second in itertools.permutations(("look", "long", "a"), 2)
    ]
    _repeat(
        target,
        [target.head("GET", f"/v1/jobs?limit=1&q=%22{one}%22") for one in phrases],
        clients=40,
    )


def streams(target: Target) -> None:
    """One key opens as many event streams as it can get."""
    head = target.head("GET", f"/v1/jobs/{target.job}/events")
    _hold(target, 744, lambda _number: head)


def unread_answers(target: Target) -> None:
    """Two hundred clients send requests one after the other and read no response."""
    many = target.head("GET", "/v1/jobs?limit=100") * 60
    _hold(target, 200, lambda _number: many)


def unknown_keys(target: Target) -> None:
    """Eight clients try keys that do not exist."""
    stranger = Target(target.port, "ll_" + "x" * 43, target.job)
    _repeat(target, [stranger.head("GET", "/v1/jobs")] * 2, clients=8)


def queue(target: Target) -> None:
    """Four clients queue jobs, 64 at a time."""
    image = _upload(target)
    body = orjson.dumps(
        {"questions": [f"{number}?" for number in range(64)], "images": [{"image_id": image}]}
    )
    _repeat(target, [target.post("/v1/groups", body)], clients=4)


ATTACKS: dict[str, Callable[[Target], None]] = {
    attack.__name__: attack
    for attack in (
        *(lingering, silent, one_byte, slow_heads, slow_bodies, missing_bodies, large_bodies),
        *(million_elements, unknown_fields, slow_images, searches, streams, unread_answers),
        *(unknown_keys, queue),
    )
}


def _hold(target: Target, count: int, first: Callable[[int], bytes], *, drip: bytes = b"") -> None:
    """Keep ``count`` connections open, each with ``first`` sent; replace those that the service closes."""
    held: dict[int, socket.socket] = {}
    number = 0
    for _ in _rounds(0.5):
        for one in list(held.values()):
            if _closed(one):
                held.pop(one.fileno())
                one.close()
        while len(held) < count:
            try:
                one = _send(target, first(number))
            except OSError:
                break
            number += 1
            held[one.fileno()] = one
        if drip and number % 20 == 0:
            number += 1
            for one in held.values():
                with contextlib.suppress(OSError):
                    one.send(drip)


def _closed(one: socket.socket) -> bool:
    """Whether the peer has closed the connection; its data stays unread."""
    try:
        return one.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _send(target: Target, data: bytes) -> socket.socket:
    one = target.connect()
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        one.send(data)
    return one


def _repeat(target: Target, requests: list[bytes], *, clients: int) -> None:
    """Send the requests in turn by ``clients`` threads, each after the response to its last one."""
    stop = threading.Event()
    turn = itertools.cycle(requests)

    def client() -> None:
        while not stop.is_set():
            try:
                with target.connect() as one:
                    one.settimeout(60)
                    one.sendall(next(turn))
                    one.recv(65536)
            except OSError:
                stop.wait(_PAUSE_SECONDS)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for _ in _rounds(1.0):
        pass
    stop.set()


def _rounds(seconds: float) -> Iterator[None]:
    """Yield at once and then every ``seconds`` until standard input ends; announce the end of the first round."""
    yield
    _ready()
    while _wait(seconds):
        yield


_reported = threading.Event()


def _ready() -> None:
    if not _reported.is_set():
        _reported.set()
        print("in force", flush=True)


def _wait(seconds: float) -> bool:
    """Return True after ``seconds``, or False as soon as standard input has ended."""
    until = time.monotonic() + seconds
    return not select.select([sys.stdin], [], [], max(until - time.monotonic(), 0))[0]


def _slow_jpeg() -> bytes:
    """Return a progressive JPEG that repeats its last scan; decoding it takes minutes."""
    out = io.BytesIO()
    Image.new("RGB", (6000, 8000), (120, 130, 140)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    return data[:last] + scan * max(2, 550_000 // len(scan)) + data[-2:]


def _upload(target: Target) -> str:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (1, 2, 3)).save(out, "PNG")
    with target.connect() as one:
        one.settimeout(60)
        one.sendall(target.post("/v1/images", out.getvalue(), "image/png"))
        answer = one.recv(65536)
        while b"\r\n\r\n" not in answer or not answer.rstrip().endswith(b"}"):
            answer += one.recv(65536)
    return str(orjson.loads(answer.partition(b"\r\n\r\n")[2])["id"])


def main() -> None:
    """Run one attack; the arguments are its name, the port, the attacker's key, and a job of the attacker."""
    name, port, key, job = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
    ATTACKS[name](Target(int(port), key, job))
