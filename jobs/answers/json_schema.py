"""The subset of JSON Schema (2020-12) that an engine's grammar can enforce for answers. Pure.

A grammar would ignore the other keywords, or could need unlimited resources for them: patterns, recursive references,
objects with arbitrary properties. A pattern next to a `format` is ignored, too, and checked after the generation:
clients write one for each format. A schema without :func:`faults` can be generated and has a bounded depth.
:data:`ANY_OBJECT` is the one schema outside the subset: the service itself sends it for the format ``json_object``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry

from core.special_tokens import SpecialTokens
from jobs.answers import string_formats

#: The schema of any object. Only the token budget of the answer bounds what its grammar allows.
ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}
MAX_BYTES = 8192
#: Nested objects and arrays in the answer.
MAX_DEPTH = 8
#: Subschemas; a referenced one counts once per reference.
MAX_PARTS = 300
MAX_CHOICES = 200
MAX_NAME = 64
#: Upper bound of `minLength` and `maxLength`, and of `minItems` and `maxItems`.
MAX_LENGTH = 2000
MAX_ITEMS = 100
#: Cost of the length bounds of strings, in characters: a grammar has states for each character, and with a
#: vocabulary of 152,000 tokens one character takes an engine 20 to 40 ms of CPU time and 0.1 MB
#: (``python -m bench.grammars``). Strings with the same bounds share their states, those with a format have states of
#: their own (:data:`jobs.answers.string_formats.COST`). Bounds of arrays and numbers, values and properties cost far
#: less.
MAX_COST = 1024
#: Highest cost of one string: xgrammar counts the length of longer strings with another kind of state.
_MAX_STRING_COST = 128
#: Alternatives with strings that can be open at once, where nested `anyOf` multiply: for every token of the answer the
#: engine checks each of them, while all other streams wait.
MAX_ALTERNATIVES = 16
#: Larger numbers are not interoperable (RFC 7493).
_MAX_NUMBER = 2**53 - 1

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ANNOTATIONS = frozenset({"title", "description", "default", "examples"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_OF_TYPE: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "format", "pattern"}),
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "boolean": frozenset(),
    "null": frozenset(),
}
_SCALAR = frozenset({"string", "integer", "number", "boolean", "null"})
_KINDS = ("$ref", "anyOf", "enum", "const", "type")
_KNOWN = frozenset({*_ANNOTATIONS, *_KINDS, *frozenset().union(*_OF_TYPE.values())})
_REF = "#/$defs/"
#: Name of a definition; such names need no escapes.
_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_NAME}}}")
_MAX_FAULTS = 20


def is_json(answer_format: Mapping[str, Any] | None) -> bool:
    """Return whether an answer in the format of a job is JSON. The format may have lost its schema with the answer."""
    return (answer_format or {}).get("type") in {"json_schema", "json_object"}


def of(answer_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the schema that an answer in the format of a job must match; None for a format that is not JSON.

    The answer must not be removed, because the schema goes with it.
    """
    match (answer_format or {}).get("type"):
        case "json_schema":
            schema: Mapping[str, Any] = (answer_format or {})["schema"]
            return schema
        case "json_object":
            return ANY_OBJECT
        case _:
            return None


def faults(schema: Mapping[str, Any], special_tokens: SpecialTokens | None = None) -> list[str]:
    """Return the faults of ``schema``, each with its JSON pointer; none if the schema can constrain an answer.

    Args:
        schema: the schema.
        special_tokens: tokens that its names, titles and values must not contain.
    """
    if (deepest := _depth(schema)) is not None:
        return [deepest]
    if len(json.dumps(schema, ensure_ascii=False).encode()) > MAX_BYTES:
        return [f"The schema has more than {MAX_BYTES} bytes."]
    check = _Check(schema, special_tokens)
    listed = list(dict.fromkeys(check.run())) or list(check.costs())
    if len(listed) > _MAX_FAULTS:
        listed = [*listed[:_MAX_FAULTS], f"There are {len(listed) - _MAX_FAULTS} more faults."]
    return listed


def cost(schema: Mapping[str, Any]) -> int:
    """Return the cost of the strings of ``schema``, which has no faults, in a grammar; see :data:`MAX_COST`."""
    check = _Check(schema, None)
    for _ in check.run():
        pass
    return check.cost


