"""Decodes data URLs in pieces, by WHATWG's rules: the data: URL processor (Fetch) and forgiving base64 (Infra).

Two things are different. The alphabet of URLs and file names (RFC 4648, section 5) is read too. A space between two
characters is refused, although WHATWG ignores it: it was a ``+`` before the text was decoded as part of a form, and an
image without it would be damaged. Spaces around line breaks, as in indented text, do no harm.
"""

from __future__ import annotations

import binascii
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Final

from core import errors
from jobs.images.contents import HEAD_BYTES, describe
from jobs.images.formats import sniff

#: Characters of a URL that are decoded at a time; each takes several bytes meanwhile.
PIECE_BYTES: Final = 2**18
#: Maximum bytes before the comma: a media type with its parameters.
_MAX_HEAD_BYTES: Final = 4096
_SCHEME: Final = b"data:"
_IS_BASE64: Final = re.compile(rb";[ ]*+base64\Z", re.IGNORECASE)
_SPACE: Final = b" \t\n\f\r"
_BREAKS: Final = (b"\n", b"\r")
#: What the parser of URLs removes anywhere, and what it removes at both ends: C0 controls and spaces.
_REMOVED: Final = b"\t\n\r"
_AROUND: Final = bytes(range(0x21))
#: A line break with all space that follows, and the space before one.
_BREAK: Final = re.compile(rb"[\r\n][ \t\n\f\r]*+")
_BEFORE_BREAK: Final = re.compile(rb"(?<![ \t\f])[ \t\f]++\n")
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]")
#: Characters that encode bytes together, and these bytes.
_QUAD: Final = 4
_QUAD_BYTES: Final = 3
#: Python's text for bytes, which ``str(data)`` gives.
_PYTHON_BYTES: Final = (b"b'", b'b"')
_ESCAPES: Final = (b"\\n", b"\\r", b"\\t")
_CHAR_BYTES: Final = 4


def from_data_url(url: str) -> bytes:
    """Return the bytes in a data URL; see :func:`decode`."""
    return b"".join(decode(pieces_of(url)))


def pieces_of(text: str) -> Iterator[bytes]:
    """Yield a text as UTF-8, a piece at a time."""
    for start in range(0, len(text), PIECE_BYTES):
        yield text[start : start + PIECE_BYTES].encode(errors="replace")


