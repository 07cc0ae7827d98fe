"""JSON Schemas of answers: the supported subset, the faults of others, and values."""

from __future__ import annotations

import datetime as dt
import ipaddress
import random
import uuid
from collections.abc import Callable
from typing import Any

import orjson
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.answers import json_schema, string_formats, values
from scripted import behaviors
from tests.formatted_texts import FORMATTED

COUNT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Count",
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 0, "description": "of all shapes"},
        "colours": {"type": "array", "items": {"$ref": "#/$defs/Colour"}, "maxItems": 5},
        "note": {"anyOf": [{"type": "string", "maxLength": 80}, {"type": "null"}]},
        "share": {"type": ["number", "null"], "exclusiveMaximum": 1},
        "kind": {"const": "count"},
    },
    "required": ["count", "kind"],
    "additionalProperties": False,
    "$defs": {"Colour": {"enum": ["red", "green"], "type": "string"}},
}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels - 1):
        schema = {"type": "array", "items": schema}
    return {"type": "object", "properties": {"a": schema}}


def one(part: object) -> dict[str, Any]:
    """Return a schema with one property, ``a``."""
    return {"type": "object", "properties": {"a": part}}


def test_an_ordinary_schema_has_no_faults() -> None:
    assert json_schema.faults(COUNT) == []
    assert json_schema.faults(deep(json_schema.MAX_DEPTH - 1)) == []


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({}, "/type"),
        ({"type": "array", "items": {"type": "null"}}, "/type"),
        ({"type": "object"}, "/properties"),
        ({"type": "object", "properties": {}}, "/properties"),
        (one({"type": "object"}), "/properties/a/properties"),
        (one({}), "/properties/a"),
        (one(True), "/properties/a"),
        (one({"type": "text"}), "/properties/a/type"),
        (one({"type": []}), "/properties/a/type"),
        (one({"type": ["object", "null"]}), "/properties/a/type"),
        (one({"type": "array"}), "/properties/a/items"),
        (one({"type": "string", "pattern": "(a+)+b"}), "/properties/a/pattern"),
        (one({"type": "string", "format": "uri"}), "/properties/a/format"),
        (one({"type": "string", "format": ["date"]}), "/properties/a/format"),
        (one({"type": "integer", "format": "date"}), "/properties/a/format"),
        (one({"enum": ["2026-11-30"], "format": "date"}), "/properties/a/format"),
        (one({"type": "string", "format": "date", "minLength": 1}), "/properties/a/minLength"),
        (one({"type": "string", "format": "date", "maxLength": 9}), "/properties/a/maxLength"),
        (one({"type": "string", "format": "date", "pattern": "(?=a)"}), "/properties/a/pattern"),
        (one({"type": "string", "format": "date", "pattern": r"(a)\1"}), "/properties/a/pattern"),
        (one({"type": "string", "format": "date", "pattern": "("}), "/properties/a/pattern"),
        (one({"type": "string", "format": "date", "pattern": r"\w{999}"}), "/properties/a/pattern"),
        (one({"type": "string", "format": "date", "pattern": "a" * 513}), "/properties/a/pattern"),
        (one({"type": "string", "format": "date", "pattern": 1}), "/properties/a/pattern"),
        (one({"type": "integer", "multipleOf": 2}), "/properties/a/multipleOf"),
        (one({"type": "integer", "maxLength": 2}), "/properties/a/maxLength"),
        (one({"type": "string", "maxLength": -1}), "/properties/a/maxLength"),
        (one({"type": "string", "maxLength": 2001}), "/properties/a/maxLength"),
        (one({"type": "string", "minLength": 3, "maxLength": 2}), "/properties/a/maxLength"),
        (one({"type": "string", "maxLength": True}), "/properties/a/maxLength"),
        (one({"type": "integer", "minimum": 0.5}), "/properties/a/minimum"),
        (one({"type": "number", "minimum": "0"}), "/properties/a/minimum"),
        (one({"type": "number", "minimum": 1e300}), "/properties/a/minimum"),
        (one({"type": "integer", "minimum": 2, "maximum": 1}), "/properties/a"),
        (one({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}), "/properties/a"),
        (one({"type": "number", "minimum": 1, "exclusiveMaximum": 1}), "/properties/a"),
        (one({"enum": []}), "/properties/a/enum"),
        (one({"enum": [[1]]}), "/properties/a/enum"),
        (one({"enum": [10**30]}), "/properties/a/enum"),
        (one({"enum": [10**400]}), "/properties/a/enum"),
        (one({"enum": [1], "type": [{}]}), "/properties/a/type"),
        (one({"const": 1, "type": [["integer"]]}), "/properties/a/type"),
        (one({"type": "null", "default": 10**400}), "/properties/a/default"),
        (one({"enum": ["a", 1], "type": "string"}), "/properties/a/enum"),
        (one({"enum": ["a"], "maxLength": 1}), "/properties/a/maxLength"),
        (one({"const": {}}), "/properties/a/const"),
        (one({"anyOf": []}), "/properties/a/anyOf"),
        (one({"anyOf": [{"type": "null"}], "type": "null"}), "/properties/a/type"),
        (one({"oneOf": [{"type": "null"}]}), "/properties/a/oneOf"),
        (one({"$ref": "#/$defs/b"}), "/properties/a/$ref"),
        (one({"$ref": "https://example.com/schema"}), "/properties/a/$ref"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]}, "/required"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": "a"}, "/required"),
        (one({"type": "null"}) | {"additionalProperties": True}, "/additionalProperties"),
        (one({"type": "null"}) | {"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        (one({"type": "null"}) | {"$defs": []}, "/$defs"),
        (one({"$ref": "#/$defs/a/b"}) | {"$defs": {"a/b": {"type": "null"}}}, "/$defs"),
        (one({"type": "null", "title": "a\x00b"}), "/properties/a/title"),
        (one({"type": "null"}) | {"$defs": {"x": {"type": "nix"}}}, "/$defs/x/type"),
        (deep(json_schema.MAX_DEPTH + 1), "/properties/a" + 7 * "/items"),
    ],
)  # fmt: skip
def test_a_fault_has_a_json_pointer(schema: dict[str, Any], place: str) -> None:
    [fault] = json_schema.faults(schema)

    assert fault.startswith(f"{place}: ")


