"""Images by URL: downloaded from real servers over HTTP and HTTPS, guarded, and never passed to an engine as URLs."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from api.app import create_app, service_of
from core.database import Database
from core.settings import Settings
from jobs.images import ImageReader
from jobs.records.jobs import Job
from tests import factories
from tests.api import image_files
from tests.api.conftest import Caller, Json
from tests.certificates import Authority, serving
from tests.connect_proxy import ConnectProxy, proxying
from tests.e2e.stack import eventually
from tests.fakes import RecordingWakeup


@dataclass
class Site:
    """A web server with one image and configurable behavior."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = field(default_factory=image_files.png)
    #: Redirects before the image.
    hops: int = 0
    requested: list[dict[str, str]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    site.held.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requested.append({name.lower(): value for name, value in self.headers.items()})
            site.held.wait(60)
            leads_on = len(site.requested) <= site.hops
            with contextlib.suppress(OSError):
                self.send_response(302 if leads_on else site.status)
                for name, value in site.headers.items():
                    self.send_header(name, value)
                if leads_on:
                    self.send_header("location", f"/hop/{len(site.requested)}")
                self.end_headers()
                self.wfile.write(site.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}/picture.png"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield site
    site.held.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def seconds() -> float:
    """Return how long a fetch may take: as long as a busy machine needs."""
    return 60.0


@pytest.fixture
def settings(settings: Settings, seconds: float) -> Settings:
    return settings.model_copy(
        update={"webhook_allow": ("127.0.0.0/8",), "image_url_seconds": seconds, "max_image_mb": 1}
    )


def ask(caller: Caller, *urls: str, key: str | None = None) -> tuple[int, Json]:
    body = {"question": "How many?", "images": [{"url": url} for url in urls]}
    headers = {"Idempotency-Key": key} if key else {}
    answer = caller("POST", "/v1/jobs", json=body, headers=headers)
    reported: Json = answer.get_json()
    return answer.status_code, reported


def codes(reported: Json) -> dict[str, str]:
    return {fault["pointer"]: fault["code"] for fault in reported["errors"]}


def jobs(database: Database) -> int:
    with database.reading() as transaction:
        count: int = transaction.execute(sa.select(sa.func.count()).select_from(Job)).scalar_one()
        return count


def test_an_image_is_downloaded_and_stored_like_an_uploaded_one(caller: Caller, site: Site) -> None:
    status, job = ask(caller, site.url)

    assert status == 202
    assert job["images"][0]["id"] == caller.image(site.body)["id"]
    assert site.requested[0]["accept"] == "image/*"
    assert "authorization" not in site.requested[0]


def test_several_images_are_downloaded_at_once_and_in_order(caller: Caller, site: Site) -> None:
    data = image_files.data_url(image_files.png())
    body = {"question": "?", "images": [{"url": site.url}, {"data": data}, {"url": site.url}]}

    job = caller("POST", "/v1/jobs", json=body).get_json()

    assert len({image["id"] for image in job["images"]}) == 1
    assert len(job["images"]) == 3
    assert len(site.requested) == 2


def test_three_redirects_are_followed_and_a_fourth_is_not(caller: Caller, site: Site) -> None:
    site.hops = 3
    assert ask(caller, site.url)[0] == 202

    site.requested.clear()
    site.hops = 4
    status, reported = ask(caller, site.url)
    assert (status, codes(reported)) == (422, {"#/images/0/url": "failed_to_download_image"})


def test_fetches_are_counted_by_how_they_ended(
    caller: Caller, operator: Caller, site: Site
) -> None:
    ask(caller, site.url)
    ask(caller, site.url, "http://10.0.0.1/secret")

    shown = operator("GET", "/metrics").text

    assert 'longlook_image_fetch_seconds_count{outcome="ok"} 2.0' in shown
    assert 'longlook_image_fetch_seconds_count{outcome="invalid_image_url"} 1.0' in shown
    assert 'longlook_image_fetch_seconds_count{outcome="failed_to_download_image"} 0.0' in shown


def test_a_redirect_to_a_private_place_is_not_followed(caller: Caller, site: Site) -> None:
    site.status = 302
    site.headers = {"location": "http://10.0.0.1/secret"}

    status, reported = ask(caller, site.url)

    assert (status, codes(reported)) == (422, {"#/images/0/url": "invalid_image_url"})
    assert len(site.requested) == 1


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ((404, b"no"), "failed_to_download_image"),
        ((500, b"no"), "failed_to_download_image"),
        ((200, b"no picture"), "invalid_image_format"),
        ((200, b""), "empty_image_file"),
        ((200, b"x" * (2**20 + 1)), "image_file_too_large"),
    ],
)
def test_a_file_that_is_not_an_image_is_refused_and_nothing_is_stored(
    caller: Caller, site: Site, database: Database, what: tuple[int, bytes], code: str
) -> None:
    site.status, site.body = what

    answer, reported = ask(caller, site.url)

    assert answer in (413, 422)
    assert codes(reported) == {"#/images/0/url": code}
    assert jobs(database) == 0


