"""The HTTP server of an engine: connections for streams, and short requests about its state."""

import contextlib
import http.client
import ssl
import time
from collections.abc import Mapping
from typing import Final

from core import errors
from net.connection import Connection, Origin
from net.pool import Pool
from net.resolver import system_addresses


class EngineServer:
    """Where an engine listens. Thread-safe.

    Args:
        url: for example ``http://127.0.0.1:30000``.
        api_key: sent as a bearer token.
        connect_seconds: longest wait for a connection, and for the response to a short request.
        idle: idle connections that are kept.

    Raises:
        core.errors.SettingsError: ``url`` is not a valid URL.
    """

    def __init__(self, url: str, *, api_key: str | None, connect_seconds: float, idle: int) -> None:
        try:
            self._origin, path = Origin.split(url)
        except ValueError as error:
            raise errors.SettingsError(f"The URL of an engine is not valid: {error}") from error
        self._prefix: Final = path.rstrip("/")
        self._tls = ssl.create_default_context() if self._origin.scheme == "https" else None
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._connect_seconds = connect_seconds
        self._pool = Pool(limit=idle)

    def take(self) -> Connection:
        """Return an idle connection, else a new one that must be dialed."""
        return self._pool.take(self._origin) or self.new_connection()

    def new_connection(self) -> Connection:
        """Return a new connection that must be dialed."""
        return Connection(self._origin, tls=self._tls)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose response has been read to its end."""
        self._pool.give_back(connection)

    def dial(self, connection: Connection) -> None:
        """Connect. Raises ``OSError``."""
        until = time.monotonic() + self._connect_seconds
        addresses = system_addresses(self._origin.host, self._origin.port)
        connection.dial([str(address) for address in addresses], until=until)

    def send(
        self,
        connection: Connection,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request and return its response once the head is there; see :meth:`net.connection.Connection.send`."""
        return connection.send(
            method, self._prefix + path, body=body, headers={**self._headers, **(headers or {})}
        )

    def request(
        self, method: str, path: str, *, body: bytes | None = None, seconds: float | None = None
    ) -> tuple[int, bytes]:
        """Return status and body of the response to a short request, over a connection of its own.

        Such requests are rare, so that a pooled connection would often be stale.

        Args:
            method: of HTTP.
            path: below the engine's URL.
            body: JSON.
            seconds: for the response; by default as long as for a connection.

        Raises:
            OSError: there is no response.
            http.client.HTTPException: the response is not HTTP.
        """
        with contextlib.closing(self.new_connection()) as connection:
            self.dial(connection)
            with connection.deadline(time.monotonic() + (seconds or self._connect_seconds)):
                response = self.send(connection, method, path, body, {"connection": "close"})
                return response.status, response.read()

    def close(self) -> None:
        """Close the idle connections; those in use go on."""
        self._pool.close()
