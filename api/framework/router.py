"""The Flask application, whose routes and OpenAPI 3.1 document come from the same declarations."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPMethod
from typing import Any, NoReturn

import flask
from flask import Response
from pydantic import BaseModel
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Rule

from api import errors as problems
from api.framework import bodies, parameters, paths, route, wire
from api.framework.document import OpenApiDocument, OperationSpec, RequestBodySpec
from api.framework.paths import PathParameter
from api.framework.route import Handler, Route
from core import errors

#: Checks the current request and returns its caller.
Guard = Callable[[], object]

#: The methods that a route declares.
_METHODS = frozenset(HTTPMethod) - {HTTPMethod.HEAD, HTTPMethod.OPTIONS}
#: Methods whose requests may have a body that means something.
_WITH_BODIES = frozenset({HTTPMethod.POST, HTTPMethod.PUT, HTTPMethod.PATCH})
#: Headers of every answer to a known key.
_RATES = ("RateLimit-Policy", "RateLimit")


class _MatchedRule(Rule):
    """A rule that requests are matched to. It builds no URLs, which saves half of the time to make the application."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:  # noqa: FBT001, FBT002 - Werkzeug's own
        del append_unknown
        return _no_url


def _no_url(_rule: Rule, **values: object) -> tuple[str, str]:
    """Take the place of what builds a URL from the values of a rule's variables."""
    raise NotImplementedError(f"no URL is built from rules, and not from {sorted(values)}")


class Router(flask.Flask):
    """The application. :meth:`include` adds the routes that a class declares with :mod:`api.framework.route`.

    Args:
        document: what the OpenAPI document says besides its operations.
        guards: returns the guard of the routes that are declared with this key.
        max_body_bytes: the application refuses a request body that has more bytes.
        max_file_body_bytes: the same for a body with a file.
    """

    url_rule_class = _MatchedRule

    def __init__(
        self,
        document: OpenApiDocument,
        *,
        guards: Callable[[Any], Guard],
        max_body_bytes: int,
        max_file_body_bytes: int = 0,
    ) -> None:
        super().__init__("api", static_folder=None)
        self._document = document
        #: The path parameters of the declared routes, by endpoint.
        self._path_parameters: dict[str, Mapping[str, PathParameter]] = {}
        #: The endpoints of the routes that OpenAI's clients call.
        self._not_native: set[str] = set()
        self._guards = guards
        self._max_body_bytes = max_body_bytes
        self._max_file_body_bytes = max(max_body_bytes, max_file_body_bytes)
        self.config["MAX_CONTENT_LENGTH"] = self._max_file_body_bytes
        # Only the exact path of a route is served: no redirects.
        self.url_map.merge_slashes = False
        self.url_map.strict_slashes = True

    def include(self, routes: object, *, public: bool = False) -> None:
        """Serve and describe the routes that the class of ``routes`` declares.

        A handler takes by name what it needs: ``caller``, which its guard returns; the parameters of its path, as
        types of :mod:`api.framework.paths`; ``query`` and ``header``, pydantic models. Its docstring is the
        operation's text in the document. The class may have ``ERRORS``, an :class:`api.errors.ErrorStyle`.

        Args:
            routes: an instance of a class with declared routes.
            public: leave out the guards of these routes.
        """
        style: problems.ErrorStyle = vars(type(routes)).get("ERRORS", problems.NATIVE)
        for declaration, handler in route.declared(routes):
            key = None if public else declaration.guard
            tag = declaration.tag or vars(type(routes))["TAG"]
            guard = None if key is None else self._guards(key)
            self._add(declaration, handler, guard, tag=tag, style=style)

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        return self._document.render()

    def raise_routing_exception(self, request: flask.Request) -> NoReturn:
        """Refuse a request that no route serves: 405 for another method of a native route, 404 for everything else.

        OpenAI's clients have methods that are not served, and tools take only a 404 for that. Some of their paths look
        like an object of ours with another method: `POST /v1/responses/compact`, `POST /v1/images/generations`.
        A client whose base URL lacks the version reads what is missing.
        """
        refused = request.routing_exception
        if isinstance(refused, MethodNotAllowed) and not self._is_native(request, refused):
            raise errors.NotFound("This service has nothing at this path with this method.")
        adapter = self.create_url_adapter(request)
        if adapter is not None and adapter.test(f"/v1{request.path}", request.method):
            raise errors.NotFound(
                "There is nothing at this path. Paths of the API begin with `/v1`, so a client's base URL ends with it."
            )
        super().raise_routing_exception(request)

    def lacks(self, request: flask.Request, method: str) -> bool:
        """Whether :meth:`raise_routing_exception` refuses ``method`` at the path of a request with 404."""
        adapter = self.create_url_adapter(request)
        if adapter is None:
            return True
        try:
            adapter.match(method=method, websocket=False)
        except MethodNotAllowed as refused:
            return not self._is_native(request, refused)
        except NotFound:
            return True
        return False

    def _is_native(self, request: flask.Request, refused: MethodNotAllowed) -> bool:
        """Whether the path of a request is that of a native route, for another method than the refused one."""
        adapter = self.create_url_adapter(request)
        for method in _METHODS.intersection(refused.valid_methods or ()):
            if adapter is not None:
                endpoint, values = adapter.match(method=method, websocket=False)
                known = self._path_parameters.get(endpoint, {})
                fits = all(kind.fits(values[name]) for name, kind in known.items())
                if fits and endpoint not in self._not_native:
                    return True
        return False

    def _most(self, body: RequestBodySpec | None) -> int:
        """Return the most bytes of a body."""
        if body is not None and body.carries_file:
            return self._max_file_body_bytes
        if body is not None and body.carries_images:
            return self._max_body_bytes
        return wire.PLAIN_BODY_BYTES

    def _add(
        self,
        declaration: Route,
        handler: Handler,
        guard: Guard | None,
        *,
        tag: str,
        style: problems.ErrorStyle,
    ) -> None:
        arguments = _Arguments.of(handler, declaration.rule)
        guarded = guard is not None
        answers = declaration.answers
        if guarded:
            answers = {status: answer.and_headers(*_RATES) for status, answer in answers.items()}
        summary, _, description = (inspect.getdoc(handler) or "").partition("\n\n")
        self._document.add(
            OperationSpec(
                declaration.method,
                declaration.rule,
                operation_id=declaration.operation_id,
                tag=tag,
                summary=summary,
                description=" ".join(description.split()) or summary,
                guarded=guarded,
                header=arguments.header,
                path={name: kind.description for name, kind in arguments.path.items()},
                query=arguments.query,
                body=declaration.body,
                answers=answers,
                faults=_faults(
                    declaration,
                    guarded=guarded,
                    invalid=style.invalid,
                    has_query=arguments.query is not None,
                ),
            )
        )
        serve = functools.partial(
            _serve,
            handler,
            guard,
            arguments=arguments,
            has_body=declaration.body is not None,
            most=self._most(declaration.body),
        )
        self.add_url_rule(
            declaration.rule, declaration.operation_id, serve, methods=[declaration.method]
        )
        problems.declare_style(self, declaration.operation_id, style)
        self._path_parameters[declaration.operation_id] = arguments.path
        if style is not problems.NATIVE:
            self._not_native.add(declaration.operation_id)


