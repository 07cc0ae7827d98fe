"""Parses untrusted JSON: counts its values before building objects, and refuses duplicate names in an object.

A value costs a parser up to a hundred times its bytes, and a validator a thousand times. One pass over the bytes, which
builds nothing, counts values, depth and the length of names, and stops at the first limit that is exceeded. It also
finds duplicate names, of which parsers silently keep the last value (RFC 7493, section 2.3 forbids them).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from api import errors as problems
from core import errors
from core.spool import Buffer

#: Maximum number of values of all types. The largest legitimate request has about 4,500.
MAX_VALUES = 10_000
#: Maximum nesting of lists and objects. A JSON Schema has eight levels, each of which takes up to six.
MAX_DEPTH = 64
#: Maximum bytes of a name in an object, as written. The longest meaningful names have 64 characters.
MAX_NAME_BYTES = 1024
#: Minimum bytes of a string that can stay where it is, see :class:`LongString`.
LONG_BYTES = 2**16
#: Bytes of a long string that are read at a time.
_PIECE_BYTES = 2**18
#: Maximum bytes of a text without its long strings: a parser takes several times as much.
_MAX_REST_BYTES = 2**24
#: The start of a data URL in a string.
_DATA_URL = re.compile(rb"(?: |\\[nrt])*+data:", re.IGNORECASE)
#: Characters and escapes of a string, none of them cut.
_WHOLE = re.compile(
    rb'(?:[^"\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9A-Fa-f]{4}'
    rb"|\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2})*+",
    re.DOTALL,
)
#: The upper bits of the further bytes of a character in UTF-8.
_CONTINUATION = 0x80
#: Maximum number of duplicate names that are reported.
_MAX_REPEATS = 1000

_NOT_JSON = "The request body is not valid JSON."
#: RFC 8259, section 8.1: parsers may ignore the byte order mark that some editors and clients write.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: The byte order marks of UTF-16, in which some shells and editors write files by default.
_UTF_16_MARKS = frozenset({b"\xff\xfe", b"\xfe\xff"})
_TOKEN = re.compile(rb'[ \t\n\r]*+(["{}\[\],:]|[^ \t\n\r"{}\[\],:]++)')
#: The rest of a string with escapes. It never backtracks, so it costs neither memory nor much time.
_STRING_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_QUOTE, _ESCAPE = ord('"'), ord("\\")
_OPEN_LIST, _OPEN_OBJECT = ord("["), ord("{")
_CLOSE_LIST, _CLOSE_OBJECT = ord("]"), ord("}")
_COMMA, _COLON = ord(","), ord(":")


class LongString:
    """A long string in a JSON text that is not built: it is read in pieces from where it is.

    It is valid as long as the buffer of the text.

    Attributes:
        size: in bytes, as written.
        is_data_url: whether it begins as a data URL.
    """

    def __init__(self, data: Buffer, start: int, end: int) -> None:
        self.size = end - start
        self.is_data_url = _DATA_URL.match(data, start, end) is not None
        self._data = data
        self._start = start
        self._end = end

    def pieces(self) -> Iterator[bytes]:
        """Yield the string as UTF-8, without escapes.

        Raises:
            core.errors.RequestError: it is not a valid string of JSON.
        """
        position = self._start
        while position < self._end:
            end = min(self._end, position + _PIECE_BYTES)
            # Not within a character.
            while end < self._end and self._data[end] & 0xC0 == _CONTINUATION:
                end -= 1
            # A search for a byte is many times faster than the pattern, and images have no escapes.
            if self._data.find(b"\\", position, end) >= 0:
                whole = _WHOLE.match(self._data, position, end)
                end = position if whole is None else whole.end()
                if end == position:
                    raise errors.RequestError(_NOT_JSON)
            try:
                text: str = orjson.loads(b'"%b"' % self._data[position:end])
            except orjson.JSONDecodeError:
                raise errors.RequestError(_NOT_JSON) from None
            position = end
            yield text.encode()


def loads(
    data: Buffer,
    *,
    place: tuple[str, ...] = (),
    long: Callable[[tuple[str | int, ...]], bool] = lambda _: False,
) -> Any:  # noqa: ANN401 - JSON
    """Return ``data`` as JSON.

    Args:
        data: a JSON text.
        place: its place in the request, for the pointers of faults.
        long: whether a string at this place (the names and indexes that lead to it) is a :class:`LongString` if it has
            at least :data:`LONG_BYTES`.

    Raises:
        core.errors.InvalidRequest: the text has too many values, too long a name, or a duplicate name.
        core.errors.BodyTooLarge: the text is too large without its long strings.
        core.errors.RequestError: the text is not JSON (RFC 8259: UTF-8, no lone surrogates, no NaN), or too deep.
    """
    if data[:2] in _UTF_16_MARKS:
        raise errors.RequestError(f"{_NOT_JSON} It is in UTF-16, and JSON must be in UTF-8.")
    scan = _Scan(data, place, long)
    repeated = scan.run()
    try:
        value = orjson.loads(scan.rest())
    except orjson.JSONDecodeError:
        raise errors.RequestError(_NOT_JSON) from None
    if repeated:
        raise problems.refused(repeated)
    for path, text in scan.long_strings:
        parent = value
        for step in path[:-1]:
            parent = parent[step]
        parent[path[-1]] = text
    return value


@dataclass
class _Level:
    """An open list or object."""

    closed_by: int
    #: The names so far, as unescaped bytes; None in a list.
    names: set[bytes] | None
    #: Where the next value belongs: the index of an item, or the last name.
    step: int | bytes = 0
    #: Whether a name comes next.
    before_name: bool = False


@dataclass
class _Scan:
    """One pass over a JSON text. It accepts some invalid JSON, which the parser refuses afterwards."""

    data: Buffer
    place: tuple[str, ...]
    may_be_long: Callable[[tuple[str | int, ...]], bool]
    #: The strings that are left out of the rest, by their places.
    long_strings: list[tuple[tuple[str | int, ...], LongString]] = field(default_factory=list)
    _cuts: list[tuple[int, int]] = field(default_factory=list)
    _levels: list[_Level] = field(default_factory=list)
    _values: int = 0
    _separators: int = 0
    _repeated: dict[str, errors.Fault] = field(default_factory=dict)

    def run(self) -> list[errors.Fault]:
        """Return a fault for each duplicate name. Raises as :func:`loads` does."""
        for kind, start, end in self._tokens():
            if kind == _QUOTE:
                self._string(start, end)
            elif kind in (_OPEN_LIST, _OPEN_OBJECT):
                self._open(kind)
            elif kind in (_CLOSE_LIST, _CLOSE_OBJECT):
                if not self._levels or self._levels.pop().closed_by != kind:
                    raise errors.RequestError(_NOT_JSON)
            elif kind in (_COMMA, _COLON):
                self._separate(kind)
            else:
                self._count()
        return list(self._repeated.values())

    def rest(self) -> bytes:
        """Return the text without its byte order mark, with empty strings in place of long ones.

        Raises:
            core.errors.BodyTooLarge: it is too large.
        """
        size = len(self.data) - sum(end - start for start, end in self._cuts)
        if size > _MAX_REST_BYTES:
            raise errors.BodyTooLarge(
                f"JSON must have at most {_MAX_REST_BYTES:,} bytes besides its images; this has {size:,}."
            )
        parts, position = [], self._begin
        for start, end in self._cuts:
            parts.append(self.data[position:start])
            position = end
        return b"".join([*parts, self.data[position:]])

    @property
    def _begin(self) -> int:
        return len(_BYTE_ORDER_MARK) if self.data[:3] == _BYTE_ORDER_MARK else 0

    def _tokens(self) -> Iterator[tuple[int, int, int]]:
        """Yield the first byte, the start and the end of each token; of a string, those of its content."""
        data, position = self.data, self._begin
        while token := _TOKEN.match(data, position):
            start, position = token.span(1)
            kind = data[start]
            if kind != _QUOTE:
                yield kind, start, position
                continue
            start = position
            # Most strings, images above all, have no escapes: this is many times faster.
            end = data.find(b'"', start)
            if end > start and data[end - 1] == _ESCAPE:
                rest = _STRING_END.match(data, start)
                end = -1 if rest is None else rest.end() - 1
            if end < 0:
                raise errors.RequestError(_NOT_JSON)
            position = end + 1
            yield kind, start, end

    def _open(self, kind: int) -> None:
        self._count()
        if len(self._levels) == MAX_DEPTH:
            place = self._pointer(2)
            sentence = f"JSON must be nested at most {MAX_DEPTH} levels deep; this is deeper."
            name = problems.name_of(place)
            raise errors.RequestError(
                f"{name}: {sentence}", faults=(errors.Fault(place, sentence),), param=name
            )
        if kind == _OPEN_LIST:
            self._levels.append(_Level(_CLOSE_LIST, None))
        else:
            self._levels.append(_Level(_CLOSE_OBJECT, set(), step=b"", before_name=True))

    def _separate(self, kind: int) -> None:
        self._separators += 1
        # No valid text has more of them.
        if not self._levels or self._separators > 2 * self._values:
            raise errors.RequestError(_NOT_JSON)
        level = self._levels[-1]
        if kind == _COLON:
            return
        if level.names is None:
            level.step = int(level.step) + 1
        else:
            level.before_name = True

    def _string(self, start: int, end: int) -> None:
        level = self._levels[-1] if self._levels else None
        if level is None or level.names is None or not level.before_name:
            self._count()
            if end - start >= LONG_BYTES:
                self._cut(start, end)
            return
        if end - start > MAX_NAME_BYTES:
            raise self._refused(
                f"The name of a field must have at most {MAX_NAME_BYTES} bytes; one has {end - start:,}."
            )
        name = _unescaped(self.data[start:end])
        level.step, level.before_name = name, False
        if name not in level.names:
            level.names.add(name)
        elif len(self._repeated) < _MAX_REPEATS:
            pointer = self._pointer(len(self._levels))
            self._repeated[pointer] = errors.Fault(pointer, "This field is given more than once.")

    def _cut(self, start: int, end: int) -> None:
        """Leave a long string out of the rest, if it may be one."""
        path = tuple(
            step.decode(errors="replace") if isinstance(step, bytes) else step
            for step in (level.step for level in self._levels)
        )
        if self.may_be_long(path):
            self._cuts.append((start, end))
            self.long_strings.append((path, LongString(self.data, start, end)))

    def _count(self) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._refused(
                f"The request body must have at most {MAX_VALUES:,} JSON values in all; this one has more."
            )

    def _refused(self, sentence: str) -> errors.RequestError:
        # The innermost complete place: the list or object itself.
        return problems.refused([errors.Fault(self._pointer(len(self._levels) - 1), sentence)])

    def _pointer(self, depth: int) -> str:
        """Return the JSON pointer of the list or object that is open at ``depth``; 0 is the whole text."""
        steps = [level.step for level in self._levels[: max(0, depth)]]
        names = (
            step.decode(errors="replace") if isinstance(step, bytes) else step for step in steps
        )
        return problems.pointer(*self.place, *names)


def _unescaped(name: bytes) -> bytes:
    """Return a name as parsers read it, without escapes."""
    if _ESCAPE not in name:
        return name
    try:
        return bytes(orjson.loads(b'"%b"' % name).encode())
    except orjson.JSONDecodeError:
        raise errors.RequestError(_NOT_JSON) from None
