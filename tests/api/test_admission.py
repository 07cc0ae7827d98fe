"""When there is too much: too many requests, too many queued jobs, too little disk."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from api.app import create_app, service_of
from api.framework import Router
from core import ids
from core.database import Database
from core.rate_limits import RateLimits
from core.settings import Settings
from jobs.images import ImageReader
from jobs.lifecycle import Role
from jobs.records.images import ImageBytes
from jobs.records.jobs import Job
from jobs.store import accounts
from tests import factories, races
from tests.api import image_files, worker
from tests.api.conftest import Caller
from tests.databases import Clock
from tests.fakes import HandTimer, RecordingWakeup, redis_prefix

KEY = {"Idempotency-Key": "the same request"}
RATE = re.compile(r'"default";r=(\d+);t=(\d+)')


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with little room."""
    return settings.model_copy(
        update={
            "queued_jobs_per_account": 2,
            "queued_jobs_total": 3,
            "requests_per_minute": 30,
        }
    )


@pytest.fixture
def timer() -> HandTimer:
    """Return the timer of the application."""
    return HandTimer()


@pytest.fixture
def app(
    settings: Settings, database: Database, decoder: ImageReader, clock: Clock, timer: HandTimer
) -> Iterator[Router]:
    """Return the application; time stands still in it."""
    app = create_app(
        settings,
        database=database,
        wakeup=RecordingWakeup(),
        images=decoder,
        clock=clock,
        timer=timer,
    )
    yield app
    service_of(app).drain()


def assert_full(answer: TestResponse, sentence: str) -> None:
    """The queue has no room, and the answer says so in every way."""
    assert answer.status_code == 429, answer.text
    problem = answer.get_json()
    assert (problem["error"]["code"], problem["title"]) == ("queue_full", "Queue full")
    assert (problem["type"], problem["status"]) == ("/problems/queue-full", 429)
    assert problem["detail"] == problem["error"]["message"] == sentence
    assert 1 <= int(answer.headers["Retry-After"]) <= 120
    assert answer.headers["x-should-retry"] == "true"


def count(database: Database, table: type[Job | ImageBytes]) -> int:
    with database.reading() as transaction:
        return transaction.session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


class TestQueue:
    ACCOUNT = "The account's queue is full: it has 2 jobs."
    TOTAL = "The queue is full: it has 3 jobs."

    def test_an_account_is_refused_beyond_its_cap_and_others_are_not(
        self, caller: Caller, stranger: Caller
    ) -> None:
        caller.job()
        caller.job()

        assert_full(caller.submit(), self.ACCOUNT)
        assert stranger.submit().status_code == 202

    def test_all_are_refused_when_the_whole_queue_is_full(
        self, caller: Caller, stranger: Caller
    ) -> None:
        for submitter in (caller, caller, stranger):
            submitter.job()

        assert_full(stranger.submit(), self.TOTAL)

    def test_there_is_room_again_a_second_after_jobs_have_begun(
        self, caller: Caller, database: Database, timer: HandTimer
    ) -> None:
        caller.job()
        caller.job()
        assert_full(caller.submit(), self.ACCOUNT)
        worker.start(database)
        assert_full(caller.submit(), self.ACCOUNT)

        timer.seconds += 1

        caller.job()
        assert_full(caller.submit(), self.ACCOUNT)

    def test_a_replay_is_never_refused(self, caller: Caller, timer: HandTimer) -> None:
        first = caller.job(headers=KEY)
        caller.job()
        assert_full(caller.submit(), self.ACCOUNT)
        timer.seconds += 1

        again = caller.submit(headers=KEY)

        assert (again.status_code, again.get_json()["id"]) == (202, first["id"])
        assert again.headers["Idempotent-Replayed"] == "true"

    def test_of_the_same_request_at_the_same_time_none_is_refused(
        self, caller: Caller, database: Database
    ) -> None:
        caller.job()

        answers = races.race(*[lambda: caller.submit(headers=KEY)] * 6)

        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.get_json()["id"] for answer in answers}) == 1
        assert count(database, Job) == 2

    def test_a_rerun_needs_room_in_the_queue_of_its_account(
        self, caller: Caller, operator: Caller, database: Database, timer: HandTimer
    ) -> None:
        old = caller.job()
        worker.finish(database)
        timer.seconds += 1
        caller.job()
        first = caller("POST", old["urls"]["rerun"], headers=KEY)
        assert first.status_code == 202

        assert_full(operator("POST", old["urls"]["rerun"]), self.ACCOUNT)
        again = caller("POST", old["urls"]["rerun"], headers=KEY)

        assert again.get_json()["id"] == first.get_json()["id"]

    def test_the_faults_of_a_request_come_first(self, caller: Caller) -> None:
        caller.job()
        caller.job()

        assert caller.submit(question="").status_code == 422

    def test_nothing_is_stored_of_a_refused_request(
        self, caller: Caller, database: Database
    ) -> None:
        caller.job()
        caller.job()

        assert_full(caller.submit(image=image_files.png(seed=5)), self.ACCOUNT)

        assert (count(database, Job), count(database, ImageBytes)) == (2, 1)

    def test_images_are_taken_all_the_same(self, caller: Caller) -> None:
        caller.job()
        caller.job()

        assert caller.image()["object"] == "image"


