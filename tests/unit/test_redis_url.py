"""How the address of Redis is read, for redis-py and for Celery."""

from __future__ import annotations

from typing import Any

import pytest

from core import errors
from core.redis_url import RedisURL
from core.settings import Settings

#: URL -> what differs from the defaults, and the URL for Celery.
URLS: dict[str, tuple[dict[str, Any], str]] = {
    "redis://localhost:6379/3": ({"host": "localhost", "db": 3}, "redis://localhost:6379/3"),
    "redis://localhost?db=3": ({"host": "localhost", "db": 3}, "redis://localhost:6379/3"),
    "redis://": ({}, "redis://127.0.0.1:6379/0"),
    "redis://[::1]:7000/1": ({"host": "::1", "port": 7000, "db": 1}, "redis://[::1]:7000/1"),
    "redis://u%40x:p%2Fa%3As%40s@h/0?client_name=web": (
        {"host": "h", "username": "u@x", "password": "p/a:s@s", "client_name": "web"},
        "redis://u%40x:p%2Fa%3As%40s@h:6379/0",
    ),
    "redis://h?username=u&password=p": (
        {"host": "h", "username": "u", "password": "p"},
        "redis://u:p@h:6379/0",
    ),
    "unix:///run/redis.sock": (
        {"path": "/run/redis.sock"},
        "redis+socket:///run/redis.sock?virtual_host=0",
    ),
    "unix://u:p@/run/redis.sock?db=5": (
        {"path": "/run/redis.sock", "db": 5, "username": "u", "password": "p"},
        "redis+socket://u:p@/run/redis.sock?virtual_host=5",
    ),
    "rediss://h:6380": (
        {
            "host": "h",
            "port": 6380,
            "tls": {"ssl_cert_reqs": "required", "ssl_check_hostname": True},
        },
        "redis://h:6380/0",
    ),
    "rediss://h?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/ca.pem&ssl_check_hostname=false": (
        {
            "host": "h",
            "tls": {
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": False,
                "ssl_ca_certs": "/ca.pem",
            },
        },
        "redis://h:6379/0",
    ),
    "rediss://h?ssl_cert_reqs=none": (
        {"host": "h", "tls": {"ssl_cert_reqs": "none", "ssl_check_hostname": False}},
        "redis://h:6379/0",
    ),
    "redis+sentinel://u:p@a:1,[::1]/main/2?sentinel_password=s": (
        {
            "host": "a",
            "port": 1,
            "db": 2,
            "username": "u",
            "password": "p",
            "sentinels": (("a", 1), ("::1", 26379)),
            "primary": "main",
            "sentinel_password": "s",
        },
        "sentinel://u:p@a:1/2;sentinel://u:p@[::1]:26379/2",
    ),
    "rediss+sentinel://a/main": (
        {
            "host": "a",
            "port": 26379,
            "sentinels": (("a", 26379),),
            "primary": "main",
            "tls": {"ssl_cert_reqs": "required", "ssl_check_hostname": True},
        },
        "sentinel://a:26379/0",
    ),
}
REFUSED = {
    "http://h": ["must be `redis://…`"],
    "redis://h?protocol=3": ["`protocol`"],
    "redis://h?socket_timeout=1&retry=2": ["`socket_timeout`", "`retry`"],
    "redis://h/five": ["`five`"],
    "redis://h?db=x": ["`x`"],
    "redis://h:99999": ["port"],
    "redis://h?ssl_cert_reqs=none": ["`ssl_cert_reqs`"],
    "rediss://h?ssl_cert_reqs=maybe&ssl_check_hostname=perhaps": [
        "`ssl_cert_reqs`",
        "`ssl_check_hostname`",
    ],
    "unix://": ["no path"],
    "redis+sentinel://a:1,b:x/?ssl_cert_reqs=none": ["port", "no name", "`ssl_cert_reqs`"],
    "redis+sentinel://a/main/two": ["`two`"],
    "redis://h?sentinel_password=x": ["`sentinel_password`"],
}
DEFAULTS = {
    "path": None,
    "host": "127.0.0.1",
    "port": 6379,
    "db": 0,
    "username": None,
    "password": None,
    "client_name": None,
    "tls": None,
}


@pytest.mark.parametrize("text", URLS)
def test_both_clients_get_what_the_url_says(text: str) -> None:
    url = RedisURL.parse(text)
    differences, broker = URLS[text]
    assert url == RedisURL(**DEFAULTS | differences)
    assert url.broker == broker


@pytest.mark.parametrize("text", REFUSED)
def test_what_one_of_the_clients_cannot_do_is_refused_by_name(text: str) -> None:
    with pytest.raises(errors.SettingsError) as refused:
        Settings.read({}, redis_url=text)
    assert [part for part in REFUSED[text] if part not in str(refused.value)] == []


@pytest.mark.parametrize("text", ["redis://127.0.0.1:1", "unix:///no/such/socket"])
def test_a_client_does_not_repeat_what_fails(text: str) -> None:
    with RedisURL.parse(text).client(seconds=1) as client:
        assert client.get_retry().get_retries() == 0
        assert client.connection_pool.make_connection().retry.get_retries() == 0
