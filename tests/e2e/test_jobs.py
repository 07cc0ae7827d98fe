"""Jobs through real processes, on both databases, and after the death of a process."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.client import Client
from core import errors, ids
from core.database import Database
from jobs.store import history
from scripted.options import ScriptedOptions
from tests import children, databases
from tests.e2e.stack import Stack, eventually, running
from tests.redis_servers import RedisServer
from tests.scripted_server import BackgroundServer

pytestmark = pytest.mark.e2e

IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"
CANARY = "zebra-canary-7319"


#: An engine that falls silent within each answer: a run that a test observes does not end by itself.
SILENT = ScriptedOptions(behavior="silent")
IN_PROCESS = {"LONGLOOK_ENGINE_URLS": "scripted:?behavior=silent"}


@pytest.fixture(scope="module")
def engine() -> Iterator[BackgroundServer]:
    """Return the scripted engine over HTTP."""
    with BackgroundServer(ScriptedOptions(tokens_per_second=200)) as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest, redis_server: RedisServer, engine: BackgroundServer
) -> Iterator[tuple[Stack, Client]]:
    """Return the API and its dependencies, on each database; tests start the workers."""
    name = "sqlite_source" if request.param == "sqlite" else "postgres_source"
    source: databases.Source = request.getfixturevalue(name)
    folder = children.short_folder()
    stack = Stack(folder, source.create(), redis_server.url, engine.url)
    yield stack, stack.start_api()
    stack.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stack(service: tuple[Stack, Client], redis_server: RedisServer) -> Iterator[Stack]:
    redis_server.flush()
    yield service[0]
    service[0].stop_workers()


@pytest.fixture
def client(service: tuple[Stack, Client]) -> Client:
    return service[1]


def status(client: Client, job_id: str) -> str:
    current: str = client.job(job_id)["status"]
    return current


def progress(client: Client, job_id: str) -> int:
    job = client.job(job_id)
    return int(job["progress"]["output_tokens"]) if job["status"] == "running" else 0


def test_a_question_is_answered_with_its_complete_trace(client: Client, stack: Stack) -> None:
    stack.start_worker()

    job = client.submit([IMAGE], "How many shapes are there?", options={"priority": "low"})
    done = client.wait(job["id"])

    assert done["status"] == "succeeded"
    assert done["answer"]["rule"] == "heading+boxed"
    assert done["usage"]["output_tokens"] > 0
    [sample] = client.trace(job["id"])["generations"]
    assert f"\\boxed{{{done['answer']['text']}}}" in sample["text"]
    assert sample["finish_reason"] == "stop"
    with pytest.raises(errors.NotFound):
        Client(stack.url, key=stack.other_key).job(job["id"])


def test_a_second_question_finds_the_image_in_the_cache(client: Client, stack: Stack) -> None:
    stack.start_worker()
    another_image = IMAGE.with_name("s03.png")
    first = client.wait(client.submit([another_image], "How many shapes are there?")["id"])
    second = client.wait(client.submit([another_image], "How many circles are there?")["id"])

    assert first["usage"]["cached_tokens"] < first["usage"]["image_tokens"]
    assert second["usage"]["cached_tokens"] >= second["usage"]["image_tokens"]
    assert first["images"][0]["id"] == second["images"][0]["id"]


def test_the_whole_trace_can_be_followed(client: Client, stack: Stack) -> None:
    stack.start_worker()
    job = client.submit([IMAGE], "How many shapes are there?")

    events = list(client.follow(job["id"]))

    deltas = [event["delta"] for event in events if event["type"] == "trace.delta"]
    assert "".join(deltas) == client.trace(job["id"])["generations"][0]["text"] != ""
    assert events[-1]["job"]["status"] == "succeeded"


def test_the_trace_can_be_read_as_it_grows(client: Client, stack: Stack) -> None:
    stack.start_worker(**IN_PROCESS)
    job = client.submit([IMAGE], "How many shapes are there?")

    deltas: list[str] = []
    for event in client.follow(job["id"]):
        if event["type"] == "trace.delta":
            if not deltas:
                # Nothing but this ends the job, so the delta came before its end.
                client.cancel(job["id"])
            deltas.append(event["delta"])

    assert event["job"]["status"] == "cancelled"
    assert "".join(deltas) == client.trace(job["id"])["generations"][0]["text"] != ""


def test_a_cancel_while_running_frees_the_engine(client: Client, stack: Stack) -> None:
    with BackgroundServer(SILENT) as engine:
        stack.start_worker(LONGLOOK_ENGINE_URLS=engine.url)
        job = client.submit([IMAGE], "How many shapes are there?")
        assert eventually(lambda: progress(client, job["id"]) > 0)
        assert running(engine.url) == 1

        client.cancel(job["id"])
        done = client.wait(job["id"])

        assert done["status"] == "cancelled"
        assert eventually(lambda: running(engine.url) == 0)
        [sample] = client.trace(job["id"])["generations"]
        assert sample["text"]
        stack.stop_workers()


def test_when_a_worker_is_killed_another_one_answers_once(client: Client, stack: Stack) -> None:
    with BackgroundServer(SILENT) as silent:
        victim = stack.start_worker("victim", LONGLOOK_ENGINE_URLS=silent.url)
        job = client.submit([IMAGE], "How many shapes are there?")
        assert eventually(lambda: progress(client, job["id"]) > 0)

        victim.send_signal(signal.SIGKILL)
        victim.wait()
    stack.start_worker("heir")
    done = client.wait(job["id"])

    assert done["status"] == "succeeded"
    job_id = ids.parse("job", job["id"])
    assert job_id is not None
    with contextlib.closing(Database(stack.database_url)) as database:
        attempts = history.attempts(database, job_id)
    assert [str(view.attempt.outcome) for view in attempts] == ["lost", "succeeded"]
    partial, whole = client.trace(job["id"])["generations"]
    assert partial["text"]
    assert whole["text"].startswith(partial["text"])


def test_a_drained_worker_exits_cleanly_and_counts_nothing(client: Client, stack: Stack) -> None:
    worker = stack.start_worker(LONGLOOK_DRAIN_SECONDS="0", **IN_PROCESS)
    job = client.submit([IMAGE], "How many shapes are there?")
    assert eventually(lambda: progress(client, job["id"]) > 0)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(60) == 0
    assert status(client, job["id"]) == "queued"
    stack.start_worker("heir")
    done = client.wait(job["id"])
    assert (done["status"], done["attempt"]) == ("succeeded", 2)


def test_with_redis_down_a_job_is_accepted_and_runs_when_it_is_back(
    short_folder: Path, database_url: str, engine: BackgroundServer
) -> None:
    redis = RedisServer(short_folder)
    redis.start()
    stack = Stack(short_folder, database_url, redis.url, engine.url)
    try:
        client = stack.start_api()
        stack.start_worker()
        assert client.wait(client.submit([IMAGE], "First?")["id"])["status"] == "succeeded"

        redis.stop()
        job = client.submit([IMAGE], "How many shapes are there?")
        assert job["status"] == "queued"
        redis.start()

        assert client.wait(job["id"])["status"] == "succeeded"
    finally:
        stack.close()
        redis.stop()


def test_no_question_trace_image_or_key_is_ever_logged(client: Client, stack: Stack) -> None:
    worker = stack.start_worker()
    done = client.wait(client.submit([IMAGE], f"How many {CANARY} are there?")["id"])
    with pytest.raises(errors.RequestError):
        client.submit([Path(__file__)], f"{CANARY}?")
    with pytest.raises(errors.RequestError):
        client.submit([IMAGE], CANARY, options={"temperature": CANARY})
    trace = client.trace(done["id"])["generations"][0]["text"]
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)

    settled = next(event for event in stack.events("worker") if event.get("job_id") == done["id"])

    def accepted() -> set[str]:
        return {
            event["request_id"]
            for event in stack.events("api")
            if event["event"] == "request_finished" and event["status"] == 202
        }

    # A request is logged after its response has been sent.
    assert eventually(lambda: settled["request_id"] in accepted())
    text = stack.log("api") + stack.log("worker")
    assert CANARY not in text
    assert stack.key not in text
    assert not any(sentence in text for sentence in trace.split("\n") if len(sentence) > 20)
    assert "iVBORw0KGgo" not in text
