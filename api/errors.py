"""Error responses: one body for all, with RFC 9457's members and the ``error`` object that OpenAI's clients read.

An error that the caller can fix lists all its faults; a failure of the service shows the request id and is logged.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import flask
import orjson
import structlog
from flask import Response
from werkzeug import exceptions

from core import errors, logs

_Resource = TypeVar("_Resource")

CONTENT_TYPE = "application/problem+json"
#: The content codings of request bodies, as in ``Accept-Encoding``.
ACCEPTED_CODINGS = "gzip, deflate"

_log = structlog.get_logger(__name__)

#: Maximum number of faults in the message, and in the list.
_IN_MESSAGE, _IN_BODY = 10, 1_000
#: Maximum characters of a caller's name in a message.
_NAME_CHARS = 100
#: Maximum tracebacks of one error at one route in a minute.
_TRACEBACKS = 5
#: The `Retry-After` without a vault key, which an operator must restore.
_VAULT_SECONDS = 60
#: The extension of the application that holds the style of each endpoint whose routes have one.
_STYLES = "longlook_error_styles"
#: The bounds of `Retry-After` in seconds: OpenAI's clients ignore longer ones, and take 0 as a call to return at once.
_MIN_WAIT, _MAX_WAIT = 1, 60
#: Image codes with an HTTP status of their own, if there is no other fault.
_IMAGE_SIZE_AND_TYPE = {"image_file_too_large", "unsupported_image_media_type"}
#: Our messages for errors before a route is reached: a library's messages are never shown.
_HTTP_FAULTS: dict[int, errors.RequestError] = {
    400: errors.RequestError("The request is malformed."),
    404: errors.NotFound("There is nothing at this path."),
    405: errors.MethodNotAllowed("This path does not support this method."),
    415: errors.UnsupportedMediaType("This content type is not supported."),
}


@dataclass(frozen=True)
class ErrorStyle:
    """The HTTP statuses of errors at the routes of a class, where clients expect other ones than the native routes'.

    A reused Idempotency-Key is 422 in every style.

    Attributes:
        invalid: the status of a request that is refused because of what it says.
        statuses: further statuses, by the code of the error.
    """

    invalid: int = HTTPStatus.UNPROCESSABLE_ENTITY
    statuses: Mapping[str, int] = field(default_factory=dict)

    def status_of(self, error: errors.RequestError) -> int:
        """Return the status of the response to ``error``."""
        status = error.http_status if isinstance(error, errors.ImageRejected) else error.status
        if isinstance(error, errors.IdempotencyKeyReused):
            return status
        if status == HTTPStatus.UNPROCESSABLE_ENTITY:
            status = self.invalid
        return self.statuses.get(error.specific_code, status)


#: The style of routes that declare none.
NATIVE = ErrorStyle()
#: The style of the routes that OpenAI's clients call: tools catch ``BadRequestError`` for a request that is refused
#: because of what it says.
OPENAI = ErrorStyle(invalid=HTTPStatus.BAD_REQUEST)
#: The same with 404 for an unknown model, as OpenAI answers for chat completions and models.
OPENAI_CHAT = ErrorStyle(
    invalid=HTTPStatus.BAD_REQUEST, statuses={"model_not_found": HTTPStatus.NOT_FOUND}
)


def refused(faults: Sequence[errors.Fault]) -> errors.RequestError:
    """Return the error that lists all of ``faults`` (at least one): 422, or the 413 or 415 of an image."""
    messages = [f"{name_of(fault.pointer)}: {fault.detail}" for fault in faults[:_IN_MESSAGE]]
    message = messages[0] if len(faults) == 1 else f"{len(faults):,} faults. " + " ".join(messages)
    if len(faults) > _IN_BODY:
        message += f" `errors` lists the first {_IN_BODY:,}."
    codes = {fault.code for fault in faults}
    kind = errors.ImageRejected if codes <= _IMAGE_SIZE_AND_TYPE else errors.InvalidRequest
    return kind(
        message,
        faults=tuple(faults[:_IN_BODY]),
        code=codes.pop() if len(codes) == 1 else None,
        param=name_of(faults[0].pointer),
    )


def pointer(*steps: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of a place in the body, with long names cut."""
    return "/".join(
        ["#", *(shortened(str(step)).replace("~", "~0").replace("/", "~1") for step in steps)]
    )


