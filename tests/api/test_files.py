"""``/v1/files`` as forms of all kinds send it; :mod:`tests.clients.test_files` has the official clients."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.app import service_of
from api.framework import Router
from core.settings import Settings
from tests.api import image_files
from tests.api.conftest import Caller

LINE = b'{"custom_id": "1"}\n'


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A file may be larger than any other request body."""
    return settings.model_copy(
        update={"max_file_mb": 6, "max_body_mb": 4, "max_streams": 1, "spool_mb": 18}
    )


def send(
    caller: Caller,
    data: bytes = LINE,
    *,
    head: bytes = b'name="file"; filename="a.jsonl"',
    fields: dict[str, str] | None = None,
) -> TestResponse:
    """Send a form with this file and these fields, byte by byte as given."""
    parts = [b"Content-Disposition: form-data; " + head + b"\r\n\r\n" + data]
    given = {"purpose": "batch"} if fields is None else fields
    parts += [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode()
        for name, text in given.items()
    ]
    body = b"".join(b"--sep\r\n" + part + b"\r\n" for part in parts) + b"--sep--\r\n"
    return caller("POST", "/v1/files", data=body, content_type="multipart/form-data; boundary=sep")


def faults(answer: TestResponse) -> list[tuple[str, str]]:
    """Return the places and the codes of all faults."""
    problem: dict[str, Any] = answer.get_json()
    return sorted((fault["pointer"], fault["code"]) for fault in problem["errors"])


def test_a_file_comes_back_as_it_was_sent(caller: Caller) -> None:
    data = bytes(range(256)) * 20_000
    answer = send(caller, data, fields={"purpose": "user_data"})
    file = answer.get_json()
    assert answer.status_code == 200, answer.text
    assert file == {
        "id": file["id"],
        "object": "file",
        "bytes": len(data),
        "created_at": file["created_at"],
        "expires_at": None,
        "filename": "a.jsonl",
        "purpose": "user_data",
        "status": "processed",
        "status_details": None,
    }
    assert file["id"].startswith("file-")
    content = caller("GET", f"/v1/files/{file['id']}/content")
    assert content.data == data
    assert content.headers["Content-Length"] == str(len(data))
    head = caller("HEAD", f"/v1/files/{file['id']}/content")
    assert (head.headers["Content-Length"], head.data) == (str(len(data)), b"")
    assert caller("GET", f"/v1/files/{file['id']}").get_json() == file


def test_files_have_a_limit_of_their_own(caller: Caller) -> None:
    larger = b"x" * (5 * 2**20)
    assert send(caller, larger).status_code == 200
    refused = send(caller, b"x" * (6 * 2**20 + 1))
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (413, "request_too_large")
    assert (
        caller("POST", "/v1/jobs", data=larger, content_type="application/json").status_code == 413
    )
    assert len(caller("GET", "/v1/files").get_json()["data"]) == 1


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ('filename="Prüfung 試験 💡.jsonl"'.encode(), "Prüfung 試験 💡.jsonl"),
        (b"filename=\"x\"; filename*=UTF-8''%e8%a9%a6%e9%a8%93.jsonl", "試験.jsonl"),
        (b"filename*=iso-8859-1'en'%A3.jsonl; filename=b", "£.jsonl"),
        (b'filename="a\\"b\\\\c.jsonl"', 'a"b\\c.jsonl'),
        (b'filename="a%22b%0D%0A.jsonl"', 'a"b.jsonl'),
        (b"filename=plain.jsonl", "plain.jsonl"),
        (b'filename="\xfcber.jsonl"', "über.jsonl"),
        (b'filename="a\x07b"', "ab"),
    ],
)
def test_names_are_those_that_clients_wrote(caller: Caller, head: bytes, name: str) -> None:
    file = send(caller, head=b'name="file"; ' + head).get_json()
    assert file["filename"] == name
    content = caller("GET", f"/v1/files/{file['id']}/content")
    disposition = content.headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename=")
    assert disposition.isascii()
    assert "\n" not in disposition
    assert "\r" not in disposition


def test_the_name_of_a_download_is_utf_8_by_its_standard(caller: Caller) -> None:
    file = send(caller, head='name="file"; filename="試 é.txt"'.encode()).get_json()
    content = caller("GET", f"/v1/files/{file['id']}/content")
    assert content.headers["Content-Disposition"] == (
        "attachment; filename=\"_ _.txt\"; filename*=UTF-8''%E8%A9%A6%20%C3%A9.txt"
    )


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"fields": {}}, ["#/purpose"]),
        ({"fields": {"purpose": "everything"}}, ["#/purpose"]),
        ({"fields": {"purpose": "batch", "colour": "red"}}, ["#/colour"]),
        ({"head": b'name="data"; filename="a"'}, ["#/file"]),
        ({"head": b'name="file"'}, ["#/file"]),
        (
            {"fields": {"purpose": "batch", "expires_after[seconds]": "10"}},
            ["#/expires_after/anchor", "#/expires_after/seconds"],
        ),
        (
            {"fields": {"purpose": "batch", "expires_after[anchor]": "yesterday"}},
            ["#/expires_after/anchor", "#/expires_after/seconds"],
        ),
        (
            {
                "fields": {
                    "purpose": "batch",
                    "expires_after[anchor]": "created_at",
                    "expires_after[seconds]": "9" * 5_000,
                }
            },
            ["#/expires_after/seconds"],
        ),
        (
            {
                "fields": {
                    "purpose": "batch",
                    "expires_after": "never",
                    "expires_after[seconds]": "3600",
                }
            },
            ["#/expires_after"],
        ),
    ],
)
def test_every_fault_of_a_form_is_named(
    caller: Caller, form: dict[str, Any], expected: list[str]
) -> None:
    answer = send(caller, **form)
    assert answer.status_code == 400, answer.text
    assert [place for place, _ in faults(answer)] == expected
    assert caller("GET", "/v1/files").get_json()["data"] == []


