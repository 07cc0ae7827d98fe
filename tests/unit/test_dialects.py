"""JSON Schemas as clients write them, in the terms of 2020-12."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from api.openai import dialects
from jobs.answers import json_schema

Json = dict[str, Any]
POINT: Json = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
LONG = "invoice_properties_delivery_address_properties_country_anyOf_0_items"


def whole(**properties: Json) -> Json:
    """Return a schema with these properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def test_a_schema_of_today_stays_as_it_is_without_its_dialect() -> None:
    schema = whole(a={"$ref": "#/$defs/P"}, b={"anyOf": [{"type": "null"}]}) | {
        "$defs": {"P": POINT}
    }
    assert (
        dialects.in_2020_12({"$schema": "http://json-schema.org/draft-07/schema#"} | schema)
        == schema
    )
    assert dialects.in_2020_12(schema) == schema


def test_old_definitions_become_those_of_today() -> None:
    schema = whole(a=POINT, b={"type": "array", "items": {"$ref": "#/definitions/P"}}) | {
        "definitions": {"P": {**POINT, "properties": {"x": {"$ref": "#/definitions/X"}}},
                        "X": {"type": "number"}, "root": {"$ref": "#"}}
    }  # fmt: skip
    named = dialects.in_2020_12(schema)
    assert json_schema.faults(named) == []
    assert named["$defs"].keys() == {"P", "X"}
    assert json_schema.holds(named, {"a": {"x": 1}, "b": [{"x": 2}]})
    assert not json_schema.holds(named, {"a": {"x": 1}, "b": [{"x": "2"}]})


def test_a_name_that_no_definition_may_have_or_that_is_taken_is_replaced() -> None:
    references = {name: {"$ref": f"#/definitions/{name}"} for name in (LONG, "größe", "P", "1")}
    schema = whole(n={"$ref": "#/$defs/P"}, **references) | {
        "$defs": {"P": {"type": "null"}},
        "definitions": {LONG: {"type": "string"}, "größe": {"type": "number"}, "P": POINT,
                        "1": {"type": "boolean"}},
    }  # fmt: skip
    schema["properties"]["long"] = schema["properties"].pop(LONG)
    schema["required"] = list(schema["properties"])
    named = dialects.in_2020_12(schema)
    assert json_schema.faults(named) == []
    assert len(named["$defs"]) == 5
    answer = {"n": None, "long": "a", "größe": 1.5, "P": {"x": 1}, "1": True}
    assert json_schema.holds(named, answer)
    for name in answer:
        assert not json_schema.holds(named, answer | {name: []})


def test_nullable_parts_may_be_null() -> None:
    schema = whole(
        a={"type": "string", "nullable": True, "description": "of the customer"},
        b={"type": "array", "items": {"$ref": "#/definitions/P", "nullable": True}},
        c={"type": "number", "nullable": False},
    ) | {"definitions": {"P": POINT}}
    named = dialects.in_2020_12(schema)
    assert json_schema.faults(named) == []
    assert json_schema.holds(named, {"a": None, "b": [None, {"x": 1}], "c": 1})
    assert json_schema.holds(named, {"a": "A", "b": [], "c": 1})
    assert not json_schema.holds(named, {"a": "A", "b": [], "c": None})


class Cat(BaseModel):
    """An option."""

    kind: Literal["cat", "kitten"]
    lives: int


class Dog(BaseModel):
    """Another one."""

    kind: Literal["dog"]
    lives: int


class Home(BaseModel):
    """A model with discriminated unions."""

    pet: Cat | Dog = Field(discriminator="kind")
    others: list[Annotated[Cat | Dog, Field(discriminator="kind")]]
    former: Annotated[Cat | Dog, Field(discriminator="kind")] | None


def test_a_discriminated_union_allows_any_of_its_options() -> None:
    named = dialects.in_2020_12(Home.model_json_schema())
    assert json_schema.faults(named) == []
    cat, dog = {"kind": "kitten", "lives": 9}, {"kind": "dog", "lives": 1}
    assert json_schema.holds(named, {"pet": cat, "others": [dog, cat], "former": None})
    assert not json_schema.holds(named, {"pet": cat, "others": [{"kind": "cow"}], "former": None})


def tagged(**tag: object) -> Json:
    """Return an option with the property ``t``."""
    return whole(t=tag, x={"type": "number"})


