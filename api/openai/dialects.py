"""JSON Schemas as OpenAI's clients write them, in the terms of the version that answers have (2020-12). Pure.

The JavaScript client writes two things of older versions for models of Zod, both where its user wrote nothing special:

* ``definitions`` with references to ``#/definitions/…`` (draft 7), for each part that a model of Zod 3 uses twice, and
  for each part with an id. Zod 3 adds a definition of the whole schema that nothing refers to, and makes names from
  the places of the parts, which are longer than names may be.
* ``nullable: true`` (OpenAPI 3.0), for ``z.string().nullable()`` and the like in Zod 3.
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
        return _renamed(whole, {})
    del whole[_OLD]
    new = whole.get(_NEW, {})
    if not isinstance(new, dict):
        return _renamed(whole | {_OLD: old}, {})
    names = _names(_referenced(whole, old), taken=new)
    moved = {names[name]: old[name] for name in names}
    return _renamed(whole | ({_NEW: {**new, **moved}} if new or moved else {}), names)


def _referenced(whole: Json, old: Json) -> list[str]:
    """Return the names of the old definitions that the schema refers to, directly or not."""
    found: dict[str, None] = {}
    waiting: list[object] = [whole]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        name = _old_name(part.get("$ref"))
        if name is not None and name in old and name not in found:
            found[name] = None
            waiting.append(old[name])
        waiting.extend(_parts(part))
    return list(found)


def _names(old: Iterable[str], *, taken: Mapping[str, Any]) -> dict[str, str]:
    """Return a name among ``$defs`` for each old one: the same, or a number if that is not possible."""
    names: dict[str, str] = {}
    used = {*taken, *old}
    numbers = (str(number) for number in itertools.count(1))
    for name in old:
        kept = json_schema.is_name(name) and name not in taken
        names[name] = name if kept else next(one for one in numbers if one not in used)
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


def _renamed(schema: Json, names: Mapping[str, str]) -> Json:
    """Return a schema with the new names of its references, and its parts without ``nullable``."""
    changed: Json = {}
    for keyword, value in schema.items():
        if keyword in _ONE:
            changed[keyword] = _part(value, names)
        elif keyword in _SEVERAL and isinstance(value, list):
            changed[keyword] = [_part(one, names) for one in value]
        elif keyword in _NAMED and isinstance(value, dict):
            changed[keyword] = {name: _part(one, names) for name, one in value.items()}
        else:
            changed[keyword] = value
    name = _old_name(changed.get("$ref"))
    if name is not None and name in names:
        changed["$ref"] = f"#/{_NEW}/{names[name]}"
    return changed


def _part(schema: object, names: Mapping[str, str]) -> object:
    """Return a part of a schema, which may be null if it is ``nullable``."""
    if not isinstance(schema, dict):
        return schema
    changed = _renamed(schema, names)
    if not isinstance(changed.get("nullable"), bool):
        return changed
    nullable = changed.pop("nullable")
    return {"anyOf": [changed, {"type": "null"}]} if nullable else changed
