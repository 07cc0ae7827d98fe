"""The command line's client of the API: typed errors, safe retries, waiting for jobs and following their events."""

from __future__ import annotations

import contextlib
import json
import mimetypes
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import urllib3

from core import errors
from core.settings import Settings
from jobs.lifecycle import Status

Json = dict[str, Any]
Pause = Callable[[float], None]

KEY_FILE: Final = "admin.key"

_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 90.0
#: Seconds for which one request of :meth:`Client.wait` stays open; the API allows 55.
_HOLD_SECONDS: Final = 30
#: Most attempts to reopen a broken stream before an event arrives.
_RESUMES: Final = 60
_RESUME_SECONDS: Final = 1.0
#: Retries are safe: a submission carries an Idempotency-Key and a second cancel changes nothing. A refused
#: connection is not retried, so that a stopped service is reported at once.
_RETRIES: Final = urllib3.Retry(
    total=3,
    connect=0,
    read=2,
    status=3,
    status_forcelist=(429, 502, 503, 504),
    allowed_methods=None,
    backoff_factor=0.2,
    backoff_jitter=0.2,
    raise_on_status=False,
    retry_after_max=10,
)


class Unreachable(errors.Unavailable):
    """No response from the service's address."""

    code = "unreachable"


def metadata(pairs: Sequence[str]) -> dict[str, str]:
    """Return pairs such as ``case=42`` as a job's metadata.

    Raises:
        core.errors.InvalidRequest: a pair has no ``=``.
    """
    return _split(pairs, form="NAME=VALUE", param="metadata")


def switches(pairs: Sequence[str]) -> dict[str, bool]:
    """Return pairs such as ``verify=on`` as switches.

    Raises:
        core.errors.InvalidRequest: a value is neither ``on`` nor ``off``.
    """
    form, values = "NAME=on or NAME=off", ("on", "off")
    named = _split(pairs, form=form, param="guards", values=values)
    return {name: value == "on" for name, value in named.items()}


def _split(
    pairs: Sequence[str], *, form: str, param: str, values: Sequence[str] = ()
) -> dict[str, str]:
    named = {}
    for text in pairs:
        name, equals, value = text.partition("=")
        if not equals or (values and value not in values):
            raise errors.InvalidRequest(f"{text!r} must have the form {form}.", param=param)
        named[name] = value
    return named


def answer_format(text: str) -> dict[str, Any]:
    """Return a text such as ``number``, ``choice:red,green`` or ``json:@schema.json`` as a job's ``answer_format``.

    Raises:
        core.errors.InvalidRequest: the format is unknown, or its file cannot be read.
    """
    kind, _, rest = text.partition(":")
    match kind, rest:
        case "free" | "number" | "boolean", "":
            return {"type": kind}
        case "choice", str(options) if options:
            return {"type": kind, "options": [option.strip() for option in options.split(",")]}
        case "json", "" if text == kind:
            return {"type": "json_object"}
        case "json", str(name) if name.startswith("@"):
            return {"type": "json_schema", "schema": _schema(Path(name[1:]))}
    raise errors.InvalidRequest(
        f"{text!r} must be free, number, boolean, choice:red,green, json or json:@schema.json.",
        param="format",
    )


def _schema(path: Path) -> Any:  # noqa: ANN401 - JSON; the service validates it
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise errors.InvalidRequest(f"{path} cannot be read.", param="format") from error
    except ValueError as error:
        raise errors.InvalidRequest(f"{path} is not valid JSON.", param="format") from error


def finished(job: Mapping[str, Any]) -> bool:
    """Whether ``job`` has finished."""
    return Status(job["status"]).terminal


def key(settings: Settings) -> str:
    """Return the API key: ``LONGLOOK_API_KEY``, or else the key in the home directory.

    Raises:
        core.errors.Unauthenticated: there is no key.
    """
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = settings.home / KEY_FILE
    try:
        return path.read_text().strip()
    except OSError as error:
        raise errors.Unauthenticated(
            f"No API key: set LONGLOOK_API_KEY (the file {path} cannot be read)."
        ) from error


def connect(settings: Settings) -> Client:
    """Return a client of the configured service. Raises the errors of :func:`key`."""
    return Client(settings.url, key=key(settings))


