"""Forms as clients send them: file names of all sorts, parts without one, inputs without a choice, too many parts."""

from __future__ import annotations

import pytest
from urllib3 import encode_multipart_formdata

from tests.api import image_files
from tests.api.asking import faults
from tests.api.conftest import Caller

FORM = "multipart/form-data; boundary=x"
PNG = image_files.png()
QUESTION = (b'name="question"', b"How many?")
#: Content-Disposition parameters with file names that are not UTF-8, or that end in what looks like an escape.
NAMES: dict[str, bytes] = {
    "UTF-8": 'name="image"; filename="Größe.png"'.encode(),
    "Latin-1": 'name="image"; filename="Größe.png"'.encode("latin-1"),
    "Shift-JIS": 'name="image"; filename="猫.png"'.encode("shift-jis"),
    "Shift-JIS that ends in a backslash": 'name="image"; filename="予定表"'.encode("shift-jis"),
    "the same before the name": 'filename="予定表"; name="image"'.encode("shift-jis"),
    "GBK": 'name="image"; filename="图片.png"'.encode("gbk"),
    "Big5 with a backslash": 'name="image"; filename="功.png"'.encode("big5"),
    "UTF-16": b'name="image"; filename="' + "ä.png".encode("utf-16-le") + b'"',
    "a Windows path": b'name="image"; filename="C:\\photos\\"',
    "escaped quotes": rb'name="image"; filename="a \"b\" c.png"',
    "an extended name": b'name="image"; filename="a.png"; filename*=UTF-8\'\'%e2%82%ac.png',
    "an extended name in Latin-1": b"name=\"image\"; filename*=iso-8859-1''%a3.png",
    "an unknown encoding": b"name=\"image\"; filename*=koi8-r''%d4.png",
    "an extended name in pieces": b"name=\"image\"; filename*0=a; filename*1*=''%e2",
    "without quotes": b"name=image; filename=a.png",
    "upper case": b'NAME="image"; FILENAME="a.png"',
    "in two lines": b'name="image";\r\n filename="a\xff.png"',
    "a semicolon": b'name="image"; filename="a;b.png"',
}


def part(parameters: bytes, data: bytes, *lines: bytes) -> bytes:
    """Return a part of a form with the boundary ``x``."""
    head = b"\r\n".join([b"Content-Disposition: form-data; " + parameters, *lines])
    return b"--x\r\n" + head + b"\r\n\r\n" + data + b"\r\n"


def form(*parts: tuple[bytes, ...]) -> bytes:
    """Return a form."""
    return b"".join(part(*one) for one in parts) + b"--x--\r\n"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_the_name_of_a_file_does_not_matter(caller: Caller, name: bytes) -> None:
    job = caller("POST", "/v1/jobs", data=form(QUESTION, (name, PNG)), content_type=FORM)
    assert job.status_code == 202, job.text
    image = caller("POST", "/v1/images", data=form((name, PNG)), content_type=FORM)
    assert image.status_code == 201, image.text


@pytest.mark.parametrize("size", [0, 2_000_000])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/groups", "/v1/images"])
def test_a_file_without_a_file_name_gets_the_rule_of_its_field(
    caller: Caller, path: str, size: int
) -> None:
    field = b"questions" if path == "/v1/groups" else b"question"
    parts: list[tuple[bytes, ...]] = [
        (b'name="image"', PNG + bytes(size), b"Content-Type: image/png")
    ]
    if path != "/v1/images":
        parts.insert(0, (b'name="%b"' % field, b"How many?"))

    answer = caller("POST", path, data=form(*parts), content_type=FORM)

    assert answer.status_code == 422
    assert {place: text for place, (_, text) in faults(answer).items()} == {
        "#/image": "This must be a file, with a file name."
    }


def test_binary_data_in_an_unknown_field_gets_the_rule_of_unknown_fields(caller: Caller) -> None:
    photo = (b'name="photo"', b"\xff\xfe" + PNG)
    body = form(QUESTION, photo, (b'name="image"; filename="a"', PNG))

    answer = caller("POST", "/v1/jobs", data=body, content_type=FORM)

    assert answer.status_code == 422
    assert list(faults(answer)) == ["#/photo"]


def test_inputs_without_a_choice_are_ignored_next_to_a_file(caller: Caller) -> None:
    def empty(name: bytes) -> tuple[bytes, ...]:
        return name + b'; filename=""', b"", b"Content-Type: application/octet-stream"

    chosen = (b'name="image"; filename="a.png"', PNG)
    parts = [QUESTION, empty(b'name="image"'), chosen, empty(b'name="second"')]
    job = caller("POST", "/v1/jobs", data=form(*parts), content_type=FORM)
    assert job.status_code == 202, job.text
    assert len(job.get_json()["images"]) == 1
    upload = form(empty(b'name="file"'), chosen)
    assert caller("POST", "/v1/images", data=upload, content_type=FORM).status_code == 201

    alone = caller(
        "POST", "/v1/jobs", data=form(QUESTION, empty(b'name="image"')), content_type=FORM
    )
    assert {place: code for place, (code, _) in faults(alone).items()} == {
        "#/image/0": "empty_image_file"
    }
    named = form(QUESTION, chosen, (b'name="image"; filename="b.png"', b""))
    answer = caller("POST", "/v1/jobs", data=named, content_type=FORM)
    assert list(faults(answer)) == ["#/image/1"]


@pytest.mark.parametrize("count", [129, 130, 4_000])
def test_too_many_parts_are_counted(caller: Caller, count: int) -> None:
    fields = [(f"f{number}", "text") for number in range(count)]
    body, kind = encode_multipart_formdata(fields)

    answer = caller("POST", "/v1/jobs", data=body, content_type=kind)

    assert answer.status_code == 413
    sentence = f"A form must have at most 128 parts; this one has {count:,}."
    assert answer.get_json()["detail"] == sentence


def test_the_parts_of_an_uploads_form_are_counted_in_its_error(caller: Caller) -> None:
    file = (b'name="image"; filename="a.png"', PNG)
    answer = caller("POST", "/v1/images", data=form(file, file, QUESTION), content_type=FORM)
    assert answer.get_json()["detail"].endswith("it has 2 file(s) and 1 text field(s).")


def test_an_error_never_shows_pythons_none(caller: Caller) -> None:
    for parameters in (b"", b'filename="a.png"', b"name=", b'name*=x; filename="a"'):
        for path in ("/v1/jobs", "/v1/images"):
            body = form((parameters, PNG))
            answer = caller("POST", path, data=body, content_type=FORM)
            assert answer.status_code in (400, 422)
            assert "None" not in answer.text
