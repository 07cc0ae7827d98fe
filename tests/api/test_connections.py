"""The real server while clients do what they should not: they keep connections, and say little or nothing."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3

from core.database import Database
from tests import children, factories
from tests.api import image_files
from tests.api.gunicorn_server import GunicornServer
from tests.api.wire import Client
from tests.e2e.stack import eventually

pytestmark = pytest.mark.e2e

A, B = "127.0.0.2", "127.0.0.3"
#: As many as there are threads for requests, streams and waits, by default.
THREADS = 744


@dataclass
class Live:
    """A running server with keys of two accounts."""

    server: GunicornServer
    port: int
    a: str
    b: str

    def client(self, address: str) -> Client:
        """Return a new connection."""
        return Client(self.port, address=address)

    def is_served(self, address: str = B) -> bool:
        """Whether a request with a key, and a health check without one, are answered on new connections."""
        with contextlib.closing(self.client(address)) as client:
            requested = client.ask(
                "/v1/jobs", headers=f"Authorization: Bearer {self.b}\r\n"
            ).answer()
            alive = client.ask("/livez").answer()
        return (requested.status, alive.status) == (200, 200)


@pytest.fixture
def live(
    database: Database, database_url: str, redis_url: str, short_folder: Path
) -> Iterator[Live]:
    server = GunicornServer(
        short_folder,
        database_url=database_url,
        redis_url=redis_url,
        # Nothing in these tests is to come right by waiting.
        LONGLOOK_HEAD_SECONDS="600",
        LONGLOOK_BODY_SECONDS="600",
    )
    url = server.start()
    port = urllib3.util.parse_url(url).port
    assert port is not None
    yield Live(
        server, port, factories.make_key(database), factories.make_key(database, account="b")
    )
    server.stop()


@pytest.fixture(autouse=True)
def _files() -> Iterator[None]:
    """Let this process have as many connections as the tests need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4096
    if soft < needed <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    elif soft < needed:
        pytest.skip(f"this process may have {hard} files open, {needed} are needed")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def crowd(live: Live, count: int, said: bytes) -> Iterator[list[Client]]:
    """Hold connections that have said something, and close them in the end."""
    clients = [live.client(A) for _ in range(count)]
    try:
        for client in clients:
            if said:
                client.send(said)
        yield clients
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    "said",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"BAD\r\n\r\n",
    ],
    ids=["close", "1.0", "bad"],
)
def test_clients_that_do_not_close_delay_no_other_client(live: Live, said: bytes) -> None:
    processes = children.of(_pid(live))
    # Each would take two seconds if the server waited for it.
    with crowd(live, 64, said) as staying:
        assert live.is_served()
        assert {client.answer().status for client in staying} <= {200, 400}
    # It was not killed for having been silent.
    assert set(processes) <= set(children.of(_pid(live)))


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (THREADS, b"G"),
        (THREADS, b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Half: "),
        (THREADS, b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"),
        (1744, b""),
    ],
    ids=["bytes", "halves", "bodies", "silent"],
)
def test_connections_that_send_little_delay_no_other_client(
    live: Live, count: int, said: bytes
) -> None:
    with crowd(live, count, said) as clients:
        assert live.is_served()
        # Those who drip are as harmless.
        for client in clients[-20:]:
            client.send(b"a")
            assert live.is_served(A)


def test_slow_bodies_of_one_key_keep_no_other_key_waiting(live: Live) -> None:
    known = f"Authorization: Bearer {live.a}\r\n"
    with contextlib.closing(live.client(A)) as client:
        assert client.ask("/v1/jobs", headers=known).answer().status == 200
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n{known}\r\n{{"
    with crowd(live, THREADS, head.encode()):
        # From the same address, too.
        assert live.is_served(A)
        with contextlib.closing(live.client(A)) as mine:
            body = (
                b'{"question": "How many?", "images": [{"data": "%b"}]}'
                % image_files.data_url(image_files.png()).encode()
            )
            kind = f"Content-Type: application/json\r\nAuthorization: Bearer {live.b}\r\n"
            assert (
                mine.ask("/v1/jobs", method="POST", body=body, headers=kind).answer().status == 202
            )


def test_unread_pipelined_answers_delay_no_other_client(live: Live) -> None:
    many = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 60
    with crowd(live, 100, many):
        assert live.is_served()


def test_without_files_for_more_connections_those_that_wait_for_nothing_give_way(
    live: Live,
) -> None:
    # A child that has been forked and does not run its own program yet has the name of its parent.
    assert live.is_served()
    assert eventually(lambda: len(workers(live)) == 1)
    [worker] = workers(live)
    used = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 20, hard))
    with crowd(live, 60, b""):
        assert live.is_served()
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))


def test_a_path_that_is_not_spelled_as_its_route_is_not_found(live: Live) -> None:
    paths = [
        "//v1/jobs",
        "/v1%2fjobs",
        "/v1%2Fjobs",
        "/%761/jobs",
        "//metrics",
        "/livez/",
        "/v1/jobs%2e",
    ]
    known = f"Authorization: Bearer {live.b}\r\n"
    with contextlib.closing(live.client(B)) as client:
        answers = [client.ask(path, headers=known).answer() for path in paths]
        assert [one.status for one in answers] == [404] * len(paths)
        assert {one.problem["error"]["code"] for one in answers} == {"not_found"}
        absolute = client.ask("http://else//v1/jobs", headers=known).answer()
        assert absolute.status == 404
        assert client.ask("http://else/v1/jobs", headers=known).answer().status == 200


def test_a_header_moves_no_route(live: Live) -> None:
    with contextlib.closing(live.client("127.0.0.1")) as client:
        moved = client.ask("/v1/metrics", headers="SCRIPT_NAME: /v1\r\n").answer()
        assert moved.status == 404
        assert client.ask("/livez", headers="SCRIPT_NAME: /v1\r\n").answer().status == 200


def _pid(live: Live) -> int:
    assert live.server.process is not None
    return live.server.process.pid


def workers(live: Live) -> list[int]:
    """Return the processes of the server that serve requests."""
    return [pid for pid in children.of(_pid(live)) if children.name(pid) == "gunicorn"]
