"""Strict JSON: values are counted before parsing, and the count agrees with the parser about valid JSON."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.framework import strict_json
from core import errors

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
#: An escaped character has up to twelve bytes, and a name up to 1,024.
NAMES = st.text(max_size=80)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=50
)
#: Parts of JSON texts, in any order.
PIECES = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"', '"a"', '"b\\""', '"\\\\"', "\\", "1", "-2.5e3", "true", "null", " ", "\n", "é"]
)  # fmt: skip


def refused(data: bytes) -> errors.RequestError:
    """Return the error that rejects ``data``."""
    with pytest.raises(errors.RequestError) as caught:
        strict_json.loads(data)
    return caught.value


def once(pairs: list[tuple[str, object]], twice: list[str]) -> dict[str, object]:
    """Return an object; add its duplicate names to ``twice``."""
    names = [name for name, _ in pairs]
    twice += {name for name in names if names.count(name) > 1}
    return dict(pairs)


def values(value: Any) -> int:  # noqa: ANN401 - JSON
    """Return the number of values in a JSON value, including itself."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values, inner))


@given(value=VALUES, indent=st.sampled_from([None, 2]), escaped=st.booleans())
def test_json_is_read_as_any_parser_reads_it(
    value: object, indent: int | None, *, escaped: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    assert strict_json.loads(text.encode()) == orjson.loads(text)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_json_that_a_parser_accepts_is_accepted_or_has_a_duplicate_name(text: str) -> None:
    data = text.encode()
    try:
        expected = orjson.loads(data)
    except orjson.JSONDecodeError:
        assert refused(data).status == 400
        return
    twice: list[str] = []
    value = json.loads(text, object_pairs_hook=lambda pairs: once(pairs, twice))
    if twice:
        assert refused(data).status == 422
    else:
        assert strict_json.loads(data) == expected == value


@settings(max_examples=20)
@given(VALUES)
def test_values_are_counted_exactly(value: object) -> None:
    spare = strict_json.MAX_VALUES - values(value) - 1
    for extra, fits in ((spare, True), (spare + 1, False)):
        data = json.dumps([value, *[0] * extra]).encode()
        if fits:
            strict_json.loads(data)
        else:
            assert "10,000" in refused(data).message


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        ('{"a": 1, "a": 2}', ["#/a"]),
        ('{"a": 1, "\\u0061": 2}', ["#/a"]),
        ('{"o": {"x": [0, {"s": 1, "t": 2, "s": 3}]}}', ["#/o/x/1/s"]),
        ('{"a": {"k": 1}, "b": {"k": 1}, "c": ["k", "k"], "d": "k"}', []),
        ('{"a/b": 1, "a/b": 1, "c~": 1, "c~": 2, "c~": 3}', ["#/a~1b", "#/c~0"]),
        ('{"\\"": 1, "\\\\": 2, "\\\\\\"": 3}', []),
        ('{"": 1, "": 2}', ["#/"]),
    ],
)
def test_a_duplicate_name_is_rejected_with_its_location(text: str, pointers: list[str]) -> None:
    if not pointers:
        assert strict_json.loads(text.encode()) == json.loads(text)
        return
    error = refused(text.encode())
    assert error.status == 422
    assert [fault.pointer for fault in error.faults] == pointers


def test_the_limits_of_depth_and_names_are_in_the_message() -> None:
    deepest = b"[" * strict_json.MAX_DEPTH + b"]" * strict_json.MAX_DEPTH
    assert strict_json.loads(deepest)
    assert "64 levels" in refused(b"[" + deepest + b"]").message
    longest = b'{"%b": 1}' % (b"x" * strict_json.MAX_NAME_BYTES)
    assert strict_json.loads(longest)
    error = refused(b'{"q": {"%b": 1}}' % (b"x" * 5000))
    assert error.faults[0].pointer == "#/q"
    assert "1024 bytes" in error.message
    assert "5,000" in error.message


#: Texts that cost a parser, or a simple count, many times their size.
COSTLY = {
    "empty objects": b"[" + b"{}," * 700_000 + b"{}]",
    "numbers": b"[" + b"1," * 1_000_000 + b"1]",
    "texts": b"[" + b'"",' * 700_000 + b'""]',
    "fields": b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b"}",
    "one name again and again": b"{" + b'"a":1,' * 300_000 + b'"a":1}',
    "commas": b"[" + b"," * 2_000_000,
    "colons": b"{" + b":" * 2_000_000,
    "texts without commas": b"[" + b'"" ' * 700_000,
    "numbers without commas": b"[" + b"1 " * 1_000_000,
    "brackets": b"[" * 2_000_000,
    "braces that close": b"}" * 2_000_000,
    "pairs of brackets": b"[]" * 1_000_000,
}


@pytest.mark.parametrize("data", COSTLY.values(), ids=COSTLY.keys())
def test_a_costly_text_is_rejected_before_it_is_parsed(data: bytes) -> None:
    tracemalloc.start()
    try:
        error = refused(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.status in (400, 422)
    assert len(error.faults) <= 1000
    assert peak < 4 * 2**20


#: One bracket too many at the end: the whole text is counted and then not parsed.
LONG = {
    "a picture": b'["%b"]]' % (b"QUJD" * 500_000),
    "escapes": b'["%b"]]' % (b'\\"' * 1_000_000),
    "space": b" " * 2_000_000 + b"[]]",
    "a number": b"[%b]]" % (b"1" * 2_000_000),
}


@pytest.mark.parametrize("data", LONG.values(), ids=LONG.keys())
def test_counting_takes_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        assert refused(data).message == "The request body is not valid JSON."
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(data) / 10


@settings(max_examples=30)
@given(
    unit=st.text(min_size=1, max_size=20),
    length=st.integers(strict_json.LONG_BYTES, 5 * 2**18),
    escaped=st.booleans(),
)
def test_a_long_string_is_read_in_pieces_as_a_parser_reads_it(
    unit: str, length: int, *, escaped: bool
) -> None:
    text = (unit * length)[:length]
    value = {"a": [1, {"b": text, "c": "data:short"}], "d": "x"}
    data = json.dumps(value, ensure_ascii=escaped).encode()

    read = strict_json.loads(data, long=lambda place: place == ("a", 1, "b"))

    long = read["a"][1]["b"]
    assert isinstance(long, strict_json.LongString)
    assert b"".join(long.pieces()).decode() == text
    read["a"][1]["b"] = text
    assert read == value


def test_a_long_string_elsewhere_is_a_string() -> None:
    text = "data:" + "x" * strict_json.LONG_BYTES
    value = {"a": text, "b": [text]}
    assert strict_json.loads(json.dumps(value).encode(), long=lambda place: not place) == value
    read = strict_json.loads(json.dumps(value).encode(), long=lambda place: place == ("b", 0))
    assert read["a"] == text
    assert read["b"][0].is_data_url
