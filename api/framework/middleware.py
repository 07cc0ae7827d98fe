"""Gives each request its id, its log line, and the security headers of its response."""

import re
import time
from collections.abc import Callable, Hashable, Mapping
from http import HTTPMethod, HTTPStatus

import flask
import structlog
from flask import Response
from pydantic import BaseModel

from api.framework import paths
from core import errors, ids, logs

_log = structlog.get_logger(__name__)

#: A request id that a proxy or a client may send.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
#: Maximum number of kinds of requests in the line about those that were not logged.
_KINDS = 50
#: Needlessly encoded characters (RFC 3986, section 2.3), and encoded slashes.
_NEEDLESS = re.compile(r"%(2[DEFdef]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
_SLASH = re.compile("%2F", re.IGNORECASE)
#: Headers of every response.
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
    """Give each request of ``app`` its id, headers and log line; requests of ``quiet`` routes are not logged.

    Of refused requests, and of those without a known key, only the first of each kind in a minute are logged. The
    first request after that minute logs the count of the others.
    """
    budget = logs.LineBudget(timer=timer)

    def finish(response: Response) -> Response:
        rule = flask.request.url_rule
        response.headers["x-request-id"] = flask.g.request_id
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        # The rule, never the path: a path may contain user input.
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
    """Log in one line how many requests of each kind were not logged, the most frequent kind first."""
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
    sent = flask.request.headers.get("x-request-id", "")
    flask.g.started = time.perf_counter()
    flask.g.request_id = sent if _REQUEST_ID.fullmatch(sent) else ids.show("req", ids.new())
    logs.clear()
    logs.bind(request_id=flask.g.request_id)
    rule = flask.request.url_rule
    before_slashes = None if rule is None else paths.before_slashes(rule.rule)
    if not _is_exact(flask.request.environ.get("RAW_URI", ""), before_slashes):
        raise errors.NotFound("There is nothing at this path.")


def _is_exact(target: str, before_slashes: str | None) -> bool:
    """Whether the target of a request spells its path exactly as the routes do.

    Flask's routing drops leading slashes and decodes ``%2f``, so a rule of a proxy could be bypassed.

    Args:
        target: as the request line has it.
        before_slashes: the path before a parameter that may contain encoded slashes; None: there is no such parameter.
    """
    if not target.startswith("/"):
        # In absolute form (RFC 9112, section 3.2.2).
        target = "/" + target.partition("://")[2].partition("/")[2]
    path = target.partition("?")[0]
    if before_slashes is not None and path.startswith(before_slashes):
        path = before_slashes + _SLASH.sub("", path.removeprefix(before_slashes))
    return not path.startswith("//") and _NEEDLESS.search(path) is None


def _forget(_error: BaseException | None) -> None:
    logs.clear()


def reply(
    model: BaseModel, status: int = 200, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return ``model`` as a JSON response."""
    return Response(
        model.model_dump_json(), status, dict(headers or {}), content_type="application/json"
    )
