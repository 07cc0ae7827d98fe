"""JSON Schemas for answers: the subset of JSON Schema (2020-12) that an engine's grammar enforces. Pure.

The subset excludes keywords that the grammar would ignore or whose cost has no bound: patterns, circular references,
objects with arbitrary properties. An engine can generate an instance of every schema for which :func:`faults` returns
nothing, and the depth of the instance is bounded.
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
#: Levels of nested objects and arrays in an answer.
MAX_DEPTH = 8
#: Subschemas. A referenced subschema counts once per reference.
MAX_PARTS = 300
MAX_CHOICES = 200
MAX_NAME = 64
#: Characters of a string.
MAX_LENGTH = 2000
#: Items of an array.
MAX_ITEMS = 100
#: Cost of the length limits of strings, in characters. A grammar has a state for each character: with a vocabulary of
#: 152,000 tokens, a character costs an engine 20 to 40 ms of CPU time and 0.1 MB (``python -m bench.grammars``).
#: Strings with the same limits share their states. Other keywords (limits of arrays and numbers, values, properties)
#: cost far less.
MAX_COST = 1024
#: Maximum cost of one string, regardless of its length: xgrammar represents long strings by another kind of state.
_MAX_STRING_COST = 128
#: Alternatives that contain strings; the alternatives of nested `anyOf` multiply. All of them can be open at the same
#: time, and the engine examines each of them for every token of the answer, while all other generations wait.
MAX_ALTERNATIVES = 16
#: Not every JSON parser represents larger integers exactly (RFC 7493).
_MAX_NUMBER = 2**53 - 1

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ANNOTATIONS = frozenset({"title", "description", "default", "examples"})
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
_KNOWN = frozenset({*_ANNOTATIONS, *_KINDS, *frozenset().union(*_OF_TYPE.values())})
_REF = "#/$defs/"
#: Name of a definition. A reference to such a name needs no escapes.
_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_NAME}}}")
_MAX_FAULTS = 20


def faults(schema: Mapping[str, Any], special_tokens: SpecialTokens | None = None) -> list[str]:
    """Return the faults of ``schema``, each with its location; an empty list if jobs can use the schema.

    Args:
        schema: the schema.
        special_tokens: tokens that names, titles and values of the schema must not contain.
    """
    if (too_deep := _depth(schema)) is not None:
        return [too_deep]
    size = len(json.dumps(schema, ensure_ascii=False).encode())
    if size > MAX_BYTES:
        return [f"The schema has {size} bytes; the limit is {MAX_BYTES}."]
    check = _Check(schema, special_tokens)
    messages = list(dict.fromkeys(check.run())) or list(check.costs())
    if len(messages) > _MAX_FAULTS:
        messages = [*messages[:_MAX_FAULTS], f"There are {len(messages) - _MAX_FAULTS} more."]
    return messages


def cost(schema: Mapping[str, Any]) -> int:
    """Return the cost of the strings of ``schema``, which has no faults, in an engine's grammar: :data:`MAX_COST`."""
    check = _Check(schema, None)
    for _ in check.run():
        pass
    return check.cost


def holds(schema: Mapping[str, Any], value: object) -> bool:
    """Whether ``value`` is an instance of ``schema``, which has no faults."""
    # The registry is empty: the schema contains the targets of all references, and the validator fetches nothing.
    return Draft202012Validator(dict(schema), registry=Registry()).is_valid(value)


