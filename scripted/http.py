"""The part of HTTP/1.1 that the scripted engine's server needs: read a request, write a response or chunks."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

import orjson

#: Bytes of the largest body: eight of the largest images in Base64, with a margin.
_MAX_BODY = 256 << 20

EVENT_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class HttpRequest:
    """A complete request. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def last(self) -> bool:
        """Whether the client asks to close the connection after the response."""
        return self.headers.get("connection", "").lower() == "close"


async def read_request(reader: asyncio.StreamReader) -> HttpRequest | None:
    """Return the next request of a connection, or None at the end of the connection or on a malformed request."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ", 2)
        fields = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        length = int(headers.get("content-length", 0))
        if length > _MAX_BODY:
            return None
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        return None
    return HttpRequest(method, target.partition("?")[0], headers, body)


def response(status: int, content: object = b"", content_type: str = "application/json") -> bytes:
    """Return a complete response; ``content`` is bytes, or a value to write as JSON."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        HTTPStatus(status).phrase.encode(),
        content_type.encode(),
        len(body),
        body,
    )


def closing(response: bytes) -> bytes:
    """Return ``response`` with the header ``connection: close``."""
    return response.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)


def chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk of a chunked response."""
    return b"%x\r\n%b\r\n" % (len(data), data)
