"""CORS (WHATWG Fetch, section 3.3): pages of configured origins may read the responses of some routes.

The API uses no cookies, so no response allows credentials.
"""

from collections.abc import Collection
from http import HTTPMethod
from typing import Final

import flask
from flask import Response

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
_EXPOSED: Final = "x-request-id, Retry-After"


def install(app: flask.Flask, *, origins: Collection[str], routes: Collection[str]) -> None:
    """Let pages of ``origins`` (``*``: any origin) read the responses of ``routes``, errors included."""

    def allow(response: Response) -> Response:
        rule = flask.request.url_rule
        if rule is None or rule.rule not in routes:
            return response
        if "*" not in origins:
            # A cache must not serve the response to another page.
            response.vary.add("Origin")
        origin = flask.request.headers.get("Origin")
        if origin is None or not ({origin, "*"} & set(origins)):
            return response
        response.headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else origin
        if flask.request.method == HTTPMethod.OPTIONS:
            response.headers.update(_PREFLIGHT)
        else:
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response

    if origins:
        app.after_request(allow)
