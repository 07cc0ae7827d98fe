"""The OpenAPI document: operations, parameters, bodies, answers, headers, schemas, webhooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPMethod
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from api import errors as problems

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
#: Headers that answers may carry, as the document describes them.
_HEADERS: dict[str, Json] = {
    "Location": {"description": "Where the job or image is.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "schema": {"type": "integer"},
    },
    "openai-poll-after-ms": {
        "description": "The same in milliseconds, for the OpenAI SDKs.",
        "schema": {"type": "integer"},
    },
    "Idempotent-Replayed": {
        "description": "`true` when an earlier request with the same Idempotency-Key made this job.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Preference-Applied": {
        "description": "`wait=n` when the answer was held back for `Prefer: wait`.",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "Requests a key may send (`q`) in a window of `w` seconds.",
        "schema": {"type": "string"},
        "example": '"default";q=6000;w=60',
    },
    "RateLimit": {
        "description": "Requests the key has left (`r`), and the seconds after which there is one more (`t`).",
        "schema": {"type": "string"},
        "example": '"default";r=5999;t=1',
    },
    "ETag": {"description": "The image's key.", "schema": {"type": "string"}},
}
#: Standard Webhooks 1.0.0.
_SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")
_PROBLEMS = {
    400: "The request is malformed.",
    401: "No key, or one that is not known here.",
    403: "The key's role does not reach this far.",
    404: "No such thing, or a thing of another account.",
    408: "The body did not arrive in time.",
    409: "The state of the thing forbids it, or the same Idempotency-Key is in progress.",
    413: "The body or the image file is too large.",
    415: "A content type, a content encoding or an image type that is not read here.",
    422: "The request is understood but cannot be meant; `errors` lists every fault.",
    429: "Too many requests (`rate_limit_exceeded`) or queued jobs (`queue_full`): see `Retry-After`.",
    500: "A fault of ours; the body says the request id only.",
    503: "Not now; nothing was stored. The same request may be sent again.",
}
#: Keywords that a parameter's schema does not have where the model's has them.
_MOVED = frozenset({"description", "example", "default", "anyOf"})
#: The order of a path's operations.
_METHODS = ("get", "put", "post", "delete", "patch")
#: Those that always say when to try again.
_NOT_NOW = {429, 503}


@dataclass(frozen=True)
class ResponseSpec:
    """A documented answer: what its body is and which headers it carries."""

    model: type[BaseModel] | None
    description: str
    headers: tuple[str, ...] = ()
    #: For bodies that are no JSON: content by media type.
    content: Mapping[str, Json] = field(default_factory=dict)

    def and_headers(self, *names: str) -> ResponseSpec:
        """Return the same answer with more headers."""
        return dataclasses.replace(self, headers=(*self.headers, *names))


@dataclass(frozen=True)
class RequestBodySpec:
    """A documented request body: models or bare schemas by media type, and examples.

    One that ``carries_images`` may be as large as the installation allows, all others are small.
    """

    content: Mapping[str, type[BaseModel] | Json]
    examples: Mapping[str, Json] = field(default_factory=dict)
    description: str = ""
    carries_images: bool = False


@dataclass(frozen=True)
class Operation:
    """What the document says of one route.

    Attributes:
        method: the HTTP method.
        rule: the path, with its parameters as ``<name>``.
        operation_id: unique in the document.
        tag: the group of operations that it belongs to.
        summary: one sentence.
        description: more of them, Markdown.
        guarded: whether it needs a key.
        header: the model of its headers.
        path: the descriptions of the path's parameters, by name.
        query: the model of its query.
        body: its request body.
        answers: its successful answers, by status.
        faults: the statuses of its errors.
    """

    method: HTTPMethod
    rule: str
    _: KW_ONLY
    operation_id: str
    tag: str
    summary: str
    description: str
    guarded: bool
    header: type[BaseModel] | None
    path: Mapping[str, str | None]
    query: type[BaseModel] | None
    body: RequestBodySpec | None
    answers: Mapping[int, ResponseSpec]
    faults: frozenset[int]


@dataclass(frozen=True)
class WebhookSpec:
    """A documented notification: its model, and when the service sends it."""

    model: type[BaseModel]
    summary: str


class Document:
    """The OpenAPI document.

    Args:
        title: of the document.
        version: of the API that the document describes.
        description: of the document, Markdown.
        problem: the model of all error bodies.
        webhooks: the notifications that the service sends, by their types.
    """

    def __init__(
        self,
        *,
        title: str,
        version: str,
        description: str,
        problem: type[BaseModel],
        webhooks: Mapping[str, WebhookSpec],
    ) -> None:
        self._info = {"title": title, "description": description, "version": version}
        self._problem = problem
        self._webhooks = webhooks
        self._operations: list[Operation] = []
        self._schemas: Json = {}

    def add(self, operation: Operation) -> None:
        """Describe a route."""
        self._operations.append(operation)

    def render(self) -> Json:
        """Return the document with all operations so far."""
        paths: Json = {}
        for operation in self._operations:
            path = operation.rule.replace("<", "{").replace(">", "}")
            paths.setdefault(path, {})[operation.method.lower()] = self._operation(operation)
        in_order = dict.fromkeys(operation.tag for operation in self._operations)
        webhooks = {kind: {"post": self._webhook(spec)} for kind, spec in self._webhooks.items()}
        return {
            "openapi": "3.1.0",
            "info": self._info,
            "paths": {
                path: dict(sorted(methods.items(), key=_order)) for path, methods in paths.items()
            },
            "components": self._components(),
            "tags": [{"name": name} for name in in_order],
            "webhooks": webhooks,
        }

    def _components(self) -> Json:
        content = {problems.CONTENT_TYPE: {"schema": self._schema(self._problem, "serialization")}}
        return {
            "schemas": dict(sorted(self._schemas.items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "headers": _HEADERS,
            "responses": {
                f"Problem{status}": {"description": description, "content": content}
                | ({"headers": _headers("Retry-After")} if status in _NOT_NOW else {})
                for status, description in _PROBLEMS.items()
            },
        }

    def _operation(self, operation: Operation) -> Json:
        parameters = [
            *_parameters("header", operation.header),
            *_path_parameters(operation.path),
            *_parameters("query", operation.query),
        ]
        body = operation.body
        return {
            "tags": [operation.tag],
            "summary": operation.summary,
            "description": operation.description,
            "operationId": operation.operation_id,
            **({"parameters": parameters} if parameters else {}),
            "responses": {
                **{
                    str(status): self._answer(answer)
                    for status, answer in sorted(operation.answers.items())
                },
                **{
                    str(status): {"$ref": f"#/components/responses/Problem{status}"}
                    for status in sorted(operation.faults)
                },
            },
            **({"security": [{"key": []}]} if operation.guarded else {}),
            **({} if body is None else {"requestBody": self._request_body(body)}),
        }

    def _webhook(self, webhook: WebhookSpec) -> Json:
        schema = self._schema(webhook.model, "serialization")
        return {
            "summary": webhook.summary,
            "parameters": [
                {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
                for name in _SIGNED
            ],
            "requestBody": {"content": {"application/json": {"schema": schema}}, "required": True},
            "responses": {
                "2XX": {"description": "It came; it is not sent again."},
                "410": {"description": "Never again: the endpoint is disabled."},
                "default": {"description": "It is sent again later. Redirects are not followed."},
            },
        }

    def _answer(self, answer: ResponseSpec) -> Json:
        reported: Json = {"description": answer.description}
        if answer.headers:
            reported["headers"] = _headers(*answer.headers)
        content = dict(answer.content)
        if answer.model is not None:
            content["application/json"] = {"schema": self._schema(answer.model, "serialization")}
        return reported | ({"content": content} if content else {})

    def _request_body(self, body: RequestBodySpec) -> Json:
        content: Json = {}
        for media_type, kind in body.content.items():
            schema = kind if isinstance(kind, dict) else self._schema(kind, "validation")
            content[media_type] = {"schema": schema}
            if media_type in body.examples:
                content[media_type]["examples"] = body.examples[media_type]
        return {"description": body.description, "content": content, "required": True}

    def _schema(self, model: type[BaseModel], mode: JsonSchemaMode) -> Json:
        """Return a reference to ``model``, which is put among the document's components."""
        schema = model.model_json_schema(
            ref_template=_REF, mode=mode, schema_generator=_WithoutTitles
        )
        self._schemas |= {**schema.pop("$defs", {}), model.__name__: schema}
        return {"$ref": _REF.format(model=model.__name__)}