@pytest.mark.parametrize("name", ["minimum", "maximum", "exclusiveMinimum", "maxLength"])
def test_a_bound_that_is_too_large_for_a_float_is_a_fault(name: str) -> None:
    kind = "string" if name == "maxLength" else "integer"
    assert json_schema.faults(one({"type": kind, name: 10**400}))


def test_all_faults_are_listed_up_to_a_maximum() -> None:
    parts = {"a": {"type": "text"}, "b": {"minimum": 1}, "c": {"enum": 3}}
    assert len(json_schema.faults({"type": "object", "properties": parts})) == 3

    flood: dict[str, object] = {str(number): {} for number in range(100)}
    listed = json_schema.faults({"type": "object", "properties": flood})
    assert (len(listed), listed[-1]) == (21, "There are 80 more faults.")


def test_a_recursive_schema_is_rejected() -> None:
    defs = {"a": one({"$ref": "#/$defs/b"}), "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}

    listed = json_schema.faults(one({"$ref": "#/$defs/a"}) | {"$defs": defs})

    assert [fault for fault in listed if "refers to itself" in fault]


def test_a_schema_that_grows_exponentially_is_rejected_quickly() -> None:
    doubled = {f"d{level}": {"type": "object", "properties": {
        "l": {"$ref": f"#/$defs/d{level + 1}"}, "r": {"$ref": f"#/$defs/d{level + 1}"}
    }} for level in range(40)}  # fmt: skip
    doubled["d40"] = {"type": "null"}
    assert json_schema.faults(one({"$ref": "#/$defs/d0"}) | {"$defs": doubled})

    nested: object = 1
    for _ in range(1000):
        nested = [nested]
    assert json_schema.faults(one({"type": "null", "default": nested})) == [
        "The schema is nested too deeply."
    ]
    assert json_schema.faults(one({"type": "null", "title": "x" * 9000})) == [
        "The schema has more than 8192 bytes."
    ]


def text(least: int, most: int | None = None) -> dict[str, Any]:
    return {"type": "string", "minLength": least} | ({} if most is None else {"maxLength": most})


def several(*parts: object) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": part for n, part in enumerate(parts)}}


#: Schemas with strings in all places.
PLACES = [
    lambda parts: several(*parts),
    lambda parts: several(*({"type": "array", "items": part, "maxItems": 9} for part in parts)),
    lambda parts: several(*(several(part) for part in parts)),
    lambda parts: several(*({"anyOf": [part, {"type": "null"}]} for part in parts)),
    lambda parts: several(*(part | {"type": ["string", "null"]} for part in parts)),
    lambda parts: (
        several(*({"$ref": f"#/$defs/d{n}"} for n in range(len(parts))))
        | {"$defs": {f"d{n}": part for n, part in enumerate(parts)}}
    ),
]


@pytest.mark.parametrize("placed", PLACES, ids=["plain", "list", "object", "anyOf", "types", "ref"])
def test_length_bounds_of_strings_cost_the_same_in_every_place(
    placed: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> None:
    cheap = [text(0, 100 + n) for n in range(9)]
    assert json_schema.faults(placed(cheap)) == []
    for costly, cost in (
        ([*cheap, text(88)], 936 + 88),
        ([*cheap, text(89)], 936 + 89),
        ([text(0, 1000 + n) for n in range(8)], 1024),
        ([text(n, 1000) for n in range(9)], 1152),
    ):
        listed = json_schema.faults(placed(costly))
        assert bool(listed) is (cost > json_schema.MAX_COST)
        assert all(f"cost {cost}; at most 1024 is allowed" in fault for fault in listed)


def test_strings_with_the_same_bounds_cost_as_much_as_one() -> None:
    assert json_schema.faults(several(*(text(0, 2000) for _ in range(100)))) == []


@pytest.mark.parametrize("placed", PLACES, ids=["plain", "list", "object", "anyOf", "types", "ref"])
def test_each_string_with_a_format_costs_the_same_in_every_place(
    placed: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> None:
    texts = [text(0, 100 + n) for n in range(9)]
    formatted: list[dict[str, Any]] = [
        {"type": "string", "format": name} for name in string_formats.NAMES
    ]
    assert json_schema.cost(placed([*texts, *formatted[:8]])) == 936 + 80
    assert json_schema.faults(placed([*texts, *formatted[:8]])) == []
    [fault] = json_schema.faults(placed([*texts, *formatted]))
    assert "cost 1026; at most 1024 is allowed" in fault
    assert "with a `format` costs 10" in fault


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    named = {"type": "object", "properties": {"format": text(0, 9), "pattern": text(0, 9)}}
    assert json_schema.faults(named) == []
    assert json_schema.cost(named) == 9


def test_an_unknown_format_is_refused_with_those_that_are_served() -> None:
    [fault] = json_schema.faults(one({"type": "string", "format": "uri"}))
    assert all(f"{name}" in fault for name in string_formats.NAMES)


def test_ten_different_patterns_are_taken() -> None:
    def patterns(most: int) -> dict[str, Any]:
        part = {"type": "string", "format": "date"}
        return several(part, *(part | {"pattern": f"^{n % most}"} for n in range(30)))

    assert json_schema.faults(patterns(10)) == []
    assert json_schema.faults(patterns(11)) == ["The schema has more than 10 different patterns."]


@pytest.mark.parametrize(
    "pattern",
    [
        r"\PL{150}",
        r"(?:a{100}){100}",
        "(a{40}|b{4}){40}",
        "a{999999999}",
        r"[\w-]{11}",
        ".{200}",
        "a{20}{60}",
    ],
)
def test_a_pattern_that_is_large_with_its_counts_is_refused(pattern: str) -> None:
    """It would take a tenth of a second and ten megabytes."""
    [fault] = json_schema.faults(one({"type": "string", "format": "date", "pattern": pattern}))
    assert "too large with its counts" in fault


@pytest.mark.parametrize(
    "pattern", [r"^\d{4}-\d{2}$", "(a|b{3}){100}", r"\(a{900}\)", "[({]{900}", "a{2,}"]
)
def test_a_pattern_that_is_small_with_its_counts_is_taken(pattern: str) -> None:
    assert json_schema.faults(one({"type": "string", "format": "date", "pattern": pattern})) == []


@pytest.mark.parametrize("name", string_formats.NAMES)
def test_only_texts_of_the_format_are_read(name: str) -> None:
    """2026-02-30 matches the grammar of dates, and is none."""
    schema = one({"type": ["string", "null"], "format": name})
    valid, let_through, invalid = FORMATTED[name]
    assert json_schema.faults(schema) == []
    for text in valid:
        assert json_schema.holds(schema, {"a": text}), text
    for text in (*let_through, *invalid):
        assert not json_schema.holds(schema, {"a": text}), text
    assert json_schema.holds(schema, {"a": None})
    assert values.structured('{"a": "no such text"}', schema) is None


CLIENT_TYPES = {
    "date-time": dt.datetime,
    "date": dt.date,
    "time": dt.time,
    "duration": dt.timedelta,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "uuid": uuid.UUID,
}


@pytest.mark.parametrize(("name", "type_"), CLIENT_TYPES.items())
def test_what_is_read_is_what_pydantic_reads(name: str, type_: type) -> None:
    """Of the texts that the grammar lets through; else a client would raise an error for a job that succeeded."""
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type_)
    assert adapter.json_schema() == {"type": "string", "format": name}
    valid, let_through, _ = FORMATTED[name]
    for text in valid:
        adapter.validate_python(text)
    for text in let_through:
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_python(text)


def test_a_pattern_next_to_a_format_is_checked_in_time_proportional_to_the_text() -> None:
    day = {"type": "string", "format": "date", "pattern": "^2026-"}
    email = {"type": "string", "format": "email", "pattern": "^(([a-z])+.)+Z$"}
    schema = {"type": "object", "properties": {"day": day, "email": email}}

    assert json_schema.faults(schema) == []
    assert json_schema.holds(schema, {"day": "2026-11-30"})
    assert not json_schema.holds(schema, {"day": "2025-11-30"})
    # Python's own engine does not end this.
    assert not json_schema.holds(schema, {"email": "a" * 60 + "@b"})


@pytest.mark.parametrize(
    "part",
    [
        {"anyOf": [text(n, n + 100) for n in range(80)]},
        {"anyOf": [text(0) | {"title": f"{n}"} for n in range(17)]},
        {"anyOf": [{"anyOf": [text(0)] * 9}] * 2},
        {"anyOf": [several(text(0, 5), {"const": n}) for n in range(17)]},
        {"anyOf": [{"type": "array", "items": {"anyOf": [text(0)] * 5}}] * 4},
    ],
)
def test_nested_alternatives_with_strings_multiply(part: dict[str, Any]) -> None:
    assert any(
        "can be open at once; at most 16 are allowed" in fault
        for fault in json_schema.faults(one(part))
    )


@pytest.mark.parametrize(
    "part",
    [
        {"anyOf": [several(text(0, 5), {"const": n}) for n in range(16)]},
        {"anyOf": [{"type": "array", "items": {"anyOf": [text(0)] * 4}}] * 4},
        {"anyOf": [{"type": "integer", "minimum": n} for n in range(100)]},
        {"anyOf": [{"enum": [f"{n}"]} for n in range(100)]},
    ],
)
def test_few_alternatives_with_strings_and_many_without_are_accepted(part: dict[str, Any]) -> None:
    assert json_schema.faults(one(part)) == []


def test_an_invalid_schema_is_not_checked_for_its_cost() -> None:
    defs = {
        f"d{n}": {"type": "null", "items": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2}}
        for n in range(60)
    }
    assert json_schema.faults(
        one({"$ref": "#/$defs/d0"}) | {"$defs": defs | {"d60": {"type": "null"}}}
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"count": 6, "kind": "count"}', {"count": 6, "kind": "count"}),
        (' {"kind":"count","count":6.0}\n', {"count": 6.0, "kind": "count"}),
        (
            '{"count": 1, "kind": "count", "note": "a\tb\\u0000\\ud800"}',
            {"count": 1, "kind": "count", "note": "a\tb\ufffd\ufffd"},
        ),
        ('{"count": 1, "kind": "count", "note": "\\ud83d\\ude00"}', {"count": 1, "kind": "count", "note": "😀"}),
        ('{"count": 36893488147419103232, "kind": "count"}', {"count": 2.0**65, "kind": "count"}),
        ('{"count": 6}', None),
        ('{"count": -1, "kind": "count"}', None),
        ('{"count": 6, "kind": "count", "more": 1}', None),
        ('{"count": 6, "kind": "count", "share": NaN}', None),
        ('{"count": 6, "kind": "count", "share": -1e999}', None),
        ('{"count": ' + "9" * 5000 + ', "kind": "count"}', None),
        ('{"count": 6, "kind": "co', None),
        ('{"count": 6, "kind": "count"} and more', None),
        ("[1]", None),
        ("6", None),
        ("", None),
        ("[" * 100_000, None),
        ("[" * 100_001, None),
    ],
)  # fmt: skip
def test_an_answer_is_read_if_it_is_valid(text: str, value: object) -> None:
    wanted = {"type": "json_schema", "schema": COUNT}

    assert values.read(text, wanted) == value


