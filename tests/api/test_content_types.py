"""What decides how a body is read: its Content-Type, and its bytes where clients send a type that says nothing."""

from __future__ import annotations

import json

import pytest
from urllib3 import encode_multipart_formdata

from tests.api import image_files
from tests.api.asking import PNG
from tests.api.conftest import Caller

JSON = "application/json"
CURL = "application/x-www-form-urlencoded"
UNSTATED = [None, "", "application/octet-stream", "binary/octet-stream", CURL]
JOB = json.dumps({"question": "How many?", "images": [{"data": PNG}]}).encode()
UPLOAD = json.dumps({"data": PNG}).encode()
IMAGE = image_files.png()
FORM, FORM_TYPE = encode_multipart_formdata(
    {"question": "?", "image": ("a.png", IMAGE)}, boundary="x"
)


@pytest.mark.parametrize("kind", UNSTATED)
def test_a_body_without_a_meaningful_type_is_taken_for_what_its_bytes_are(
    caller: Caller, kind: str | None
) -> None:
    for path, body, status in [
        ("/v1/images", IMAGE, 201),
        ("/v1/images", UPLOAD, 201),
        ("/v1/images", b"\xef\xbb\xbf \n" + UPLOAD, 201),
        ("/v1/jobs", JOB, 202),
        ("/v1/groups", JOB.replace(b'"question": "How many?"', b'"questions": ["?"]'), 202),
    ]:
        answer = caller("POST", path, data=body, content_type=kind)
        assert (path, answer.status_code) == (path, status), answer.text


@pytest.mark.parametrize(
    ("path", "kind", "body", "said"),
    [
        ("/v1/jobs", CURL, b"question=x", f"`{CURL}`, and the body is text."),
        ("/v1/jobs", None, IMAGE, "missing, and the body is a PNG image."),
        (
            "/v1/jobs",
            "application/octet-stream",
            FORM,
            "octet-stream`, and the body is a multipart form.",
        ),
        ("/v1/jobs", "text/plain", JOB, "`text/plain`, and the body is JSON."),
        ("/v1/jobs", JSON, IMAGE, f"`{JSON}`, and the body is a PNG image."),
        ("/v1/jobs", JSON, FORM, f"`{JSON}`, and the body is a multipart form."),
        ("/v1/jobs", FORM_TYPE, JOB, "`multipart/form-data`, and the body is JSON."),
        ("/v1/jobs", FORM_TYPE, IMAGE, "`multipart/form-data`, and the body is a PNG image."),
        ("/v1/images", "text/plain", IMAGE, "`text/plain`, and the body is a PNG image."),
        (
            "/v1/images",
            "binary/octet-stream",
            FORM,
            "octet-stream`, and the body is a multipart form.",
        ),
        ("/v1/images", JSON, IMAGE, f"`{JSON}`, and the body is a PNG image."),
        ("/v1/images", "x" * 5000, IMAGE, "xxx…`, and the body is a PNG image."),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_wrong_type_is_named_with_what_was_sent(
    caller: Caller, path: str, kind: str | None, body: bytes, said: str
) -> None:
    answer = caller("POST", path, data=body, content_type=kind)

    assert answer.status_code == 415
    assert answer.get_json()["error"]["param"] == "Content-Type"
    detail = answer.get_json()["detail"]
    assert detail.startswith("The Content-Type header must be ")
    assert said in detail
    assert len(detail) < 500


def test_a_form_without_a_boundary_in_its_type_is_400_and_says_so(caller: Caller) -> None:
    for path in ("/v1/jobs", "/v1/images"):
        answer = caller("POST", path, data=FORM, content_type="multipart/form-data")
        assert answer.status_code == 400
        assert "no boundary" in answer.get_json()["detail"]


def test_another_route_names_the_type_it_reads(caller: Caller) -> None:
    answer = caller("POST", "/v1/webhook_endpoints", data=b"{}", content_type=CURL)
    assert answer.status_code == 415
    assert answer.get_json()["detail"].endswith(f"must be {JSON}; it is `{CURL}`.")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"<!DOCTYPE html>\n<html><title>Log in</title>", "an HTML page"),
        (PNG.partition(",")[2].encode(), "a PNG as base64 text; send the bytes of the image"),
        (PNG.encode(), "a data URL; send the bytes of the image"),
        (b"https://example.com/a.png", "a URL"),
        ("Señor, this is no image: é".encode(), "text"),
    ],
)
def test_a_file_that_is_no_image_is_named(caller: Caller, data: bytes, kind: str) -> None:
    answer = caller("POST", "/v1/images", data=data, content_type="image/png")
    assert answer.status_code == 422
    assert answer.get_json()["error"]["code"] == "invalid_image_format"
    assert f"it appears to be {kind}. Send JPEG" in answer.get_json()["detail"]
    assert "AVIF" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"\xff\x0a\xfa\x7f", "a JPEG XL image"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n\x00\x00\x00\x14ftypjp2 ", "a JPEG 2000 image"),
    ],
)
def test_an_image_of_another_kind_is_named(caller: Caller, data: bytes, kind: str) -> None:
    answer = caller("POST", "/v1/images", data=data, content_type="image/png")
    assert answer.status_code == 415
    assert answer.get_json()["error"]["code"] == "unsupported_image_media_type"
    assert f"The file is {kind}." in answer.get_json()["detail"]


@pytest.mark.parametrize("data", [b"\x00\x01\x02\x03", b"\xfe" * 2000, b"\x00" * 40])
def test_a_file_of_an_unknown_kind_is_called_so(caller: Caller, data: bytes) -> None:
    answer = caller("POST", "/v1/images", data=data, content_type="image/png")
    assert "its first bytes fit no known format. Send" in answer.get_json()["detail"]
