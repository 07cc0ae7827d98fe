"""Parses untrusted JSON: counts its values before building objects, and refuses duplicate names in an object.

A value costs a parser up to a hundred times its bytes, and a validator a thousand times. One pass over the bytes, which
builds nothing, counts values, depth and the length of names, and stops at the first limit that is exceeded. It also
finds duplicate names, of which parsers silently keep the last value (RFC 7493, section 2.3 forbids them).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from api import errors as problems
from core import errors

#: Maximum number of values of all types. The largest legitimate request has about 4,500.
MAX_VALUES = 10_000
#: Maximum nesting of lists and objects. A JSON Schema has eight levels, each of which takes up to six.
MAX_DEPTH = 64
#: Maximum bytes of a name in an object, as written. The longest meaningful names have 64 characters.
MAX_NAME_BYTES = 1024
#: Maximum number of duplicate names that are reported.
_MAX_REPEATS = 1000

_NOT_JSON = "The request body is not valid JSON."
#: RFC 8259, section 8.1: parsers may ignore the byte order mark that some editors and clients write.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'[ \t\n\r]*+(["{}\[\],:]|[^ \t\n\r"{}\[\],:]++)')
#: The rest of a string with escapes. It never backtracks, so it costs neither memory nor much time.
_STRING_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_QUOTE, _ESCAPE = ord('"'), ord("\\")
_OPEN_LIST, _OPEN_OBJECT = ord("["), ord("{")
_CLOSE_LIST, _CLOSE_OBJECT = ord("]"), ord("}")
_COMMA, _COLON = ord(","), ord(":")


def loads(data: bytes, *, place: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - JSON
    """Return ``data`` as JSON.

    Args:
        data: a JSON text.
        place: its place in the request, for the pointers of faults.

    Raises:
        core.errors.InvalidRequest: the text has too many values, too long a name, or a duplicate name.
        core.errors.RequestError: the text is not JSON (RFC 8259: UTF-8, no lone surrogates, no NaN), or too deep.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    repeated = _Scan(data, place).run()
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise errors.RequestError(_NOT_JSON) from None
    if repeated:
        raise problems.refused(repeated)
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

    data: bytes
    place: tuple[str, ...]
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

    def _tokens(self) -> Iterator[tuple[int, int, int]]:
        """Yield the first byte, the start and the end of each token; of a string, those of its content."""
        data, position = self.data, 0
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
            raise errors.RequestError(
                f"{problems.name_of(place)}: {sentence}", faults=(errors.Fault(place, sentence),)
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