def test_a_body_that_is_no_form_is_415(caller: Caller) -> None:
    answer = caller("POST", "/v1/files", json={"purpose": "batch"})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (415, "Content-Type")


def test_files_expire_when_they_say(caller: Caller) -> None:
    kept = send(caller, fields={"purpose": "user_data"}).get_json()
    batch = send(caller).get_json()
    soon = send(
        caller,
        fields={
            "purpose": "user_data",
            "expires_after[anchor]": "created_at",
            "expires_after[seconds]": "3600",
        },
    ).get_json()
    assert kept["expires_at"] is None
    assert batch["expires_at"] - batch["created_at"] == 30 * 86400
    assert soon["expires_at"] - soon["created_at"] == 3600


def test_an_image_has_to_be_one(caller: Caller) -> None:
    fields = {"purpose": "vision"}
    stored = send(caller, image_files.png(), fields=fields)
    assert stored.status_code == 200, stored.text
    content = caller("GET", f"/v1/files/{stored.get_json()['id']}/content")
    assert content.data == image_files.png()
    answer = send(caller, b"not an image", fields=fields)
    assert answer.status_code == 400, answer.text
    assert [place for place, _ in faults(answer)] == ["#/file"]
    large = send(caller, image_files.png() + b"\0" * 2**20, fields=fields)
    assert large.status_code == 413
    assert len(caller("GET", "/v1/files").get_json()["data"]) == 1


def test_an_upload_takes_its_bytes_once_from_the_share_of_its_account(
    caller: Caller, app: Router
) -> None:
    """With a copy of each file, parallel uploads that fit into the share refused each other."""
    spool = service_of(app).spool
    other = spool.open(None)
    other.write(bytes(6 * 2**20))
    held = spool.held

    answer = send(caller, b"x" * (6 * 2**20))

    assert answer.status_code == 200, answer.text
    assert answer.get_json()["bytes"] == 6 * 2**20
    assert spool.held == held
    other.close()


@pytest.mark.parametrize("size", [0, 1, 2**18 - 1, 2**18, 2**18 + 1, 3 * 2**20])
@pytest.mark.parametrize("ending", [b"", b"\r", b"\n", b"\r\n", b"\r\n--se", b"\r\n--sepa\r\n"])
def test_files_that_end_like_a_form_come_back_as_they_were_sent(
    caller: Caller, size: int, ending: bytes
) -> None:
    data = b"-" * size + ending
    file = send(caller, data).get_json()

    assert caller("GET", f"/v1/files/{file['id']}/content").data == data


@pytest.mark.parametrize("purpose", ["assistants_output", "fine-tune-results"])
def test_a_list_of_files_that_only_openai_writes_is_empty(caller: Caller, purpose: str) -> None:
    """The client's types name these purposes; tools list them to show what there is."""
    send(caller)
    answer = caller("GET", f"/v1/files?purpose={purpose}")

    assert (answer.status_code, answer.get_json()["data"]) == (200, [])


def test_nobody_sees_the_files_of_another_account(caller: Caller, stranger: Caller) -> None:
    path = f"/v1/files/{send(caller).get_json()['id']}"
    assert stranger("GET", path).status_code == 404
    assert stranger("GET", f"{path}/content").status_code == 404
    assert stranger("DELETE", path).status_code == 404
    assert stranger("GET", "/v1/files").get_json()["data"] == []
    assert caller("DELETE", path).get_json()["deleted"] is True
    assert caller("GET", path).status_code == 404


def test_large_downloads_take_the_places_of_streams(caller: Caller, stranger: Caller) -> None:
    path = f"/v1/files/{send(caller, b'x' * (2 * 2**20)).get_json()['id']}/content"
    first = caller("GET", path, buffered=False)
    busy = caller("GET", path)
    assert (busy.status_code, busy.get_json()["error"]["code"]) == (503, "streams_in_use")
    first.close()
    assert len(caller("GET", path).data) == 2 * 2**20
    assert stranger("GET", path).status_code == 404


def test_a_list_of_an_unknown_purpose_is_refused_with_its_place(caller: Caller) -> None:
    answer = caller("GET", "/v1/files?purpose=zz")

    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"] == "purpose"
    assert len(answer.get_json()["errors"]) == 1
    # Files that batches write have a purpose of their own.
    assert caller("GET", "/v1/files?purpose=batch_output").get_json()["data"] == []
