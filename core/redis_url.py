"""The address of Redis, read once: redis-py and Celery, which read URLs differently, get the same parameters."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

_SENTINEL: Final = "+sentinel"
_SENTINEL_PORT: Final = 26379
_SCHEMES: Final = ("redis", "rediss", "unix", f"redis{_SENTINEL}", f"rediss{_SENTINEL}")
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
_SENTINEL_LOGIN: Final = frozenset({"sentinel_username", "sentinel_password"})
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
        sentinels: host and port of each Sentinel, which know the server; empty: ``host`` and ``port`` are the server's.
        primary: the name under which Sentinels know it, or None.
        sentinel_username: at the Sentinels, or None.
        sentinel_password: likewise.
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
    sentinels: tuple[tuple[str, int], ...] = ()
    primary: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    @classmethod
    def parse(cls, text: str) -> RedisURL:
        """Return the parts of a URL.

        Args:
            text: ``redis://``, ``rediss://``, or ``unix://`` with the parameters ``db``, ``username``, ``password``,
                ``client_name``, and, for ``rediss://``, those of :data:`_TLS`. With Sentinel,
                ``redis+sentinel://host,host/primary/db`` or ``rediss+sentinel://``, and those of
                :data:`_SENTINEL_LOGIN`.

        Raises:
            ValueError: it has another scheme, parameter, or value; the message names all of them.
        """
        url = urllib.parse.urlsplit(text)
        if url.scheme not in _SCHEMES:
            raise ValueError(
                "must be `redis://…`, `rediss://…`, `redis+sentinel://…`, `rediss+sentinel://…`, or `unix://path`"
            )
        given = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        faults = list(_faults(url, given))
        if faults:
            raise ValueError("; ".join(faults))
        sentinels = _hosts(url) if url.scheme.endswith(_SENTINEL) else ()
        primary, db = _path(url)
        host, port = sentinels[0] if sentinels else (url.hostname, url.port)
        return cls(
            path=urllib.parse.unquote(url.path) if url.scheme == "unix" else None,
            host=urllib.parse.unquote(host or "127.0.0.1"),
            port=port or 6379,
            db=int(given.get("db") or db or 0),
            username=given.get("username") or _unquoted(url.username),
            password=given.get("password") or _unquoted(url.password),
            client_name=given.get("client_name"),
            tls=_tls(given) if url.scheme.startswith("rediss") else None,
            sentinels=sentinels,
            primary=primary,
            sentinel_username=given.get("sentinel_username"),
            sentinel_password=given.get("sentinel_password"),
        )

    def client(self, *, seconds: float, **options: Any) -> redis.Redis:  # noqa: ANN401 - redis-py's own
        """Return a client of redis-py that waits at most ``seconds`` for a connection or an answer."""
        parameters: dict[str, Any] = {
            **({} if self.tls is None else {"ssl": True, **self.tls}),
            "db": self.db,
            "username": self.username,
            "password": self.password,
            "client_name": self.client_name,
            "socket_timeout": seconds,
            # The default repeats for seconds while Redis is down, and callers have their own way to wait.
            "retry": Retry(NoBackoff(), 0),
            **options,
        }
        if self.path is not None:
            return redis.Redis(unix_socket_path=self.path, **parameters)
        parameters["socket_connect_timeout"] = seconds
        if self.primary is None:
            return redis.Redis(host=self.host, port=self.port, **parameters)
        known: Any = Sentinel(  # type: ignore[no-untyped-call] # redis has no types here
            list(self.sentinels), sentinel_kwargs=self._sentinel_parameters(seconds), **parameters
        )
        client: redis.Redis = known.master_for(self.primary)
        return client

    def transport(self, *, seconds: float) -> dict[str, Any]:
        """Return the options of Celery's transport that are not in :attr:`broker`."""
        named = {"client_name": self.client_name} if self.client_name else {}
        if self.primary is None:
            return named
        return named | {
            "master_name": self.primary,
            "sentinel_kwargs": self._sentinel_parameters(seconds),
        }

    @property
    def broker(self) -> str:
        """The URL for Celery, without the parameters of TLS, which are ``broker_use_ssl``."""
        login = ""
        if self.username or self.password:
            login = f"{_quoted(self.username)}:{_quoted(self.password)}@"
        if self.path is not None:
            return f"redis+socket://{login}{self.path}?virtual_host={self.db}"
        if self.primary is None:
            return f"redis://{login}{_address(self.host, self.port)}/{self.db}"
        return ";".join(
            f"sentinel://{login}{_address(*sentinel)}/{self.db}" for sentinel in self.sentinels
        )

    def _sentinel_parameters(self, seconds: float) -> dict[str, Any]:
        """Return redis-py's parameters for a connection to a Sentinel."""
        return {
            **({} if self.tls is None else {"ssl": True, **self.tls}),
            "username": self.sentinel_username,
            "password": self.sentinel_password,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "retry": Retry(NoBackoff(), 0),
        }


def _faults(url: urllib.parse.SplitResult, given: dict[str, str]) -> list[str]:
    sentinel = url.scheme.endswith(_SENTINEL)
    known = _PARAMETERS | (_TLS if url.scheme.startswith("rediss") else frozenset())
    known |= _SENTINEL_LOGIN if sentinel else frozenset()
    faults = [
        f"has the parameter `{name}`; known are {', '.join(sorted(known))}"
        for name in given
        if name not in known
    ]
    primary, path_db = _path(url)
    db = given.get("db", path_db)
    if sentinel and not primary:
        faults.append("has no name of the primary, as in `redis+sentinel://host:26379/mymaster/0`")
    if db and not re.fullmatch("[0-9]{1,6}", db):
        faults.append(f"has the database `{db[:40]}`; it must be a number")
    if url.scheme == "unix" and not url.path.strip("/"):
        faults.append("has no path of a socket")
    try:
        _ = _hosts(url) if sentinel else url.port
    except ValueError:
        faults.append("has a port that is not a number from 0 to 65535")
    verification = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verification not in _VERIFICATION:
        faults.append("has an `ssl_cert_reqs` other than `required`, `optional`, and `none`")
    if given.get("ssl_check_hostname", "true").lower() not in _TRUE:
        faults.append("has an `ssl_check_hostname` other than `true` and `false`")
    return faults


def _path(url: urllib.parse.SplitResult) -> tuple[str | None, str]:
    """Return the name of the primary, if Sentinels know it, and the number of the database as it is in the path."""
    path = "" if url.scheme == "unix" else url.path.strip("/")
    if not url.scheme.endswith(_SENTINEL):
        return None, path
    primary, _, db = path.partition("/")
    return urllib.parse.unquote(primary) or None, db


def _hosts(url: urllib.parse.SplitResult) -> tuple[tuple[str, int], ...]:
    """Return the Sentinels. Raises :class:`ValueError`: a port is not a number."""
    parts = [
        urllib.parse.urlsplit(f"//{host}") for host in url.netloc.rpartition("@")[2].split(",")
    ]
    return tuple((part.hostname or "127.0.0.1", part.port or _SENTINEL_PORT) for part in parts)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls(given: dict[str, str]) -> dict[str, Any]:
    verification = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    check = _TRUE[given.get("ssl_check_hostname", str(verification == "required")).lower()]
    files = {name: value for name, value in given.items() if name in _TLS}
    return files | {"ssl_cert_reqs": verification, "ssl_check_hostname": check}


def _unquoted(text: str | None) -> str | None:
    return urllib.parse.unquote(text) if text else None


def _quoted(text: str | None) -> str:
    return urllib.parse.quote(text or "", safe="")
