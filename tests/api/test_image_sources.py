"""The names under which JSON may send an image (`data`, `url`, `image_url`), and errors that point to the right one."""

from __future__ import annotations

import pytest

from tests.api import image_files
from tests.api.asking import PNG, ask, faults
from tests.api.conftest import Caller

SOURCES = [
    {"data": PNG},
    {"url": PNG},
    {"url": " \n" + PNG.replace("data:", "DATA:")},
    {"image_url": PNG},
    {"image_url": {"url": PNG}},
    {"image_url": {"url": PNG, "detail": "auto"}},
]


@pytest.mark.parametrize("source", SOURCES)
def test_a_data_url_is_an_image_under_every_name(caller: Caller, source: dict[str, object]) -> None:
    uploaded = caller.image(image_files.png())
    answer = ask(caller, images=[source])
    assert answer.status_code == 202, answer.text
    assert [image["id"] for image in answer.get_json()["images"]] == [uploaded["id"]]
    assert caller("POST", "/v1/images", json=source).get_json()["id"] == uploaded["id"]


def test_the_detail_inside_the_url_object_counts(caller: Caller) -> None:
    low = caller.image(image_files.png(), detail="low")
    answer = ask(caller, images=[{"image_url": {"url": PNG, "detail": "low"}}])
    assert answer.get_json()["images"][0]["id"] == low["id"]


@pytest.mark.parametrize(
    ("image", "place", "said"),
    [
        ({"url": "data:image/png;base64,*"}, "url", "the character `*`"),
        ({"image_url": "data:image/png;base64,*"}, "image_url", "the character `*`"),
        ({"image_url": {"url": "data:image/png;base64,*"}}, "image_url/url", "the character `*`"),
        ({"image_url": "ftp://a/b"}, "image_url", "an http or https URL"),
        ({"image_url": {"url": "ftp://a/b"}}, "image_url/url", "an http or https URL"),
        ({"image_url": {"url": PNG, "size": 1}}, "image_url/size", "no such field"),
        ({"image_url": {"url": PNG, "detail": "huge"}}, "image_url/detail", "'auto'"),
        ({"image_url": 7}, "image_url", "must be an object"),
        ({"url": "https://a/" + "x" * 3000}, "url", "at most 2,048 characters; this one has 3,010."),
        ({"url": "iVBORw0KGgo" * 900}, "url", "An image itself must be a data URL"),
        ({"data": "https://a.example/b.png"}, "data", "this is a URL: send it in `url`."),
        ({"image_id": "x" * 256}, "image_id", "at most 255 characters; it has 256."),
        ({"data": PNG, "image_url": PNG}, "", "exactly one of `data`, `image_id`, `url` and"),
    ],
)  # fmt: skip
def test_an_invalid_source_is_refused_at_its_place(
    caller: Caller, image: dict[str, object], place: str, said: str
) -> None:
    answer = ask(caller, images=[image])
    assert answer.status_code == 422
    [(pointer, (_, sentence))] = faults(answer).items()
    assert pointer == f"#/images/0/{place}".rstrip("/")
    assert said in sentence


@pytest.mark.parametrize(
    "body", [{}, {"url": "https://a.example/b.png"}, {"data": PNG, "url": PNG}, {"image_id": "x"}]
)
def test_an_upload_must_be_the_file_itself(caller: Caller, body: dict[str, str]) -> None:
    answer = caller("POST", "/v1/images", json=body)
    assert answer.status_code == 422


@pytest.mark.parametrize("name", ["image", "image_url", "file"])
def test_an_image_outside_the_list_is_pointed_to_it(caller: Caller, name: str) -> None:
    answer = ask(caller, **{name: PNG})
    assert "belong in the list `images`" in faults(answer)[f"#/{name}"][1]


def test_a_long_text_is_refused_with_its_limit_and_its_length(caller: Caller) -> None:
    answer = ask(caller, question="x" * 200_000, options={"metadata": {"a": "x" * 513}})
    assert faults(answer)["#/question"][1].endswith(" characters; it has 200,000.")
    assert faults(answer)["#/options/metadata/a"][1] == (
        "This must have at most 512 characters; it has 513."
    )
