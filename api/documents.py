"""What describes the API: ``/openapi.json``, its page ``/docs`` for people, and ``/llms.txt`` for language models.

They are public and the same for all callers.
"""

import functools
import hashlib
import importlib.resources
from collections.abc import Callable, Iterator
from typing import Any, Final

import flask
import orjson
from flask import Response

from api import framework
from api.framework import links

DOCUMENT: Final = "/openapi.json"
PAGE: Final = "/docs"
FOR_MODELS: Final = "/llms.txt"
_FILES: Final = "/docs/<name>"

#: The files of the page, by their names in its URLs, with their media types.
_TYPES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "page.css": "text/css",
    "start.js": "text/javascript",
}
#: Scripts and styles of this service alone, none of them inline; the style sheet has its icons in data URLs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CACHED: Final = "public, max-age=3600"

_GUIDE: Final = """\
- Authenticate with `Authorization: Bearer <key>`.
- A job is a question about images. `POST /v1/jobs` returns it at once; poll `GET /v1/jobs/{job_id}`, follow \
`GET /v1/jobs/{job_id}/events`, or register a webhook.
- OpenAI's clients work with `base_url` set to this service and `/v1`.
- Errors are RFC 9457 problems that list every fault in `errors`, with OpenAI's `error` object.
- Send `Idempotency-Key` with each creation, so that a repeated request creates nothing twice.
- Lists return `data`, `has_more`, and `last_id`, which is `after` of the next page.
"""


def install(app: framework.Router) -> None:
    """Serve the documents of ``app``."""
    document = functools.cache(lambda: orjson.dumps(app.document()))

    def openapi() -> Response:
        return Response(document(), content_type="application/json")

    def page() -> Response:
        return Response(
            _file("index.html"),
            headers={"Content-Security-Policy": _POLICY},
            content_type="text/html; charset=utf-8",
        )

    def for_models() -> Response:
        lines = _for_models(app.document)
        return Response("".join(lines), content_type="text/plain; charset=utf-8")

    app.add_url_rule(DOCUMENT, view_func=openapi)
    app.add_url_rule(PAGE, view_func=page)
    app.add_url_rule(_FILES, view_func=_asset)
    app.add_url_rule(FOR_MODELS, view_func=for_models)


def _asset(name: str) -> Response:
    """Return a file of the page, which browsers may store."""
    if name not in _TYPES:
        flask.abort(404)
    content = _file(name)
    response = Response(
        content,
        headers={"Cache-Control": _CACHED},
        content_type=f"{_TYPES[name]}; charset=utf-8",
    )
    response.set_etag(hashlib.sha256(content).hexdigest())
    response.make_conditional(flask.request)
    return response


@functools.cache
def _file(name: str) -> bytes:
    return (importlib.resources.files("api") / "swagger_ui" / name).read_bytes()


def _for_models(document: Callable[[], dict[str, Any]]) -> Iterator[str]:
    """Yield the parts of ``/llms.txt``: what the API is, and one line for each operation."""
    described = document()
    info = described["info"]
    yield f"# {info['title']}\n\n> {info['description']}\n\n{_GUIDE}\n"
    yield f"## Documents\n\n- [OpenAPI 3.1]({links.to(DOCUMENT)}): every operation, parameter, and schema\n"
    yield f"- [API reference]({links.to(PAGE)}): the same for people\n"
    for tag in (tag["name"] for tag in described["tags"]):
        yield f"\n## {tag.capitalize()}\n\n"
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                if tag in operation["tags"]:
                    yield f"- `{method.upper()} {path}`: {operation['summary']}\n"
