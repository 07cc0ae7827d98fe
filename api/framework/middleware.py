"""What every exchange has: a request id, one line in the log, the security headers of its answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable, Mapping
from http import HTTPMethod, HTTPStatus

import flask
import structlog
from flask import Response
from pydantic import BaseModel

from core import errors, ids, logs

_log = structlog.get_logger(__name__)

#: An id that a proxy or a client may bring along.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
#: Of which the line of what was not logged tells.
_KINDS = 50
#: Encoded characters that need not be (RFC 3986, section 2.3), and slashes.
_NEEDLESS = re.compile(r"%(2[DEFdef]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
#: Of every answer.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def install(
    app: flask.Flask,
    *,
    quiet: frozenset[str],
    timer: Callable[[], float] = time.monotonic,
) -> None:
    """Give every exchange of ``app`` its id, headers and log line; ``quiet`` routes are not logged.

    Of refused requests, and of those without a known key, only the first of each kind are logged in a minute. The
    others are counted, and told in one line with the first request after it.
    """
    budget = logs.LineBudget(timer=timer)

    def finish(response: Response) -> Response:
        rule = flask.request.url_rule
        response.headers["x-request-id"] = flask.g.request_id
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        # The rule, never the path: a path may hold what somebody typed.
        route = None if rule is None else rule.rule
        if route not in quiet and _is_logged(response.status_code, route, budget):
            method = flask.request.method
            _log.info(
                "request_finished",
                method=method if method in HTTPMethod.__members__ else "other",
                route=route,
                status=response.status_code,
                duration_ms=round((time.perf_counter() - flask.g.started) * 1000, 1),
            )
        _record(budget.left_out())
        return response

    app.before_request(_begin)
    app.after_request(finish)
    app.teardown_request(_forget)


def _is_logged(status: int, route: str | None, budget: logs.LineBudget) -> bool:
    if status < HTTPStatus.BAD_REQUEST and flask.g.get("known", False):
        return True
    return budget.spend((status, flask.g.get("error_code"), route))


def _record(left_out: Mapping[Hashable, int]) -> None:
    """Tell in one line how many requests of each kind were not logged, the most frequent first."""
    if not left_out:
        return
    ordered = sorted(left_out.items(), key=lambda item: -item[1])
    counts = []
    for kind, requests in ordered[:_KINDS]:
        status, code, route = kind if isinstance(kind, tuple) else (None, None, None)
        counts.append({"status": status, "error_code": code, "route": route, "requests": requests})
    with logs.unbound():
        _log.warning("requests_not_logged", requests=sum(left_out.values()), counts=counts)


def _begin() -> None:
    given = flask.request.headers.get("x-request-id", "")
    flask.g.started = time.perf_counter()
    flask.g.request_id = given if _REQUEST_ID.fullmatch(given) else ids.show("req", ids.new())
    logs.clear()
    logs.bind(request_id=flask.g.request_id)
    if not _is_exact(flask.request.environ.get("RAW_URI", "")):
        raise errors.NotFound("There is nothing at this path.")


def _is_exact(target: str) -> bool:
    """Whether a request's target spells its path as routes do: then what a proxy judges is what is served here.

    Flask's routing drops slashes at the beginning and decodes ``%2f``.
    """
    if not target.startswith("/"):
        # In absolute form (RFC 9112, section 3.2.2).
        target = "/" + target.partition("://")[2].partition("/")[2]
    path = target.partition("?")[0]
    return not path.startswith("//") and _NEEDLESS.search(path) is None


def _forget(_error: BaseException | None) -> None:
    logs.clear()


def reply(
    model: BaseModel, status: int = 200, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return ``model`` as a JSON answer."""
    return Response(
        model.model_dump_json(), status, dict(headers or {}), content_type="application/json"
    )
