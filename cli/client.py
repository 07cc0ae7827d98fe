"""A small client of our own API, for the command line: typed errors, safe repeats, waiting, following."""

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
#: How long one request of :meth:`Client.wait` is held open; the API's own limit is 60.
_HOLD_SECONDS: Final = 30
#: A stream that broke is taken up again, so often in vain at most.
_RESUMES: Final = 60
_RESUME_SECONDS: Final = 1.0
#: Repeating is safe: a submit carries an Idempotency-Key and a second cancel changes nothing. A refused
#: connection is not repeated, so that a service that is not there is told at once.
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
    """Nothing answers at the service's address."""

    code = "unreachable"


def metadata(given: Sequence[str]) -> dict[str, str]:
    """Return texts such as ``case=42`` as a job's metadata.

    Raises:
        core.errors.InvalidRequest: one has no ``=``.
    """
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise errors.InvalidRequest(f"{text!r} is not NAME=VALUE.", param="metadata")
        pairs[name] = value
    return pairs


def switches(given: Sequence[str]) -> dict[str, bool]:
    """Return texts such as ``verify=on`` as what is on and what is off.

    Raises:
        core.errors.InvalidRequest: one says neither.
    """
    pairs = {}
    for text in given:
        name, _, value = text.partition("=")
        if value not in ("on", "off"):
            raise errors.InvalidRequest(f"{text!r} is not NAME=on or NAME=off.", param="guards")
        pairs[name] = value == "on"
    return pairs


def answer_format(given: str) -> dict[str, Any]:
    """Return a text such as ``number``, ``choice:red,green`` or ``json:@schema.json`` as a job's ``answer_format``.

    Raises:
        core.errors.InvalidRequest: it is none, or its file cannot be read.
    """
    kind, _, rest = given.partition(":")
    match kind, rest:
        case "free" | "number" | "boolean", "":
            return {"type": kind}
        case "choice", str(options) if options:
            return {"type": kind, "options": [option.strip() for option in options.split(",")]}
        case "json", str(name) if name.startswith("@"):
            return {"type": "json_schema", "schema": _schema(Path(name[1:]))}
    raise errors.InvalidRequest(
        f"{given!r} is not free, number, boolean, choice:red,green or json:@schema.json.",
        param="format",
    )


def _schema(path: Path) -> Any:  # noqa: ANN401 - JSON; the service says what is wrong with it
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise errors.InvalidRequest(f"{path} cannot be read.", param="format") from error
    except ValueError as error:
        raise errors.InvalidRequest(f"{path} is no JSON.", param="format") from error


def finished(job: Mapping[str, Any]) -> bool:
    """Whether ``job`` will never change again."""
    return Status(job["status"]).terminal


def key(settings: Settings) -> str:
    """Return the key of the command line: the one that is set, else the one in the home directory.

    Raises:
        core.errors.Unauthenticated: there is neither.
    """
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = settings.home / KEY_FILE
    try:
        return path.read_text().strip()
    except OSError as error:
        raise errors.Unauthenticated(
            f"There is no API key: set LONGLOOK_API_KEY (none is in {path})."
        ) from error


def connect(settings: Settings) -> Client:
    """Return a client of the service that ``settings`` names. Raises as :func:`key` does."""
    return Client(settings.url, key=key(settings))


