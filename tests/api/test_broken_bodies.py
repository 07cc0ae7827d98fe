"""Bodies that break HTTP's own rules or cost too much, over real sockets: one clear answer, and no alarm."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from core.database import Database
from tests import databases, factories, redis_servers
from tests.api.gunicorn_server import GunicornServer

pytestmark = pytest.mark.e2e

JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
PNG = "image/png"

BROKEN: dict[str, bytes] = {
    "no number": b"zz\r\nab\r\n0\r\n\r\n",
    "0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a plus": b"+2\r\n{}\r\n0\r\n\r\n",
    "a minus": b"-2\r\n{}\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n{}\r\n0\r\n\r\n",
    "space behind": b"2 \r\n{}\r\n0\r\n\r\n",
    "space before": b" 2\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "bare line feeds": b"2\n{}\n0\n\n",
    "more than its size": b"2\r\n{}xx\r\n0\r\n\r\n",
    "less than its size": b"9\r\n{}\r\n0\r\n\r\n",
    "a long extension": b"2;" + b"x" * 70_000 + b"\r\n{}\r\n0\r\n\r\n",
    "a bad extension": b"2;\x01\r\n{}\r\n0\r\n\r\n",
    "a return in an extension": b"2;a\rb\r\n{}\r\n0\r\n\r\n",
    "a huge size": b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n",
    "many trailers": b"2\r\n{}\r\n0\r\n" + b"".join(b"t%d: x\r\n" % n for n in range(50_000)) + b"\r\n",
    "a bad trailer": b"2\r\n{}\r\n0\r\nno trailer\r\n\r\n",
    "a trailer in two lines": b"2\r\n{}\r\n0\r\na: b\r\n c\r\n\r\n",
    "bare line feeds in trailers": b"2\r\n{}\r\n0\r\na: b\nc: d\r\n\r\n",
    "cut in a chunk": b"9\r\n{",
    "cut in a size": b"2\r\n{}\r\n",
}  # fmt: skip


@dataclass
class Live:
    server: GunicornServer
    address: tuple[str, int]
    key: str

    def cycle(self, path: str, body: bytes, *, kind: str, head: str = "") -> bytes:
        """Send a chunked POST, then nothing more; return all that comes until the server hangs up."""
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {self.key}",
            f"Content-Type: {kind}",
            head or "Transfer-Encoding: chunked",
        ]
        with socket.create_connection(self.address, timeout=60) as peer:
            peer.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            peer.shutdown(socket.SHUT_WR)
            answer = b""
            while part := peer.recv(65536):
                answer += part
        return answer


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: redis_servers.RedisServer,
    sqlite_source: databases.SqliteSource,
) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("api")
    url = sqlite_source.create()
    server = GunicornServer(folder, database_url=url, redis_url=redis_server.url)
    parts = urlsplit(server.start())
    database = Database(url)
    key = factories.make_key(database)
    database.close()
    yield Live(server, (str(parts.hostname), int(parts.port or 0)), key)
    server.stop()
    sqlite_source.drop(url)


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/jobs", JSON), ("/v1/jobs", FORM), ("/v1/images", PNG), ("/v1/webhook_secret/rotate", JSON)],
    ids=["json", "form", "raw", "webhooks"],
)  # fmt: skip
def test_a_malformed_body_is_reported_once_and_the_connection_is_closed(
    live: Live, path: str, kind: str, body: bytes
) -> None:
    before = len(live.server.log)

    answer = live.cycle(path, body, kind=kind)

    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), answer[:200]
    # One answer, and nothing behind it: no byte of the body was taken for another request.
    reported = json.loads(text)
    assert (reported["status"], reported["error"]["type"]) == (400, "invalid_request_error")
    assert "Traceback" not in live.server.log[before:]
    assert '"level": "error"' not in live.server.log[before:].replace('":"', '": "')


def test_a_body_with_a_length_that_is_cut_short_is_malformed_too(live: Live) -> None:
    answer = live.cycle("/v1/jobs", b"{}", kind=JSON, head="Content-Length: 100")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"ended 98 bytes before its Content-Length" in answer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/jobs", b'{"question":"q","images":[' + b"{}," * 300_000 + b"{}]}"),
        ("/v1/webhook_endpoints", b'{"event_types":[' + b"1," * 300_000 + b"1]}"),
    ],
)
@pytest.mark.parametrize("in_chunks", [True, False])
def test_a_small_body_costs_the_server_a_few_megabytes(
    live: Live, path: str, body: bytes, *, in_chunks: bool
) -> None:
    head = "" if in_chunks else f"Content-Length: {len(body)}"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if in_chunks else body
    worker = worker_of(live.server)
    # The most so far begins anew, with what it has now.
    (worker / "clear_refs").write_text("5", encoding="ascii")
    before = most_memory(worker)

    answer = live.cycle(path, sent, kind=JSON, head=head)

    # OpenAI's clients, which call some of these routes, expect 400.
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 422 ")), answer[:200]
    assert most_memory(worker) - before < 64 * 2**20


def worker_of(server: GunicornServer) -> Path:
    """Return where the system tells of the process that answers."""
    assert server.process is not None
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    [worker] = {child for task in tasks for child in task.read_text().split()}
    return Path("/proc", worker)


def most_memory(process: Path) -> int:
    """Return the most bytes that a process has had in memory."""
    status = (process / "status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
