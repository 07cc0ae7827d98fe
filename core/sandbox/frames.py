"""The messages between a sandbox and its child: two lengths, a JSON header, raw bytes."""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

Header = dict[str, Any]

#: The lengths of header and body, in bytes.
_LENGTHS = struct.Struct("!II")


def send(
    connection: socket.socket, header: Header, body: bytes = b"", *, deadline: float | None = None
) -> None:
    """Send one whole frame before ``deadline`` (of the monotonic clock).

    Raises:
        TimeoutError: the deadline has passed.
        OSError: the other end closed the connection.
    """
    head = json.dumps(header).encode()
    for part in (_LENGTHS.pack(len(head), len(body)) + head, body):
        connection.settimeout(_left(deadline))
        connection.sendall(part)


def receive(connection: socket.socket, *, deadline: float | None = None) -> tuple[Header, bytes]:
    """Return the header and body of one frame.

    Raises:
        TimeoutError: the deadline has passed.
        OSError: the other end closed the connection.
        ValueError: the data is not a frame.
    """
    head_size, body_size = _LENGTHS.unpack(_read(connection, _LENGTHS.size, deadline))
    header = json.loads(_read(connection, head_size, deadline))
    return header, bytes(_read(connection, body_size, deadline))


def _read(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        connection.settimeout(_left(deadline))
        count = connection.recv_into(rest)
        if not count:
            raise ConnectionResetError
        rest = rest[count:]
    return buffer


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