def _depth(schema: object) -> str | None:
    """Return a fault if the JSON is nested so deeply that recursion through it is unsafe."""
    level: list[object] = [schema]
    for _ in range(6 * MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return None
    return f"The schema has more than {6 * MAX_DEPTH} levels of nesting."


def _parts(whole: object) -> list[object]:
    if isinstance(whole, dict):
        return list(whole.values())
    return whole if isinstance(whole, list) else []


class _Check:
    """One check of a schema."""

    def __init__(self, schema: Mapping[str, Any], special_tokens: SpecialTokens | None) -> None:
        self._root = schema
        self._special_tokens = special_tokens
        definitions = schema.get("$defs", {})
        self._defs: Mapping[str, Any] = definitions if isinstance(definitions, dict) else {}
        self._parts = 0
        #: The (minLength, maxLength) of all strings so far.
        self._bounds: set[tuple[int, int | None]] = set()

    def run(self) -> Iterator[str]:
        """Yield all faults."""
        yield from _texts(self._root, "")
        yield from self._spelled(self._root, "")
        if self._root.get("$schema", _DIALECT) != _DIALECT:
            yield f"/$schema: must be {_DIALECT}."
        if not isinstance(self._root.get("$defs", {}), dict):
            yield "/$defs: must be an object."
        if not all(map(_NAME.fullmatch, self._defs)):
            yield f"/$defs: names must be 1 to {MAX_NAME} letters, digits, `_`, `.` or `-`."
        if self._root.get("type") != "object":
            yield '/type: the root must be an object: {"type": "object", "properties": …}.'
        else:
            own = {key: part for key, part in self._root.items() if key not in ("$schema", "$defs")}
            yield from self._schema(own, "", 1, ())
        for name, part in self._defs.items():
            # This also checks definitions without a reference; the others were checked at their references.
            yield from self._schema(part, f"/$defs/{name}", 1, (name,))
        if self._parts > MAX_PARTS:
            yield f"The schema has more than {MAX_PARTS} subschemas; a definition counts once per reference."

    @property
    def cost(self) -> int:
        """The cost of the strings that were checked so far."""
        return sum(_cost(*bounds) for bounds in self._bounds)

    def costs(self) -> Iterator[str]:
        """Yield the faults that make the grammar of an otherwise correct schema too large or too slow."""
        if self.cost > MAX_COST:
            yield (
                f"The lengths of strings cost {self.cost}; the limit is {MAX_COST}: each string costs its "
                f"`maxLength` (or `minLength` if it has none), at most {_MAX_STRING_COST}; "
                "strings with the same limits cost as much as one."
            )
        if (open_ := self._alternatives(self._root)) > MAX_ALTERNATIVES:
            yield (
                f"{open_} alternatives with strings can be open at the same time; the limit is "
                f"{MAX_ALTERNATIVES}: the alternatives of nested `anyOf` multiply."
            )

    def _alternatives(self, schema: object) -> int:
        """Return how many strings of ``schema``, which has no faults, can be open at the same time."""
        if not isinstance(schema, dict):
            return 0
        name = schema.get("$ref")
        if isinstance(name, str):
            return self._alternatives(self._defs[name.removeprefix(_REF)])
        options, properties = schema.get("anyOf"), schema.get("properties")
        if isinstance(options, list):
            return sum(self._alternatives(option) for option in options)
        parts = list(properties.values()) if isinstance(properties, dict) else []
        own = schema.get("type")
        return max(
            int(own == "string" or (isinstance(own, list) and "string" in own)),
            *(self._alternatives(part) for part in (*parts, schema.get("items"))),
        )

    def _spelled(self, schema: object, place: str) -> Iterator[str]:
        """Yield the names, titles and values in ``schema`` that contain a special token.

        An answer repeats names and values literally, so the service cannot insert anything to break up a token.
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
            yield f"{place}: must not contain the special token `{_short(spelled)}`."

    def _schema(
        self, schema: object, place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        self._parts += 1
        if self._parts > MAX_PARTS:
            return
        if not isinstance(schema, dict):
            yield f"{place}: must be an object."
            return
        unknown = sorted(schema.keys() - _KNOWN)
        for key in unknown:
            yield f"{place}/{_short(key)}: this keyword is not supported."
        if depth > MAX_DEPTH:
            yield f"{place}: objects and arrays are nested more than {MAX_DEPTH} levels deep."
            return
        kind = next((kind for kind in _KINDS if kind in schema), None)
        match kind:
            case None if unknown:
                return
            case None:
                yield f"{place}: must have one of `type`, `enum`, `const`, `anyOf` and `$ref`."
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
            yield f"{place}/$ref: must refer to a definition in `$defs`, as `{_REF}…`."
        elif name in within:
            yield f"{place}/$ref: `{_short(name)}` refers to itself."
        else:
            yield from self._schema(self._defs[name], f"/$defs/{name}", depth, (*within, name))

    def _choices(
        self, parts: object, place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        if not isinstance(parts, list) or not parts:
            yield f"{place}/anyOf: must be a non-empty array."
            return
        for index, part in enumerate(parts):
            yield from self._schema(part, f"{place}/anyOf/{index}", depth, within)

    def _typed(
        self, schema: Mapping[str, Any], place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        named = schema["type"]
        types = named if isinstance(named, list) else [named]
        known = [name for name in types if isinstance(name, str) and name in _OF_TYPE]
        if not types or len(known) < len(types) or len(set(known)) < len(known):
            yield f"{place}/type: must be one of {', '.join(_OF_TYPE)}, or an array of the last five."
            return
        if len(known) > 1 and not _SCALAR.issuperset(known):
            yield f"{place}/type: an array of types cannot include object or array; use `anyOf`."
            return
        allowed = frozenset().union(*(_OF_TYPE[name] for name in known))
        for key in sorted((schema.keys() & _KNOWN) - _ANNOTATIONS - allowed - {"type"}):
            yield f"{place}/{key}: this keyword does not apply to the type."
        size_faults = list(_sizes(schema, place))
        yield from size_faults
        if not size_faults and "string" in known:
            self._bounds.add((schema.get("minLength", 0), schema.get("maxLength")))
        if known == ["object"]:
            yield from self._object(schema, place, depth, within)
        elif known == ["array"]:
            if "items" not in schema:
                yield f"{place}/items: an array must have `items`."
            else:
                yield from self._schema(schema["items"], f"{place}/items", depth + 1, within)

    def _object(
        self, schema: Mapping[str, Any], place: str, depth: int, within: tuple[str, ...]
    ) -> Iterator[str]:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            yield f"{place}/properties: must be a non-empty object."
            properties = {}
        if schema.get("additionalProperties", False) is not False:
            yield f"{place}/additionalProperties: must be false, which is also the default."
        required = schema.get("required", [])
        if not isinstance(required, list) or any(not isinstance(name, str) for name in required):
            yield f"{place}/required: must be an array of names."
        elif unknown := [name for name in required if name not in properties]:
            yield f"{place}/required: the property `{_short(unknown[0])}` does not exist."
        elif len(set(required)) < len(required):
            yield f"{place}/required: contains a name more than once."
        for name, part in properties.items():
            if not 1 <= len(name) <= MAX_NAME:
                yield f"{place}/properties: a name must have 1 to {MAX_NAME} characters; this one has {len(name)}."
            yield from self._schema(part, f"{place}/properties/{_short(name)}", depth + 1, within)


def _cost(least: int, most: int | None) -> int:
    """Return the cost of the length limits of a string."""
    return min(least if most is None else most, _MAX_STRING_COST)


def _alone(schema: Mapping[str, Any], place: str, *kinds: str) -> Iterator[str]:
    """Yield the keywords next to a keyword that excludes all others."""
    for key in sorted((schema.keys() & _KNOWN) - _ANNOTATIONS - {*kinds}):
        yield f"{place}/{key}: this keyword cannot be combined with `{kinds[0]}`."


def _values(values: object, named: object, place: str) -> Iterator[str]:
    """Yield the faults of the array of values that an answer may take."""
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_CHOICES:
        yield f"{place}: must be an array of 1 to {MAX_CHOICES} values."
        return
    if any(isinstance(value, dict | list) for value in values):
        yield f"{place}: a value must not be an object or an array."
        return
    if any(isinstance(value, int | float) and not _safe(value) for value in values):
        yield f"{place}: a number is too large."
        return
    types = [named] if isinstance(named, str) else named
    if types is None:
        return
    if (
        not isinstance(types, list)
        or not types
        or not all(isinstance(name, str) and name in _SCALAR for name in types)
    ):
        parent, _, key = place.rpartition("/")
        yield f"{parent}/type: this type cannot be combined with `{key}`."
    elif not all(holds({"type": types}, value) for value in values):
        yield f"{place}: every value must be of the type."


def _sizes(schema: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield the faults of the limits of lengths, items and numbers."""
    for least, most, limit in (
        ("minLength", "maxLength", MAX_LENGTH),
        ("minItems", "maxItems", MAX_ITEMS),
    ):
        sizes = [schema.get(least, 0), schema.get(most, limit)]
        for key, size in zip((least, most), sizes, strict=True):
            if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= limit:
                yield f"{place}/{key}: must be an integer from 0 to {limit}."
                break
        else:
            if sizes[0] > sizes[1]:
                yield f"{place}/{most}: must be at least `{least}`."
    bounds = {key: schema[key] for key in sorted(_BOUNDS) if key in schema}
    integer = schema.get("type") == "integer"
    invalid = [key for key, bound in bounds.items() if not _is_bound(bound, integer=integer)]
    for key in invalid:
        yield f"{place}/{key}: must be {'an integer' if integer else 'a number'} of at most 2^53 - 1 in magnitude."
    if bounds and not invalid and not _satisfiable(bounds, integer=integer):
        yield f"{place}: no number is within these bounds."


def _is_bound(bound: object, *, integer: bool) -> bool:
    if isinstance(bound, bool) or not isinstance(bound, int if integer else int | float):
        return False
    return _safe(bound)


def _safe(number: float) -> bool:
    # `math.isfinite` would fail for an integer that is too large for a float.
    return -_MAX_NUMBER <= number <= _MAX_NUMBER


def _satisfiable(bounds: Mapping[str, float], *, integer: bool) -> bool:
    """Whether a number within ``bounds`` exists."""
    step = 1 if integer else 0
    least = max(bounds.get("minimum", -math.inf), bounds.get("exclusiveMinimum", -math.inf) + step)
    most = min(bounds.get("maximum", math.inf), bounds.get("exclusiveMaximum", math.inf) - step)
    open_ended = not integer and bounds.keys() & {"exclusiveMinimum", "exclusiveMaximum"}
    return least < most if open_ended else least <= most


def _texts(whole: object, place: str) -> Iterator[str]:
    """Yield the strings with characters, and the numbers, that cannot be stored or sent."""
    if isinstance(whole, str) and "\x00" in whole:
        yield f"{place}: a string must not contain the character NUL."
    elif isinstance(whole, dict):
        if any("\x00" in key for key in whole):
            yield f"{place}: a name must not contain the character NUL."
        for key, part in whole.items():
            yield from _texts(part, f"{place}/{_short(key)}")
    elif isinstance(whole, list):
        for part in whole:
            yield from _texts(part, place)
    elif isinstance(whole, float) and not math.isfinite(whole):
        yield f"{place}: a number is not finite."
    elif isinstance(whole, int) and not _safe(whole):
        yield f"{place}: a number is too large."


def _short(name: str) -> str:
    """Return a name shortened, and without unprintable characters, for use in a message."""
    plain = "".join(character if character.isprintable() else "�" for character in name)
    return plain if len(plain) <= MAX_NAME else f"{plain[:MAX_NAME]}…"
