"""The API as it really runs: gunicorn's threads, the official OpenAI client, signals, the log."""

from __future__ import annotations

import logging
import signal
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import openai
import pytest
import urllib3

from api.server import GunicornLogger
from core.database import Database
from jobs.store import history
from tests import factories
from tests.api import image_files
from tests.api.gunicorn_server import GunicornServer, ended
from tests.e2e.stack import eventually

pytestmark = pytest.mark.e2e

CANARY = "CANARY-7c1d"


@dataclass
class Live:
    """A running server and a key for it."""

    server: GunicornServer
    url: str
    key: str

    def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **content: object
    ) -> urllib3.BaseHTTPResponse:
        """Send a request with the key, on a connection of its own."""
        headers = {"Authorization": f"Bearer {self.key}"} | (headers or {})
        return urllib3.PoolManager(retries=False, timeout=60).request(
            method,
            self.url + path,
            headers=headers,
            **content,  # type: ignore[arg-type] # urllib3's own
        )

    def submit(self, *, prefer: str = "") -> urllib3.BaseHTTPResponse:
        """Submit a job with a canary in every place."""
        image = {"data": image_files.data_url(image_files.png())}
        body = {"question": CANARY, "images": [image], "options": {"metadata": {CANARY: CANARY}}}
        return self.request("POST", f"/v1/jobs?{CANARY}=1", json=body, headers={"Prefer": prefer})


@pytest.fixture
def live(
    database: Database, database_url: str, redis_url: str, short_folder: Path
) -> Iterator[Live]:
    server = GunicornServer(
        short_folder,
        database_url=database_url,
        redis_url=redis_url,
        LONGLOOK_MAX_STREAMS="4",
        LONGLOOK_LOG_LEVEL="DEBUG",  # The most that is ever written.
    )
    url = server.start()
    yield Live(server, url, factories.make_key(database))
    server.stop()


def test_the_official_openai_client_lists_models_and_names_our_errors(live: Live) -> None:
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny-qvq"]
    assert client.models.retrieve("tiny-qvq").owned_by == "longlook"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-5")
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.post("/jobs", body={"question": ""}, cast_to=object)
    assert (refused.value.param, refused.value.type) == ("question", "invalid_request_error")
    job = live.submit().json()
    with pytest.raises(openai.ConflictError):
        client.delete(f"/jobs/{job['id']}", cast_to=object)
    stranger = client.with_options(api_key="ll_wrong")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    client.close()


def test_many_requests_at_once_are_all_answered(live: Live) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: live.submit(prefer="wait=1").status, range(64)))
    assert answers == [202] * 64


def test_a_huge_body_is_refused_and_the_server_continues(live: Live) -> None:
    huge = live.request("POST", "/v1/jobs", body=bytes(8 * 2**20),
                        headers={"Content-Type": "application/json"})  # fmt: skip
    assert (huge.status, huge.json()["error"]["code"]) == (413, "request_too_large")
    chunked = live.request("POST", "/v1/jobs", body=iter([bytes(2**20)] * 8),
                           headers={"Content-Type": "application/json"})  # fmt: skip
    assert chunked.status == 413
    assert live.request("GET", "/v1/models").status == 200


def test_a_stop_lets_go_who_waits_and_leaves_nothing_behind(live: Live, database: Database) -> None:
    assert live.submit(prefer="wait=0").status == 202
    family = live.server.family
    assert len(family) >= 2  # gunicorn's worker, and a decoder
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(live.submit, prefer="wait=60")
        while len(history.page(database, history.Filter(account_id=None), limit=9)[0]) < 2:
            assert not held.done()
        assert live.server.stop() == 0
        answer = held.result(30)
    assert answer.status == 202
    assert answer.headers["Preference-Applied"] == "wait=55"
    assert answer.json()["status"] == "queued"
    assert ended(family)


def test_every_line_of_the_log_is_json_and_contains_nothing_that_was_sent(live: Live) -> None:
    job = live.submit(prefer="wait=0").json()
    live.request("GET", f"/v1/jobs/{job['id']}/trace", headers={"x-request-id": "req-live-1"})
    live.request("GET", f"/{CANARY}")
    live.request("GET", "/v1/models", headers={"Authorization": f"Bearer {CANARY}"})
    live.server.stop()
    lines = live.server.lines
    finished = [line for line in lines if line["event"] == "request_finished"]
    assert [line["status"] for line in finished] == [202, 200, 404, 401]
    assert finished[1]["route"] == "/v1/jobs/<job_id>/trace"
    assert (finished[1]["request_id"], finished[1]["job_id"]) == ("req-live-1", job["id"])
    assert {line["service"] for line in lines} == {"api"}
    for secret in (CANARY, live.key, factories.PEPPER.decode(), "base64"):
        assert secret not in live.server.log


