"""Streams of a job across the death of the API and its worker: they equal the stored trace byte for byte."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from cli.client import Client
from scripted.options import ScriptedOptions
from tests import children, databases
from tests.api.following import Follower, text
from tests.e2e.stack import Stack, eventually
from tests.redis_servers import RedisServer
from tests.scripted_server import BackgroundServer

pytestmark = pytest.mark.e2e

IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"
Json = dict[str, Any]


@pytest.fixture
def stack(
    dialect: str, request: pytest.FixtureRequest, redis_server: RedisServer
) -> Iterator[Stack]:
    """Return the service with an engine that takes a second per answer."""
    name = "sqlite_source" if dialect == "sqlite" else "postgres_source"
    source: databases.Source = request.getfixturevalue(name)
    redis_server.flush()
    folder = children.short_folder()
    with BackgroundServer(ScriptedOptions(tokens_per_second=200)) as engine:
        stack = Stack(folder, source.create(), redis_server.url, engine.url)
        yield stack
        stack.close()
    shutil.rmtree(folder, ignore_errors=True)


class Watching:
    """The command line's client, which follows a job across the death of processes."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.events: list[Json] = []
        self._client, self._job_id = client, job_id
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> list[Json]:
        self._thread.join(90)
        assert not self._thread.is_alive()
        return self.events

    def _run(self) -> None:
        for event in self._client.follow(self._job_id):
            self.events.append(event)


def replay(client: Client, stack: Stack, job: Json, *, after: int) -> list[Json]:
    """Return the events after a number, as any client gets them later."""
    answer = urllib3.request(
        "GET",
        f"{stack.url}{job['urls']['events']}?after={after}",
        headers={"Authorization": f"Bearer {stack.key}"},
        preload_content=False,
        retries=False,
        timeout=60,
    )
    assert client.url == stack.url
    return Follower(answer.stream(), close=answer.close).join()


def valid(events: list[Json]) -> list[Json]:
    """Return ``events`` without the tails that later events withdraw."""
    void = [
        (before["sequence_number"], event["valid_through"])
        for event in events
        if event["type"] in {"attempt.restarted", "job.finished"}
        for before in events
        if before["sequence_number"] < event["sequence_number"]
        and before["type"] == "trace.delta"
        and before["attempt"] == event.get("attempt", before["attempt"] + 1) - 1
        and before["sequence_number"] > event["valid_through"]
    ]
    withdrawn = {number for number, _ in void}
    return [event for event in events if event["sequence_number"] not in withdrawn]


def test_a_stream_continues_after_the_death_of_api_and_worker(stack: Stack) -> None:
    client = stack.start_api()
    # The first attempt takes minutes, so that it does not end before its worker.
    stack.start_worker(LONGLOOK_ENGINE_URLS="scripted:?tokens_per_second=2")
    job = client.submit([IMAGE], "How many shapes are there?")
    watching = Watching(client, job["id"])
    assert eventually(lambda: len(text(watching.events)) > 20)

    stack.restart_api()
    length = len(text(watching.events))
    assert eventually(lambda: len(text(watching.events)) > length)
    assert eventually(lambda: bool(client.trace(job["id"])["generations"][0]["text"]))
    stack.stop_workers()
    stack.start_worker("successor")

    live = watching.join()

    texts = {sample["attempt"]: sample["text"] for sample in client.trace(job["id"])["generations"]}
    assert set(texts) == {1, 2}
    numbers = [event["sequence_number"] for event in live]
    assert numbers == sorted(set(numbers))
    assert text(live, attempt=1).startswith(texts[1])
    assert text(valid(live), attempt=1) == texts[1] != ""
    assert text(live, attempt=2) == texts[2] != ""
    whole = replay(client, stack, job, after=0)
    assert whole == valid(live)
    for event in whole[:: max(1, len(whole) // 10)]:
        number = event["sequence_number"]
        rest = [later for later in whole if later["sequence_number"] > number]
        if rest:
            assert replay(client, stack, job, after=number) == rest


def test_a_stream_works_without_redis(stack: Stack) -> None:
    stack.redis_url = "unix:///nowhere/redis.sock"
    client = stack.start_api()
    stack.start_worker(
        LONGLOOK_SWEEP_SECONDS="0.2", LONGLOOK_ENGINE_URLS="scripted:?behavior=silent"
    )

    job = client.submit([IMAGE], "How many shapes are there?")
    events: list[Json] = []
    for event in client.follow(job["id"]):
        if event["type"] == "trace.delta" and not text(events):
            # Nothing but this ends the job, so the text came before its end.
            client.cancel(job["id"])
        events.append(event)

    [sample] = client.trace(job["id"])["generations"]
    assert text(events) == sample["text"] != ""
    assert events[-1]["job"]["status"] == "cancelled"