@pytest.mark.parametrize("seconds", [0.5])
def test_an_image_that_does_not_arrive_in_time_is_given_up(caller: Caller, site: Site) -> None:
    site.held.clear()

    status, reported = ask(caller, site.url)

    assert (status, codes(reported)) == (422, {"#/images/0/url": "failed_to_download_image"})


def test_every_url_that_does_not_work_is_named(caller: Caller, site: Site) -> None:
    closed = "http://127.0.0.1:9/picture.png"

    status, reported = ask(
        caller, closed, site.url, "http://name.invalid/a.png", "http://10.0.0.1/"
    )

    assert status == 422
    assert codes(reported) == {
        "#/images/0/url": "failed_to_download_image",
        "#/images/2/url": "invalid_image_url",
        "#/images/3/url": "invalid_image_url",
    }
    # Callers must not learn which names exist inside this network.
    assert reported["errors"][1]["detail"] == reported["errors"][2]["detail"]


def test_with_another_fault_no_server_is_contacted(caller: Caller, site: Site) -> None:
    body = {"question": "", "images": [{"url": site.url}]}

    answer = caller("POST", "/v1/jobs", json=body)

    assert answer.status_code == 422
    assert site.requested == []


@pytest.mark.parametrize("url", ["ftp://a.example/", "file:///etc/passwd", "x", "http://a b/"])
def test_what_is_no_web_address_is_refused_as_it_is_read(caller: Caller, url: str) -> None:
    status, reported = ask(caller, url)

    assert status == 422
    assert list(codes(reported)) == ["#/images/0/url"]


def test_a_repeated_request_returns_its_job_though_the_image_is_gone(
    caller: Caller, site: Site, database: Database
) -> None:
    _, first = ask(caller, site.url, key="a")
    site.status = 404

    status, again = ask(caller, site.url, key="a")
    other, _ = ask(caller, site.url + "?other", key="a")

    assert (status, again["id"]) == (202, first["id"])
    assert other == 422
    assert len(site.requested) == 1
    assert jobs(database) == 1


def test_an_upload_by_url_is_no_way_around_the_allow_list(
    settings: Settings, database: Database, decoder: ImageReader, site: Site
) -> None:
    closed = settings.model_copy(update={"webhook_allow": ()})
    app = create_app(
        closed,
        database=database,
        wakeup=RecordingWakeup(),
        delivery_wakeup=RecordingWakeup(),
        images=decoder,
    )
    caller = Caller(app.test_client(), factories.make_key(database))

    status, reported = ask(caller, site.url)

    assert (status, codes(reported)) == (422, {"#/images/0/url": "invalid_image_url"})
    assert site.requested == []
    service_of(app).drain()


@contextlib.contextmanager
def fetching(site: Site, *callers: Caller) -> Iterator[list[int]]:
    """Have a request of each of ``callers`` wait for ``site``; yield how they are answered in the end."""
    before = len(site.requested)
    site.held.clear()
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda caller=caller: answers.append(ask(caller, site.url)[0]))
        for caller in callers
    ]
    for thread in threads:
        thread.start()
    try:
        assert eventually(lambda: len(site.requested) == before + len(callers))
        yield answers
    finally:
        site.held.set()
        for thread in threads:
            thread.join()


