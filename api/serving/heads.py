"""Parses complete request heads with gunicorn's strict parser, and makes the checks that it leaves out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from gunicorn.config import Config
from gunicorn.http import errors as faults
from gunicorn.http import message
from gunicorn.http.body import ChunkedReader
from gunicorn.http.unreader import IterUnreader

from api.serving.refusals import EarlyRefusal, malformed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Maximum bytes of a head: the request line and all fields.
MAX_BYTES: Final = 65536
#: The end of a head, and of the trailers of a body.
END: Final = b"\r\n\r\n"
#: Segments of a path that need no encoding (RFC 3986, section 3.3), but for the ones with a meaning: ``.`` and ``..``.
_PREFIX: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@%-]{1,100}+){1,16}+")
_VERSIONS: Final = ((1, 0), (1, 1))
#: RFC 3986, section 3.2.2, with a port; may be empty (RFC 9112, section 3.2).
_HOST: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%-]*(:\d*)?|\[[0-9A-Fa-f:.]+\](:\d*)?")


class Head(message.Request):  # type: ignore[misc] # gunicorn has no types
    """A parsed head for gunicorn's WSGI code.

    Attributes:
        client: the client's address.
        prefix: the part of the client's URL before the path, at which a proxy serves the API.
    """

    #: The loop answers 100, not the thread of the request.
    _policy_expect_continue = False

    path: str
    client: str = ""
    prefix: str = ""

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return isinstance(self.body.reader, ChunkedReader)

    @property
    def length(self) -> int:
        """The announced length of the body; 0 with chunks or without a body."""
        return 0 if self.chunked else int(self.body.reader.length)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for ``100 Continue`` before it sends the body."""
        return self.version >= (1, 1) and self.field("EXPECT") is not None

    def mount(self, prefix: str) -> None:
        """Move ``prefix`` from the start of the path to the head's prefix. Another path stays as it is."""
        path = str(self.path)
        if prefix and path.startswith(f"{prefix}/"):
            self.path = path[len(prefix) :]
            self.prefix += prefix

    def field(self, name: str) -> str | None:
        """Return the value of a field by its upper-case name; several values are joined by commas."""
        values = [value for field, value in self.headers if field == name]
        return ", ".join(values) if values else None


def parse(data: bytes, *, cfg: Config, peer: object, number: int) -> Head:
    """Return the head in ``data``, which ends with an empty line.

    Args:
        data: the bytes.
        cfg: gunicorn's configuration.
        peer: the address of the client's socket.
        number: the number of the request on its connection, from 1.

    Raises:
        EarlyRefusal: the head is invalid, or too large.
    """
    try:
        head = Head(cfg, IterUnreader([data]), peer, number)
    except faults.LimitRequestLine:
        raise EarlyRefusal(
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"The request line must have at most {cfg.limit_request_line} bytes.",
        ) from None
    except faults.LimitRequestHeaders:
        raise EarlyRefusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"The request must have at most {cfg.limit_request_fields} header fields, "
            f"each of at most {cfg.limit_request_field_size} bytes.",
        ) from None
    except faults.InvalidHTTPVersion:
        raise _version_refused() from None
    except faults.UnsupportedTransferCoding:
        raise EarlyRefusal(
            HTTPStatus.NOT_IMPLEMENTED, "The transfer coding must be `chunked`."
        ) from None
    except (faults.ParseException, faults.NoMoreData, StopIteration):
        raise malformed("The request's head is not valid HTTP/1.1.") from None
    _check(head)
    return head


def too_long(start: bytearray) -> EarlyRefusal:
    """Return the refusal of a head over the limit that begins with ``start``."""
    if b"\r\n" not in start:
        return EarlyRefusal(
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"The request line must have at most {MAX_BYTES} bytes.",
        )
    return EarlyRefusal(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"The request's head must have at most {MAX_BYTES} bytes.",
    )


def _check(head: Head) -> None:
    if head.version not in _VERSIONS:
        raise _version_refused()
    host = head.field("HOST")
    if host is None and head.version >= (1, 1):
        raise malformed("The request has no Host field, which HTTP/1.1 requires.")
    if host is not None and not _HOST.fullmatch(host):
        raise malformed("The Host field is not a valid host.")
    expected = head.field("EXPECT")
    if expected is not None and expected.lower() != "100-continue":
        raise EarlyRefusal(HTTPStatus.EXPECTATION_FAILED, "The Expect field must be 100-continue.")


def _version_refused() -> EarlyRefusal:
    return EarlyRefusal(
        HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "The HTTP version must be 1.0 or 1.1."
    )


def client_of(head: Head, peer: str, *, trusted: Sequence[Network]) -> str:
    """Return the client's address: the peer's, or the one that trusted proxies report.

    Reads ``X-Forwarded-For`` from the right; its first address that is not a trusted proxy's is the client's. The
    client controls everything further left, so it is ignored.
    """
    if not trusted or not _among(peer, trusted):
        return peer
    client = peer
    for part in reversed((head.field("X-FORWARDED-FOR") or "").split(",")):
        address = _address(part.strip())
        if address is None:
            break
        client = str(address)
        if not _among(client, trusted):
            break
    return client


def prefix_of(head: Head, peer: str, *, trusted: Sequence[Network]) -> str:
    """Return the path prefix that a trusted proxy has removed and reports in ``X-Forwarded-Prefix``, or nothing.

    Of several values the last one counts, which the nearest proxy has set.
    """
    if not trusted or not _among(peer, trusted):
        return ""
    value = (head.field("X-FORWARDED-PREFIX") or "").rpartition(",")[2].strip()
    return valid_prefix(value)


def valid_prefix(value: str) -> str:
    """Return a path prefix without a slash at its end; nothing if ``value`` is not one."""
    prefix = value.rstrip("/")
    return prefix if _PREFIX.fullmatch(prefix) else ""


def _among(host: str, networks: Sequence[Network]) -> bool:
    address = _address(host)
    return address is not None and any(address in network for network in networks)


def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