def is_name(name: str) -> bool:
    """Whether a definition may have this name."""
    return _NAME.fullmatch(name) is not None


def holds(schema: Mapping[str, Any], value: object) -> bool:
    """Whether ``value`` is valid for ``schema``, which has no faults."""
    # The registry is empty: all references are local, and nothing is ever fetched.
    validator = _Validator(dict(schema), registry=Registry(), format_checker=string_formats.CHECKER)
    return bool(validator.is_valid(value))


def _pattern(
    validator: object, pattern: str, instance: object, schema: object
) -> Iterator[ValidationError]:
    """Yield an error if a string does not match a pattern. Python's own engine may need exponential time."""
    del validator, schema
    if isinstance(instance, str) and not string_formats.matches(pattern, instance):
        yield ValidationError("does not match the pattern")


_Validator = validators.extend(  # type: ignore[no-untyped-call] # types-jsonschema has no types of it
    Draft202012Validator, {"pattern": _pattern}
)


def _depth(schema: object) -> str | None:
    """Return a fault if the JSON is nested too deeply to be checked recursively."""
    level: list[object] = [schema]
    for _ in range(6 * MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return None
    return "The schema is nested too deeply."


def _parts(whole: object) -> list[object]:
    if isinstance(whole, dict):
        return list(whole.values())
    return whole if isinstance(whole, list) else []


class _Check:
    """One check of a schema."""

    def __init__(self, schema: Mapping[str, Any], special_tokens: SpecialTokens | None) -> None:
        self._root = schema
        self._special_tokens = special_tokens
        defs = schema.get("$defs", {})
        self._defs: Mapping[str, Any] = defs if isinstance(defs, dict) else {}
        self._parts = 0
        #: The distinct length bounds of strings, and the distinct patterns.
        self._bounds: set[tuple[int, int | None]] = set()
        self._patterns: set[str] = set()

    def run(self) -> Iterator[str]:
        """Yield all faults."""
        yield from _texts(self._root, "")
        yield from self._special_texts(self._root, "")
        if self._root.get("$schema", _DIALECT) != _DIALECT:
            yield f"/$schema: must be {_DIALECT}."
        if not isinstance(self._root.get("$defs", {}), dict):
            yield "/$defs: must be an object."
        if not all(map(is_name, self._defs)):
            yield f"/$defs: names must consist of 1 to {MAX_NAME} letters, digits, `_`, `.` and `-`."
        if self._root.get("type") != "object":
            yield '/type: must be "object", as in {"type": "object", "properties": …}.'
        else:
            own = {key: part for key, part in self._root.items() if key not in ("$schema", "$defs")}
            yield from self._schema(own, "", 1, ())
        for name, part in self._defs.items():
            # Definitions without a reference are checked as well.
            yield from self._schema(part, f"/$defs/{name}", 1, (name,))
        if self._parts > MAX_PARTS:
            yield f"The schema has more than {MAX_PARTS} subschemas; a referenced one counts once per reference."

    @property
    def cost(self) -> int:
        """The cost of the strings checked so far."""
        return sum(_cost(*bounds) for bounds in self._bounds) + string_formats.COST * _formatted(
            self._root
        )

    def costs(self) -> Iterator[str]:
        """Yield the faults that would make the grammar of an otherwise valid schema too large or too slow."""
        if self.cost > MAX_COST:
            yield (
                f"The length bounds and formats of strings cost {self.cost}; at most {MAX_COST} is allowed. A string "
                f"costs its `maxLength` (or its `minLength` if it has none), at most {_MAX_STRING_COST}; strings "
                f"with the same bounds count once. A string with a `format` costs {string_formats.COST}."
            )
        if (open_ := self._alternatives(self._root)) > MAX_ALTERNATIVES:
            yield (
                f"{open_} alternatives with strings can be open at once; at most {MAX_ALTERNATIVES} are "
                "allowed. The alternatives of nested `anyOf` multiply."
            )

    def _alternatives(self, schema: object) -> int:
        """Return how many strings of ``schema``, which has no faults, can be open at once."""
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

    def _special_texts(self, schema: object, place: str) -> Iterator[str]:
        """Yield a fault for each name, title or value in ``schema`` that contains a special token.

        An answer must repeat names and values exactly, so a special token cannot be broken up there.
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
                yield from self._special_texts(part, f"{place}/{group}/{_short(name)}")
        yield from self._special_texts(schema.get("items"), f"{place}/items")
        options = schema.get("anyOf")
        for index, part in enumerate(options if isinstance(options, list) else ()):
            yield from self._special_texts(part, f"{place}/anyOf/{index}")

    def _each_special(self, values: object, place: str) -> Iterator[str]:
        for index, value in enumerate(values if isinstance(values, list) else ()):
            yield from self._special(value, f"{place}/{index}")

    def _special(self, text: object, place: str) -> Iterator[str]:
        if self._special_tokens is None or not isinstance(text, str):
            return
        if (token := self._special_tokens.first_in(text)) is not None:
            yield f"{place}: contains the special token `{_short(token)}`."

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
            yield f"{place}: objects and arrays must not be nested more than {MAX_DEPTH} deep."
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
        if to == "#":
            yield f"{place}/$ref: refers to the whole schema; recursion is not supported."
        elif name is None or name not in self._defs:
            yield f"{place}/$ref: must be `{_REF}…` with a name in `$defs`."
        elif name in within:
            yield f"{place}/$ref: `{_short(name)}` refers to itself; recursion is not supported."
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
        given = schema["type"]
        types = given if isinstance(given, list) else [given]
        known = [name for name in types if isinstance(name, str) and name in _OF_TYPE]
        if not types or len(known) < len(types) or len(set(known)) < len(known):
            yield f"{place}/type: must be one of {', '.join(_OF_TYPE)}, or an array of the last five."
            return
        if len(known) > 1 and not _SCALAR.issuperset(known):
            yield f"{place}/type: an array of types must not contain object or array; use `anyOf`."
            return
        allowed = frozenset().union(*(_OF_TYPE[name] for name in known))
        for key in sorted((schema.keys() & _KNOWN) - _ANNOTATIONS - allowed - {"type"}):
            yield f"{place}/{key}: not allowed with this type."
        if known_text := "string" in known:
            yield from self._format(schema, place)
        invalid = list(_sizes(schema, place))
        yield from invalid
        if not invalid and known_text:
            self._bounds.add((schema.get("minLength", 0), schema.get("maxLength")))
        if known == ["object"]:
            yield from self._object(schema, place, depth, within)
        elif known == ["array"]:
            if "items" not in schema:
                yield f"{place}/items: an array must have `items`."
            else:
                yield from self._schema(schema["items"], f"{place}/items", depth + 1, within)

    def _format(self, schema: Mapping[str, Any], place: str) -> Iterator[str]:
        """Yield the faults of the format and the pattern of a string."""
        if "format" not in schema:
            if "pattern" in schema:
                yield f"{place}/pattern: this keyword is not supported, except next to `format`."
            return
        if schema["format"] not in string_formats.NAMES:
            yield f"{place}/format: must be one of {', '.join(string_formats.NAMES)}."
        for key in ("maxLength", "minLength"):
            if key in schema:
                # The grammar would ignore it.
                yield f"{place}/{key}: not allowed next to `format`."
        if "pattern" not in schema:
            return
        pattern = schema["pattern"]
        if isinstance(pattern, str):
            self._patterns.add(pattern)
        if len(self._patterns) > string_formats.MAX_PATTERNS:
            yield f"The schema has more than {string_formats.MAX_PATTERNS} different patterns."
        elif not isinstance(pattern, str) or not string_formats.is_pattern(pattern):
            yield (
                f"{place}/pattern: must be a regular expression of at most {string_formats.MAX_PATTERN} characters, "
                "without look-around and back-references, and not too large with its counts written out."
            )

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
        elif missing := [name for name in required if name not in properties]:
            yield f"{place}/required: there is no property `{_short(missing[0])}`."
        elif len(set(required)) < len(required):
            yield f"{place}/required: names must be unique."
        for name, part in properties.items():
            if not 1 <= len(name) <= MAX_NAME:
                yield f"{place}/properties: names must have 1 to {MAX_NAME} characters."
            yield from self._schema(part, f"{place}/properties/{_short(name)}", depth + 1, within)


def _cost(least: int, most: int | None) -> int:
    """Return the cost of a string's length bounds."""
    return min(least if most is None else most, _MAX_STRING_COST)


def _formatted(schema: object) -> int:
    """Return how many strings of ``schema``, which has no faults, have a format; one in a definition counts once."""
    if not isinstance(schema, dict):
        return 0
    named = (schema.get("properties"), schema.get("$defs"))
    parts = [part for group in named if isinstance(group, dict) for part in group.values()]
    parts += [*schema.get("anyOf", ()), schema.get("items")]
    return int("format" in schema) + sum(map(_formatted, parts))


def _alone(schema: Mapping[str, Any], place: str, *kinds: str) -> Iterator[str]:
    """Yield a fault for each keyword that must not occur next to ``kinds[0]``."""
    for key in sorted((schema.keys() & _KNOWN) - _ANNOTATIONS - {*kinds}):
        yield f"{place}/{key}: not allowed next to `{kinds[0]}`."


def _values(values: object, type_: object, place: str) -> Iterator[str]:
    """Yield the faults of the values of `enum` or `const`."""
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_CHOICES:
        yield f"{place}: must be an array of 1 to {MAX_CHOICES} values."
        return
    if any(isinstance(value, dict | list) for value in values):
        yield f"{place}: values must not be objects or arrays."
        return
    if any(isinstance(value, int | float) and not _in_range(value) for value in values):
        yield f"{place}: numbers must be between -2^53 and 2^53."
        return
    types = [type_] if isinstance(type_, str) else type_
    if types is None:
        return
    if (
        not isinstance(types, list)
        or not types
        or not all(isinstance(name, str) and name in _SCALAR for name in types)
    ):
        yield f"{place.rpartition('/')[0]}/type: not allowed next to `{place.rpartition('/')[2]}`."
    elif not all(holds({"type": types}, value) for value in values):
        yield f"{place}: every value must match the type."


def _sizes(schema: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield the faults of the bounds of lengths and numbers."""
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
                yield f"{place}/{most}: must not be less than `{least}`."
    bounds = {key: schema[key] for key in sorted(_BOUNDS) if key in schema}
    whole = schema.get("type") == "integer"
    invalid = [key for key, bound in bounds.items() if not _bound(bound, whole=whole)]
    for key in invalid:
        yield f"{place}/{key}: must be {'an integer' if whole else 'a number'} between -2^53 and 2^53."
    if bounds and not invalid and not _satisfiable(bounds, whole=whole):
        yield f"{place}: no number satisfies these bounds."


def _bound(bound: object, *, whole: bool) -> bool:
    if isinstance(bound, bool) or not isinstance(bound, int if whole else int | float):
        return False
    return _in_range(bound)


def _in_range(number: float) -> bool:
    # Not `math.isfinite`: an integer may be too large for a float.
    return -_MAX_NUMBER <= number <= _MAX_NUMBER


def _satisfiable(bounds: Mapping[str, float], *, whole: bool) -> bool:
    """Whether some number satisfies ``bounds``."""
    step = 1 if whole else 0
    least = max(bounds.get("minimum", -math.inf), bounds.get("exclusiveMinimum", -math.inf) + step)
    most = min(bounds.get("maximum", math.inf), bounds.get("exclusiveMaximum", math.inf) - step)
    open_ended = not whole and bounds.keys() & {"exclusiveMinimum", "exclusiveMaximum"}
    return least < most if open_ended else least <= most


def _texts(whole: object, place: str) -> Iterator[str]:
    """Yield a fault for each string or number that cannot be stored or sent."""
    if isinstance(whole, str) and "\x00" in whole:
        yield f"{place}: strings must not contain NUL."
    elif isinstance(whole, dict):
        if any("\x00" in key for key in whole):
            yield f"{place}: names must not contain NUL."
        for key, part in whole.items():
            yield from _texts(part, f"{place}/{_short(key)}")
    elif isinstance(whole, list):
        for part in whole:
            yield from _texts(part, place)
    elif isinstance(whole, float) and not math.isfinite(whole):
        yield f"{place}: numbers must be finite."
    elif isinstance(whole, int) and not _in_range(whole):
        yield f"{place}: numbers must be between -2^53 and 2^53."


def _short(name: str) -> str:
    """Return a name in a printable and bounded form, for a message."""
    plain = "".join(character if character.isprintable() else "�" for character in name)
    return plain if len(plain) <= MAX_NAME else f"{plain[:MAX_NAME]}…"
