"""JSON schemas for answers: the part of JSON Schema (2020-12) that an engine's grammar holds a model to. Pure.

What is left out would be ignored by the grammar, or could cost without end: patterns, references in circles, objects
with any property. Whatever :func:`faults` finds nothing wrong with can be generated, and has a bounded depth.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry

from core.special_tokens import SpecialTokens

MAX_BYTES = 8192
#: Of objects and lists in one another, in the answer.
MAX_DEPTH = 8
#: Schemas within the schema, one that is referred to counted each time.
MAX_PARTS = 300
MAX_CHOICES = 200
MAX_NAME = 64
#: Of a text and of a list.
MAX_LENGTH = 2000
MAX_ITEMS = 100
#: What the bounds of texts cost, in characters: a grammar has states for each of them, and with a vocabulary of
#: 152,000 tokens a character takes an engine 20 to 40 ms of CPU time and 0.1 MB (``python -m bench.grammars``). Texts
#: with the same bounds share their states. Nothing else costs as much: bounds of lists and numbers, values, properties.
MAX_COST = 1024
#: What a text costs at the most, however long it may be: xgrammar counts long texts by another kind of state.
_MOST_OF_A_TEXT = 128
#: Alternatives that hold texts, those of an `anyOf` within another one multiplied: as many may be open at once, and
#: the engine looks at each for every token of the answer, while all other streams wait.
MAX_ALTERNATIVES = 16
#: Beyond this a number is not the same everywhere (RFC 7493).
_MOST = 2**53 - 1

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NOTES = frozenset({"title", "description", "default", "examples"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_OF_TYPE: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "boolean": frozenset(),
    "null": frozenset(),
}
_SCALAR = frozenset({"string", "integer", "number", "boolean", "null"})
_KINDS = ("$ref", "anyOf", "enum", "const", "type")
_KNOWN = frozenset({*_NOTES, *_KINDS, *frozenset().union(*_OF_TYPE.values())})
_REF = "#/$defs/"
#: Of a part that is referred to: such names need no escapes.
_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_NAME}}}")
_MOST_FAULTS = 20


def faults(schema: Mapping[str, Any], special_tokens: SpecialTokens | None = None) -> list[str]:
    """Return what is wrong with ``schema``, each with its place; nothing: an answer can be asked for by it.

    Args:
        schema: the schema.
        special_tokens: those that its names, titles and values must not spell.
    """
    if (deepest := _depth(schema)) is not None:
        return [deepest]
    if len(json.dumps(schema, ensure_ascii=False).encode()) > MAX_BYTES:
        return [f"It has more than {MAX_BYTES} bytes."]
    check = _Check(schema, special_tokens)
    found = list(dict.fromkeys(check.run())) or list(check.costs())
    if len(found) > _MOST_FAULTS:
        found = [*found[:_MOST_FAULTS], f"There are {len(found) - _MOST_FAULTS} more."]
    return found


def cost(schema: Mapping[str, Any]) -> int:
    """Return what the texts of ``schema``, which has no faults, cost an engine's grammar; see :data:`MAX_COST`."""
    check = _Check(schema, None)
    for _ in check.run():
        pass
    return check.cost


def holds(schema: Mapping[str, Any], value: object) -> bool:
    """Whether ``value`` is as ``schema``, which has no faults, says."""
    # The registry is empty: what is referred to is in the schema, and nothing is ever fetched.
    return Draft202012Validator(dict(schema), registry=Registry()).is_valid(value)


