"""Images in the API: upload, get, download, delete."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from core.database import Database
from tests.api import image_files, worker
from tests.api.conftest import Caller, Part


def test_an_uploaded_image_shows_its_metadata(caller: Caller) -> None:
    answer = caller("POST", "/v1/images", data=image_files.png(60, 40), content_type="image/png")
    image = answer.get_json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == image["urls"]["self"]
    assert (image["object"], image["detail"], image["media_type"]) == (
        "image", "standard", "image/png",
    )  # fmt: skip
    assert (
        image["original"]
        | {
            "media_type": "image/png",
            "width": 60,
            "height": 40,
            "orientation": 1,
            "frames": 1,
            "sha256": image["sha256"],
        }
        == image["original"]
    )
    assert image["tokens"] > 0
    assert caller("GET", image["urls"]["self"]).get_json() == image


def test_every_way_to_upload_one_file_gives_the_same_image(caller: Caller) -> None:
    data = image_files.png()
    ways = [
        caller("POST", "/v1/images", data=data, content_type="image/png"),
        caller("POST", "/v1/images", data=data, content_type="application/octet-stream"),
        caller("POST", "/v1/images", json={"data": image_files.data_url(data)}),
        caller.form("/v1/images", {"image": data}),
        caller.form("/v1/images", {"file": data}),
    ]
    assert [answer.status_code for answer in ways] == [201] * 5
    assert len({answer.get_json()["id"] for answer in ways}) == 1


def test_another_detail_is_another_image(caller: Caller) -> None:
    low, high = (caller.image(image_files.png(2000, 2000), detail=tier) for tier in ("low", "high"))
    assert low["id"] != high["id"]
    assert low["width"] < high["width"]
    assert low["sha256"] == high["sha256"]


@pytest.mark.parametrize(
    "fields",
    [{"image": [b"a", b"b"]}, {"photo": b"a"}, {"image": b"a", "question": "?"}],
    ids=",".join,
)
def test_a_form_with_anything_but_one_file_is_refused(
    caller: Caller, fields: dict[str, Part | list[Part]]
) -> None:
    assert caller.form("/v1/images", fields).status_code == 422


def test_an_upload_that_cannot_be_meant_is_refused(caller: Caller) -> None:
    data = image_files.png()
    assert caller("POST", "/v1/images", json={"url": "x"}).status_code == 422
    assert caller("POST", "/v1/images", data=data, content_type="text/plain").status_code == 415
    huge = caller("POST", "/v1/images?detail=huge", data=data, content_type="image/png")
    assert huge.get_json()["errors"][0]["parameter"] == "detail"


def test_the_content_is_the_canonical_image_and_harmless_in_a_browser(caller: Caller) -> None:
    image = caller.image(image_files.png(60, 40))
    answer = caller("GET", image["urls"]["content"])
    submitted = Image.open(io.BytesIO(answer.data))
    assert (submitted.width, submitted.height) == (image["width"], image["height"])
    assert answer.content_type == "image/png"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == f'inline; filename="{image["id"]}.png"'
    assert "private" in answer.headers["Cache-Control"]
    again = caller(
        "GET", image["urls"]["content"], headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert (again.status_code, again.data) == (304, b"")


def test_an_image_in_use_cannot_be_deleted_and_a_free_one_can(
    caller: Caller, database: Database
) -> None:
    image = caller.image()
    body = {"question": "How many?", "images": [{"image_id": image["id"]}]}
    assert caller("POST", "/v1/jobs", json=body).status_code == 202
    assert caller("DELETE", image["urls"]["self"]).status_code == 409
    worker.finish(database)
    answer = caller("DELETE", image["urls"]["self"])
    assert answer.get_json() == {"id": image["id"], "object": "image", "deleted": True}
    for path in (image["urls"]["self"], image["urls"]["content"]):
        assert caller("GET", path).status_code == 404
    assert caller("DELETE", image["urls"]["self"]).status_code == 404
    asked_again = caller("POST", "/v1/jobs", json=body)
    assert asked_again.status_code == 422
    assert asked_again.get_json()["error"]["code"] == "not_found"


def test_an_image_that_was_deleted_comes_back_with_its_next_upload(caller: Caller) -> None:
    image = caller.image()
    caller("DELETE", image["urls"]["self"])
    assert caller.image()["id"] == image["id"]
    assert caller("GET", image["urls"]["content"]).status_code == 200


def test_an_uploaded_image_outlives_its_jobs(caller: Caller, database: Database) -> None:
    image = caller.image()
    body = {"question": "How many?", "images": [{"image_id": image["id"]}]}
    job = caller("POST", "/v1/jobs", json=body).get_json()
    worker.finish(database)
    assert caller("DELETE", job["urls"]["self"]).status_code == 200
    assert caller("GET", image["urls"]["content"]).status_code == 200