def _order(operation: tuple[str, Json]) -> int:
    return _METHODS.index(operation[0])


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


class _WithoutTitles(GenerateJsonSchema):
    """A field's title is its name once more: left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - pydantic's own
        """Return False."""
        del schema
        return False


def _path_parameters(descriptions: Mapping[str, str | None]) -> list[Json]:
    return [
        {
            "name": name,
            "in": "path",
            **({} if description is None else {"description": description}),
            "required": True,
            "schema": {"type": "string"},
        }
        for name, description in descriptions.items()
    ]


def _parameters(place: str, model: type[BaseModel] | None) -> list[Json]:
    """Return the parameters that the fields of ``model`` describe."""
    if model is None:
        return []
    schema = model.model_json_schema(mode="validation", schema_generator=_WithoutTitles)
    required = schema.get("required", ())
    return [
        _parameter(name, place, field_schema, required=name in required)
        for name, field_schema in schema["properties"].items()
    ]


def _parameter(name: str, place: str, schema: Json, *, required: bool) -> Json:
    """Return a parameter. Its schema repeats nothing that stands beside it, and no null: a caller may omit it."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    own = {key: value for key, value in schema.items() if key not in _MOVED}
    own |= kinds[0] if kinds else {}
    if schema.get("default"):
        own["default"] = schema["default"]
    return {
        "name": name,
        "in": place,
        **{key: schema[key] for key in ("description",) if key in schema},
        "required": required,
        "schema": own,
        **{key: schema[key] for key in ("example",) if key in schema},
        **({"style": "deepObject", "explode": True} if own.get("type") == "object" else {}),
    }
