"""Each kind of bad image gets one clear error, and nothing is half-written."""

from __future__ import annotations

import pytest
from PIL import Image

from core.database import Database
from tests.api import image_files
from tests.api.asking import PNG, ask, faults, rows
from tests.api.conftest import Caller


class TestImages:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            pytest.param(b"this is no image at all", "invalid_image_format", id="text"),
            pytest.param(image_files.png()[:60], "image_parse_error", id="truncated"),
            pytest.param(image_files.bomb(), "image_too_large", id="bomb"),
            pytest.param(image_files.png(3000, 10), "invalid_image", id="aspect ratio 300"),
            pytest.param(image_files.png(1, 1), "image_too_small", id="one pixel"),
            pytest.param(b"", "empty_image_file", id="empty"),
        ],
    )
    def test_an_unusable_image_is_refused_with_its_code_in_every_way_to_send_it(
        self, caller: Caller, database: Database, data: bytes, code: str
    ) -> None:
        as_json = caller.submit(image=data)
        assert as_json.status_code == 422
        assert faults(as_json)["#/images/0/data"][0] == code
        assert as_json.get_json()["error"]["code"] == code

        as_form = caller.form("/v1/jobs", {"question": "How many?", "image": data})
        assert as_form.status_code == 422
        assert faults(as_form)["#/image/0"][0] == code

        upload = caller("POST", "/v1/images", data=data, content_type="image/png")
        assert upload.status_code == 422
        assert upload.get_json()["error"]["code"] == code
        assert rows(database) == 0

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(image_files.animated(), id="animated"),
            pytest.param(image_files.deep(), id="16-bit"),
            pytest.param(image_files.cmyk(), id="CMYK"),
            pytest.param(image_files.palette_with_alpha(), id="palette with alpha"),
            pytest.param(image_files.turned(), id="EXIF-rotated"),
        ],
    )
    def test_an_unusual_image_is_taken(self, caller: Caller, data: bytes) -> None:
        assert caller.submit(image=data).status_code == 202

    def test_a_rotated_image_is_stored_upright(self, caller: Caller) -> None:
        image = caller.image(image_files.turned())
        assert image["height"] > image["width"]
        assert image["original"]["orientation"] == 6

    def test_an_image_file_over_the_limit_is_refused_with_413(
        self, caller: Caller, database: Database
    ) -> None:
        large = image_files.png() + bytes(2**20)
        for answer in (
            caller.form("/v1/jobs", {"question": "How many?", "image": large}),
            caller.submit(image=large),
            caller("POST", "/v1/images", data=large, content_type="image/png"),
            caller.form("/v1/images", {"file": large}),
        ):
            assert answer.status_code == 413
            assert answer.get_json()["error"]["code"] == "image_file_too_large"
        assert rows(database) == 0

    @pytest.mark.parametrize("data", ["http://example.org/a.png", "data:image/png;base64,%%%", ""])
    def test_what_is_no_data_url_is_refused(self, caller: Caller, data: str) -> None:
        answer = ask(caller, images=[{"data": data}])
        assert answer.status_code == 422
        assert faults(answer)["#/images/0/data"][0] == "invalid_base64_image"

    @pytest.mark.parametrize(
        "images",
        [None, [], "x", {}, [{}], [{"data": PNG, "image_id": "img_1"}], [7], [{"data": PNG}] * 9],
    )
    def test_an_image_list_that_cannot_be_meant_is_refused(
        self, caller: Caller, images: object
    ) -> None:
        answer = ask(caller, images=images)
        assert answer.status_code == 422
        assert next(iter(faults(answer))).startswith("#/images")

    def test_a_form_without_a_file_is_refused(self, caller: Caller) -> None:
        answer = caller.form("/v1/jobs", {"question": "How many?", "image": "text"})
        assert answer.status_code == 422
        assert set(faults(answer)) == {"#/image"}

    def test_the_fault_of_an_unknown_image_id_has_its_place(self, caller: Caller) -> None:
        unknown = [{"image_id": "img_" + "0" * 32}, {"image_id": "img_"}, {"image_id": "\x00"}]
        answer = ask(caller, images=unknown)
        assert answer.status_code == 422
        assert {place: code for place, (code, _) in faults(answer).items()} == {
            f"#/images/{index}/image_id": "not_found" for index in range(3)
        }

    def test_an_image_id_with_another_detail_is_refused(self, caller: Caller) -> None:
        image = caller.image(detail="low")["id"]
        assert ask(caller, images=[{"image_id": image, "detail": "low"}]).status_code == 202
        answer = ask(caller, images=[{"image_id": image, "detail": "high"}])
        assert answer.status_code == 422
        assert "The detail must be `low`" in answer.get_json()["detail"]


def test_a_refusal_names_no_library(caller: Caller) -> None:
    broken = image_files.encoded(Image.new("RGB", (90, 90)), "JPEG")[:200]
    text = caller.submit(image=broken).text.lower()
    assert not any(word in text for word in ("pillow", "pil.", "pydantic", "traceback"))
