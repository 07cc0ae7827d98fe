r"""The string formats of JSON Schema that an engine's grammar enforces, and the check of what it lets through. Pure.

A grammar checks each character: it allows 2026-02-30, which is not a date. Each check here accepts what the parsers
of clients accept, among what the grammar allows. A `pattern` next to a format is checked after the generation alone.
"""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from jsonschema import FormatChecker
from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic_core import SchemaError

#: Cost of one string with a format, in characters of :data:`jobs.answers.json_schema.MAX_COST`: the largest grammar,
#: that of `ipv6`, has the size of 10 characters. The others have that of 1 to 8 (``python -m bench.grammars``).
COST: Final = 10
#: Characters of a pattern, and distinct patterns of a schema.
MAX_PATTERN: Final = 512
MAX_PATTERNS: Final = 10
#: Size of a pattern without its counts, as if each were written out, in characters; classes of Unicode count as many.
MAX_PATTERN_SIZE: Final = 1_000
_CLASS_SIZES: Final[Mapping[str, int]] = {
    **dict.fromkeys("pPwW", 100),
    **dict.fromkeys("dD", 20),
    **dict.fromkeys("sS", 5),
}
#: Of a class with nearly all characters.
_OF_MANY: Final = 5
#: An escape, a class, a count, or any other character.
_TOKEN: Final = re.compile(
    r"\\[pP](?:\{[^}]*\}|.)|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*),?(\d*)\}|.", re.DOTALL
)

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
#: Always with an offset from UTC, as in RFC 3339.
_TIME = re.compile(r"\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
#: RFC 3339, appendix A: no part is skipped between two others.
_CLOCK = r"(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S)"
_DAYS = r"(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)"
_DURATION = re.compile(rf"P(?:\d+W|{_DAYS}(?:T{_CLOCK})?|T{_CLOCK})", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#: Of an email address, before the @: words with dots, or a quoted text.
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*" + r'|"(?:[ !#-\[\]-~]|\\[ -~])*"', re.ASCII)
#: Limits of RFC 1035 and RFC 5321, in characters, which are ASCII.
_MAX_HOSTNAME, _MAX_LOCAL = 253, 64


def check(name: str, value: object) -> bool:
    """Whether ``value`` has the format ``name``, which is one of :data:`NAMES`; a value that is no text has it."""
    return not isinstance(value, str) or _CHECKS[name](value)


def is_pattern(pattern: str) -> bool:
    """Whether ``pattern`` is a regular expression that takes time in proportion to its text, and not too large.

    There is no such way to check look-around and back-references.
    """
    if len(pattern) > MAX_PATTERN or _size(pattern) > MAX_PATTERN_SIZE:
        return False
    return _compiled(pattern) is not None


def _size(pattern: str) -> int:
    """Return how much of an automaton ``pattern`` needs; to compile it takes time and memory in proportion."""
    # Of each open group: its size so far, and that of its last part, which a count repeats.
    groups = [(0, 0)]
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        whole, last = groups[-1]
        if text == "(":
            groups.append((0, 0))
        elif text == ")" and len(groups) > 1:
            groups.pop()
            groups[-1] = (groups[-1][0] + whole, whole)
        elif token[1] or token[2]:
            count = max(int(token[1] or 0), int(token[2] or 0), 1)
            groups[-1] = (whole + last * (count - 1), last * count)
        elif text not in "*+?":
            one = sum(_CLASS_SIZES.get(name, 1) for name in re.findall(r"\\(.)", text)) or 1
            if text == "." or text.startswith("[^"):
                one += _OF_MANY
            groups[-1] = (whole + one, one)
    return sum(whole for whole, _ in groups)


def matches(pattern: str, text: str) -> bool:
    """Whether some part of ``text`` matches ``pattern``, for which :func:`is_pattern` holds."""
    adapter = _compiled(pattern)
    try:
        return adapter is not None and adapter.validate_python(text) == text
    except ValidationError:
        return False


#: Few, because of their size; a schema has no more.
@functools.lru_cache(maxsize=MAX_PATTERNS)
def _compiled(pattern: str) -> TypeAdapter[Any] | None:
    """Return what matches ``pattern``, or None if the engine of pydantic, which takes linear time, cannot."""
    try:
        return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError:
        return None


def _date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None and _parses(dt.date.fromisoformat, text)


def _time(text: str) -> bool:
    # Parsers of clients do not know the leap second that RFC 3339 allows, and neither does this one.
    return _TIME.fullmatch(text) is not None and _parses(dt.time.fromisoformat, text)


def _date_time(text: str) -> bool:
    day, separator, rest = text.partition("T")
    return bool(separator) and _date(day) and _time(rest)


def _hostname(text: str) -> bool:
    return len(text) <= _MAX_HOSTNAME and all(map(_LABEL.fullmatch, text.split(".")))


def _email(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    if not at or len(local) > _MAX_LOCAL or not _hostname(domain):
        return False
    return _LOCAL.fullmatch(local) is not None


def _ipv6(text: str) -> bool:
    return "%" not in text and _parses(ipaddress.IPv6Address, text)


def _parses(parser: Callable[[str], object], text: str) -> bool:
    try:
        parser(text)
    except ValueError:
        return False
    return True


_CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {
    "date-time": _date_time,
    "date": _date,
    "time": _time,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "email": _email,
    "hostname": _hostname,
    "ipv4": functools.partial(_parses, ipaddress.IPv4Address),
    "ipv6": _ipv6,
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
}
#: The formats, in the order of messages.
NAMES: Final = tuple(_CHECKS)


def _checker() -> FormatChecker:
    # Those of jsonschema itself need a package for each format, and read fewer values of some.
    checker = FormatChecker(())
    for name in NAMES:
        checker.checks(name)(functools.partial(check, name))
    return checker


#: Checks the formats of this module, and no others.
CHECKER: Final = _checker()
