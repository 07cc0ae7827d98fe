"""CORS (WHATWG Fetch, section 3.3): pages of configured origins may read the responses of some routes.

These are the streams, and the routes that OpenAI's clients call: the JavaScript client runs in browsers, too. It has
methods for paths that the API does not have. A page may read their 404, too: without that, a browser shows the client
a broken connection, which the client tries again.
The API uses no cookies, so no response allows credentials.
"""

import re
from collections.abc import Collection
from http import HTTPMethod, HTTPStatus
from typing import Final

import flask
from flask import Response

from api import errors as problems
from api.framework.router import Router

_METHODS: Final = "GET, POST, DELETE"
#: Below this path are all routes of OpenAI's clients.
_ROOT: Final = "/v1/"
_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Prefer",
    "Cancel-After",
    "Last-Event-ID",
    "User-Agent",
    "x-request-id",
)
#: The headers that OpenAI's client adds: about the browser and the attempt, and those of organization and project.
_OF_CLIENTS: Final = re.compile(r"(?:x-stainless|openai)(?:-[a-z0-9]+)+", re.IGNORECASE)
_MAX_AGE: Final = "600"
_EXPOSED: Final = (
    "x-request-id, x-should-retry, Retry-After, openai-poll-after-ms, Location, Idempotent-Replayed, "
    "RateLimit, RateLimit-Policy"
)


def install(app: Router, *, origins: Collection[str], routes: Collection[str]) -> None:
    """Let pages of ``origins`` read the responses of some routes of ``app``, errors included.

    Args:
        app: the application.
        origins: ``*`` means any origin.
        routes: the rules of the routes, besides those whose errors are in a style of OpenAI.
    """

    def allow(response: Response) -> Response:
        rule = flask.request.url_rule
        unknown = _unknown(app)
        if not unknown and (
            rule is None or (rule.rule not in routes and problems.style() is problems.NATIVE)
        ):
            return response
        if "*" not in origins:
            # A cache must not serve the response to another page.
            response.vary.add("Origin")
        origin = flask.request.headers.get("Origin")
        if origin is None or not ({origin, "*"} & set(origins)):
            return response
        response.headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else origin
        if flask.request.method == HTTPMethod.OPTIONS:
            if unknown:
                # A browser sends the request only if its preflight succeeds.
                response.status_code = HTTPStatus.OK
                response.set_data(b"")
            _allow_request(response)
        else:
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response

    if origins:
        app.after_request(allow)


def _unknown(app: Router) -> bool:
    """Whether the API has no such method at the path of the current request, below that of the clients' routes.

    A preflight asks for another request.
    """
    request = flask.request
    method = request.method
    if method == HTTPMethod.OPTIONS:
        method = request.headers.get("Access-Control-Request-Method", method)
    return request.path.startswith(_ROOT) and app.lacks(request, method)


def _allow_request(response: Response) -> None:
    """Say in the response to a preflight which methods and headers the request may have."""
    requested = flask.request.headers.get("Access-Control-Request-Headers", "").split(",")
    of_client = [name.strip() for name in requested if _OF_CLIENTS.fullmatch(name.strip())]
    response.vary.add("Access-Control-Request-Headers")
    response.headers["Access-Control-Allow-Methods"] = _METHODS
    response.headers["Access-Control-Allow-Headers"] = ", ".join([*_HEADERS, *of_client])
    response.headers["Access-Control-Max-Age"] = _MAX_AGE
