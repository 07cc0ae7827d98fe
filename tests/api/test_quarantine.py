"""Images in quarantine, as their callers and operators see them."""

from __future__ import annotations

import uuid

import pytest

from core import ids
from core.database import Database
from jobs.store import history, quarantine
from tests import factories
from tests.api import image_files
from tests.api.conftest import Caller


@pytest.fixture
def image_id(caller: Caller, database: Database) -> str:
    """Return an image of the caller's that took an engine down."""
    shown: str = caller.image()["id"]
    found = ids.parse("img", shown)
    assert found is not None
    image = history.image(database, found, account_id=None)
    assert image is not None
    with database.transaction() as transaction:
        assert quarantine.record_crash(transaction, image.account_id, [image.image_key], limit=1)
    return shown


def test_a_new_job_is_refused_at_the_images_place(caller: Caller, image_id: str) -> None:
    other = image_files.data_url(image_files.png(seed=2))
    same = image_files.data_url(image_files.png())
    body = {
        "question": "How many?",
        "images": [{"data": other}, {"data": same}, {"image_id": image_id}],
    }

    answer = caller("POST", "/v1/jobs", json=body)

    assert answer.status_code == 422
    assert {fault["pointer"]: fault["code"] for fault in answer.get_json()["errors"]} == {
        "#/images/1/data": "image_quarantined",
        "#/images/2/image_id": "image_quarantined",
    }


def test_an_upload_and_a_rerun_are_refused(
    caller: Caller, operator: Caller, image_id: str, database: Database
) -> None:
    assert operator("POST", f"/v1/quarantine/{image_id}/release").status_code == 200
    job = caller.job()
    image = history.image(database, uuid.UUID(hex=image_id[4:]), account_id=None)
    assert image is not None
    with database.transaction() as transaction:
        assert not quarantine.record_crash(
            transaction, image.account_id, [image.image_key], limit=9
        )
    claimed = factories.claim(database)
    with database.transaction() as transaction:
        quarantine.clear_crashes(
            transaction,
            image.account_id,
            [image.image_key],
            job_id=claimed.job_id,
            attempt=claimed.attempt,
        )
        assert quarantine.record_crash(transaction, image.account_id, [image.image_key], limit=1)

    upload = caller("POST", "/v1/images", data=image_files.png(), content_type="image/png")
    rerun = caller("POST", f"/v1/jobs/{job['id']}/rerun")

    for answer in (upload, rerun):
        assert answer.status_code == 422
        assert answer.get_json()["error"]["code"] == "image_quarantined"


def test_a_repeated_request_still_finds_its_job(caller: Caller, database: Database) -> None:
    headers = {"Idempotency-Key": "a"}
    job = caller.submit(headers=headers).get_json()
    image = history.image(database, uuid.UUID(hex=job["images"][0]["id"][4:]), account_id=None)
    assert image is not None
    with database.transaction() as transaction:
        assert quarantine.record_crash(transaction, image.account_id, [image.image_key], limit=1)

    again = caller.submit(headers=headers)

    assert (again.status_code, again.get_json()["id"]) == (202, job["id"])
    assert caller.submit().status_code == 422


def test_an_operator_lists_and_releases(caller: Caller, operator: Caller, image_id: str) -> None:
    [held] = operator("GET", "/v1/quarantine").get_json()["data"]
    assert (held["image_id"], held["crashes"]) == (image_id, 1)

    released = operator("POST", f"/v1/quarantine/{image_id}/release")

    assert released.get_json()["released"] is True
    assert operator("GET", "/v1/quarantine").get_json()["data"] == []
    assert operator("POST", f"/v1/quarantine/{image_id}/release").status_code == 404
    assert caller.submit().status_code == 202


def test_the_list_comes_in_pages(caller: Caller, operator: Caller, database: Database) -> None:
    shown = [caller.image(image_files.png(seed=seed))["id"] for seed in range(5)]
    for one in shown:
        image = history.image(database, uuid.UUID(hex=one[4:]), account_id=None)
        assert image is not None
        with database.transaction() as transaction:
            assert quarantine.record_crash(
                transaction, image.account_id, [image.image_key], limit=1
            )

    seen, after = [], ""
    while True:
        page = operator("GET", f"/v1/quarantine?limit=2{after}").get_json()
        seen += [held["image_id"] for held in page["data"]]
        assert (page["first_id"], page["last_id"]) == (seen[-len(page["data"])], seen[-1])
        if not page["has_more"]:
            break
        # What is released meanwhile neither hides nor repeats another one.
        operator("POST", f"/v1/quarantine/{page['last_id']}/release")
        after = f"&after={page['last_id']}"

    assert seen == shown[::-1]
    assert operator("GET", "/v1/quarantine?after=x").status_code == 422


def test_others_may_not_look(caller: Caller, stranger: Caller, image_id: str) -> None:
    assert caller("GET", "/v1/quarantine").status_code == 403
    assert caller("POST", f"/v1/quarantine/{image_id}/release").status_code == 403
    assert stranger.submit().status_code == 202
