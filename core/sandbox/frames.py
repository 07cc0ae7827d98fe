"""The messages between a sandbox and its child: two lengths, a JSON header, raw bytes; and perhaps a descriptor."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from typing import Any

Header = dict[str, Any]

#: The lengths of header and body, in bytes.
_LENGTHS = struct.Struct("!II")


def send(
    connection: socket.socket,
    header: Header,
    body: bytes = b"",
    *,
    descriptor: int | None = None,
    deadline: float | None = None,
) -> None:
    """Send one whole frame before ``deadline`` (of the monotonic clock), with an open file if there is one.

    Raises:
        TimeoutError: the deadline has passed.
        OSError: the other end closed the connection.
    """
    head = json.dumps(header).encode()
    start = _LENGTHS.pack(len(head), len(body)) + head
    if descriptor is not None:
        connection.settimeout(_left(deadline))
        start = start[socket.send_fds(connection, [start], [descriptor]) :]
    for part in (start, body):
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


def receive_call(connection: socket.socket) -> tuple[Header, bytes]:
    """Return the header and the body of one frame; the body is the content of a file if one is sent along.

    Raises:
        OSError: the other end closed the connection.
        ValueError: the data is not a frame.
    """
    start, descriptors, _, _ = socket.recv_fds(connection, _LENGTHS.size, 1)
    if not start:
        raise ConnectionResetError
    rest = _read(connection, _LENGTHS.size - len(start), None)
    head_size, body_size = _LENGTHS.unpack(start + rest)
    header = json.loads(_read(connection, head_size, None))
    body = bytes(_read(connection, body_size, None))
    for descriptor in descriptors:
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            body = file.readall()
    return header, body


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
