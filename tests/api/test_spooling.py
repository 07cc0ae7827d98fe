"""Large bodies: the server keeps them on disk, the application reads them there, and nothing of them stays."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from urllib3 import encode_multipart_formdata
from werkzeug.test import create_environ, run_wsgi_app

from api.app import service_of
from api.framework import Router, spooling
from core.settings import Settings
from core.spool import IN_MEMORY_BYTES, Spool, SpooledFile
from tests.api import image_files, wire
from tests.api.conftest import Caller
from tests.e2e.stack import eventually

MEBIBYTE = 2**20
LARGE = os.urandom(3 * MEBIBYTE)
SHA256 = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with room for images of 12 MiB."""
    return settings.model_copy(update={"max_image_mb": 1, "max_body_mb": 32, "spool_mb": 96})


def digest(answer: wire.Answer) -> str:
    """Return the SHA-256 of the body that the application has read."""
    return str(json.loads(answer.body)["sha256"])


def padded(size: int, *, seed: int = 1) -> bytes:
    """Return a PNG with random bytes after its end."""
    image = image_files.png(seed=seed)
    return image + os.urandom(size - len(image))


class TestServer:
    def test_a_large_body_goes_to_disk_and_is_released_after_its_request(
        self, tmp_path: Path
    ) -> None:
        spool = Spool(tmp_path, total=2**26)
        with wire.running(spool=spool, memory=2**20, body=2**22) as served:
            for _ in range(3):
                client = served.client().ask("/", method="POST", body=LARGE)
                assert digest(client.answer()) == SHA256
                assert eventually(lambda: spool.held == 0)

    def test_a_chunked_body_moves_to_disk_once_it_is_large(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, total=2**26)
        with wire.running(spool=spool, memory=2**20, body=2**22) as served:
            client = served.client().ask(
                "/", method="POST", headers="Transfer-Encoding: chunked\r\n"
            )
            for start in range(0, len(LARGE), 100_000):
                piece = LARGE[start : start + 100_000]
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            assert eventually(lambda: spool.held > MEBIBYTE)
            assert digest(client.send(b"0\r\n\r\n").answer()) == SHA256
            assert eventually(lambda: spool.held == 0)

    def test_a_body_that_exceeds_the_share_is_refused_before_it_is_sent(
        self, tmp_path: Path
    ) -> None:
        spool = Spool(tmp_path, total=2**22)
        with wire.running(spool=spool, body=2**24) as served:
            headers = f"Content-Length: {2**22}\r\n"
            answer = served.client().ask("/", method="POST", headers=headers).answer()
            assert answer.status == 503
            assert answer.problem["error"]["code"] == "overloaded"
            assert answer.headers["Retry-After"] == "5"

    def test_a_body_for_which_the_disk_has_no_room_is_refused(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, total=2**26, floor=2**60)
        with wire.running(spool=spool, body=2**22) as served:
            for headers, body in [
                (f"Content-Length: {2**21}\r\n", b""),
                (
                    "Transfer-Encoding: chunked\r\n",
                    b"%x\r\n%b" % (2 * IN_MEMORY_BYTES, bytes(2 * IN_MEMORY_BYTES)),
                ),
            ]:
                client = served.client().ask("/", method="POST", headers=headers)
                answer = client.send(body).answer()
                assert answer.status == 503
                assert answer.problem["error"]["code"] == "insufficient_storage"
            small = served.client().ask("/", method="POST", body=b"small")
            assert small.answer().status == 200

    def test_a_client_that_leaves_in_the_middle_leaves_nothing(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, total=2**26)
        with wire.running(spool=spool, body=2**22) as served:
            client = served.client().ask(
                "/", method="POST", headers=f"Content-Length: {len(LARGE)}\r\n"
            )
            client.send(LARGE[:-1])
            assert eventually(lambda: spool.held > MEBIBYTE)
            client.close()
            assert eventually(lambda: spool.held == 0)


def test_an_input_reads_its_file_in_any_sizes() -> None:
    for sizes in ([3, 0, 5, 100], [-1], [1] * 20):
        stream = spooling.SpooledInput(SpooledFile.of(b"0123456789"))
        assert b"".join(stream.read(size) for size in sizes) == b"0123456789"
        assert stream.read(1) == b""


def json_job(files: list[bytes]) -> tuple[bytes, str]:
    images = [{"data": image_files.data_url(file)} for file in files]
    return json.dumps({"question": "?", "images": images}).encode(), "application/json"