class Client:
    """Talks to the API at ``url`` with one key.

    Every method raises :class:`Unreachable` when nothing answers, and for an error answer the class of
    :mod:`core.errors` whose code or status it carries.
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
        """Submit a job with image files in their order; return the job.

        Args:
            images: files, sent as they are.
            question: what to ask about them.
            options: the API's ``options`` (``max_output_tokens``, ``temperature``, ``priority``, …).
            idempotency_key: a new one by default, so that a repeat after a lost answer is not a second job.

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
        """Submit several questions about the same images; return the group. As :meth:`submit` otherwise."""
        form = [("questions", question) for question in questions]
        return self._send("/v1/groups", images, form, options=options, key=idempotency_key)

    def group(self, group_id: str) -> Json:
        """Return a group with its jobs."""
        return self._call("GET", f"/v1/groups/{urllib.parse.quote(group_id, safe='')}").json

    def job(self, job_id: str) -> Json:
        """Return a job."""
        return self._call("GET", _path(job_id)).json

    def jobs(self, filters: Mapping[str, str | int | Sequence[str] | None]) -> Json:
        """Return one page of jobs, newest first; ``filters`` are the API's query parameters, None for no filter."""
        given = {name: value for name, value in filters.items() if value is not None}
        query = urllib.parse.urlencode(given, doseq=True)
        return self._call("GET", f"/v1/jobs?{query}").json

    def trace(self, job_id: str) -> Json:
        """Return a job's trace, partial while it runs."""
        return self._call("GET", f"{_path(job_id)}/trace").json

    def look(self, path: str, **query: str | int) -> Json:
        """Return what is at ``path``."""
        requested = f"?{urllib.parse.urlencode(query)}" if query else ""
        return self._call("GET", path + requested).json

    def act(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """Post ``body`` as JSON to ``path``; return the answer."""
        return self._call("POST", path, body=body or {}).json

    def queue(self, *, account: str | None = None) -> Json:
        """Return how the queue does; operators may name one ``account``."""
        query = "" if account is None else f"?{urllib.parse.urlencode({'account': account})}"
        return self._call("GET", f"/v1/queue{query}").json

    def usage(self, *, account: str | None = None) -> Json:
        """Return what the key's account uses of what it may; operators may name another ``account``."""
        query = "" if account is None else f"?{urllib.parse.urlencode({'account': account})}"
        return self._call("GET", f"/v1/usage{query}").json

    def cancel(self, job_id: str) -> Json:
        """Ask for a job to be cancelled; return the job."""
        return self._call("POST", f"{_path(job_id)}/cancel").json

    def wait(self, job_id: str, *, pause: Pause = time.sleep) -> Json:
        """Return a job when it has finished. The API holds each request open for a while.

        Args:
            job_id: which job.
            pause: how to spend the time between two requests.
        """
        headers = {"Prefer": f"wait={_HOLD_SECONDS}"}
        while True:
            answer = self._call("GET", _path(job_id), headers=headers)
            if finished(answer.json):
                return answer.json
            pause(answer.retry_after)

    def follow(self, job_id: str, *, pause: Pause = time.sleep) -> Iterator[Json]:
        """Yield a job's events from the first to ``job.finished``, over broken connections and restarts.

        Args:
            job_id: which job.
            pause: how to spend the time until the next try; also called, for no time, between events.
        """
        after = failures = 0
        while True:
            try:
                for event in self._events(job_id, after=after):
                    pause(0)
                    if event is None:
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
        """Yield the events of one stream, and None for each sign of life, until it breaks or ends."""
        response = self._open(
            "GET",
            f"{_path(job_id)}/events",
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
        """Post image files and questions; return what was made of them."""
        fields: list[tuple[str, Any]] = [("image", _part(image)) for image in images]
        fields += form
        if options:
            fields.append(("options", json.dumps(options)))
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._call("POST", path, fields=fields, headers=headers).json

    def _call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        fields: Sequence[tuple[str, Any]] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> _Answer:
        response = self._open(method, path, headers=headers, fields=fields, body=body)
        reported = _seconds(response.headers)
        return _Answer(json=_json(response.data), retry_after=1 if reported is None else reported)

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
        """Return an answer that is no error; the body of a ``stream`` has not been read."""
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
                f"No answer from {self.url}. Is the service running (`longlook up`)? "
                "LONGLOOK_URL says where it is."
            ) from error
        if response.status >= 400:  # noqa: PLR2004 - HTTP's own border
            body = _json(response.data)
            raise fault(response.status, body, retry_after=_seconds(response.headers))
        return response


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield the whole lines of an answer as they come in."""
    rest = b""
    while piece := response.read1():
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


@dataclass(frozen=True)
class _Answer:
    json: Json
    retry_after: int


def fault(status: int, body: Json, *, retry_after: int | None = None) -> errors.LonglookError:
    """Return the error that an error answer stands for, by its code, else by its status."""
    nested = body.get("error")
    inner: Json = nested if isinstance(nested, dict) else {}
    code = str(body.get("code") or inner.get("code") or "")
    message = str(
        body.get("detail") or inner.get("message") or body.get("title") or f"HTTP status {status}."
    )
    if status >= 500:  # noqa: PLR2004 - HTTP's own border
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
    """Return the single faults of an answer that lists several."""
    listed = body.get("errors")
    return tuple(
        errors.Fault(
            pointer=str(one.get("pointer") or one.get("parameter") or ""),
            detail=str(one.get("detail") or ""),
            code=str(one.get("code") or errors.Fault.code),
        )
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
    )


def _part(path: Path) -> tuple[str, bytes, str]:
    """Return a file as a part of a form: its name, its bytes, its type by the name."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise errors.InvalidRequest(
            f"{path} cannot be read: {error.strerror}.", param="image"
        ) from error
    return path.name, content, mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _path(job_id: str) -> str:
    return f"/v1/jobs/{urllib.parse.quote(job_id, safe='')}"


def _json(data: bytes) -> Json:
    """Return an answer's body; an answer that is no JSON object, from a proxy perhaps, says nothing."""
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(headers: Mapping[str, str]) -> int | None:
    """Return Retry-After in seconds, when it is there as a number."""
    text = headers.get("Retry-After", "")
    return int(text) if text.isdigit() else None


def probe(url: str, *, seconds: float, bearer: str | None = None) -> tuple[int, Json]:
    """Ask ``url`` once and return status and JSON; status 0 when nothing answers within ``seconds``.

    For health checks of our own API and of engines: no repeats, no errors.
    """
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    try:
        response = urllib3.request("GET", url, headers=headers, timeout=seconds, retries=False)
    except (urllib3.exceptions.HTTPError, ValueError):
        return 0, {}
    return response.status, _json(response.data)