def test_a_follower_that_vanishes_makes_room_and_its_token_is_in_no_log(live: Live) -> None:
    job = live.submit(prefer="wait=0").json()
    made = live.request("POST", f"{job['urls']['self']}/stream_token").json()
    streams = [
        urllib3.request(
            "GET", live.url + made["url"], preload_content=False, retries=False, timeout=60
        )
        for _ in range(3)  # Of four: one is for others.
    ]
    assert [stream.status for stream in streams] == [200] * 3
    for stream in streams:
        received = b""
        while b"job.queued" not in received:
            received += stream.read1()
    full = live.request("GET", job["urls"]["events"])
    assert (full.status, full.json()["error"]["code"]) == (503, "streams_in_use")

    for stream in streams:
        stream.close()

    def has_room() -> bool:
        answer = live.request("GET", job["urls"]["events"], preload_content=False)
        answer.close()
        return answer.status == 200

    assert eventually(has_room)
    live.server.stop()
    assert made["token"] not in live.server.log
    assert made["token"][:12] not in live.server.log


@pytest.mark.parametrize("wait", [False, True], ids=["stream", "wait"])
def test_a_disconnect_at_any_moment_makes_room(live: Live, *, wait: bool) -> None:
    job = live.submit().json()
    path = f"/v1/jobs/{job['id']}" if wait else job["urls"]["events"]
    place = urllib3.util.parse_url(live.url)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {place.host}\r\nAuthorization: Bearer {live.key}\r\n"
        + ("Prefer: wait=1\r\n\r\n" if wait else "\r\n")
    ).encode()

    def hang_up(number: int) -> None:
        """Go in the middle of the request, behind it, with the answer's beginning, politely or by a reset."""
        with socket.create_connection((place.host, place.port), timeout=60) as connection:
            connection.sendall(request[: len(request) - (7 if number % 4 == 0 else 0)])
            if number % 4 == 2:
                connection.recv(1)
            if number % 4 == 3:
                connection.shutdown(socket.SHUT_WR)
            if number % 8 < 4:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(hang_up, range(64)))

    # One account has three of the four.
    held: list[urllib3.BaseHTTPResponse] = []

    def follow() -> bool:
        answer = live.request("GET", job["urls"]["events"], preload_content=False)
        if answer.status != HTTPStatus.OK:
            answer.close()
            return False
        held.append(answer)
        return len(held) == 3

    assert eventually(follow)
    assert live.request("GET", job["urls"]["events"]).status == HTTPStatus.SERVICE_UNAVAILABLE
    for answer in held:
        answer.close()


def test_an_address_is_logged_without_its_query() -> None:
    class Stored(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    logger = GunicornLogger.__new__(GunicornLogger)
    logger.error_log = logging.getLogger("tests.gunicorn")
    logger.error_log.addHandler(Stored())

    try:
        int("no number")
    except ValueError:
        logger.exception("Error handling request %s %s", "GET", "/v1/jobs/x/events?token=secret")

    assert lines == ["Error handling request GET /v1/jobs/x/events"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LONGLOOK_PROT": "1"}, "LONGLOOK_PROT: no such setting"),
        ({"LONGLOOK_PEPPER": ""}, "LONGLOOK_PEPPER: not set"),
    ],
)
def test_settings_that_cannot_be_used_are_one_clear_message(
    short_folder: Path, database_url: str, variables: dict[str, str], message: str
) -> None:
    server = GunicornServer(
        short_folder, database_url=database_url, redis_url="redis://127.0.0.1:1/0", **variables
    )
    with pytest.raises(RuntimeError, match="did not come up"):
        server.start()
    assert server.process is not None
    assert server.process.returncode == 2
    assert message in server.log
    assert "Traceback" not in server.log


def test_it_dies_with_its_parent_and_takes_its_children_along(live: Live) -> None:
    assert live.submit(prefer="wait=0").status == 202
    family = live.server.family
    assert len(family) >= 2  # gunicorn's worker, and a decoder
    assert live.server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert ended(family)