@pytest.mark.parametrize(
    ("options", "is_union"),
    [
        ([tagged(const="a"), tagged(const="b")], True),
        ([tagged(const=1), tagged(const=True), tagged(enum=["1", "true"])], True),
        ([tagged(const="a"), tagged(const="a")], False),
        ([tagged(const="a"), tagged(enum=["b", "a"])], False),
        ([tagged(const="a"), tagged(type="string")], False),
        ([tagged(const="a"), tagged(const="b") | {"required": ["x"]}], False),
        ([tagged(const="a"), {"$ref": "#/$defs/nothing"}], False),
        ([tagged(const="a"), tagged(enum=5)], False),
        ([tagged(const="a"), tagged(const=["a"])], False),
        ([{"type": "string"}, {"type": "null"}], False),
        ([], False),
        ("ab", False),
    ],
)
def test_one_of_several_options_is_any_of_them_if_a_property_tells_them_apart(
    options: object,
    is_union: bool,  # noqa: FBT001 - a parameter
) -> None:
    part: Json = {"oneOf": options}
    [named] = dialects.in_2020_12(whole(a=part))["properties"].values()
    assert named == ({"anyOf": options} if is_union else part)


@pytest.mark.parametrize(("count", "is_union"), [(90, True), (110, False)])
def test_a_union_with_more_parts_than_a_schema_may_have_is_not_looked_at(
    count: int,
    is_union: bool,  # noqa: FBT001 - a parameter
) -> None:
    part: Json = {"oneOf": [tagged(const=number) for number in range(count)]}
    [named] = dialects.in_2020_12(whole(a=part))["properties"].values()
    assert list(named) == ["anyOf" if is_union else "oneOf"]


class Counting(dict[str, Any]):
    """Properties that count how often somebody goes through them."""

    walks = 0

    def items(self) -> Any:  # noqa: ANN401 - the type of dict's
        self.walks += 1
        return super().items()


@pytest.mark.parametrize("unions", [1, 600])
def test_references_to_one_definition_are_followed_as_often_as_a_schema_may_have_parts(
    unions: int,
) -> None:
    properties = Counting({str(number): {"const": number} for number in range(20)})
    option = {"type": "object", "properties": properties, "required": list(properties)}
    references = [{"$ref": "#/$defs/a"}] * (3000 // unions)
    schema = whole(**{str(number): {"oneOf": references} for number in range(unions)})

    dialects.in_2020_12(schema | {"$defs": {"a": option}})

    # And once more for the translation of the definition.
    assert properties.walks <= json_schema.MAX_PARTS // len(properties) + 1


def test_options_that_may_all_be_null_are_not_told_apart() -> None:
    for a, b in (
        (tagged(const="a", nullable=True), tagged(const="b", nullable=True)),
        (tagged(const="a") | {"nullable": True}, tagged(const="b") | {"nullable": True}),
    ):
        union = {"oneOf": [{"$ref": "#/definitions/a"}, {"$ref": "#/definitions/b"}]}
        named = dialects.in_2020_12(whole(u=union) | {"definitions": {"a": a, "b": b}})
        assert "oneOf" in named["properties"]["u"]


#: Any JSON, with the keywords that are translated.
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "#/definitions/a", "object"]),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "$ref", "$defs", "definitions", "properties", "required", "items",
                             "oneOf", "anyOf", "discriminator", "nullable", "const", "enum", "type"]),
            part, max_size=5,
        )
    ),
)  # fmt: skip


@given(schema=st.dictionaries(st.sampled_from(["$defs", "definitions", "properties"]), _JSON))
def test_any_schema_is_translated_once_and_for_all(schema: Json) -> None:
    once = dialects.in_2020_12(schema)
    assert dialects.in_2020_12(once) == once


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    parts: Json = {
        name: {"type": "boolean"} for name in ("nullable", "definitions", "$ref", "items")
    }
    assert dialects.in_2020_12(whole(**parts)) == whole(**parts)
    values_of = {"const": {"nullable": True}}
    assert dialects.in_2020_12(whole(a=values_of)) == whole(a=values_of)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"definitions": {"T": whole(t={"$ref": "#/definitions/T"})}}, "refers to itself"),
        ({"properties": {"t": {"$ref": "#"}}}, "recursion is not supported"),
        ({"definitions": []}, "/definitions: this keyword is not supported"),
        ({"definitions": {"T": POINT}, "$defs": []}, "/$defs: must be an object"),
        ({"definitions": {}}, "/$ref: must be"),
        ({"nullable": True, "definitions": {"T": POINT}}, "/nullable: this keyword"),
    ],
)
def test_what_is_not_supported_is_still_refused(changes: Json, fault: str) -> None:
    schema = whole(t={"$ref": "#/definitions/T"}) | changes
    assert any(fault in listed for listed in json_schema.faults(dialects.in_2020_12(schema)))
