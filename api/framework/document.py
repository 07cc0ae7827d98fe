"""The OpenAPI document: operations, parameters, bodies, answers, headers, schemas, webhooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPMethod
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from api import errors as problems
from api.framework import paths as paths_of_rules

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
#: Descriptions of the headers of responses.
_HEADERS: dict[str, Json] = {
    "Location": {"description": "The path of the new resource.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds to wait before the next request.",
        "schema": {"type": "integer"},
    },
    "openai-poll-after-ms": {
        "description": "The same in milliseconds, for OpenAI's SDKs.",
        "schema": {"type": "integer"},
    },
    "Idempotent-Replayed": {
        "description": "`true` if an earlier request with the same Idempotency-Key created this job.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Preference-Applied": {
        "description": "`wait=n` if the response was delayed for `Prefer: wait`.",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "Requests (`q`) that a key may send in a window of `w` seconds.",
        "schema": {"type": "string"},
        "example": '"default";q=6000;w=60',
    },
    "RateLimit": {
        "description": "Requests that the key has left (`r`), and seconds until it has one more (`t`).",
        "schema": {"type": "string"},
        "example": '"default";r=5999;t=1',
    },
    "ETag": {"description": "The image's key.", "schema": {"type": "string"}},
    "x-request-id": {
        "description": "The id of the request, which the log of the service has, too.",
        "schema": {"type": "string"},
    },
    "x-should-retry": {
        "description": "`true` if the same request can succeed later; OpenAI's SDKs then repeat it.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "WWW-Authenticate": {
        "description": "How to authenticate: with a bearer key.",
        "schema": {"type": "string"},
    },
}
#: The headers of Standard Webhooks 1.0.0.
_SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")
_PROBLEMS = {
    400: "The request is malformed.",
    401: "The API key is missing or unknown.",
    403: "The role of the key does not permit this request.",
    404: "The resource does not exist, or belongs to another account.",
    408: "The request body did not arrive in time.",
    409: "The state of the resource does not permit this, or a request with the same Idempotency-Key is in progress.",
    413: "The request body or the image file is too large.",
    414: "The path and the query are too long.",
    415: "The content type, the content encoding or the image type is not supported.",
    422: "The request is invalid; `errors` lists every fault.",
    429: "Too many requests (`rate_limit_exceeded`) or queued jobs (`queue_full`): see `Retry-After`.",
    500: "The service failed; the body names only the request id.",
    503: "The service cannot handle the request now and has stored nothing; send the same request again.",
}
#: Keywords that a parameter's schema does not have where the model's has them.
_MOVED = frozenset({"description", "example", "default", "anyOf"})
#: The order of a path's operations.
_METHODS = ("get", "put", "post", "delete", "patch")
#: Errors that always have a `Retry-After`.
_NOT_NOW = {429, 503}
#: Errors of a request whose key is not known.
_ANONYMOUS = {401}


@dataclass(frozen=True)
class ResponseSpec:
    """A documented response: its body and its headers."""

    model: type[BaseModel] | None
    description: str
    headers: tuple[str, ...] = ()
    #: Content by media type, for bodies other than JSON.
    content: Mapping[str, Json] = field(default_factory=dict)

    def and_headers(self, *names: str) -> ResponseSpec:
        """Return the same response with more headers."""
        return dataclasses.replace(self, headers=(*self.headers, *names))


@dataclass(frozen=True)
class RequestBodySpec:
    """A documented request body.

    Attributes:
        content: models or bare schemas by media type.
        examples: by media type.
        description: for the document.
        carries_images: whether the limit for bodies with images applies, not the small one for all others.
        carries_file: whether the limit for bodies with a file applies.
    """

    content: Mapping[str, type[BaseModel] | Json]
    examples: Mapping[str, Json] = field(default_factory=dict)
    description: str = ""
    carries_images: bool = False
    carries_file: bool = False


@dataclass(frozen=True)
class OperationSpec:
    """The description of one route in the document.

    Attributes:
        method: the HTTP method.
        rule: the path, with its parameters as ``<name>``.
        operation_id: unique in the document.
        tag: the group of operations that it belongs to.
        summary: one sentence.
        description: more sentences, Markdown.
        guarded: whether it needs a key.
        header: the model of its headers.
        path: the descriptions of the path's parameters, by name.
        query: the model of its query.
        body: its request body.
        answers: its successful responses, by status.
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


class OpenApiDocument:
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
        self._operations: list[OperationSpec] = []
        self._schemas: Json = {}

    def add(self, operation: OperationSpec) -> None:
        """Describe a route."""
        self._operations.append(operation)

    def render(self) -> Json:
        """Return the document with all operations so far."""
        paths: Json = {}
        for operation in self._operations:
            path = paths_of_rules.template(operation.rule)
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
                f"Problem{status}": {
                    "description": description,
                    "headers": _headers(*_headers_of_error(status)),
                    "content": content,
                }
                for status, description in _PROBLEMS.items()
            },
        }

    def _operation(self, operation: OperationSpec) -> Json:
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
                "2XX": {"description": "The receiver has the notification; it is not sent again."},
                "410": {
                    "description": "The endpoint is disabled and receives no more notifications."
                },
                "default": {
                    "description": "The notification is sent again later. Redirects are not followed."
                },
            },
        }

    def _answer(self, answer: ResponseSpec) -> Json:
        response: Json = {
            "description": answer.description,
            "headers": _headers(*answer.headers, "x-request-id"),
        }
        content = dict(answer.content)
        if answer.model is not None:
            content["application/json"] = {"schema": self._schema(answer.model, "serialization")}
        return response | ({"content": content} if content else {})

    def _request_body(self, body: RequestBodySpec) -> Json:
        content: Json = {}
        for media_type, kind in body.content.items():
            schema = kind if isinstance(kind, dict) else self._schema(kind, "validation")
            content[media_type] = {"schema": schema}
            if media_type in body.examples:
                content[media_type]["examples"] = body.examples[media_type]
        required = not any(map(_takes_nothing, body.content.values()))
        return {"description": body.description, "content": content, "required": required}

    def _schema(self, model: type[BaseModel], mode: JsonSchemaMode) -> Json:
        """Return a reference to ``model`` and add its schema to the document's components."""
        schema = model.model_json_schema(
            ref_template=_REF, mode=mode, schema_generator=_WithoutTitles
        )
        self._schemas |= {**schema.pop("$defs", {}), model.__name__: schema}
        return {"$ref": _REF.format(model=model.__name__)}


def _order(operation: tuple[str, Json]) -> int:
    return _METHODS.index(operation[0])


def _headers_of_error(status: int) -> tuple[str, ...]:
    own = ("Retry-After",) if status in _NOT_NOW else ()
    key = ("WWW-Authenticate",) if status in _ANONYMOUS else ("RateLimit-Policy", "RateLimit")
    return (*own, *key, "x-request-id", "x-should-retry")


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names."""

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


def _takes_nothing(kind: object) -> bool:
    """Whether an empty body, which counts as an empty object, is valid."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return False
    try:
        kind.model_validate({})
    except ValidationError:
        return False
    return True


def _parameter(name: str, place: str, schema: Json, *, required: bool) -> Json:
    """Return a parameter whose schema has no keywords of the parameter itself, and no null: callers omit it."""
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