class TestRates:
    def test_every_answer_has_the_policy_and_the_rest(self, caller: Caller) -> None:
        for left, path, status in ((29, "/v1/jobs", 200), (28, "/v1/jobs/none", 404)):
            answer = caller("GET", path)

            assert answer.status_code == status
            assert answer.headers["RateLimit-Policy"] == '"default";q=30;w=60'
            assert answer.headers["RateLimit"] == f'"default";r={left};t=2'

    def test_a_key_over_its_limit_is_refused_until_its_retry_after(
        self, caller: Caller, timer: HandTimer
    ) -> None:
        for _ in range(30):
            assert caller("GET", "/v1/models").status_code == 200

        answer = caller("GET", "/v1/models")

        assert answer.status_code == 429
        problem = answer.get_json()
        assert problem["error"]["code"] == "rate_limit_exceeded"
        assert problem["detail"] == "This key may send at most 30 requests a minute."
        assert answer.headers["RateLimit"] == '"default";r=0;t=2'
        assert answer.headers["Retry-After"] == "2"
        assert answer.headers["x-should-retry"] == "true"
        timer.seconds += 1
        assert caller("GET", "/v1/models").status_code == 429
        timer.seconds += 1
        assert caller("GET", "/v1/models").status_code == 200

    def test_each_key_has_its_own_requests(
        self, caller: Caller, client: FlaskClient, database: Database
    ) -> None:
        for _ in range(31):
            last = caller("GET", "/v1/models")
        assert last.status_code == 429

        assert Caller(client, factories.make_key(database))("GET", "/v1/models").status_code == 200

    def test_a_key_may_have_a_limit_of_its_own(
        self, client: FlaskClient, database: Database
    ) -> None:
        key = factories.make_key(database, requests_per_minute=2)
        own = Caller(client, key)

        answers = [own("GET", "/v1/models") for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["RateLimit-Policy"] == '"default";q=2;w=60'
        assert answers[2].headers["RateLimit"] == '"default";r=0;t=30'
        assert answers[2].get_json()["detail"] == "This key may send at most 2 requests a minute."
        principal = accounts.authenticate(database, key, peppers=[factories.PEPPER])
        assert principal is not None
        accounts.limit_key(database, principal.key_id, requests_per_minute=None, max_body_mb=None)
        assert own("GET", "/v1/models").headers["RateLimit-Policy"] == '"default";q=30;w=60'

    def test_all_api_processes_count_together(  # noqa: PLR0917 - fixtures
        self,
        settings: Settings,
        database: Database,
        decoder: ImageReader,
        clock: Clock,
        timer: HandTimer,
        redis_url: str,
    ) -> None:
        apps = [
            create_app(
                settings,
                database=database,
                wakeup=RecordingWakeup(),
                images=decoder,
                buckets=RateLimits(redis_url, redis_prefix, timer=timer, socket_seconds=60),
                clock=clock,
                timer=timer,
            )
            for _ in range(2)
        ]
        key = factories.make_key(database, requests_per_minute=3)
        callers = [Caller(app.test_client(), key) for app in apps]

        answers = [caller("GET", "/v1/models") for caller in callers * 2]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        left = [RATE.fullmatch(answer.headers["RateLimit"]) for answer in answers]
        assert [match and match[1] for match in left] == ["2", "1", "0", "0"]
        for app in apps:
            service_of(app).drain()

    def test_what_the_role_does_not_allow_counts_as_well(
        self, client: FlaskClient, database: Database
    ) -> None:
        reader = Caller(client, factories.make_key(database, role=Role.READ))

        answer = reader.submit()

        assert answer.status_code == 403
        assert answer.headers["RateLimit"] == '"default";r=29;t=2'

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json"])
    def test_what_is_public_is_not_limited(self, client: FlaskClient, path: str) -> None:
        answers = [client.get(path) for _ in range(35)]

        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit" not in answers[-1].headers

    def test_an_unknown_key_gets_no_rate_limit_headers(self, client: FlaskClient) -> None:
        answer = Caller(client, accounts.new_key())("GET", "/v1/jobs")

        assert answer.status_code == 401
        assert RATE.search(str(answer.headers)) is None


class TestDisk:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Return settings with a floor above any disk's free space."""
        return settings.model_copy(update={"disk_floor_mb": 2**40})

    def test_nothing_is_taken_in_below_the_floor(self, caller: Caller, database: Database) -> None:
        data = image_files.png()
        old = factories.make_job(database, accounts.account_id(database, "default"))
        for answer in (
            caller.submit(),
            caller.form("/v1/jobs", {"question": "How many?", "image": data}),
            caller("POST", "/v1/images", data=data, content_type="image/png"),
            caller("POST", f"/v1/jobs/{ids.show('job', old)}/rerun"),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.get_json()["error"]["code"] == "insufficient_storage"
            assert 1 <= int(answer.headers["Retry-After"]) <= 120
            assert answer.headers["x-should-retry"] == "true"
        assert (count(database, Job), count(database, ImageBytes)) == (1, 1)

    def test_the_rest_goes_on(self, caller: Caller, database: Database) -> None:
        old = factories.make_job(database, accounts.account_id(database, "default"))

        path = f"/v1/jobs/{ids.show('job', old)}"

        assert caller("GET", path).status_code == 200
        assert caller("POST", f"{path}/cancel").status_code == 200
        assert caller("DELETE", path).status_code == 200


class TestFullDisk:
    def test_a_disk_that_fills_up_in_the_middle_of_a_submission_leaves_nothing(
        self, caller: Caller, database: Database
    ) -> None:
        caller.job()
        with database.reading() as transaction:
            pages = transaction.session.scalar(sa.text("PRAGMA page_count"))
        # As SQLite would on a full disk, its connections refuse to make the file longer.
        database.engine.dispose()
        sa.event.listen(
            database.engine,
            "connect",
            lambda connection, _: connection.execute(f"PRAGMA max_page_count={pages + 1}"),
        )

        noise = image_files.encoded(Image.effect_noise((640, 480), 100), "PNG")
        answer = caller.submit(image=noise, headers=KEY)

        assert answer.status_code == 503, answer.text
        assert answer.get_json()["error"]["code"] == "insufficient_storage"
        assert answer.get_json()["detail"] == "The database's disk is full."
        assert (count(database, Job), count(database, ImageBytes)) == (1, 1)
        assert caller("GET", "/v1/jobs").status_code == 200
