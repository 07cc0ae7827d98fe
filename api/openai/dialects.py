"""JSON Schemas as OpenAI's clients write them, in the terms of the version that answers have (2020-12). Pure.

These are things of other versions that the clients write where their users wrote nothing special:

* ``definitions`` with references to ``#/definitions/…`` (draft 7), in JavaScript for each part that a model of Zod 3
  uses twice, and for each part with an id. Zod 3 adds a definition of the whole schema that nothing refers to, and
  makes names from the places of the parts, which are longer than names may be.
* ``nullable: true`` (OpenAPI 3.0), for ``z.string().nullable()`` and the like in Zod 3.
* ``oneOf``, for unions whose options a property tells apart: discriminated unions of Pydantic (with the
  ``discriminator`` of OpenAPI) and, in the AI SDK, of Zod 4. For these, ``anyOf`` means the same, and grammars
  support it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from jobs.answers import json_schema

_OLD, _NEW = "definitions", "$defs"
#: The keywords whose value is a schema, a list of schemas, or an object of schemas by their names.
_ONE: Final = frozenset({"items"})
_SEVERAL: Final = frozenset({"anyOf", "oneOf", "allOf"})
_NAMED: Final = frozenset({"properties", _NEW})

Json = dict[str, Any]


def in_2020_12(schema: Mapping[str, Any]) -> Json:
    """Return ``schema`` in the terms of 2020-12. What is not valid stays as it is.

    The dialect that it names is left out: it decides nothing within the supported keywords.
    """
    whole = {name: part for name, part in schema.items() if name != "$schema"}
    old = whole.get(_OLD)
    if not isinstance(old, dict):
        return _Translation(_defs(whole), {}).of(whole)
    del whole[_OLD]
    new = whole.get(_NEW, {})
    if not isinstance(new, dict):
        return _Translation({}, {}).of(whole | {_OLD: old})
    names = _names(_referenced(whole, old), taken=new)
    moved = {names[name]: old[name] for name in names}
    if new or moved:
        whole[_NEW] = {**new, **moved}
    return _Translation(_defs(whole), names).of(whole)


def _defs(whole: Json) -> Json:
    definitions = whole.get(_NEW)
    return definitions if isinstance(definitions, dict) else {}


def _referenced(whole: Json, old: Json) -> list[str]:
    """Return the names of the old definitions that the schema refers to, directly or not."""
    referenced: dict[str, None] = {}
    waiting: list[object] = [whole]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        name = _old_name(part.get("$ref"))
        if name is not None and name in old and name not in referenced:
            referenced[name] = None
            waiting.append(old[name])
        waiting.extend(_parts(part))
    return list(referenced)


def _names(old: Iterable[str], *, taken: Mapping[str, Any]) -> dict[str, str]:
    """Return a name among ``$defs`` for each old one: the same, or a number if that is not possible."""
    names: dict[str, str] = {}
    used = {*taken, *old}
    numbers = (str(number) for number in itertools.count(1))
    for name in old:
        is_free = json_schema.is_name(name) and name not in taken
        names[name] = name if is_free else next(one for one in numbers if one not in used)
    return names


def _old_name(reference: object) -> str | None:
    """Return the name of an old definition from a reference to it."""
    prefix = f"#/{_OLD}/"
    if not isinstance(reference, str) or not reference.startswith(prefix):
        return None
    return reference.removeprefix(prefix)


def _parts(schema: Json) -> Iterator[object]:
    """Yield the schemas directly inside of ``schema``."""
    for keyword, value in schema.items():
        if keyword in _ONE:
            yield value
        elif keyword in _SEVERAL and isinstance(value, list):
            yield from value
        elif keyword in _NAMED and isinstance(value, dict):
            yield from value.values()


class _Translation:
    """Translates the parts of one schema.

    Args:
        definitions: of the schema, not translated.
        names: the new names of old definitions.
    """

    def __init__(self, definitions: Mapping[str, Any], names: Mapping[str, str]) -> None:
        self._definitions = definitions
        self._names = names
        #: A schema may have no more parts, counted once per reference. A larger one is refused anyway, so that nothing
        #: more is looked at.
        self._parts_left = json_schema.MAX_PARTS

    def of(self, schema: Json) -> Json:
        """Return a schema in the terms of 2020-12; only a part of it may be ``nullable``."""
        changed: Json = {}
        for keyword, value in schema.items():
            if keyword in _ONE:
                changed[keyword] = self._part(value)
            elif keyword in _SEVERAL and isinstance(value, list):
                changed[keyword] = [self._part(one) for one in value]
            elif keyword in _NAMED and isinstance(value, dict):
                changed[keyword] = {name: self._part(one) for name, one in value.items()}
            else:
                changed[keyword] = value
        name = _old_name(changed.get("$ref"))
        if name is not None and name in self._names:
            changed["$ref"] = f"#/{_NEW}/{self._names[name]}"
        if "anyOf" not in changed and self._are_tagged(changed.get("oneOf")):
            changed["anyOf"] = changed.pop("oneOf")
            changed.pop("discriminator", None)
        return changed

    def _part(self, schema: object) -> object:
        if not isinstance(schema, dict):
            return schema
        changed = self.of(schema)
        if not isinstance(changed.get("nullable"), bool):
            return changed
        nullable = changed.pop("nullable")
        return {"anyOf": [changed, {"type": "null"}]} if nullable else changed

    def _are_tagged(self, options: object) -> bool:
        """Whether no value can match two of ``options``, because the values of a property tell them apart."""
        if not isinstance(options, list) or not options:
            return False
        tags = []
        for option in options:
            resolved = self._resolved(option)
            self._parts_left -= _size(resolved)
            if self._parts_left < 0:
                return False
            tags.append(_tags(resolved))
        return any(
            all(name in of_one for of_one in tags)
            and len(set().union(*(of_one[name] for of_one in tags)))
            == sum(len(of_one[name]) for of_one in tags)
            for name in tags[0]
        )

    def _resolved(self, schema: object) -> object:
        """Return what a schema refers to, if it is a reference."""
        prefix = f"#/{_NEW}/"
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith(prefix):
            return schema
        return self._definitions.get(reference.removeprefix(prefix))


def _size(schema: object) -> int:
    """Return how many parts :func:`_tags` looks at: the schema and its properties."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return 1 + (len(properties) if isinstance(properties, dict) else 0)


def _tags(schema: object) -> dict[str, set[tuple[type, object]]]:
    """Return the values of the required properties of an object that list them, with the types: 1 is true in Python."""
    if not isinstance(schema, dict) or schema.get("type") != "object" or "nullable" in schema:
        return {}
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    if len(required) > len(properties):
        return {}
    names = {name for name in required if isinstance(name, str)}
    listed = {name: _listed(part) for name, part in properties.items() if name in names}
    return {
        name: {(type(value), value) for value in values}
        for name, values in listed.items()
        if values
    }


def _listed(schema: object) -> list[str | int]:
    """Return the texts and integers that a schema allows, none if it allows something else."""
    if not isinstance(schema, dict) or "nullable" in schema:
        return []
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list) or len(values) > json_schema.MAX_CHOICES:
        return []
    if not all(isinstance(value, str | int) for value in values):
        return []
    return values
