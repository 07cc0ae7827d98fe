"""Links in responses and notifications: paths, paths behind the prefix of a proxy, or absolute with a public URL."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.streams import frames
from core.database import Database
from core.settings import Settings
from jobs.store.event_log import EventKind, JobEvent
from tests import webhooks
from tests.api import image_files, worker
from tests.api.conftest import Caller, Json

PUBLIC = "https://ai.example.com/longlook"
ENDPOINT = {"name": "prod", "url": "https://receiver.example/h", "event_types": ["job.succeeded"]}
#: A link to the API, wherever it stands in JSON.
_LINK = re.compile(r'"((?:[^"\\\\]*)/v1/(?:jobs|groups|images)[^"]*)"')


def links(answer: TestResponse) -> list[str]:
    """Return all links of an answer."""
    return [*_LINK.findall(answer.text), *filter(None, [answer.headers.get("Location")])]


def answers(
    caller: Caller, database: Database, *, base_url: str = "http://localhost"
) -> list[TestResponse]:
    """Return one answer of each kind that has links, the stream of a finished job included."""

    def ask(method: str, path: str, **content: Any) -> TestResponse:  # noqa: ANN401 - the client's own
        return caller(method, path, base_url=base_url, **content)

    data = image_files.data_url(image_files.png())
    body = {"question": "?", "images": [{"data": data}]}
    made = [
        ask("POST", "/v1/jobs", json=body),
        ask("POST", "/v1/groups", json={"questions": ["?"], "images": [{"data": data}]}),
        ask("POST", "/v1/images", json={"data": data}),
        ask("POST", "/v1/webhook_endpoints", json=ENDPOINT),
    ]
    job = f"/v1/jobs/{made[0].get_json()['id']}"
    worker.finish(database)
    return [
        *made,
        ask("GET", job),
        ask("GET", "/v1/jobs"),
        ask("POST", f"{job}/stream_token"),
        ask("POST", f"{job}/rerun"),
        ask("GET", f"{job}/events"),
    ]


def test_without_a_proxy_links_are_paths(caller: Caller, database: Database) -> None:
    for answer in answers(caller, database):
        urls = links(answer)
        assert urls
        assert [link for link in urls if not link.startswith("/v1/")] == []


def test_behind_a_prefix_links_have_it(caller: Caller, database: Database) -> None:
    given = answers(caller, database, base_url="http://localhost/longlook")
    for answer in given:
        urls = links(answer)
        assert urls
        assert [link for link in urls if not link.startswith("/longlook/v1/")] == []
    assert not any("longlook-base-" in answer.text for answer in given)
    # The next request came another way.
    assert links(caller("GET", "/v1/jobs"))[0].startswith("/v1/")
    problem = caller("GET", "/v1/jobs/x", base_url="http://localhost/longlook").get_json()
    assert problem["instance"] == "/longlook/v1/jobs/x"


class TestPublicUrl:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"public_url": PUBLIC})

    @pytest.mark.parametrize("base_url", ["http://localhost", "http://localhost/other"])
    def test_all_links_begin_with_it(
        self, caller: Caller, database: Database, base_url: str
    ) -> None:
        for answer in answers(caller, database, base_url=base_url):
            urls = links(answer)
            assert urls
            assert [link for link in urls if not link.startswith(f"{PUBLIC}/v1/")] == []

    def test_notifications_have_it(self, caller: Caller, database: Database) -> None:
        assert notified(caller, database) == f"{PUBLIC}/v1/jobs"


def notified(caller: Caller, database: Database) -> str:
    """Return what stands before the id of a job in the link of its notification."""
    assert caller("POST", "/v1/webhook_endpoints", json=ENDPOINT).status_code == 201
    job: Json = caller.job()
    worker.finish(database)
    webhooks.fan_out(database)
    [delivery] = caller("GET", "/v1/deliveries").get_json()["data"]
    payload = caller("GET", f"/v1/deliveries/{delivery['id']}").get_json()["payload"]
    payload = json.loads(payload) if isinstance(payload, str) else payload
    links_of_job = payload["data"]["urls"]
    assert links_of_job["trace"] == f"{links_of_job['self']}/trace"
    start, _, shown = links_of_job["self"].rpartition("/")
    assert shown == job["id"]
    return str(start)


def test_notifications_have_paths_without_a_public_url(caller: Caller, database: Database) -> None:
    assert notified(caller, database) == "/v1/jobs"


def test_a_frame_has_no_character_at_which_a_client_ends_a_line() -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive\x1csix\r\n\u00a8\u2027é"
    event = JobEvent(3, EventKind.DELTA, 0, attempt=1, generation=1, delta=text)

    frame = frames.frame(event).decode()

    assert frame.splitlines() == frame.split("\n")[:-1]
    assert len(frame.splitlines()) == 3
    assert json.loads(frame.splitlines()[1].removeprefix("data: "))["delta"] == text


def test_the_last_frame_has_none_of_them_in_its_job_either() -> None:
    event = JobEvent(3, EventKind.FINISHED, 0)
    job = json.dumps({"question": "\u2028\x85"}, ensure_ascii=False).encode()

    frame = frames.frame(event, job=job).decode()

    assert len(frame.splitlines()) == 3
    assert json.loads(frame.splitlines()[1][6:])["job"] == {"question": "\u2028\x85"}