def shortened(name: str) -> str:
    """Return a caller's name, cut if it is long."""
    return name if len(name) <= _NAME_CHARS else f"{name[:_NAME_CHARS]}…"


def not_found(noun: str, *, param: str | None = None) -> errors.NotFound:
    """Return the error for a resource that does not exist, or that the caller's account does not have.

    Args:
        noun: the resource's name in the sentence.
        param: the parameter that names it, if the path does not.
    """
    return errors.NotFound(f"There is no such {noun}.", param=param)


def existing(resource: _Resource | None, noun: str) -> _Resource:
    """Return ``resource``. Raises :class:`core.errors.NotFound` for ``noun`` if it is None."""
    if resource is None:
        raise not_found(noun)
    return resource


def retry_after(seconds: int) -> str:
    """Return the ``Retry-After`` for a wait of ``seconds``: 1 to 60, the range that all official clients keep to."""
    return str(min(max(_MIN_WAIT, seconds), _MAX_WAIT))


def body_too_large(*, limit: int, seen: int | None) -> errors.BodyTooLarge:
    """Return the error for a body of ``seen`` bytes (None: unknown) where the limit is ``limit`` bytes."""
    size = "more" if seen is None or seen <= limit else f"{seen:,}"
    return errors.BodyTooLarge(
        f"The request body must have at most {limit:,} bytes; this one has {size}."
    )


def install(app: flask.Flask, *, timer: Callable[[], float] = time.monotonic) -> None:
    """Answer all errors of ``app`` with this body; log a few tracebacks of each unexpected error per minute."""
    tracebacks = logs.LineBudget(lines=_TRACEBACKS, timer=timer)

    def on_exception(error: Exception) -> Response:
        return _on_exception(error, tracebacks)

    app.register_error_handler(errors.RequestError, _on_request_error)
    app.register_error_handler(errors.Unavailable, _on_unavailable)
    app.register_error_handler(errors.VaultError, _on_vault_error)
    app.register_error_handler(exceptions.HTTPException, _on_http_exception)
    app.register_error_handler(Exception, on_exception)


def declare_style(app: flask.Flask, endpoint: str, style: ErrorStyle) -> None:
    """Answer errors at ``endpoint`` in ``style``."""
    app.extensions.setdefault(_STYLES, {})[endpoint] = style


def style() -> ErrorStyle:
    """Return the style of the current request's route."""
    styles: dict[str, ErrorStyle] = flask.current_app.extensions.get(_STYLES, {})
    return styles.get(flask.request.endpoint or "", NATIVE)


def _on_request_error(error: errors.RequestError) -> Response:
    status = style().status_of(error)
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    if error.retry_after is not None:
        headers["Retry-After"] = retry_after(error.retry_after)
    if isinstance(error, errors.UnsupportedContentEncoding):
        headers["Accept-Encoding"] = ACCEPTED_CODINGS
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="longlook"'
    return _problem(
        status,
        code=error.specific_code,
        title=error.title,
        detail=error.message,
        faults=error.faults,
        param=error.param,
        headers=headers,
    )


def _on_unavailable(error: errors.Unavailable) -> Response:
    return _unavailable(error, error.message, seconds=error.retry_after)


def _on_vault_error(error: errors.VaultError) -> Response:
    """Answer that secrets cannot be sealed; the log tells operators why."""
    _log.error("vault_unavailable", reason=str(error))
    detail = "Webhook secrets cannot be encrypted now: the service has no vault key."
    return _unavailable(error, detail, seconds=_VAULT_SECONDS)