class Client:
    """A client of the API at ``url`` with one key.

    Every method raises :class:`Unreachable` if there is no response, and for an error response the class of
    :mod:`core.errors` with the same code or status.
    """

    def __init__(self, url: str, *, key: str) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS), retries=_RETRIES
        )

    def submit(
        self,
        images: Sequence[Path],
        question: str,
        *,
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Submit a job with image files in the given order; return the job.

        Args:
            images: files, sent unchanged.
            question: the question about them.
            options: the API's ``options`` (``max_output_tokens``, ``temperature``, ``priority``, …).
            idempotency_key: a new key by default, so that a retry after a lost response does not create a second job.

        Raises:
            core.errors.InvalidRequest: a file cannot be read.
        """
        form = [("question", question)]
        return self._send("/v1/jobs", images, form, options=options, key=idempotency_key)

    def submit_group(
        self,
        images: Sequence[Path],
        questions: Sequence[str],
        *,
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Submit several questions about the same images, as :meth:`submit` does; return the group."""
        form = [("questions", question) for question in questions]
        return self._send("/v1/groups", images, form, options=options, key=idempotency_key)

    def upload_image(self, path: Path, *, detail: str | None = None) -> Json:
        """Store an image; return it. The same file with the same detail is the same image.

        Raises:
            core.errors.InvalidRequest: the file cannot be read.
        """
        query = "" if detail is None else f"?detail={urllib.parse.quote(detail, safe='')}"
        return self._call("POST", f"/v1/images{query}", fields=[("image", _part(path))]).json

    def upload(self, name: str, content: bytes, *, purpose: str) -> Json:
        """Store a file for another request, such as a batch; return it."""
        fields = [("purpose", purpose), ("file", (name, content, "application/jsonl"))]
        return self._call("POST", "/v1/files", fields=fields).json

    def group(self, group_id: str) -> Json:
        """Return a group with its jobs."""
        return self.look(f"/v1/groups/{urllib.parse.quote(group_id, safe='')}")

    def job(self, job_id: str) -> Json:
        """Return a job."""
        return self.look(job_path(job_id))

    def pages(self, path: str, **query: str | int | Sequence[str] | None) -> Iterator[Json]:
        """Yield the pages of a list from ``after`` on, one request per page."""
        while True:
            page = self.look(path, **query)
            yield page
            if not page.get("has_more"):
                return
            query["after"] = page["last_id"]

    def content(self, path: str) -> bytes:
        """Return the bytes of the resource at ``path``."""
        return self._open("GET", path, headers={"Accept": "*/*"}).data

    def trace(self, job_id: str) -> Json:
        """Return a job's trace, which is partial while the job runs."""
        return self.look(f"{job_path(job_id)}/trace")

    def look(self, path: str, **query: str | int | Sequence[str] | None) -> Json:
        """Return the resource at ``path``; a parameter of the query that is None is left out."""
        present = {name: value for name, value in query.items() if value is not None}
        encoded = f"?{urllib.parse.urlencode(present, doseq=True)}" if present else ""
        return self._call("GET", path + encoded).json

    def act(
        self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> Json:
        """Post ``body`` as JSON to ``path``, with the Idempotency-Key ``key`` if given; return the response."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self._call("POST", path, body=body or {}, headers=headers).json

    def remove(self, path: str) -> Json:
        """Delete the resource at ``path``; return the response."""
        return self._call("DELETE", path).json

    def cancel(self, job_id: str) -> Json:
        """Cancel a job; return it."""
        return self._call("POST", f"{job_path(job_id)}/cancel").json

    def wait(
        self,
        job_id: str,
        *,
        pause: Pause = time.sleep,
        hold: int = _HOLD_SECONDS,
        report: Callable[[Json], None] | None = None,
    ) -> Json:
        """Return a job once it has finished, by requests that the API holds open.

        Args:
            job_id: the job.
            pause: waits between two requests.
            hold: seconds for which a request stays open.
            report: called with the unfinished job after each request.
        """
        headers = {"Prefer": f"wait={hold}"}
        while True:
            response = self._call("GET", job_path(job_id), headers=headers)
            if finished(response.json):
                return response.json
            if report is not None:
                report(response.json)
            # After a request that stayed open, the next one may follow at once.
            pause(0 if response.held else response.retry_after)

    def follow(
        self,
        job_id: str,
        *,
        pause: Pause = time.sleep,
        idle: Callable[[], None] | None = None,
    ) -> Iterator[Json]:
        """Yield a job's events from the first to ``job.finished``, across broken connections and restarts.

        Args:
            job_id: the job.
            pause: waits before a stream is reopened; it is also called with 0 between events.
            idle: called every few seconds while no event arrives.
        """
        after = failures = 0
        while True:
            try:
                for event in self._events(job_id, after=after):
                    pause(0)
                    if event is None:
                        if idle is not None:
                            idle()
                        continue
                    after, failures = int(event["sequence_number"]), 0
                    yield event
                    if event["type"] == "job.finished":
                        return
            except errors.Unavailable:
                failures += 1
                if not after or failures > _RESUMES:
                    raise
            pause(_RESUME_SECONDS)

    def _events(self, job_id: str, *, after: int) -> Iterator[Json | None]:
        """Yield the events of one stream, and None for each comment line, until it breaks or ends."""
        response = self._open(
            "GET",
            f"{job_path(job_id)}/events",
            headers={"Last-Event-ID": str(after)},
            stream=True,
        )
        with contextlib.suppress(urllib3.exceptions.HTTPError), contextlib.closing(response):
            for line in _lines(response):
                if line.startswith(b":"):
                    yield None
                elif line.startswith(b"data:") and (event := _json(line.removeprefix(b"data:"))):
                    yield event

    def _send(
        self,
        path: str,
        images: Sequence[Path],
        form: Sequence[tuple[str, str]],
        *,
        options: Mapping[str, Any] | None,
        key: str | None,
    ) -> Json:
        """Post image files and questions; return the job or the group."""
        fields: list[tuple[str, Any]] = [("image", _part(image)) for image in images]
        fields += form
        if options:
            fields.append(("options", json.dumps(options)))
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._call("POST", path, fields=fields, headers=headers).json

    def _call(self, method: str, path: str, **request: Any) -> _Response:  # noqa: ANN401 - of _open
        response = self._open(method, path, **request)
        seconds = _seconds(response.headers)
        return _Response(
            json=_json(response.data),
            retry_after=1 if seconds is None else seconds,
            held="Preference-Applied" in response.headers,
        )

    def _open(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        fields: Sequence[tuple[str, Any]] | None = None,
        body: Mapping[str, Any] | None = None,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Return a successful response; the body of a ``stream`` is not read yet."""
        content: dict[str, Any] = {"fields": fields} if body is None else {"json": body}
        try:
            response = self._pool.request(
                method,
                self.url + path,
                headers={**self._headers, **(headers or {})},
                **content,
                preload_content=not stream,
            )
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise Unreachable(
                f"No response from {self.url}. Is the service running (`longlook up`)? "
                "LONGLOOK_URL sets its address."
            ) from error
        if response.status >= 400:  # noqa: PLR2004 - HTTP status classes
            body = _json(response.data)
            raise fault(response.status, body, retry_after=_seconds(response.headers))
        return response


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield the complete lines of a response as they arrive."""
    rest = b""
    while piece := response.read1():
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


@dataclass(frozen=True)
class _Response:
    json: Json
    retry_after: int
    #: Whether the API waited with the response, as requested.
    held: bool


def fault(status: int, body: Json, *, retry_after: int | None = None) -> errors.LonglookError:
    """Return the error for an error response, by its code or else by its status."""
    nested = body.get("error")
    inner: Json = nested if isinstance(nested, dict) else {}
    code = str(body.get("code") or inner.get("code") or "")
    message = str(
        body.get("detail") or inner.get("message") or body.get("title") or f"HTTP status {status}."
    )
    if status >= 500:  # noqa: PLR2004 - HTTP status classes
        return errors.Unavailable(message, retry_after=retry_after or 1)
    kinds = _kinds(errors.RequestError)
    kind = min(kinds, key=lambda kind: (kind.code != code, kind.status != status))
    return kind(
        message,
        faults=_faults(body),
        code=code or None,
        param=inner.get("param"),
        retry_after=retry_after,
    )


def _kinds(kind: type[errors.RequestError]) -> Iterator[type[errors.RequestError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


def _faults(body: Json) -> tuple[errors.Fault, ...]:
    listed = body.get("errors")
    return tuple(
        errors.Fault(
            pointer=str(entry.get("pointer") or entry.get("parameter") or ""),
            detail=str(entry.get("detail") or ""),
            code=str(entry.get("code") or errors.Fault.code),
        )
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
    )


def _part(path: Path) -> tuple[str, bytes, str]:
    """Return a file as a part of a form: its name, its bytes, and the media type for its name."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise errors.InvalidRequest(
            f"{path} cannot be read: {error.strerror}.", param="image"
        ) from error
    return path.name, content, mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def job_path(job_id: str) -> str:
    """Return the path of a job."""
    return f"/v1/jobs/{urllib.parse.quote(job_id, safe='')}"


def _json(data: bytes) -> Json:
    """Return a response's body, or an empty one if it is not a JSON object (a proxy's error page, for example)."""
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(headers: Mapping[str, str]) -> int | None:
    """Return Retry-After in seconds if it is a number."""
    text = headers.get("Retry-After", "")
    return int(text) if text.isdigit() else None


def probe(url: str, *, seconds: float, bearer: str | None = None) -> tuple[int, Json]:
    """Request ``url`` once; return status and JSON, or status 0 if there is no response within ``seconds``.

    For health checks of the API and of engines: no retries, no errors.
    """
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    try:
        response = urllib3.request("GET", url, headers=headers, timeout=seconds, retries=False)
    except (urllib3.exceptions.HTTPError, ValueError):
        return 0, {}
    return response.status, _json(response.data)