names = st.text(min_size=1, max_size=6).filter(lambda name: "\x00" not in name)
whole = st.integers(-1000, 1000)
scalars = st.one_of(names, whole, st.booleans(), st.none(), st.floats(-1e6, 1e6))


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.integers(0, 20))
    return {"type": "string", "minLength": least, "maxLength": draw(st.integers(least, 30))}


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["integer", "number"]))
    low = draw(whole)
    bounds = {
        draw(st.sampled_from(["minimum", "exclusiveMinimum"])): low,
        draw(st.sampled_from(["maximum", "exclusiveMaximum"])): low + draw(st.integers(2, 50)),
    }
    stored = draw(st.sets(st.sampled_from(sorted(bounds))))
    return {"type": kind} | {name: bounds[name] for name in stored}


def whole_schemas() -> st.SearchStrategy[dict[str, Any]]:
    leaf = st.one_of(
        strings(),
        st.sampled_from(string_formats.NAMES).map(lambda name: {"type": "string", "format": name}),
        numbers(),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"$ref": "#/$defs/leaf"}]),
        st.lists(scalars, min_size=1, max_size=4).map(lambda found: {"enum": found}),
        scalars.map(lambda found: {"const": found}),
    )
    parts = st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(
                lambda items, least: {"type": "array", "items": items, "minItems": least},
                inner,
                st.integers(0, 3),
            ),
            st.lists(inner, min_size=1, max_size=3).map(lambda found: {"anyOf": found}),
            objects(inner),
        ),
        max_leaves=6,
    )
    return objects(parts).map(lambda found: found | {"$defs": {"leaf": {"type": "integer"}}})


