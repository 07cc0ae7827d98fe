"""The Flask application whose routes and OpenAPI 3.1 document come from one declaration each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from http import HTTPMethod
from typing import Any

import flask
from flask import Response
from flask_openapi3.models.info import Info
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel

from api.framework import bodies, parameters, wire
from api.framework.document import Document, Operation, RequestBodySpec, ResponseSpec, WebhookSpec

View = Callable[..., Response]

#: Methods whose requests may have a body that means something.
_WITH_BODIES = frozenset({HTTPMethod.POST, HTTPMethod.PUT, HTTPMethod.PATCH})
#: Headers of every answer to a known key.
_RATES = ("RateLimit-Policy", "RateLimit")


class Router(OpenAPI):
    """The application. Every route is declared by :meth:`declare`.

    Args:
        title: of the document.
        version: of the API that the document describes.
        description: of the document, Markdown.
        problem: the model of all error bodies.
        max_body_bytes: a request body over it is refused while it is read.
    """

    def __init__(
        self,
        *,
        title: str,
        version: str,
        description: str,
        problem: type[BaseModel],
        max_body_bytes: int,
    ) -> None:
        super().__init__(
            "api",
            info=Info(title=title, version=version, description=description),
            security_schemes={"key": {"type": "http", "scheme": "bearer"}},
            doc_ui=False,
            static_folder=None,
        )
        self._problem = problem
        self._operations: dict[str, Operation] = {}
        self._messages: dict[str, WebhookSpec] = {}
        self.config["MAX_CONTENT_LENGTH"] = max_body_bytes
        # A path that is not exactly a route's is none: no redirects.
        self.url_map.merge_slashes = False
        self.url_map.strict_slashes = True

    def declare(
        self,
        verb: HTTPMethod,
        rule: str,
        view: View,
        *,
        name: str,
        tag: str,
        answers: Mapping[int, ResponseSpec],
        faults: tuple[int, ...] = (),
        guard: Callable[[], object] | None = None,
        body: RequestBodySpec | None = None,
    ) -> None:
        """Answer ``verb`` on ``rule`` by ``view`` and describe it in the document.

        The view's parameters called ``path``, ``query`` and ``header`` are pydantic models; they are
        filled and checked before it is called. Its docstring is the document's text.

        Args:
            verb: the method.
            rule: the path, parameters as ``<name>``.
            view: what answers.
            name: the operation's id.
            tag: the group of routes it belongs to.
            answers: what it may answer, by status.
            faults: statuses of the errors it may answer with, beside those that every route may.
            guard: called first; what it returns is the view's first argument.
            body: what the request carries.
        """
        guarded = guard is not None
        always = {401, 403, 429, 500, 503} if guarded else {500}
        if body is not None or verb in _WITH_BODIES:
            always |= {400, 408, 413, 415}
        if body is None and verb in _WITH_BODIES:
            always.add(422)
        if guarded:
            answers = {status: answer.and_headers(*_RATES) for status, answer in answers.items()}
        self._operations[name] = Operation(answers, frozenset({*faults, *always}), body)
        summary, _, description = (inspect.getdoc(view) or "").partition("\n\n")
        header, _, path, query, *_ = self._collect_openapi_info(
            rule,
            view,
            method=verb,
            operation_id=name,
            tags=[Tag(name=tag)],
            summary=summary,
            description=" ".join(description.split()) or summary,
            security=[{"key": []}] if guarded else None,
        )

        handle = functools.partial(
            _handle,
            view,
            guard,
            path=path,
            query=query,
            header=header,
            body=body,
        )
        self.add_url_rule(rule, name, handle, methods=[verb])

    def announce(self, kind: str, model: type[BaseModel], *, summary: str) -> None:
        """Describe a message that the service sends by itself, among the document's webhooks."""
        self._messages[kind] = WebhookSpec(model, summary)

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = Document(self._operations, messages=self._messages, problem=self._problem)
        return document.complete(self.api_doc)


def _handle(
    view: View,
    guard: Callable[[], object] | None,
    *,
    path: type[BaseModel] | None,
    query: type[BaseModel] | None,
    header: type[BaseModel] | None,
    body: RequestBodySpec | None,
    **path_values: str,
) -> Response:
    """Let the caller in, check the head of the body and the parameters, and answer."""
    caller = () if guard is None else (guard(),)
    if body is not None:
        wire.prepare(flask.request, carries_images=body.carries_images)
    elif flask.request.method in _WITH_BODIES:
        wire.prepare(flask.request, carries_images=False)
        bodies.refuse_any(flask.request)
    checked: dict[str, BaseModel] = {}
    if path is not None:
        checked["path"] = parameters.parse(path, path_values)
    if query is not None:
        values = parameters.of_query(query, flask.request.args)
        checked["query"] = parameters.parse(query, values)
    if header is not None:
        values = parameters.of_headers(header, flask.request.headers)
        checked["header"] = parameters.parse(header, values)
    return view(*caller, **checked)
