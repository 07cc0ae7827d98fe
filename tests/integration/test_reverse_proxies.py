"""The files for reverse proxies in ``deploy/``, under the real nginx and Caddy, in front of the real API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import urllib3

from api.schemas.parameters import MAX_WAIT_SECONDS
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Role
from tests import factories, reverse_proxies
from tests.api import image_files, worker
from tests.api.following import Follower
from tests.api.gunicorn_server import GunicornServer
from tests.e2e.stack import eventually
from tests.reverse_proxies import Proxy

pytestmark = pytest.mark.e2e

QUESTION = "How many?"
#: Of a body that the API refuses, Caddy reads this much. Then it closes the connection while the client still sends.
_READ_BY_CADDY = 200 * 1024


@dataclass
class Deployment:
    """An API behind a proxy, and keys for it."""

    proxy: Proxy
    key: str
    operator: str

    def request(
        self,
        method: str,
        path: str,
        *,
        source: str = "127.0.0.1",
        key: str | None = None,
        headers: dict[str, str] | None = None,
        **content: Any,  # noqa: ANN401 - urllib3's own
    ) -> urllib3.BaseHTTPResponse:
        """Send a request to the proxy, on a connection of its own."""
        headers = {
            "Host": reverse_proxies.HOST,
            "Authorization": f"Bearer {self.key if key is None else key}",
            **(headers or {}),
        }
        return self.proxy.client(source=source).request(
            method, self.proxy.url + path, headers=headers, **content
        )

    def submit(self, *, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        """Submit a job with a small image."""
        image = {"data": image_files.data_url(image_files.png())}
        body = {"question": QUESTION, "images": [image]}
        return self.request("POST", "/v1/jobs", json=body, headers=headers)

    def held(self, kind: str) -> float:
        """Return the number of requests of a kind, ``stream`` or ``wait``, that the API holds open."""
        text = self.request("GET", "/metrics", key=self.operator).data.decode()
        [value] = re.findall(
            rf'^longlook_sse_connections\{{kind="{kind}"\}} (\S+)$', text, re.MULTILINE
        )
        return float(value)


@pytest.fixture
def prefix() -> bool:
    """Return whether the proxy serves the API below a path prefix."""
    return False


@pytest.fixture
def api(database_url: str, redis_url: str, short_folder: Path) -> Iterator[str]:
    """Return the URL of an API that trusts a proxy on this host."""
    server = GunicornServer(
        short_folder,
        database_url=database_url,
        redis_url=redis_url,
        LONGLOOK_TRUSTED_PROXIES="127.0.0.1/32",
        LONGLOOK_FAILED_KEYS_PER_MINUTE="3",
    )
    yield server.start()
    server.stop()


@pytest.fixture(params=reverse_proxies.KINDS)
def deployment(
    request: pytest.FixtureRequest,
    prefix: bool,  # noqa: FBT001 - a fixture
    api: str,
    database: Database,
    tmp_path: Path,
) -> Iterator[Deployment]:
    """Return a proxy of each kind in front of the API."""
    with reverse_proxies.running(request.param, api, tmp_path, prefix=prefix) as proxy:
        operator = factories.make_key(database, role=Role.OPERATE)
        yield Deployment(proxy, factories.make_key(database), operator)


@pytest.fixture
def dialect() -> str:
    """Return the only database of these tests: the proxy is in front of the API."""
    return "sqlite"


def test_a_large_image_is_uploaded_and_comes_back(deployment: Deployment) -> None:
    file = image_files.noise(1, side=800)
    assert len(file) > 2**20

    stored = deployment.request(
        "POST", "/v1/images", body=file, headers={"Content-Type": "image/png"}
    )
    chunked = deployment.request(
        "POST",
        "/v1/images",
        body=(file[start : start + 65536] for start in range(0, len(file), 65536)),
        headers={"Content-Type": "image/png", "Transfer-Encoding": "chunked"},
    )

    assert stored.status == HTTPStatus.CREATED, stored.data
    assert chunked.status in {HTTPStatus.OK, HTTPStatus.CREATED}, chunked.data
    image = json.loads(stored.data)
    assert json.loads(chunked.data)["id"] == image["id"]
    content = deployment.request("GET", f"/v1/images/{image['id']}/content")
    assert content.status == HTTPStatus.OK
    assert len(content.data) > 2**20


def test_the_api_and_not_the_proxy_refuses_bodies(deployment: Deployment) -> None:
    def refused(size: int, key: str) -> urllib3.BaseHTTPResponse:
        return deployment.request(
            "POST", "/v1/images", body=bytes(size), key=key, headers={"Content-Type": "image/png"}
        )

    answers = {HTTPStatus.UNAUTHORIZED: refused(_READ_BY_CADDY, "ll_" + "x" * 43)}
    if deployment.proxy.kind == "nginx":
        answers[HTTPStatus.REQUEST_ENTITY_TOO_LARGE] = refused(6 * 2**20, deployment.key)

    for status, answer in answers.items():
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_events_arrive_while_the_job_runs_and_a_client_that_leaves_ends_the_stream(
    deployment: Deployment, database: Database
) -> None:
    job = json.loads(deployment.submit().data)
    path = f"/v1/jobs/{job['id']}/events"
    stream = deployment.request("GET", path, preload_content=False)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    follower = Follower(stream.stream(65536), close=stream.release_conn)

    # Each step is taken when the event of the one before has arrived.
    assert eventually(lambda: "job.queued" in follower.kinds()), follower.events
    claimed = worker.start(database)
    assert eventually(lambda: "job.started" in follower.kinds()), follower.events
    assert not follower.ended.is_set()
    worker.end(database, claimed, text="I count 6.")
    assert [event["type"] for event in follower.join()][-1] == "job.finished"
    assert follower.text() == "I count 6."

    leaving = deployment.request(
        "GET",
        f"/v1/jobs/{json.loads(deployment.submit().data)['id']}/events",
        preload_content=False,
    )
    assert eventually(lambda: deployment.held("stream") == 1)
    leaving.close()
    assert eventually(lambda: deployment.held("stream") == 0)


def test_a_response_waits_for_the_job(deployment: Deployment, database: Database) -> None:
    job = json.loads(deployment.submit().data)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            deployment.request, "GET", f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=55"}
        )
        assert eventually(lambda: deployment.held("wait") == 1)
        worker.finish(database)
        done = waiting.result()

    assert json.loads(done.data)["status"] == "succeeded"
    assert done.headers["Preference-Applied"] == "wait=55"


def test_a_held_response_begins_while_its_job_waits_and_ends_with_its_client(
    deployment: Deployment, database: Database
) -> None:
    def held() -> urllib3.BaseHTTPResponse:
        body = {"messages": [{"role": "user", "content": QUESTION}]}
        return deployment.request(
            "POST",
            "/v1/chat/completions",
            json=body,
            headers={"Accept-Encoding": "gzip"},
            preload_content=False,
        )

    answer = held()
    # The job waits until its client has got the head and the first white space.
    assert answer.status == HTTPStatus.OK
    assert answer.read(1) == b" "
    worker.finish(database, answer="6")
    assert json.loads(answer.read())["choices"][0]["message"]["content"] == "6"

    leaving = held()
    [job] = json.loads(deployment.request("GET", "/v1/jobs?status=queued").data)["data"]
    leaving.close()
    path = f"/v1/jobs/{job['id']}"
    assert eventually(
        lambda: json.loads(deployment.request("GET", path).data)["status"] == "cancelled"
    )


def test_the_api_sees_the_address_of_the_client_and_believes_no_header_of_it(
    deployment: Deployment,
) -> None:
    def status(source: str, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return deployment.request(
            "GET", "/v1/jobs", key="ll_" + "y" * 43, source=source, headers=named
        ).status

    assert [status("127.0.0.2") for _ in range(3)] == [HTTPStatus.UNAUTHORIZED] * 3
    forged = {"X_Forwarded_For": "127.0.0.9", "Forwarded": "for=127.0.0.9"}
    assert status("127.0.0.2", **forged) == HTTPStatus.TOO_MANY_REQUESTS
    assert status("127.0.0.3") == HTTPStatus.UNAUTHORIZED


def test_a_client_cannot_put_a_prefix_into_links(deployment: Deployment) -> None:
    made = deployment.submit(headers={"X-Forwarded-Prefix": "/elsewhere"})

    assert made.headers["Location"] == f"/v1/jobs/{json.loads(made.data)['id']}"


class TestPrefix:
    """The variant with a path prefix."""

    @pytest.fixture
    def prefix(self) -> bool:
        return True

    def test_links_have_the_prefix_and_lead_somewhere(self, deployment: Deployment) -> None:
        made = deployment.submit(headers={"X-Forwarded-Prefix": "/elsewhere"})

        assert made.status == HTTPStatus.ACCEPTED, made.data
        location = made.headers["Location"]
        assert location.startswith("/longlook/v1/jobs/")
        followed = deployment.request("GET", location.removeprefix(reverse_proxies.PREFIX))
        assert json.loads(followed.data)["urls"]["self"] == location

    def test_nothing_is_served_outside_it(self, deployment: Deployment) -> None:
        root = deployment.proxy.url.removesuffix(reverse_proxies.PREFIX)
        answer = deployment.proxy.client().request("GET", f"{root}/v1/models")

        assert answer.status != HTTPStatus.UNAUTHORIZED
        assert b"models" not in answer.data


def test_limits_and_timeouts_fit_those_of_the_api() -> None:
    nginx = (reverse_proxies.DEPLOY / "nginx.conf").read_text()
    caddy = (reverse_proxies.DEPLOY / "Caddyfile").read_text()
    seconds = {
        name: int(value)
        for name, value in re.findall(
            r"^\s+(proxy_read_timeout|keepalive|response_header_timeout) (\d+)s;?$",
            nginx + caddy,
            re.MULTILINE,
        )
    }

    assert seconds["proxy_read_timeout"] >= MAX_WAIT_SECONDS + 5
    assert seconds["response_header_timeout"] >= MAX_WAIT_SECONDS + 5
    [largest] = re.findall(r"client_max_body_size (\d+)m;", nginx)
    settings = Settings.read({})
    assert int(largest) * 2**20 >= max(settings.max_body_mb * 2**20, settings.file_body_bytes)
