"""A picture that is named by URL comes to the engine as a picture: what a real worker sends is read on its way."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripted.options import ScriptedOptions
from tests import children, databases
from tests.e2e.stack import Stack
from tests.redis_servers import RedisServer
from tests.scripted_server import BackgroundServer

pytestmark = pytest.mark.e2e

IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"


@contextlib.contextmanager
def site() -> Iterator[str]:
    """Serve the picture; yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(IMAGE.read_bytes())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/secret-name.png"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def overheard(port: int) -> Iterator[tuple[str, bytearray]]:
    """Stand in front of an engine; yield the URL to ask, and all that is sent to it."""
    woken = bytearray()
    sockets = [socket.create_server(("127.0.0.1", 0))]
    threads: list[threading.Thread] = []

    def start(target: Callable[..., None], *arguments: object) -> None:
        threads.append(threading.Thread(target=target, args=arguments))
        threads[-1].start()

    def pump(source: socket.socket, target: socket.socket, stored: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                stored += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = sockets[0].accept()
                engine = socket.create_connection(("127.0.0.1", port))
                sockets.extend((peer, engine))
                start(pump, peer, engine, woken)
                start(pump, engine, peer, bytearray())

    start(serve)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}", woken
    finally:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for one in sockets:
            one.close()


def test_an_engine_is_sent_the_picture_and_never_its_url(
    sqlite_source: databases.SqliteSource, redis_server: RedisServer
) -> None:
    redis_server.flush()
    folder = children.short_folder()
    with (
        site() as url,
        BackgroundServer(ScriptedOptions(tokens_per_second=0)) as engine,
        overheard(int(engine.url.rsplit(":", 1)[1])) as (engine_url, woken),
    ):
        stack = Stack(
            folder,
            sqlite_source.create(),
            redis_server.url,
            engine_url,
            variables={"LONGLOOK_WEBHOOK_ALLOW": "127.0.0.0/8"},
        )
        try:
            client = stack.start_api()
            stack.start_worker()
            body = {"question": "How many shapes are there?", "images": [{"url": url}]}
            job = client.wait(client.act("/v1/jobs", body)["id"])
        finally:
            stack.close()
    shutil.rmtree(folder, ignore_errors=True)

    assert job["status"] == "succeeded"
    images = woken.count(b'"type":"image_url"')
    assert images == woken.count(b'"image_url":{"url":"data:image/png;base64,') >= 1
    assert b"secret-name" not in woken
