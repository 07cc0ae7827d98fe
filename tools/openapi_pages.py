"""Renders an OpenAPI 3.1 document as two pages of Markdown: the operations, and their schemas.

The pages are static: a browser needs no script and no inline style to show them, so they work under a strict
Content Security Policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

#: A node of the document: an object of JSON.
Node = Mapping[str, Any]

METHODS: Final = ("get", "post", "put", "patch", "delete")
#: The limits of a JSON Schema that the type column shows, with the words for each.
_LIMITS: Final = {
    "format": "{}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "pattern `{}`",
}
#: The content type of an error.
_ERROR: Final = "application/problem+json"
#: Headers of every response, which the introduction names.
_EVERYWHERE: Final = frozenset({"x-request-id"})
_OPERATIONS_NOTE: Final = (
    "This page is generated from [`openapi.json`](https://spec.openapis.org/oas/v3.1.0), which the service also serves "
    "at `/openapi.json`. [Job states and errors](errors.md) explains the error codes, and [API schemas](schemas.md) "
    "lists the fields of every object."
)
_SCHEMAS_NOTE: Final = (
    "The objects of the [HTTP API](api.md), generated from `openapi.json`. A field is in every object unless "
    "its description says *optional*."
)


def operations_page(document: Node) -> str:
    """Return the page of all operations, by tag, with the webhooks at the end."""
    return _page(_operations(document))


def schemas_page(document: Node) -> str:
    """Return the page of all schemas, in alphabetical order."""
    return _page(_schemas(document["components"]["schemas"]))


def _page(blocks: Iterable[str]) -> str:
    return "\n\n".join(block for block in blocks if block) + "\n"


def _operations(document: Node) -> Iterator[str]:
    yield "# HTTP API"
    yield _text(document["info"]["description"])
    yield _OPERATIONS_NOTE
    for tag in document["tags"]:
        yield f"## {tag['name'].capitalize()}"
        for path, item in document["paths"].items():
            for method in METHODS:
                if tag["name"] in item.get(method, {}).get("tags", ()):
                    yield f"### {method.upper()} {path}"
                    yield from _operation(document, item[method])
    yield "## Errors"
    yield "Every error has the body [Problem](schemas.md#problem), as `application/problem+json`."
    yield _errors(document)
    yield "## Webhooks that Longlook sends"
    for name, item in document.get("webhooks", {}).items():
        yield f"### {name}"
        yield from _operation(document, item["post"])


def _operation(document: Node, operation: Node) -> Iterator[str]:
    yield _text(operation["summary"])
    yield _text(operation.get("description", ""))
    if "security" in operation and not operation["security"]:
        yield "No key required."
    yield _parameters([_resolve(document, node) for node in operation.get("parameters", ())])
    yield _body(operation.get("requestBody"))
    yield _responses(document, operation["responses"])


def _parameters(parameters: Sequence[Node]) -> str:
    rows = [
        (
            f"`{parameter['name']}`",
            parameter["in"],
            _type(parameter.get("schema", {})),
            _described(parameter, optional=not parameter.get("required", False)),
        )
        for parameter in parameters
    ]
    return _table(("Parameter", "In", "Type", "Description"), rows)


def _body(body: Node | None) -> str:
    if body is None:
        return ""
    lines = [
        f"- `{kind}`: {_type(content.get('schema', {}))}"
        for kind, content in body["content"].items()
    ]
    heading = "Request body" if body.get("required", False) else "Request body (optional)"
    parts = [f"**{heading}.** {_text(body.get('description', ''))}".rstrip(), "\n".join(lines)]
    for content in body["content"].values():
        for example in content.get("examples", {}).values():
            shown = json.dumps(example["value"], indent=2, ensure_ascii=False)
            parts.append(f"{_text(example.get('summary', 'Example'))}:\n\n```json\n{shown}\n```")
    return "\n\n".join(parts)


def _responses(document: Node, responses: Node) -> str:
    rows, errors = [], []
    for status, node in responses.items():
        response = _resolve(document, node)
        if _ERROR in response.get("content", {}):
            errors.append(status)
            continue
        bodies = [
            _type(content.get("schema", {})) for content in response.get("content", {}).values()
        ]
        headers = ", ".join(
            f"`{name}`" for name in response.get("headers", {}) if name not in _EVERYWHERE
        )
        rows.append((status, _cell(response["description"]), " or ".join(bodies), headers))
    table = _table(("Status", "Meaning", "Body", "Headers"), rows)
    return f"{table}\n\nErrors: {', '.join(errors)}." if errors else table


def _errors(document: Node) -> str:
    """Return the table of the responses with an error body, which the operations name by their status."""
    shared = document["components"]["responses"]
    rows = [
        (name.removeprefix("Problem"), _cell(response["description"]))
        for name, response in sorted(shared.items())
        if _ERROR in response.get("content", {})
    ]
    return _table(("Status", "Meaning"), rows)


def _schemas(schemas: Node) -> Iterator[str]:
    yield "# API schemas"
    yield _SCHEMAS_NOTE
    for name in sorted(schemas, key=str.lower):
        schema = schemas[name]
        yield f"## {name}"
        yield _text(schema.get("description", ""))
        if schema.get("type") != "object" or not schema.get("properties"):
            yield f"Type: {_type(schema)}"
        required = set(schema.get("required", ()))
        yield _table(
            ("Field", "Type", "Description"),
            [
                (f"`{field}`", _type(node), _described(node, optional=field not in required))
                for field, node in schema.get("properties", {}).items()
            ],
        )


def _resolve(document: Node, node: Node) -> Node:
    """Return what a reference inside the document leads to, or the node itself."""
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return _resolve(document, found)


def _type(schema: Node) -> str:
    """Return the type of a schema as a cell of a table; references become links."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](schemas.md#{name.lower()})"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(_type, options)))
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{_value(value)}`" for value in values)
    limits = [
        words.format(_value(schema[name])) for name, words in _LIMITS.items() if name in schema
    ]
    shown = f" ({', '.join(limits)})" if limits else ""
    return _cell(f"{_plain_type(schema)}{shown}")


def _plain_type(schema: Node) -> str:
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    extra = schema.get("additionalProperties")
    if kind == "object" and isinstance(extra, Mapping):
        return f"object of {_type(extra)}"
    return str(kind)


def _described(node: Node, *, optional: bool) -> str:
    parts = [_cell(node.get("description", ""))]
    default = node.get("default", node.get("schema", {}).get("default"))
    if isinstance(default, str | int | float):
        parts.append(f"Default: `{_value(default)}`.")
    if optional:
        parts.append("*Optional.*")
    return " ".join(part for part in parts if part)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Return prose with everything escaped that Markdown would take for HTML, outside of code."""
    parts = re.split(r"(`[^`]*`)", text.strip())
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def _cell(text: str) -> str:
    """Return prose for a cell of a table: one line, without a bar that would end the cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", _text(" ".join(text.split())))
