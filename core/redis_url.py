"""The address of Redis, read once: redis-py and Celery, which read URLs differently, get the same parameters."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_SCHEMES: Final = ("redis", "rediss", "unix")
_TLS: Final = frozenset(
    {
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_check_hostname",
    }
)
_PARAMETERS: Final = frozenset({"db", "username", "password", "client_name"})
#: The values of ``ssl_cert_reqs``, also in Celery's spelling.
_VERIFICATION: Final = {"none", "optional", "required"}
_TRUE: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class RedisURL:
    """Where Redis is, and how to connect to it.

    Attributes:
        path: of the socket, None: TCP.
        host: name or address.
        port: TCP port.
        db: number of the database.
        username: of the ACL, or None.
        password: or None.
        client_name: as ``CLIENT LIST`` shows it, or None.
        tls: redis-py's parameters of TLS; None: no TLS. Certificates are verified unless the URL says otherwise.
    """

    path: str | None
    host: str
    port: int
    db: int
    username: str | None
    password: str | None
    client_name: str | None
    tls: dict[str, Any] | None

    @classmethod
    def parse(cls, text: str) -> RedisURL:
        """Return the parts of a URL.

        Args:
            text: ``redis://``, ``rediss://``, or ``unix://`` with the parameters ``db``, ``username``, ``password``,
                ``client_name``, and, for ``rediss://``, those of :data:`_TLS`.

        Raises:
            ValueError: it has another scheme, parameter, or value; the message names all of them.
        """
        url = urllib.parse.urlsplit(text)
        if url.scheme not in _SCHEMES:
            raise ValueError("must be `redis://…`, `rediss://…`, or `unix://path`")
        given = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        faults = list(_faults(url, given))
        if faults:
            raise ValueError("; ".join(faults))
        return cls(
            path=urllib.parse.unquote(url.path) if url.scheme == "unix" else None,
            host=urllib.parse.unquote(url.hostname or "127.0.0.1"),
            port=url.port or 6379,
            db=int(given.get("db") or (url.scheme != "unix" and url.path.strip("/")) or 0),
            username=given.get("username") or _unquoted(url.username),
            password=given.get("password") or _unquoted(url.password),
            client_name=given.get("client_name"),
            tls=_tls(given) if url.scheme == "rediss" else None,
        )

    def client(self, *, seconds: float, **options: Any) -> redis.Redis:  # noqa: ANN401 - redis-py's own
        """Return a client of redis-py that waits at most ``seconds`` for a connection or an answer."""
        return redis.Redis(
            **(
                {"unix_socket_path": self.path}
                if self.path is not None
                else {"host": self.host, "port": self.port, "socket_connect_timeout": seconds}
            ),
            **({} if self.tls is None else {"ssl": True, **self.tls}),
            db=self.db,
            username=self.username,
            password=self.password,
            client_name=self.client_name,
            socket_timeout=seconds,
            # The default repeats for seconds while Redis is down, and callers have their own way to wait.
            retry=Retry(NoBackoff(), 0),
            **options,
        )

    @property
    def broker(self) -> str:
        """The URL for Celery, without the parameters of TLS, which are ``broker_use_ssl``."""
        login = ""
        if self.username or self.password:
            login = f"{_quoted(self.username)}:{_quoted(self.password)}@"
        if self.path is not None:
            return f"redis+socket://{login}{self.path}?virtual_host={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis://{login}{host}:{self.port}/{self.db}"


def _faults(url: urllib.parse.SplitResult, given: dict[str, str]) -> list[str]:
    known = _PARAMETERS | (_TLS if url.scheme == "rediss" else frozenset())
    faults = [
        f"has the parameter `{name}`; known are {', '.join(sorted(known))}"
        for name in given
        if name not in known
    ]
    db = given.get("db", "" if url.scheme == "unix" else url.path.strip("/"))
    if db and not re.fullmatch("[0-9]{1,6}", db):
        faults.append(f"has the database `{db[:40]}`; it must be a number")
    if url.scheme == "unix" and not url.path.strip("/"):
        faults.append("has no path of a socket")
    try:
        _ = url.port
    except ValueError:
        faults.append("has a port that is not a number from 0 to 65535")
    verification = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verification not in _VERIFICATION:
        faults.append("has an `ssl_cert_reqs` other than `required`, `optional`, and `none`")
    if given.get("ssl_check_hostname", "true").lower() not in _TRUE:
        faults.append("has an `ssl_check_hostname` other than `true` and `false`")
    return faults


def _tls(given: dict[str, str]) -> dict[str, Any]:
    verification = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    check = _TRUE[given.get("ssl_check_hostname", str(verification == "required")).lower()]
    files = {name: value for name, value in given.items() if name in _TLS}
    return files | {"ssl_cert_reqs": verification, "ssl_check_hostname": check}


def _unquoted(text: str | None) -> str | None:
    return urllib.parse.unquote(text) if text else None


def _quoted(text: str | None) -> str:
    return urllib.parse.quote(text or "", safe="")
