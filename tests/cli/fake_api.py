"""A fake API with canned responses on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Canned:
    """A response to send."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Raw bytes to send instead of the body; with ``broken``, the connection breaks before their end.
    raw: bytes | None = None
    broken: bool = False


@dataclass(frozen=True)
class Seen:
    """A received request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class FakeApi:
    """Returns the responses for ``METHOD /path`` in order, repeats the last one, and records the requests."""

    def __init__(self, answers: Mapping[str, list[Canned]]) -> None:
        self._answers = {route: list(responses) for route, responses in answers.items()}
        self.seen: list[Seen] = []
        self.url = ""

    def answer(self, request: Seen) -> Canned:
        """Return the next response to ``request``."""
        self.seen.append(request)
        route = f"{request.method} {request.path.partition('?')[0]}"
        responses = self._answers.get(route)
        if not responses:
            return Canned(
                404, {"detail": f"No response for {route}.", "error": {"code": "not_found"}}
            )
        return responses.pop(0) if len(responses) > 1 else responses[0]


@contextmanager
def serving(answers: Mapping[str, list[Canned]]) -> Iterator[FakeApi]:
    """Serve ``answers`` on a free port of the loopback interface."""
    fake = FakeApi(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._give()

        def do_POST(self) -> None:
            self._give()

        def do_DELETE(self) -> None:
            self._give()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _give(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            canned = fake.answer(Seen(self.command, self.path, dict(self.headers), body))
            content = json.dumps(canned.body).encode() if canned.raw is None else canned.raw
            self.send_response(canned.status)
            for name, value in canned.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) + canned.broken))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = self.close_connection or canned.broken

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def job(status: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a job carries
    """Return a job as the API shows it."""
    return {
        "id": "job_0123456789abcdef0123456789abcdef",
        "status": status,
        "question": "How many pelicans?",
        "answer": {"text": "6"} if status == "succeeded" else None,
        "error": {"code": "engine_fault", "message": "The engine failed.", "retryable": True}
        if status == "failed"
        else None,
        "usage": {"input_tokens": 100, "cached_tokens": 93, "output_tokens": 40}
        if status == "succeeded"
        else None,
        "queue": {"position": 2} if status == "queued" else None,
        "attempt": 1,
        "created_at": "2026-11-23T10:00:00.000Z",
        **more,
    }


def events(*reported: dict[str, Any], broken: bool = False) -> Canned:
    """Return a stream of events, numbered from 1 on where they are not."""
    numbered = [{"sequence_number": number, **one} for number, one in enumerate(reported, 1)]
    frames = [f"id: {one['sequence_number']}\ndata: {json.dumps(one)}\n\n" for one in numbered]
    return Canned(raw=b":\n" + ":\n".join(frames).encode(), broken=broken)


def delta(text: str, *, attempt: int = 1, sample: int = 0, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever an event carries
    """Return an event that adds to a trace."""
    reported = {"type": "trace.delta", "attempt": attempt, "generation": sample, "delta": text}
    return reported | more


def trace(text: str, *, attempt: int = 1) -> dict[str, Any]:
    """Return a trace as the API shows it."""
    return {"object": "trace", "generations": [{"attempt": attempt, "index": 0, "text": text}]}
