"""Redis with users, databases, and TLS: redis-py and Celery reach the same server in the same way."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import kombu.pools
import pytest
import redis
from kombu.exceptions import OperationalError

from core.redis_url import RedisURL
from core.settings import Settings
from jobs import queue
from tests.certificates import Authority
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

PASSWORD = "p@ss:/w#rd%"  # noqa: S105 - of a server of this test


@pytest.fixture
def server(short_folder: Path) -> Iterator[RedisServer]:
    """Return a Redis server with a user."""
    made = RedisServer(short_folder)
    made.start()
    with redis.Redis.from_url(made.url) as client:
        client.execute_command(
            "ACL", "SETUSER", "long@look", "on", f">{PASSWORD}", "~*", "&*", "+@all"
        )
        client.execute_command("ACL", "SETUSER", "default", "off")
    yield made
    made.stop()


@contextlib.contextmanager
def tls(server: RedisServer, certificate: Path) -> Iterator[tuple[int, list[int]]]:
    """Yield the port of a TLS server in front of ``server``, and the bytes that clients send it after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    received: list[int] = []

    def forward(source: socket.socket, target: socket.socket, count: list[int] | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if count is not None:
                    count.append(len(data))
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(plain, server_side=True) as client,
            socket.socket(socket.AF_UNIX) as backend,
        ):
            backend.connect(str(server.socket))
            back = threading.Thread(target=forward, args=(backend, client, None), daemon=True)
            back.start()
            forward(client, backend, received)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                threading.Thread(target=serve, args=(plain,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], received
        listener.shutdown(socket.SHUT_RDWR)


def publish(url: str) -> int | None:
    """Send a wakeup as Celery does; return how many redis-py counts, None if it does not reach the server."""
    # Its pools are those of the process, for one address without regard to TLS.
    kombu.pools.reset()
    settings = Settings.read({}, redis_url=url)
    with queue.make_celery(settings, wakes=queue.REASON, publisher=True) as app:
        app.send_task(queue.REASON, queue=queue.REASON, ignore_result=True, retry=False)
    with RedisURL.parse(url).client(seconds=5) as client:
        return int(str(client.llen(queue.REASON)))


def test_a_user_and_a_database_of_a_socket_are_the_same_for_both_clients(
    server: RedisServer,
) -> None:
    login = f"long%40look:{urllib.parse.quote(PASSWORD, safe='')}"
    assert publish(f"unix://{login}@{server.socket}?db=5") == 1
    query = urllib.parse.urlencode({"username": "long@look", "password": PASSWORD, "db": "5"})
    assert publish(f"unix://{server.socket}?{query}") == 2


def test_both_clients_verify_a_certificate_before_they_send_a_password(
    server: RedisServer, tmp_path: Path
) -> None:
    authority = Authority.make(tmp_path)
    login = f"long%40look:{urllib.parse.quote(PASSWORD, safe='')}"
    with tls(server, authority.issue("localhost")) as (port, received):
        url = f"rediss://{login}@localhost:{port}/2"
        with pytest.raises(redis.ConnectionError), RedisURL.parse(url).client(seconds=5) as client:
            client.ping()
        with pytest.raises(OperationalError):
            publish(url)
        assert received == []

        trusted = tmp_path / "authority.pem"
        trusted.write_bytes(authority.pem())
        assert publish(f"{url}?ssl_ca_certs={trusted}") == 1
        assert received != []


def test_both_clients_check_the_name_in_a_certificate(server: RedisServer, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(authority.pem())
    login = f"long%40look:{urllib.parse.quote(PASSWORD, safe='')}"
    with tls(server, authority.issue("elsewhere.example")) as (port, received):
        url = f"rediss://{login}@localhost:{port}/2?ssl_ca_certs={trusted}"
        with pytest.raises(OperationalError):
            publish(url)
        with pytest.raises(redis.ConnectionError), RedisURL.parse(url).client(seconds=5) as client:
            client.ping()
        assert received == []
        assert publish(f"{url}&ssl_check_hostname=false") == 1