def test_a_ninth_concurrent_request_is_asked_to_retry(
    caller: Caller, stranger: Caller, database: Database, site: Site
) -> None:
    third = Caller(caller.client, factories.make_key(database, account="third"))
    fourth = Caller(caller.client, factories.make_key(database, account="fourth"))
    with (
        fetching(site, *[caller] * 3) as first,
        fetching(site, *[stranger] * 3) as second,
        fetching(site, *[third] * 2) as last,
    ):
        status, reported = ask(fourth, site.url)

    assert status == 503
    assert reported["error"]["code"] == "unavailable"
    assert (first, second, last) == ([202] * 3, [202] * 3, [202] * 2)


class TestLittleMemory:
    """With memory for four images of half a mebibyte."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Return settings with two mebibytes for what is fetched."""
        return settings.model_copy(update={"bodies_mb": 2})

    def test_bytes_that_are_fetched_are_shared_between_accounts_and_given_back(
        self, caller: Caller, stranger: Caller, site: Site
    ) -> None:
        site.body = image_files.png() + bytes(2**19)
        assert ask(caller, *[site.url] * 2)[0] == 202
        status, reported = ask(caller, *[site.url] * 4)
        assert (status, reported["error"]["code"]) == (503, "overloaded")
        site.held.clear()
        with fetching(site, caller, stranger) as answers:
            pass
        assert answers == [202, 202]
        for asking in (caller, stranger) * 4:
            assert ask(asking, *[site.url] * 2)[0] == 202


def test_an_account_that_fetches_much_leaves_room_to_others(
    caller: Caller, stranger: Caller, site: Site
) -> None:
    with fetching(site, *[caller] * 6) as answers:
        assert ask(caller, site.url)[0] == 503
        with fetching(site, *[stranger] * 2) as others:
            assert ask(stranger, site.url)[0] == 503

    assert answers == [202] * 6
    assert others == [202] * 2


class TestProxy:
    """Images through the operator's proxy."""

    @pytest.fixture
    def proxy(self) -> Iterator[ConnectProxy]:
        with proxying() as proxy:
            yield proxy

    @pytest.fixture
    def settings(self, settings: Settings, proxy: ConnectProxy) -> Settings:
        url = f"http://127.0.0.1:{proxy.port}"
        # The hosts of the other tests' settings are allowed here, too.
        return settings.model_copy(update={"outbound_proxy": url})

    def test_an_image_comes_through_the_proxy(
        self, caller: Caller, site: Site, proxy: ConnectProxy
    ) -> None:
        assert ask(caller, site.url)[0] == 202
        assert proxy.targets == [site.url.split("/")[2]]

    def test_a_proxy_that_does_not_work_is_not_the_requests_fault(
        self, caller: Caller, site: Site, proxy: ConnectProxy, database: Database
    ) -> None:
        proxy.answer = b"HTTP/1.1 407 No\r\n\r\n"
        status, reported = ask(caller, site.url)
        assert (status, jobs(database)) == (503, 0)
        assert "proxy" in reported["detail"]

        proxy.answer = b"HTTP/1.1 403 No\r\n\r\n"
        status, reported = ask(caller, site.url)
        assert status == 422
        assert codes(reported) == {"#/images/0/url": "failed_to_download_image"}


def test_an_invalid_certificate_is_described(caller: Caller, tmp_path: Path) -> None:
    certificate = Authority.make(tmp_path).issue("elsewhere.example", self_signed=True)
    with serving(certificate) as port:
        status, reported = ask(caller, f"https://127.0.0.1:{port}/a.png")

    assert status == 422
    [fault] = reported["errors"]
    assert fault["code"] == "failed_to_download_image"
    assert fault["detail"] == "The certificate of the server is self-signed, and not trusted."