@dataclass(frozen=True)
class _Arguments:
    caller: bool
    path: Mapping[str, PathParameter]
    query: type[BaseModel] | None
    header: type[BaseModel] | None

    @classmethod
    def of(cls, handler: Handler, rule: str) -> _Arguments:
        """Return the arguments that ``handler`` takes, by its type hints."""
        hints = typing.get_type_hints(handler, include_extras=True)
        return cls(
            caller="caller" in hints,
            path=paths.parameters(rule, hints),
            query=hints.get("query"),
            header=hints.get("header"),
        )


def _faults(declaration: Route, *, guarded: bool, invalid: int, has_query: bool) -> frozenset[int]:
    """Return the statuses of all errors of a route: its own, and those of its method and its guard.

    Args:
        declaration: of the route.
        guarded: whether it needs a key.
        invalid: the status of a request that is refused because of what it says.
        has_query: whether it has parameters in the query, which may be too long.
    """
    faults = {*declaration.faults, 500}
    if has_query:
        faults.add(414)
    if guarded:
        faults |= {401, 403, 429, 503}
    if declaration.method in _WITH_BODIES:
        faults |= {400, 408, 413, 415}
        if declaration.body is None:
            faults.add(invalid)
    return frozenset(faults)


def _serve(
    handler: Handler,
    guard: Guard | None,
    *,
    arguments: _Arguments,
    has_body: bool,
    most: int,
    **path_values: str,
) -> Response:
    """Admit the caller, check the head of the body and the parameters, and call the handler."""
    caller = None if guard is None else guard()
    if has_body:
        wire.prepare(flask.request, most=most)
    elif flask.request.method in _WITH_BODIES:
        wire.prepare(flask.request, most=most)
        bodies.refuse_any(flask.request)
    values: dict[str, object] = {"caller": caller} if arguments.caller else {}
    if arguments.query is not None:
        query = parameters.of_query(arguments.query, flask.request.args)
        values["query"] = parameters.parse(arguments.query, query)
    if arguments.header is not None:
        header = parameters.of_headers(arguments.header, flask.request.headers)
        values["header"] = parameters.parse(arguments.header, header)
    for name, parameter in arguments.path.items():
        values[name] = parameter.convert(name, path_values[name])
    return handler(**values)