def decode(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes in a data URL, a piece at a time. Its media type is ignored.

    Args:
        pieces: the URL.

    Raises:
        core.errors.ImageRejected: it is not such a URL, or not valid base64 (``invalid_base64_image``).
    """
    texts = iter(pieces)
    head, text = _head(texts)
    # A fragment is not part of the content.
    rest = _without_fragment(_chain(text, texts))
    if _IS_BASE64.search(head) is None:
        yield from _unencoded(_percent_decoded(piece.translate(None, _REMOVED) for piece in rest))
        return
    decoder = _Base64()
    for piece in _percent_decoded(rest):
        yield decoder.feed(piece)
    yield decoder.end()


def _head(texts: Iterator[bytes]) -> tuple[bytes, bytes]:
    """Return what stands before the comma, without the scheme, and the start of the content."""
    text = b""
    for piece in texts:
        text += piece
        if b"," in text or len(text) > _MAX_HEAD_BYTES:
            break
    head, comma, content = text.partition(b",")
    head = head[:_MAX_HEAD_BYTES].lstrip(_AROUND).translate(None, _REMOVED)
    if not comma or head[: len(_SCHEME)].lower() != _SCHEME:
        raise _rejected(_no_data_url(text.lstrip(_AROUND)[:HEAD_BYTES]))
    return head[len(_SCHEME) :].rstrip(_SPACE), content


def _no_data_url(text: bytes) -> str:
    """Return the error for a text that is no data URL."""
    sentence = "The image must be a data URL, such as data:image/png;base64, followed by the file in base64"
    if text.startswith(_PYTHON_BYTES):
        return f"{sentence}; this is Python's text of bytes (b'…'): decode the bytes instead."
    if text[:1] in {b'"', b"'"}:
        return f"{sentence}; this begins with a quotation mark."
    if text[: len(_SCHEME)].lower() == _SCHEME:
        return f"{sentence}; this has no comma after its media type."
    kind = describe(text)
    if kind is None:
        return f"{sentence}."
    hint = ": send it in `url`" if kind == "a URL" else ""
    if kind.endswith("base64 text"):
        hint = " without the part up to the comma"
    return f"{sentence}; this is {kind}{hint}."


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _without_fragment(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if b"#" in piece:
            yield piece.partition(b"#")[0]
            return
        yield piece


def _percent_decoded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        text = held + piece if held else piece
        # An escape may lie across two pieces.
        cut = text.rfind(b"%", max(0, len(text) - 2))
        held = b"" if cut < 0 else text[cut:]
        text = text if cut < 0 else text[:cut]
        yield urllib.parse.unquote_to_bytes(text) if b"%" in text else text
    yield held


def _unencoded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of a data URL without base64, which must be an image."""
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= HEAD_BYTES:
            break
    if sniff(first) is None:
        raise _rejected(
            "The data URL does not have `;base64` before its comma, and what follows is not an image."
        )
    yield first
    yield from pieces


class _Base64:
    """Decodes base64 that comes in pieces."""

    def __init__(self) -> None:
        #: The last characters, up to four: only the end of the text shows whether they may be padding.
        self._held = b""
        #: The space at the end of the last piece, as one character. The start counts as a line break.
        self._space = b"\n"
        #: Characters without white space before the held ones.
        self._position = 0
        self._spaces = 0
        self._first_space = 0

    def feed(self, piece: bytes) -> bytes:
        """Return the bytes that are complete with ``piece``.

        Raises:
            core.errors.ImageRejected: the text is not base64.
        """
        return self._take(self._without_breaks(piece))

    def end(self) -> bytes:
        """Return the last bytes.

        Raises:
            core.errors.ImageRejected: the text is not base64.
        """
        if self._spaces:
            raise _rejected(
                f"The base64 has {self._spaces:,} space(s) inside, the first after {self._first_space:,} characters. "
                "A `+` becomes a space when the text is decoded as part of a form or URL; send `%2B` there."
            )
        quad = self._held
        if len(quad) == _QUAD:
            quad = quad.removesuffix(b"=").removesuffix(b"=")
        self._check(quad)
        if len(quad) == 1:
            raise _rejected(
                f"The base64 has {self._position + 1:,} characters, one too many or some too few: it may be cut."
            )
        return binascii.a2b_base64(quad + b"=" * (-len(quad) % _QUAD))

    def _take(self, text: bytes) -> bytes:
        text = self._held + text
        if self._spaces or b" " in text:
            self._count_spaces(text)
            return b""
        whole = max(0, len(text) - 1) // _QUAD * _QUAD
        self._held = text[whole:]
        try:
            data = binascii.a2b_base64(text[:whole], strict_mode=True)
        except binascii.Error:
            data = b""
        if len(data) != whole // _QUAD * _QUAD_BYTES:
            self._check(text[:whole])
        self._position += whole
        return data

    def _count_spaces(self, text: bytes) -> None:
        self._check(text.replace(b" ", b"").rstrip(b"="))
        if not self._spaces:
            self._first_space = self._position + text.find(b" ")
        self._spaces += text.count(b" ")
        self._held = b""

    def _without_breaks(self, piece: bytes) -> bytes:
        """Return ``piece`` in the usual alphabet, with no white space but the spaces inside its lines."""
        text = self._space + piece
        stripped = text.rstrip(_SPACE)
        tail = text[len(stripped) :]
        if any(mark in tail for mark in _BREAKS):
            self._space = b"\n"
        else:
            self._space = b" " if b" " in tail else b""
        if b" " in stripped:
            stripped = _BEFORE_BREAK.sub(b"\n", _BREAK.sub(b"\n", stripped))
        return stripped.translate(_FROM_URL_SAFE, b"\t\n\f\r")

    def _check(self, text: bytes) -> None:
        """Raise :class:`core.errors.ImageRejected` if ``text``, which follows at the position, is not base64."""
        wrong = _NOT_BASE64.search(text)
        if wrong is not None:
            raise _rejected(self._fault(text, wrong.start()))

    def _fault(self, text: bytes, index: int) -> str:
        if self._position == 0 and text.startswith(_PYTHON_BYTES):
            return "The base64 is Python's text of bytes (b'…'): decode the bytes to text instead."
        if self._position == 0 and text[: len(_SCHEME)].lower() == _SCHEME:
            return "The data URL begins twice: its content begins with `data:`."
        position = self._position + index
        if text[index : index + 2] in _ESCAPES:
            return (
                f"The base64 has a backslash and a letter where a line break was, after {position:,} characters: "
                "the text was escaped twice."
            )
        if text[index : index + 1] == b"=":
            return (
                f"The base64 has padding (`=`) where none belongs, after {position:,} characters."
            )
        char = text[index : index + _CHAR_BYTES].decode(errors="replace")[:1]
        shown = char if char.isprintable() else f"U+{ord(char):04X}"
        return f"The base64 has the character `{shown}` after {position:,} characters."


def _rejected(sentence: str) -> errors.ImageRejected:
    return errors.ImageRejected(sentence, code="invalid_base64_image")
