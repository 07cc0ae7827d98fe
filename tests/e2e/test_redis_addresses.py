"""Redis with users, databases, and TLS: redis-py and Celery reach the same server in the same way."""

from __future__ import annotations

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
from tests.redis_servers import RedisServer, tls

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