def _unavailable(error: errors.LonglookError, detail: str, *, seconds: int) -> Response:
    headers = {"Retry-After": retry_after(seconds), "x-should-retry": "true"}
    title = "Service unavailable"
    return _problem(error.status, code=error.code, title=title, detail=detail, headers=headers)


def _on_http_exception(error: exceptions.HTTPException) -> Response:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if status < HTTPStatus.BAD_REQUEST:
        return Response(error.get_response().data, status, error.get_headers())
    known = _HTTP_FAULTS.get(status)
    limit = flask.request.max_content_length
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and limit is not None:
        known = body_too_large(limit=limit, seen=flask.request.content_length)
    phrase = HTTPStatus(status).phrase
    answer = (
        _on_request_error(known)
        if known is not None
        else _problem(status, code="invalid_request_error", title=phrase, detail=f"{phrase}.")
    )
    if isinstance(error, exceptions.MethodNotAllowed) and error.valid_methods:
        answer.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return answer


def _on_exception(error: Exception, tracebacks: logs.LineBudget) -> Response:
    """Answer an unexpected error. The caller sees only the request id; the log has the traceback."""
    rule = flask.request.url_rule
    kind = (type(error).__name__, rule and rule.rule)
    if tracebacks.spend(kind):
        _log.exception("request_failed")
    for left_out, count in tracebacks.left_out().items():
        name, route = left_out if isinstance(left_out, tuple) else (None, None)
        _log.error("tracebacks_not_logged", error_type=name, route=route, requests=count)
    return _problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        code="server_error",
        title="Internal server error",
        detail=f"The service failed. The request id is {request_id()}.",
    )


def request_id() -> str:
    """Return the id of the current request."""
    value: str = flask.g.get("request_id", "")
    return value


def _problem(
    status: int,
    *,
    code: str,
    title: str,
    detail: str,
    faults: Sequence[errors.Fault] = (),
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    logs.bind(error_code=code)
    flask.g.error_code = code
    content = body(
        status,
        code=code,
        title=title,
        detail=detail,
        request_id=request_id(),
        instance=flask.request.script_root + flask.request.path,
        faults=faults,
        param=param,
    )
    return Response(content, status, headers, content_type=CONTENT_TYPE)


def body(
    status: int,
    *,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    instance: str | None = None,
    faults: Sequence[errors.Fault] = (),
    param: str | None = None,
) -> bytes:
    """Return the body of an error response, also for the server, which answers without Flask."""
    client_fault = status < HTTPStatus.INTERNAL_SERVER_ERROR
    members: dict[str, Any] = {
        "type": f"/problems/{code.replace('_', '-')}",
        "title": title,
        "status": int(status),
        "detail": detail,
        **({} if instance is None else {"instance": instance}),
        "request_id": request_id,
        "errors": [_member(fault) for fault in faults],
        "error": {
            "message": detail,
            "type": "invalid_request_error" if client_fault else "server_error",
            "param": param,
            "code": code,
        },
    }
    return orjson.dumps(members)


def _member(fault: errors.Fault) -> dict[str, Any]:
    """Return a fault as in RFC 9457's example: with a JSON pointer into the body, or a parameter's name."""
    place = "pointer" if fault.pointer.startswith("#") else "parameter"
    return {place: fault.pointer, "detail": fault.detail, "code": fault.code}


def name_of(pointer: str) -> str:
    """Return ``#/options/temperature`` as ``options.temperature``, and a parameter's name unchanged."""
    if not pointer.startswith("#"):
        return pointer
    name = ""
    for step in pointer.removeprefix("#").split("/")[1:]:
        part = step.replace("~1", "/").replace("~0", "~")
        name += f"[{part}]" if part.isdigit() else f".{part}"
    return name.removeprefix(".") or "body"
