"""The usage of an account, for itself and for operators; over its storage quota only this account is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from api.app import create_app, service_of
from api.framework import Router
from core.database import Database, utcnow
from core.settings import Settings
from jobs.images import ImageReader
from jobs.store import accounts, storage, submission
from tests import factories
from tests.api import image_files, worker
from tests.api.asking import rows
from tests.api.conftest import Caller, Json
from tests.fakes import HandTimer, RecordingWakeup

MIB = 2**20


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return the settings of the application, with small quotas."""
    return settings.model_copy(
        update={"storage_mb_per_account": 1, "pepper": SecretStr(factories.PEPPER.decode())}
    )


@pytest.fixture
def timer() -> HandTimer:
    """Return the timer of the application, by which it repeats its looks."""
    return HandTimer()


@pytest.fixture
def app(
    settings: Settings, database: Database, decoder: ImageReader, timer: HandTimer
) -> Iterator[Router]:
    """Return the application, whose time stands still."""
    app = create_app(
        settings,
        database=database,
        wakeup=RecordingWakeup(),
        delivery_wakeup=RecordingWakeup(),
        images=decoder,
        timer=timer,
    )
    yield app
    service_of(app).drain()


def usage(caller: Caller, query: str = "") -> Json:
    """Return the usage that the caller sees."""
    answer = caller("GET", f"/v1/usage{query}")
    assert answer.status_code == 200, answer.text
    reported: Json = answer.get_json()
    return reported


def fill(caller: Caller) -> list[Json]:
    """Upload images until one is refused; return the stored ones."""
    retained: list[Json] = []
    for number in range(100):
        noise = image_files.noise(number)
        answer = caller("POST", "/v1/images?detail=max", data=noise, content_type="image/png")
        if answer.status_code != 201:
            check_refusal(answer)
            return retained
        retained.append(answer.get_json())
    raise AssertionError("the quota refuses nothing")


def check_refusal(answer: TestResponse) -> None:
    """Check that ``answer`` is that of an account at its quota, and tells what is used and allowed."""
    assert answer.status_code == 403
    reported = answer.get_json()
    assert reported["error"]["code"] == "storage_quota_exceeded"
    assert "its quota is 1.0 MiB" in reported["detail"]
    assert answer.headers["x-should-retry"] == "false"
    assert "Retry-After" not in answer.headers


def test_usage_shows_storage_queue_and_limits(caller: Caller, database: Database) -> None:
    job = caller.job()
    queued = usage(caller)
    worker.finish(database)
    ended = usage(caller)

    assert (queued["object"], queued["account"]) == ("usage", job["account"])
    assert queued["queue"] == {"queued": 1, "limit": 50_000}
    assert ended["queue"]["queued"] == 0
    stored = ended["storage"]
    assert stored["limit_bytes"] == MIB
    assert stored["images_bytes"] == queued["storage"]["images_bytes"] > 0
    assert stored["traces_bytes"] > queued["storage"]["traces_bytes"]
    kinds = ("images", "traces", "jobs", "records", "deliveries")
    assert stored["total_bytes"] == sum(stored[f"{kind}_bytes"] for kind in kinds)


def test_usage_shows_the_rate_limit_of_its_key(client: FlaskClient, database: Database) -> None:
    slow = Caller(client, factories.make_key(database, requests_per_minute=2))

    reported = [usage(slow)["requests"], usage(slow)["requests"]]

    assert reported == [{"limit_per_minute": 2, "remaining": left} for left in (1, 0)]
    assert slow("GET", "/v1/usage").status_code == 429


def test_only_operators_see_the_usage_of_other_accounts(
    caller: Caller, stranger: Caller, operator: Caller
) -> None:
    job = caller.job()

    assert usage(stranger)["storage"]["total_bytes"] == 0
    assert usage(stranger)["queue"]["queued"] == 0
    assert stranger("GET", "/v1/usage?account=default").status_code == 403
    assert stranger("GET", f"/v1/usage?account={job['account']}").status_code == 403
    mine = usage(caller)["storage"]
    assert usage(operator)["storage"]["total_bytes"] == 0
    assert usage(operator, "?account=default")["storage"] == mine
    assert usage(operator, f"?account={job['account']}")["account"] == job["account"]
    for absent in ("nobody", f"acct_{'0' * 32}", "acct_1"):
        assert operator("GET", f"/v1/usage?account={absent}").status_code == 404


def test_an_account_that_fills_its_quota_is_refused_and_others_go_on(
    caller: Caller, stranger: Caller, database: Database
) -> None:
    waiting = caller.job()
    retained = fill(caller)
    before = rows(database)

    assert usage(caller)["storage"]["total_bytes"] <= MIB
    big = image_files.noise(999)
    check_refusal(caller.submit(image=big))
    body = {"questions": ["How many?"], "images": [{"data": image_files.data_url(big)}]}
    check_refusal(caller("POST", "/v1/groups", json=body))
    assert rows(database) == before
    assert stranger.image()["id"]
    assert stranger.submit().status_code == 202
    # What it has goes on, and is answered.
    worker.finish(database)
    assert caller("GET", waiting["urls"]["self"]).get_json()["status"] == "succeeded"

    # What is deleted is free at once.
    assert caller("DELETE", f"/v1/images/{retained[0]['id']}").status_code == 200
    assert caller.submit(image=big, detail="max").status_code == 202


