"""Serves the metrics of a worker process to Prometheus. A worker has no other HTTP server."""

import threading
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, start_http_server

_log = structlog.get_logger(__name__)


class Exporter:
    """An HTTP server with one page. The page holds only numbers, so it needs no key.

    Args:
        registry: the metrics.
        host: address to listen on.
        port: port to listen on; 0 serves nothing.
    """

    def __init__(self, registry: CollectorRegistry, *, host: str, port: int) -> None:
        self._registry = registry
        self._host = host
        self._port = port
        self._running: tuple[WSGIServer, threading.Thread] | None = None

    def start(self) -> None:
        """Start the server's thread. A port that is in use is logged: jobs run without the page."""
        if not self._port:
            return
        try:
            self._running = start_http_server(self._port, self._host, registry=self._registry)
        except OSError as error:
            _log.error("metrics_not_served", port=self._port, reason=error.strerror)
            return
        _log.info("metrics_served", host=self._host, port=self._port)

    def stop(self) -> None:
        """Stop the server."""
        if self._running is not None:
            server, thread = self._running
            server.shutdown()
            server.server_close()
            thread.join()
            self._running = None
