"""JSON Schemas of answers: accepted schemas, the faults of the others, and generated instances."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.answers import json_schema, values
from scripted import instances

COUNT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Count",
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 0, "description": "of all shapes"},
        "colors": {"type": "array", "items": {"$ref": "#/$defs/Color"}, "maxItems": 5},
        "note": {"anyOf": [{"type": "string", "maxLength": 80}, {"type": "null"}]},
        "share": {"type": ["number", "null"], "exclusiveMaximum": 1},
        "kind": {"const": "count"},
    },
    "required": ["count", "kind"],
    "additionalProperties": False,
    "$defs": {"Color": {"enum": ["red", "green"], "type": "string"}},
}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels - 1):
        schema = {"type": "array", "items": schema}
    return {"type": "object", "properties": {"a": schema}}


def with_property(part: object) -> dict[str, Any]:
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
        (with_property({"type": "object"}), "/properties/a/properties"),
        (with_property({}), "/properties/a"),
        (with_property(True), "/properties/a"),
        (with_property({"type": "text"}), "/properties/a/type"),
        (with_property({"type": []}), "/properties/a/type"),
        (with_property({"type": ["object", "null"]}), "/properties/a/type"),
        (with_property({"type": "array"}), "/properties/a/items"),
        (with_property({"type": "string", "pattern": "(a+)+b"}), "/properties/a/pattern"),
        (with_property({"type": "string", "format": "date"}), "/properties/a/format"),
        (with_property({"type": "integer", "multipleOf": 2}), "/properties/a/multipleOf"),
        (with_property({"type": "integer", "maxLength": 2}), "/properties/a/maxLength"),
        (with_property({"type": "string", "maxLength": -1}), "/properties/a/maxLength"),
        (with_property({"type": "string", "maxLength": 2001}), "/properties/a/maxLength"),
        (with_property({"type": "string", "minLength": 3, "maxLength": 2}), "/properties/a/maxLength"),
        (with_property({"type": "string", "maxLength": True}), "/properties/a/maxLength"),
        (with_property({"type": "integer", "minimum": 0.5}), "/properties/a/minimum"),
        (with_property({"type": "number", "minimum": "0"}), "/properties/a/minimum"),
        (with_property({"type": "number", "minimum": 1e300}), "/properties/a/minimum"),
        (with_property({"type": "integer", "minimum": 2, "maximum": 1}), "/properties/a"),
        (with_property({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}), "/properties/a"),
        (with_property({"type": "number", "minimum": 1, "exclusiveMaximum": 1}), "/properties/a"),
        (with_property({"enum": []}), "/properties/a/enum"),
        (with_property({"enum": [[1]]}), "/properties/a/enum"),
        (with_property({"enum": [10**30]}), "/properties/a/enum"),
        (with_property({"enum": [10**400]}), "/properties/a/enum"),
        (with_property({"enum": [1], "type": [{}]}), "/properties/a/type"),
        (with_property({"const": 1, "type": [["integer"]]}), "/properties/a/type"),
        (with_property({"type": "null", "default": 10**400}), "/properties/a/default"),
        (with_property({"enum": ["a", 1], "type": "string"}), "/properties/a/enum"),
        (with_property({"enum": ["a"], "maxLength": 1}), "/properties/a/maxLength"),
        (with_property({"const": {}}), "/properties/a/const"),
        (with_property({"anyOf": []}), "/properties/a/anyOf"),
        (with_property({"anyOf": [{"type": "null"}], "type": "null"}), "/properties/a/type"),
        (with_property({"oneOf": [{"type": "null"}]}), "/properties/a/oneOf"),
        (with_property({"$ref": "#/$defs/b"}), "/properties/a/$ref"),
        (with_property({"$ref": "https://example.com/schema"}), "/properties/a/$ref"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]}, "/required"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": "a"}, "/required"),
        (with_property({"type": "null"}) | {"additionalProperties": True}, "/additionalProperties"),
        (with_property({"type": "null"}) | {"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        (with_property({"type": "null"}) | {"$defs": []}, "/$defs"),
        (with_property({"$ref": "#/$defs/a/b"}) | {"$defs": {"a/b": {"type": "null"}}}, "/$defs"),
        (with_property({"type": "null", "title": "a\x00b"}), "/properties/a/title"),
        (with_property({"type": "null"}) | {"$defs": {"x": {"type": "nix"}}}, "/$defs/x/type"),
        (deep(json_schema.MAX_DEPTH + 1), "/properties/a" + 7 * "/items"),
    ],
)  # fmt: skip
def test_a_fault_names_its_location(schema: dict[str, Any], place: str) -> None:
    [fault] = json_schema.faults(schema)

    assert fault.startswith(f"{place}: ")


@pytest.mark.parametrize("name", ["minimum", "maximum", "exclusiveMinimum", "maxLength"])
def test_a_bound_too_large_for_a_float_is_a_fault(name: str) -> None:
    kind = "string" if name == "maxLength" else "integer"
    assert json_schema.faults(with_property({"type": kind, name: 10**400}))


def test_all_faults_are_reported_together_up_to_a_limit() -> None:
    parts = {"a": {"type": "text"}, "b": {"minimum": 1}, "c": {"enum": 3}}
    assert len(json_schema.faults({"type": "object", "properties": parts})) == 3

    flood: dict[str, object] = {str(number): {} for number in range(100)}
    faults = json_schema.faults({"type": "object", "properties": flood})
    assert (len(faults), faults[-1]) == (21, "There are 80 more.")


def test_a_direct_or_indirect_circular_reference_is_rejected() -> None:
    defs = {"a": with_property({"$ref": "#/$defs/b"}), "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}

    faults = json_schema.faults(with_property({"$ref": "#/$defs/a"}) | {"$defs": defs})

    assert [fault for fault in faults if "refers to itself" in fault]


def test_schemas_that_grow_exponentially_are_rejected_early() -> None:
    doubled = {f"d{level}": {"type": "object", "properties": {
        "l": {"$ref": f"#/$defs/d{level + 1}"}, "r": {"$ref": f"#/$defs/d{level + 1}"}
    }} for level in range(40)}  # fmt: skip
    doubled["d40"] = {"type": "null"}
    assert json_schema.faults(with_property({"$ref": "#/$defs/d0"}) | {"$defs": doubled})

    nested: object = 1
    for _ in range(1000):
        nested = [nested]
    assert json_schema.faults(with_property({"type": "null", "default": nested})) == [
        "The schema has more than 48 levels of nesting."
    ]
    assert json_schema.faults(with_property({"type": "null", "title": "x" * 9000})) == [
        "The schema has 9070 bytes; the limit is 8192."
    ]


def text(least: int, most: int | None = None) -> dict[str, Any]:
    return {"type": "string", "minLength": least} | ({} if most is None else {"maxLength": most})


def several(*parts: object) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": part for n, part in enumerate(parts)}}


#: All places of a string in a schema.
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
def test_the_lengths_of_strings_count_at_every_location(
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
        faults = json_schema.faults(placed(costly))
        assert bool(faults) is (cost > json_schema.MAX_COST)
        assert all(f"cost {cost}; the limit is 1024" in fault for fault in faults)


def test_strings_with_the_same_limits_cost_as_much_as_one() -> None:
    assert json_schema.faults(several(*(text(0, 2000) for _ in range(100)))) == []


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
        "can be open at the same time; the limit is 16" in fault
        for fault in json_schema.faults(with_property(part))
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
def test_few_alternatives_with_strings_and_any_number_without_are_accepted(
    part: dict[str, Any],
) -> None:
    assert json_schema.faults(with_property(part)) == []


def test_the_cost_of_a_faulty_schema_is_not_computed() -> None:
    defs = {
        f"d{n}": {"type": "null", "items": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2}}
        for n in range(60)
    }
    assert json_schema.faults(
        with_property({"$ref": "#/$defs/d0"}) | {"$defs": defs | {"d60": {"type": "null"}}}
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
def test_an_answer_is_a_value_if_it_matches_the_schema(text: str, value: object) -> None:
    answer_format = {"type": "json_schema", "schema": COUNT}

    assert values.read(text, answer_format) == value


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
    chosen = draw(st.sets(st.sampled_from(sorted(bounds))))
    return {"type": kind} | {name: bounds[name] for name in chosen}


def whole_schemas() -> st.SearchStrategy[dict[str, Any]]:
    leaf = st.one_of(
        strings(),
        numbers(),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"$ref": "#/$defs/leaf"}]),
        st.lists(scalars, min_size=1, max_size=4).map(lambda value: {"enum": value}),
        scalars.map(lambda value: {"const": value}),
    )
    parts = st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(
                lambda items, least: {"type": "array", "items": items, "minItems": least},
                inner,
                st.integers(0, 3),
            ),
            st.lists(inner, min_size=1, max_size=3).map(lambda value: {"anyOf": value}),
            objects(inner),
        ),
        max_leaves=6,
    )
    return objects(parts).map(lambda value: value | {"$defs": {"leaf": {"type": "integer"}}})


def objects(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    strategy = st.dictionaries(names, parts, min_size=1, max_size=3)
    return strategy.map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": sorted(properties)[:1],
        }
    )


@given(whole_schemas(), st.randoms(use_true_random=False))
def test_a_generated_instance_of_a_valid_schema_is_a_value(
    schema: dict[str, Any], dice: random.Random
) -> None:
    if json_schema.faults(schema):
        return
    instance = instances.make(schema, dice)

    read = values.structured(orjson.dumps(instance).decode(), schema)

    assert read is not None
    assert json_schema.holds(schema, instance)


json = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(names, inner)), max_leaves=8
)
keywords = st.sampled_from([*sorted(json_schema._KNOWN), "$defs", "pattern"])  # noqa: SLF001 - all words of the language


@given(st.dictionaries(keywords, json))
def test_any_json_is_checked_and_a_valid_schema_can_be_used(schema: dict[str, Any]) -> None:
    faults = json_schema.faults(schema)

    assert all(isinstance(fault, str) for fault in faults)
    if not faults:
        assert json_schema.holds(schema, instances.make(schema, random.Random(1)))