def test_over_its_quota_an_account_is_refused_everything_but_what_it_had_accepted(
    caller: Caller, database: Database, timer: HandTimer
) -> None:
    key = {"Idempotency-Key": "one"}
    job = caller.submit(headers=key).get_json()
    image = caller.image()
    worker.finish(database)
    account_id = accounts.account_id(database, "default")
    large = factories.make_image(data=bytes(MIB))
    submission.store_image(database, account_id=account_id, image=large)
    assert usage(caller)["storage"]["total_bytes"] > MIB
    timer.seconds += 60

    check_refusal(caller.submit())
    question = {"question": "What?", "images": [{"image_id": image["id"]}]}
    check_refusal(caller("POST", "/v1/jobs", json=question))
    check_refusal(caller("POST", job["urls"]["rerun"]))
    check_refusal(caller("POST", "/v1/images", data=image_files.png(), content_type="image/png"))
    # Before decoding: this is not an image.
    check_refusal(caller("POST", "/v1/images", data=b"no picture", content_type="image/png"))
    endpoint = caller(
        "POST",
        "/v1/webhook_endpoints",
        json={"name": "a", "url": "https://a.example/", "event_types": ["job.succeeded"]},
    ).get_json()["id"]
    # Each delivery attempt is stored with the response of its receiver.
    where = f"/v1/webhook_endpoints/{endpoint}"
    check_refusal(caller("POST", f"{where}/test", json={"event_type": "job.succeeded"}))
    check_refusal(caller("POST", f"{where}/recover", json={"since": "0"}))
    check_refusal(caller("POST", f"/v1/deliveries/dlv_{'0' * 32}/redeliver"))
    replayed = caller.submit(headers=key)
    assert (replayed.status_code, replayed.get_json()["id"]) == (202, job["id"])
    assert replayed.headers["Idempotent-Replayed"] == "true"

    assert caller("DELETE", job["urls"]["self"]).status_code == 200
    assert usage(caller)["storage"]["traces_bytes"] == 0
    assert usage(caller)["storage"]["jobs_bytes"] == 0


def test_an_account_without_a_quota_stores_what_it_wants(
    caller: Caller, database: Database, client: FlaskClient
) -> None:
    big = Caller(client, factories.make_key(database, account="big"))
    storage.limit_account(database, "big", storage_mb=0)
    for number in range(3):
        answer = big(
            "POST",
            "/v1/images?detail=max",
            data=image_files.noise(number),
            content_type="image/png",
        )
        assert answer.status_code == 201

    assert usage(big)["storage"]["limit_bytes"] is None
    assert usage(big)["storage"]["total_bytes"] > 2 * usage(caller)["storage"]["total_bytes"]


class TestReport:
    def test_a_report_has_the_jobs_and_tokens_of_the_account(
        self, caller: Caller, stranger: Caller, database: Database
    ) -> None:
        caller.job()
        worker.finish(database)
        stranger.job()

        report = usage(caller, "?since=1&until=2")["report"]
        today = usage(caller, f"?since={hour(-1)}&by=day&by=model")["report"]

        assert (report["data"], report["by"]) == ([], ["day"])
        [row] = today["data"]
        assert (row["jobs"], row["succeeded"], row["model"]) == (1, 1, "tiny-qvq")
        assert row["output_tokens"] > 0
        assert row["account"] is None
        assert today["by"] == ["day", "model"]

    def test_operators_see_all_accounts_and_may_name_one(
        self, caller: Caller, stranger: Caller, operator: Caller
    ) -> None:
        caller.job()
        stranger.job()
        query = f"?since={hour(-1)}&by=account"

        everybody = usage(operator, query)["report"]["data"]
        named = usage(operator, f"{query}&account=stranger")["report"]["data"]

        assert {row["account_name"] for row in everybody} == {"default", "stranger"}
        assert [(row["account_name"], row["jobs"]) for row in named] == [("stranger", 1)]
        assert [row["account_name"] for row in usage(caller, query)["report"]["data"]] == [
            "default"
        ]

    def test_without_a_start_there_is_no_report(self, caller: Caller) -> None:
        assert usage(caller)["report"] is None

    @pytest.mark.parametrize(
        "query", ["since=10&until=10", "since=20&until=10", "since=0&until=8121600", "since=0"]
    )
    def test_a_range_that_is_empty_or_too_long_is_refused(self, caller: Caller, query: str) -> None:
        answer = caller("GET", f"/v1/usage?{query}")
        assert answer.status_code == 422
        assert answer.get_json()["error"]["param"] == "since"

    @pytest.mark.parametrize("query", ["until=20", "by=day", "until=20&by=model"])
    def test_what_is_about_a_report_needs_its_start(self, caller: Caller, query: str) -> None:
        answer = caller("GET", f"/v1/usage?{query}")
        assert answer.status_code == 422
        named = {fault["parameter"] for fault in answer.get_json()["errors"]}
        assert named == {part.partition("=")[0] for part in query.split("&")}

    @pytest.mark.parametrize("year", ["0001-01-01T00:00:0", "9999-12-31T23:59:5"])
    def test_the_first_and_the_last_time_are_times(self, caller: Caller, year: str) -> None:
        start, end = f"{year}0Z", f"{year}9Z"
        report = usage(caller, f"?since={start}&until={end}")["report"]
        assert report["data"] == []
        for name in ("created_after", "created_before"):
            for moment in (start, end):
                assert caller("GET", f"/v1/jobs?{name}={moment}").status_code == 200

    def test_an_unknown_dimension_is_refused(self, caller: Caller) -> None:
        answer = caller("GET", f"/v1/usage?since={hour(-1)}&by=week")
        assert answer.status_code == 422
        assert "`day`" in answer.get_json()["detail"] or "'day'" in answer.get_json()["detail"]


def hour(offset: int) -> int:
    """Return the Unix time some hours from now."""
    return int(utcnow().timestamp()) + offset * 3600