def _depth(schema: object) -> str | None:
    """Return a fault when the JSON is nested so deep that nobody should walk through it."""
    level: list[object] = [schema]
    for _ in range(6 * MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return None
    return "It is nested too deep."


def _parts(whole: object) -> list[object]:
    if isinstance(whole, dict):
        return list(whole.values())
    return whole if isinstance(whole, list) else []


class _Check:
    """One look through a schema."""

    def __init__(self, schema: Mapping[str, Any], special_tokens: SpecialTokens | None) -> None:
        self._root = schema
        self._special_tokens = special_tokens
        found = schema.get("$defs", {})
        self._defs: Mapping[str, Any] = found if isinstance(found, dict) else {}
        self._parts = 0
        #: The bounds of all texts that have any.
        self._bounds: set[tuple[int, int | None]] = set()

    def run(self) -> Iterator[str]:
        """Yield all faults."""
        yield from _texts(self._root, "")
        yield from self._spelled(self._root, "")
        if self._root.get("$schema", _DIALECT) != _DIALECT:
            yield f"/$schema: the dialect has to be {_DIALECT}."
        if not isinstance(self._root.get("$defs", {}), dict):
            yield "/$defs: this has to be an object."
        if not all(map(_NAME.fullmatch, self._defs)):
            yield "/$defs: names are of letters, digits, `_`, `.` and `-`."
        if self._root.get("type") != "object":
            yield '/type: the whole has to be an object: {"type": "object", "properties": …}.'
        else:
            own = {key: part for key, part in self._root.items() if key not in ("$schema", "$defs")}
            yield from self._schema(own, "", 1, ())
        for name, part in self._defs.items():
            # One that nobody refers to is looked at as well; others have been.
            yield from self._schema(part, f"/$defs/{name}", 1, (name,))
        if self._parts > MAX_PARTS:
            yield f"It has more than {MAX_PARTS} parts, with what is referred to counted each time."

    @property
    def cost(self) -> int:
        """What the texts that have been seen cost."""
        return sum(_cost(*bounds) for bounds in self._bounds)

    def costs(self) -> Iterator[str]:
        """Yield what would make the grammar of a schema without other faults too large or too slow."""
        if self.cost > MAX_COST:
            yield (
                f"The lengths of texts cost {self.cost} of at most {MAX_COST}: each text costs its "
                f"`maxLength` (without one its `minLength`), {_MOST_OF_A_TEXT} at the most, and "
                "texts with the same two cost as much as one."
            )
        if (open_ := self._alternatives(self._root)) > MAX_ALTERNATIVES:
            yield (
                f"{open_} alternatives with texts can be open at once, of at most "
                f"{MAX_ALTERNATIVES}: those of an `anyOf` within another one count times each other."
            )

    def _alternatives(self, schema: object) -> int:
        """Return how many texts of ``schema``, which has no faults, can be open at once."""
        if not isinstance(schema, dict):
            return 0
        name = schema.get("$ref")
        if isinstance(name, str):
            return self._alternatives(self._defs[name.removeprefix(_REF)])
        options, properties = schema.get("anyOf"), schema.get("properties")
        if isinstance(options, list):
            return sum(self._alternatives(one) for one in options)
        parts = list(properties.values()) if isinstance(properties, dict) else []
        own = schema.get("type")
        return max(
            int(own == "string" or (isinstance(own, list) and "string" in own)),
            *(self._alternatives(part) for part in (*parts, schema.get("items"))),
        )

    def _spelled(self, schema: object, place: str) -> Iterator[str]:
        """Yield where ``schema`` or a part of it has a name, a title or a value that spells a special token.

        An answer has to repeat names and values to the letter, so that nothing can be put inside of them.
        """
        if self._special_tokens is None or not isinstance(schema, dict):
            return
        yield from self._special(schema.get("title"), f"{place}/title")
        yield from self._special(schema.get("const"), f"{place}/const")
        yield from self._each_special(schema.get("enum"), f"{place}/enum")
        for group in ("properties", "$defs"):
            parts = schema.get(group)
            for name, part in parts.items() if isinstance(parts, dict) else ():
                yield from self._special(name, f"{place}/{group}/{_short(name)}")
                yield from self._spelled(part, f"{place}/{group}/{_short(name)}")
        yield from self._spelled(schema.get("items"), f"{place}/items")
        options = schema.get("anyOf")
        for index, part in enumerate(options if isinstance(options, list) else ()):
            yield from self._spelled(part, f"{place}/anyOf/{index}")

    def _each_special(self, values: object, place: str) -> Iterator[str]:
        for index, value in enumerate(values if isinstance(values, list) else ()):
            yield from self._special(value, f"{place}/{index}")

    def _special(self, text: object, place: str) -> Iterator[str]:
        if self._special_tokens is None or not isinstance(text, str):
            return
        if (spelled := self._special_tokens.first_in(text)) is not None:
            yield f"{place}: this spells the special token `{_short(spelled)}`."

    def _schema(
        self, schema: object, place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        self._parts += 1
        if self._parts > MAX_PARTS:
            return
        if not isinstance(schema, dict):
            yield f"{place}: this has to be an object."
            return
        strange = sorted(schema.keys() - _KNOWN)
        for key in strange:
            yield f"{place}/{_short(key)}: this keyword is not supported."
        if depth > MAX_DEPTH:
            yield f"{place}: objects and lists may lie in one another {MAX_DEPTH} deep."
            return
        kind = next((kind for kind in _KINDS if kind in schema), None)
        match kind:
            case None if strange:
                return
            case None:
                yield f"{place}: one of `type`, `enum`, `const`, `anyOf` and `$ref` is needed."
            case "type":
                yield from self._typed(schema, place, depth, within)
            case "$ref":
                yield from _alone(schema, place, "$ref")
                yield from self._reference(schema["$ref"], place, depth, within)
            case "anyOf":
                yield from _alone(schema, place, "anyOf")
                yield from self._choices(schema["anyOf"], place, depth, within)
            case _:
                yield from _alone(schema, place, kind, "type")
                values = schema["enum"] if kind == "enum" else [schema["const"]]
                yield from _values(values, schema.get("type"), f"{place}/{kind}")

    def _reference(
        self, to: object, place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        name = to.removeprefix(_REF) if isinstance(to, str) and to.startswith(_REF) else None
        if name is None or name not in self._defs:
            yield f"{place}/$ref: this has to name a part of `$defs`, as `{_REF}…` does."
        elif name in within:
            yield f"{place}/$ref: `{_short(name)}` leads back to itself."
        else:
            yield from self._schema(self._defs[name], f"/$defs/{name}", depth, (*within, name))

    def _choices(
        self, parts: object, place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        if not isinstance(parts, list) or not parts:
            yield f"{place}/anyOf: this has to be a list with something in it."
            return
        for index, part in enumerate(parts):
            yield from self._schema(part, f"{place}/anyOf/{index}", depth, within)

    def _typed(
        self, schema: Mapping[str, Any], place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        named = schema["type"]
        types = named if isinstance(named, list) else [named]
        known = [one for one in types if isinstance(one, str) and one in _OF_TYPE]
        if not types or len(known) < len(types) or len(set(known)) < len(known):
            yield f"{place}/type: this has to be one of {', '.join(_OF_TYPE)}, or a list of the last five."
            return
        if len(known) > 1 and not _SCALAR.issuperset(known):
            yield f"{place}/type: objects and lists cannot be in a list of types; use `anyOf`."
            return
        fitting = frozenset().union(*(_OF_TYPE[one] for one in known))
        for key in sorted((schema.keys() & _KNOWN) - _NOTES - fitting - {"type"}):
            yield f"{place}/{key}: this does not go with the type."
        wrong = list(_sizes(schema, place))
        yield from wrong
        if not wrong and "string" in known:
            self._bounds.add((schema.get("minLength", 0), schema.get("maxLength")))
        if known == ["object"]:
            yield from self._object(schema, place, depth, within)
        elif known == ["array"]:
            if "items" not in schema:
                yield f"{place}/items: what a list holds has to be said."
            else:
                yield from self._schema(schema["items"], f"{place}/items", depth + 1, within)

    def _object(
        self, schema: Mapping[str, Any], place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            yield f"{place}/properties: this has to be an object with something in it."
            properties = {}
        if schema.get("additionalProperties", False) is not False:
            yield f"{place}/additionalProperties: this can only be false; so it is without it."
        required = schema.get("required", [])
        if not isinstance(required, list) or any(not isinstance(one, str) for one in required):
            yield f"{place}/required: this has to be a list of names."
        elif strange := [one for one in required if one not in properties]:
            yield f"{place}/required: there is no property `{_short(strange[0])}`."
        elif len(set(required)) < len(required):
            yield f"{place}/required: a name is there twice."
        for name, part in properties.items():
            if not 1 <= len(name) <= MAX_NAME:
                yield f"{place}/properties: a name has 1 to {MAX_NAME} characters."
            yield from self._schema(part, f"{place}/properties/{_short(name)}", depth + 1, within)


def _cost(least: int, most: int | None) -> int:
    """Return what the bounds of a text cost."""
    return min(least if most is None else most, _MOST_OF_A_TEXT)


def _alone(schema: Mapping[str, Any], place: str, *kinds: str) -> Iterator[str]:
    """Yield what stands beside a keyword that says all by itself."""
    for key in sorted((schema.keys() & _KNOWN) - _NOTES - {*kinds}):
        yield f"{place}/{key}: this cannot stand beside `{kinds[0]}`."


def _values(values: object, named: object, place: str) -> Iterator[str]:
    """Yield what is wrong with a list of values of which an answer is to be one."""
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_CHOICES:
        yield f"{place}: this has to be a list of 1 to {MAX_CHOICES} values."
        return
    if any(isinstance(value, dict | list) for value in values):
        yield f"{place}: objects and lists cannot be values here."
        return
    if any(isinstance(value, int | float) and not _sound(value) for value in values):
        yield f"{place}: a number is too large."
        return
    types = [named] if isinstance(named, str) else named
    if types is None:
        return
    if (
        not isinstance(types, list)
        or not types
        or not all(isinstance(one, str) and one in _SCALAR for one in types)
    ):
        yield f"{place.rpartition('/')[0]}/type: this does not go with `{place.rpartition('/')[2]}`."
    elif not all(holds({"type": types}, value) for value in values):
        yield f"{place}: a value is not of the type."


def _sizes(schema: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield what is wrong with bounds."""
    for least, most, limit in (
        ("minLength", "maxLength", MAX_LENGTH),
        ("minItems", "maxItems", MAX_ITEMS),
    ):
        sizes = [schema.get(least, 0), schema.get(most, limit)]
        for key, size in zip((least, most), sizes, strict=True):
            if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= limit:
                yield f"{place}/{key}: this has to be a whole number from 0 to {limit}."
                break
        else:
            if sizes[0] > sizes[1]:
                yield f"{place}/{most}: this is less than `{least}`."
    bounds = {key: schema[key] for key in sorted(_BOUNDS) if key in schema}
    whole = schema.get("type") == "integer"
    strange = [key for key, bound in bounds.items() if not _bound(bound, whole=whole)]
    for key in strange:
        yield f"{place}/{key}: this has to be a {'whole ' if whole else ''}number, not too large a one."
    if bounds and not strange and not _room(bounds, whole=whole):
        yield f"{place}: no number is within these bounds."


def _bound(bound: object, *, whole: bool) -> bool:
    if isinstance(bound, bool) or not isinstance(bound, int if whole else int | float):
        return False
    return _sound(bound)


def _sound(number: float) -> bool:
    # Not by `math.isfinite`: a whole number may be too large for a float.
    return -_MOST <= number <= _MOST


def _room(bounds: Mapping[str, float], *, whole: bool) -> bool:
    """Whether a number is within ``bounds``."""
    step = 1 if whole else 0
    least = max(bounds.get("minimum", -math.inf), bounds.get("exclusiveMinimum", -math.inf) + step)
    most = min(bounds.get("maximum", math.inf), bounds.get("exclusiveMaximum", math.inf) - step)
    open_ended = not whole and bounds.keys() & {"exclusiveMinimum", "exclusiveMaximum"}
    return least < most if open_ended else least <= most


def _texts(whole: object, place: str) -> Iterator[str]:
    """Yield where a text has characters, or a note a number, that cannot be kept or sent."""
    if isinstance(whole, str) and "\x00" in whole:
        yield f"{place}: a text has the character NUL."
    elif isinstance(whole, dict):
        if any("\x00" in key for key in whole):
            yield f"{place}: a name has the character NUL."
        for key, part in whole.items():
            yield from _texts(part, f"{place}/{_short(key)}")
    elif isinstance(whole, list):
        for part in whole:
            yield from _texts(part, place)
    elif isinstance(whole, float) and not math.isfinite(whole):
        yield f"{place}: a number is not finite."
    elif isinstance(whole, int) and not _sound(whole):
        yield f"{place}: a number is too large."


def _short(name: str) -> str:
    """Return a name as a sentence can have it."""
    plain = "".join(character if character.isprintable() else "�" for character in name)
    return plain if len(plain) <= MAX_NAME else f"{plain[:MAX_NAME]}…"