def objects(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    found = st.dictionaries(names, parts, min_size=1, max_size=3)
    return found.map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": sorted(properties)[:1],
        }
    )


@given(whole_schemas(), st.randoms(use_true_random=False))
def test_a_sampled_value_of_a_valid_schema_is_read(
    schema: dict[str, Any], dice: random.Random
) -> None:
    if json_schema.faults(schema):
        return
    made = behaviors.sample_value(schema, dice)

    read = values.structured(orjson.dumps(made).decode(), schema)

    assert read is not None
    assert json_schema.holds(schema, made)


json = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(names, inner)), max_leaves=8
)
keywords = st.sampled_from([*sorted(json_schema._KNOWN), "$defs", "pattern"])  # noqa: SLF001 - all words of the language


@given(st.dictionaries(keywords, json))
def test_any_schema_is_checked_and_a_valid_one_can_be_used(schema: dict[str, Any]) -> None:
    listed = json_schema.faults(schema)

    assert all(isinstance(fault, str) for fault in listed)
    if not listed:
        assert json_schema.holds(schema, behaviors.sample_value(schema, random.Random(1)))


def nested(levels: int) -> str:
    """Return an object in JSON with this many levels."""
    return '{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": {"b": [1, "x", null]}}', {"a": {"b": [1, "x", None]}}),
        ("{}", {}),
        ('{"a": ["x"', None),
        ("[1]", None),
        ('"a"', None),
    ],
)
def test_any_object_is_json_whatever_its_shape(text: str, value: object) -> None:
    assert values.read(text, {"type": "json_object"}) == value


def test_an_object_that_is_nested_too_deeply_for_its_readers_is_no_value() -> None:
    deepest = values.MAX_JSON_DEPTH
    assert values.read(nested(deepest), {"type": "json_object"}) is not None
    for levels in (deepest + 1, 500, 5000):
        assert values.read(nested(levels), {"type": "json_object"}) is None


def test_the_schema_of_any_object_is_not_for_clients() -> None:
    """Its grammar has no bounds; the format `json_object` says that this is wanted."""
    assert json_schema.faults(json_schema.ANY_OBJECT)
