"""What flask-openapi3 leaves out of the OpenAPI document: bodies, answers, headers, whole schemas."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """What a route takes and answers, beside its parameters; ``faults`` are the statuses of its errors."""

    answers: Mapping[int, ResponseSpec]
    faults: frozenset[int]
    body: RequestBodySpec | None


@dataclass(frozen=True)
class WebhookSpec:
    """What the service sends by itself: its model, and when."""

    model: type[BaseModel]
    summary: str


class Document:
    """Completes the document.

    Args:
        operations: by their ids.
        messages: what the service sends to those who asked for it, by their types.
        problem: the model of all error bodies.
    """

    def __init__(
        self,
        operations: Mapping[str, Operation],
        *,
        messages: Mapping[str, WebhookSpec],
        problem: type[BaseModel],
    ) -> None:
        self._operations = operations
        self._messages = messages
        self._problem = problem
        self._schemas: Json = {}

    def complete(self, document: Json) -> Json:
        """Return flask-openapi3's ``document`` with everything in it."""
        paths = {
            path: {verb: self._operation(operation) for verb, operation in operations.items()}
            for path, operations in document["paths"].items()
        }
        webhooks = {
            kind: {"post": self._message(reported)} for kind, reported in self._messages.items()
        }
        content = {problems.CONTENT_TYPE: {"schema": self._schema(self._problem, "serialization")}}
        components = document["components"] | {
            "schemas": dict(sorted(self._schemas.items())),
            "headers": _HEADERS,
            "responses": {
                f"Problem{status}": {"description": description, "content": content}
                | ({"headers": _headers("Retry-After")} if status in _NOT_NOW else {})
                for status, description in _PROBLEMS.items()
            },
        }
        return document | {"paths": paths, "webhooks": webhooks, "components": components}

    def _operation(self, reported: Json) -> Json:
        operation = self._operations[reported["operationId"]]
        completed = dict(reported)
        if "parameters" in reported:
            completed["parameters"] = [
                _parameter(parameter) for parameter in reported["parameters"]
            ]
        if operation.body is not None:
            completed["requestBody"] = self._request_body(operation.body)
        answers, faults = sorted(operation.answers.items()), sorted(operation.faults)
        completed["responses"] = {
            **{str(status): self._answer(answer) for status, answer in answers},
            **{
                str(status): {"$ref": f"#/components/responses/Problem{status}"}
                for status in faults
            },
        }
        return completed

    def _message(self, message: WebhookSpec) -> Json:
        schema = self._schema(message.model, "serialization")
        return {
            "summary": message.summary,
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


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


class _WithoutTitles(GenerateJsonSchema):
    """A field's title is its name once more: left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - pydantic's own
        """Return False."""
        del schema
        return False


def _parameter(reported: Json) -> Json:
    """Return a parameter without what is said twice, and without null: it is given or it is not."""
    schema = reported["schema"]
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    repeated = {"title", "description", "example", "anyOf"}
    tidy = {name: value for name, value in schema.items() if name not in repeated}
    if not tidy.get("default", True):
        del tidy["default"]
    tidy |= kinds[0] if kinds else {}
    style = {"style": "deepObject", "explode": True} if tidy.get("type") == "object" else {}
    return reported | style | {"schema": tidy}
