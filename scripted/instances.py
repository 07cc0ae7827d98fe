"""Values of a JSON schema, as short as they can be: what the scripted engine says under a grammar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping


def make(schema: Mapping[str, Any], dice: random.Random) -> Any:  # noqa: ANN401 - JSON
    """Return a value of ``schema``, which :func:`jobs.answers.json_schema.faults` finds nothing wrong with."""
    return _Maker(schema.get("$defs", {}), dice).make(schema)


class _Maker:
    """Makes values; what can be chosen, the dice decide."""

    def __init__(self, defs: Mapping[str, Any], dice: random.Random) -> None:
        self._defs = defs
        self._dice = dice

    def make(self, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Return a value of a part of the schema."""
        if "$ref" in schema:
            return self.make(self._defs[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return self.make(self._dice.choice(schema["anyOf"]))
        if "type" not in schema or "enum" in schema or "const" in schema:
            return self._dice.choice(schema.get("enum") or [schema["const"]])
        return self._typed(schema)

    def _typed(self, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        kind = (
            schema["type"] if isinstance(schema["type"], str) else self._dice.choice(schema["type"])
        )
        made: Any = None
        match kind:
            case "object":
                made = {name: self.make(part) for name, part in schema["properties"].items()}
            case "array":
                made = [self.make(schema["items"]) for _ in range(schema.get("minItems", 0))]
            case "string":
                made = "x" * schema.get("minLength", 0)
            case "integer":
                made = self._integer(schema)
            case "number":
                made = _number(schema)
            case "boolean":
                made = self._dice.choice((False, True))
        return made

    def _integer(self, schema: Mapping[str, Any]) -> int:
        least = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + 1)
        most = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - 1)
        if least == -math.inf:
            least = most - 9 if most < 0 else 0
        return self._dice.randint(math.ceil(least), math.floor(min(most, least + 9)))


def _number(schema: Mapping[str, Any]) -> float:
    """Return a number within the bounds."""
    least: float = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    most: float = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    if least == -math.inf:
        return 0.5 if most == math.inf else most - 1
    if most == math.inf:
        return least + 1
    return least if least == most else (least + most) / 2