def escaped_job(files: list[bytes]) -> tuple[bytes, str]:
    """As PHP writes JSON."""
    body, kind = json_job(files)
    return body.replace(b"/", b"\\/"), kind


def form_job(files: list[bytes]) -> tuple[bytes, str]:
    parts: list[tuple[str, str | tuple[str, bytes]]] = [("question", "?")]
    return encode_multipart_formdata([*parts, *(("image", ("a.png", file)) for file in files)])


@pytest.mark.parametrize("make", [json_job, escaped_job, form_job])
@pytest.mark.parametrize("from_server", [True, False])
def test_a_large_submission_costs_little_memory_and_leaves_nothing_on_disk(
    caller: Caller,
    app: Router,
    make: Callable[[list[bytes]], tuple[bytes, str]],
    *,
    from_server: bool,
) -> None:
    files = [padded(2**20, seed=number) for number in range(8)]
    body, kind = make(files)
    spool = service_of(app).spool
    received = spool.open("192.0.2.1")
    stream: object = io.BytesIO(body)
    if from_server:
        received.write(body)
        stream = spooling.SpooledInput(received)
    environ = create_environ(
        "/v1/jobs", method="POST", headers={"Authorization": f"Bearer {caller.key}"}
    )
    environ |= {
        "wsgi.input": stream, "CONTENT_TYPE": kind, "CONTENT_LENGTH": str(len(body))
    }  # fmt: skip
    # What the first submission loads is not what a submission costs.
    assert caller.submit().status_code == 202
    tracemalloc.start()
    try:
        parts, status, _ = run_wsgi_app(app, environ)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert status.startswith("202 "), b"".join(parts)
    # The images are smaller by far than the files, so this is what reading the body takes.
    assert peak < len(body) / 2 + 2 * MEBIBYTE
    received.close()
    assert spool.held == 0


def test_every_way_to_send_a_large_file_gives_the_same_image(caller: Caller) -> None:
    data = padded(2**20)
    url = image_files.data_url(data)
    form, form_type = encode_multipart_formdata({"image": ("a.png", data)})
    coded = {"headers": {"Content-Encoding": "gzip"}}
    answers = [
        caller("POST", "/v1/images", data=data, content_type="image/png"),
        caller("POST", "/v1/images", data=form, content_type=form_type),
        caller("POST", "/v1/images", json={"data": url}),
        caller("POST", "/v1/images", json={"image_url": {"url": url}}),
        caller("POST", "/v1/images", data=gzip.compress(data), content_type="image/png", **coded),
    ]
    assert [answer.status_code for answer in answers] == [201] * 5
    assert len({answer.get_json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("data", "place", "said"),
    [
        ("data:image/png;base64," + "A" * 100_000 + "*", "data", "the character `*` after 100,000"),
        ("data:image/png;base64," + "AAAA " * 20_000, "data", "space(s) inside"),
        (
            base64.b64encode(bytes(100_000)).decode(),
            "data",
            "as base64 text without the part up to the comma",
        ),
        (base64.b64encode(bytes(100_000)).decode(), "url", "must have at most 2,048 characters"),
    ],
    ids=["a character", "spaces", "no prefix", "no URL"],
)
def test_the_errors_of_long_strings_are_those_of_short_ones(
    caller: Caller, data: str, place: str, said: str
) -> None:
    body = {"question": "?", "images": [{place: data}]}
    answer = caller("POST", "/v1/jobs", json=body)
    assert answer.status_code == 422
    [fault] = answer.get_json()["errors"]
    assert fault["pointer"] == f"#/images/0/{place}"
    assert said in fault["detail"]


@pytest.mark.parametrize("spoil", [b"\x01", b"\\x", b"\xff", b"\n", b"\\u1zz2"])
def test_a_long_string_that_is_not_valid_json_is_400(caller: Caller, spoil: bytes) -> None:
    body, kind = json_job([padded(100_000)])
    at = body.index(b"base64,") + 90_000
    for broken in (body[:at] + spoil + body[at:], body[:-6] + spoil + body[-6:]):
        answer = caller("POST", "/v1/jobs", data=broken, content_type=kind)
        assert answer.status_code == 400, spoil
        assert answer.get_json()["detail"] == "The request body is not valid JSON."


def test_json_besides_its_images_is_bounded(caller: Caller) -> None:
    body = json.dumps({"question": "x" * (17 * MEBIBYTE), "images": []}).encode()
    answer = caller("POST", "/v1/jobs", data=body, content_type="application/json")
    assert answer.status_code == 413
    assert "at most 16,777,216 bytes besides its images" in answer.get_json()["detail"]
