"""Jobs that get stuck in the engine, through real processes: they hold its permits for a moment only."""

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
#: All permits that there are for an engine with a window of 1. Only one job may be tried again and again.
ATTEMPTS = (20, 1, 1, 1, 1)


def test_jobs_that_get_stuck_hold_nobody_up_and_fail(
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
            other = Client(stack.url, key=stack.other_key)
            stuck = [
                client.submit(
                    [IMAGE],
                    f"[[behavior:mute]] {number} How many?",
                    options={"max_attempts": attempts},
                )["id"]
                for number, attempts in enumerate(ATTEMPTS)
            ]
            stack.start_worker()
            assert eventually(lambda: client.job(stuck[0])["status"] == "running")

            answered = other.wait(other.submit([IMAGE], "How many shapes?")["id"])
            ended = [client.wait(job_id) for job_id in stuck]

            assert answered["status"] == "succeeded"
            assert {job["status"] for job in ended} == {"failed"}
            assert "engine_silent" in {job["error"]["code"] for job in ended}
            # The first time the engine may be silent to several, and be at fault itself.
            assert ended[0]["attempt"] <= 3
            assert eventually(lambda: running(engine.url) == 0)
        finally:
            stack.close()
            shutil.rmtree(folder, ignore_errors=True)
