"""What other HTTP clients of OpenAI's API send: old versions, chunks, compression, other methods."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openai
import pytest

from scripted.options import ScriptedOptions
from tests.clients.service import Service

pytestmark = pytest.mark.e2e

BODY = b'{"input": "How many?"}'
SERVED = ["/v1/responses", "/v1/chat/completions", "/v1/files", "/v1/batches", "/v1/models"]


@pytest.fixture(scope="module")
def engine_options() -> ScriptedOptions:
    """Answers take no time."""
    return ScriptedOptions(tokens_per_second=4000)


class Answer(NamedTuple):
    """An answer as it came over the connection; ``body`` may be in chunks."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The first object in the body."""
        text = self.body.decode()
        return json.JSONDecoder().raw_decode(text[text.index("{") :])[0]


def send(
    service: Service,
    line: str,
    *headers: str,
    body: bytes = b"",
    key: str | None = None,
) -> Answer:
    """Send the bytes of a request and read until the server closes the connection."""
    address = urlsplit(service.base_url)
    authorization = f"Bearer {service.key if key is None else key}"
    lines = [line, "Host: test", "Connection: close", f"Authorization: {authorization}", *headers]
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=60) as peer:
        peer.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        received = b"".join(iter(lambda: peer.recv(65536), b""))
    received = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    version, status, *_ = first.split(" ")
    named = (field.split(": ", 1) for field in fields)
    return Answer(version, int(status), {name.lower(): value for name, value in named}, rest)


def chunked(body: bytes) -> bytes:
    """Return a body in chunks."""
    half = len(body) // 2
    pieces = (body[:half], body[half:], b"")
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


class TestBodies:
    @pytest.mark.parametrize(
        ("version", "headers", "body"),
        [
            ("1.0", [f"Content-Length: {len(BODY)}"], BODY),
            ("1.1", ["Transfer-Encoding: chunked"], chunked(BODY)),
            ("1.1", [f"Content-Length: {len(BODY)}", "Expect: 100-continue"], BODY),
            (
                "1.1",
                [f"Content-Length: {len(gzip.compress(BODY))}", "Content-Encoding: gzip"],
                gzip.compress(BODY),
            ),
        ],
        ids=["HTTP/1.0", "chunks", "100-continue", "gzip"],
    )
    def test_a_body_arrives_in_each_way(
        self, service: Service, version: str, headers: list[str], body: bytes
    ) -> None:
        answer = send(
            service,
            f"POST /v1/responses HTTP/{version}",
            "Content-Type: application/json; charset=utf-8",
            *headers,
            body=body,
        )
        assert (answer.version, answer.status) == (f"HTTP/{version}", 200)
        assert answer.json["status"] == "completed"

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            (b"", None),
            (b"[]", "body"),
            (b'{"input": "a"', None),
            (b'{"input": "a"} x', None),
            (b'{"input": NaN}', None),
            (b'{"input": "a\\ud800"}', None),
            ('{"input": "é"}'.encode("latin-1"), None),
            (b'{"input": "a", "input": "b"}', "input"),
            (b'{"input": [{"role": "user", "content": "a", "content": "b"}]}', "input[0].content"),
            (b"[" * 10_000, None),
            (b'{"input": ' + b"[" * 70 + b"]" * 70 + b"}", "input[0]"),
        ],
    )
    def test_what_is_no_request_is_a_bad_one(
        self, service: Service, body: bytes, param: str | None
    ) -> None:
        for path in ("responses", "chat/completions"):
            answer = send(
                service,
                f"POST /v1/{path} HTTP/1.1",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                body=body,
            )
            assert answer.status == 400
            error = answer.json["error"]
            assert error["type"] == "invalid_request_error"
            if param is not None and (path == "responses" or param == "body"):
                assert error["param"] == param


class TestMethods:
    @pytest.mark.parametrize("path", SERVED)
    def test_every_method_is_answered_at_once_in_json_or_without_a_body(
        self, service: Service, path: str
    ) -> None:
        for method in ("PUT", "PATCH", "TRACE", "OTHER"):
            answer = send(service, f"{method} {path} HTTP/1.1", "Content-Length: 0")
            code = answer.json["error"]["code"]
            assert (answer.status, code) in {(404, "not_found"), (405, "method_not_allowed")}
            assert (answer.status == 405) == ("allow" in answer.headers)
        options = send(service, f"OPTIONS {path} HTTP/1.1")
        assert (options.status, options.body) == (200, b"")
        head = send(service, f"HEAD {path} HTTP/1.1")
        assert head.status in ((404, 405) if path in SERVED[:2] else (200,))
        assert head.body == b""

    @pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/models/", "/models", "/v1/v1/models"])
    def test_other_paths_are_json_404(self, service: Service, path: str) -> None:
        answer = send(service, f"GET {path} HTTP/1.1")
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


class TestHeaders:
    def test_a_key_that_is_missing_or_wrong_is_401(self, service: Service) -> None:
        for path in SERVED[2:]:
            for key in ("", "sk-none", "ll_é", service.key + "x"):
                answer = send(service, f"GET {path} HTTP/1.1", key=key)
                assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
                assert answer.headers["www-authenticate"].startswith("Bearer")

    def test_headers_of_openai_are_ignored(self, service: Service) -> None:
        others = ("OpenAI-Organization: org-1", "OpenAI-Project: proj_1", "OpenAI-Beta: x=v1")
        assert send(service, "GET /v1/models HTTP/1.1", *others).status == 200

    def test_the_address_may_end_with_a_slash_and_needs_its_version(self, service: Service) -> None:
        assert service.client(base_url=f"{service.base_url}/").models.list().data
        with pytest.raises(openai.NotFoundError) as caught:
            service.client(base_url=service.base_url.removesuffix("/v1")).models.list()
        assert caught.value.code == "not_found"
        assert "`/v1`" in caught.value.message
