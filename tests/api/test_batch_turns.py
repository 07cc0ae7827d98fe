"""Batches whose images come from a server that never answers: they delay no other account, nor their own end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from api.framework import Router
from api.openai.batches.runner import BatchRunner
from core import ids
from core.database import Database
from core.settings import Settings
from jobs.records.files import LineState
from jobs.store import batch_lines
from jobs.store import batches as store
from tests import factories
from tests.api import batches
from tests.api.conftest import Caller, Json
from tests.e2e.stack import eventually


@dataclass
class SilentServer:
    """A server that reads requests and never answers."""

    url: str
    peers: list[socket.socket] = field(default_factory=list)

    def holds(self) -> int:
        """Return how many connections are open."""
        return sum(map(_is_open, list(self.peers)))


def _is_open(peer: socket.socket) -> bool:
    """Return whether the client of a connection waits."""
    try:
        while peer.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    """Run a server."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = SilentServer(f"http://127.0.0.1:{listener.getsockname()[1]}/image.png")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                peer.setblocking(False)
                server.peers.append(peer)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for peer in server.peers:
        peer.close()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Wait for images for longer than any test lasts."""
    return settings.model_copy(
        update={"webhook_allow": ("127.0.0.0/8",), "image_url_seconds": 3600.0}
    )


@pytest.fixture
def runner(app: Router, silent: SilentServer) -> Iterator[BatchRunner]:
    """Run the thread of batches."""
    runner = batches.runner_of(app)
    runner.start()
    yield runner
    runner.request_stop()
    for peer in silent.peers:
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
    assert eventually(lambda: runner.feeders.held == 0)


def slow(silent: SilentServer, count: int) -> list[Json]:
    """Return lines with images that never arrive."""
    part = {"type": "input_image", "image_url": silent.url}
    content = [part, {"type": "input_text", "text": "How many?"}]
    body = {"input": [{"role": "user", "content": content}]}
    return [batches.line(f"slow-{number}", body=body) for number in range(count)]


def reaches(database: Database, caller: Caller, batch: Json, status: str) -> Callable[[], bool]:
    """Return what lets jobs run, and says whether a batch has reached a status."""

    def reached() -> bool:
        batches.end_pauses(database)
        batches.finish_jobs(database)
        return bool(batches.get(caller, batch)["status"] == status)

    return reached


def hold_up(
    database: Database, caller: Caller, silent: SilentServer, count: int, *, lines: int = 4
) -> list[Json]:
    """Create batches of lines with slow images, and wait until the server has a connection of each."""
    before = silent.holds()
    made = [batches.create(caller, slow(silent, lines)) for _ in range(count)]

    def waits() -> bool:
        batches.end_pauses(database)
        return silent.holds() >= before + count

    assert eventually(waits)
    return made


@pytest.mark.usefixtures("runner")
def test_slow_images_of_an_account_delay_no_other_account(
    caller: Caller, stranger: Caller, database: Database, silent: SilentServer
) -> None:
    hold_up(database, caller, silent, 3)
    # More than it may have fed at once.
    for _ in range(6):
        batches.create(caller, slow(silent, 4))
    other = batches.create(stranger, batches.lines(20))
    assert eventually(reaches(database, stranger, other, "completed"))

    assert batches.get(stranger, other)["request_counts"]["completed"] == 20
    assert silent.holds() >= 3


@pytest.mark.usefixtures("runner")
def test_two_accounts_with_slow_images_delay_no_third_one(
    caller: Caller, stranger: Caller, database: Database, silent: SilentServer
) -> None:
    hold_up(database, caller, silent, 3)
    hold_up(database, stranger, silent, 2)
    third = Caller(caller.client, factories.make_key(database, account="third"))
    other = batches.create(third, batches.lines(3))
    assert eventually(reaches(database, third, other, "completed"))
    assert silent.holds() >= 5


@pytest.mark.usefixtures("runner")
def test_a_batch_that_waits_for_slow_images_is_cancelled_at_once(
    caller: Caller, database: Database, silent: SilentServer
) -> None:
    [batch] = hold_up(database, caller, silent, 1)
    caller("POST", f"/v1/batches/{batch['id']}/cancel")
    assert eventually(reaches(database, caller, batch, "cancelled"))

    assert silent.holds() >= 1
    done = batches.get(caller, batch)
    assert done["request_counts"] == {"total": 4, "completed": 0, "failed": 4}
    failed = batches.content(caller, done["error_file_id"])
    assert {each["error"]["code"] for each in failed} == {"batch_cancelled"}


def test_a_stop_waits_for_no_server_and_blames_no_line(
    caller: Caller, database: Database, silent: SilentServer, runner: BatchRunner
) -> None:
    [batch] = hold_up(database, caller, silent, 1)
    runner.stop()
    assert silent.holds() >= 1
    batches.end_pauses(database)
    lease = timedelta(seconds=1)
    assert store.claim(database, owner="another process", lease=lease) is not None

    # What the process closes now makes the download fail.
    for peer in silent.peers:
        peer.shutdown(socket.SHUT_RDWR)
    assert eventually(lambda: runner.feeders.held == 0)
    batch_id = ids.parse("batch", batch["id"])
    assert batch_id is not None
    waiting = batch_lines.waiting(database, batch_id, limit=10)
    assert [line.state for line in waiting] == [LineState.WAITING] * 4
    assert batches.get(caller, batch)["request_counts"]["failed"] == 0
