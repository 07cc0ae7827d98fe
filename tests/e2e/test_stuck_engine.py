"""Jobs that get stuck in the engine, through real processes: they hold permits only for a short time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.client import Client
from scripted.options import ScriptedOptions
from tests import children, databases
from tests.e2e.stack import Stack, eventually, running
from tests.redis_servers import RedisServer
from tests.scripted_server import BackgroundServer

pytestmark = pytest.mark.e2e

IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"
#: All permits of an engine with a window of 1. The service retries only one job repeatedly.
ATTEMPTS = (20, 1, 1, 1, 1)


def test_stuck_jobs_fail_and_delay_no_other_job(
    redis_server: RedisServer, sqlite_source: databases.SqliteSource
) -> None:
    redis_server.flush()
    folder = children.short_folder()
    options = ScriptedOptions(tokens_per_second=1000, markers=True, window=1)
    with BackgroundServer(options) as engine:
        settings = {"LONGLOOK_ENGINE_SILENT_SECONDS": "1"}
        stack = Stack(folder, sqlite_source.create(), redis_server.url, engine.url, settings)
        try:
            client = stack.start_api()
            other_client = Client(stack.url, key=stack.other_key)
            stuck = [
                client.submit(
                    [IMAGE],
                    f"[[behavior:mute]] {number} How many?",
                    options={"max_attempts": attempts},
                )["id"]
                for number, attempts in enumerate(ATTEMPTS)
            ]
            stack.start_worker()
            # Between two attempts it is queued.
            assert eventually(lambda: client.job(stuck[0])["attempt"] > 0)

            answered = other_client.wait(other_client.submit([IMAGE], "How many shapes?")["id"])
            ended = [client.wait(job_id) for job_id in stuck]

            assert answered["status"] == "succeeded"
            assert {job["status"] for job in ended} == {"failed"}
            assert "engine_silent" in {job["error"]["code"] for job in ended}
            # A fault of an engine that answers others counts for the job. At first, or when the machine is busy, no
            # other job has an answer either.
            assert ended[0]["attempt"] < ATTEMPTS[0]
            assert eventually(lambda: running(engine.url) == 0)
        finally:
            stack.close()
            shutil.rmtree(folder, ignore_errors=True)
