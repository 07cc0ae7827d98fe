"""Each verb of an operator once, as a process of the command line and as a request, on real processes and databases."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import job_output
from cli.client import Client
from core.database import Database
from jobs.lifecycle import Role
from jobs.store import accounts
from tests import children, databases
from tests.e2e.stack import BIN, PEPPER, Stack, eventually
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"
ENGINE = "scripted:"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stack(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Stack]:
    """Return API, worker and delivery process on each database, and the key of an operator as ``other_key``."""
    name = "sqlite_source" if request.param == "sqlite" else "postgres_source"
    source: databases.Source = request.getfixturevalue(name)
    folder = children.short_folder()
    redis_server.flush()
    variables = {"LONGLOOK_SWEEP_SECONDS": "1"}
    served = Stack(folder, source.create(), redis_server.url, ENGINE, variables)
    served.other_key = accounts.new_key()
    database = Database(served.database_url)
    accounts.create_key(
        database,
        served.other_key,
        pepper=PEPPER.encode(),
        account="operations",
        role=Role.OPERATE,
        name="operator",
    )
    database.close()
    served.start_api()
    served.start_worker()
    served.start_delivery()
    yield served
    served.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def api(stack: Stack) -> Client:
    """Return a client with the key of an operator."""
    return Client(stack.url, key=stack.other_key)


def text(stack: Stack, *words: str) -> str:
    """Run a command with the key of an operator; return its stdout."""
    done = subprocess.run(
        [BIN / "longlook", *words],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        env=stack.environment | {"LONGLOOK_URL": stack.url, "LONGLOOK_API_KEY": stack.other_key},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(stack: Stack, *words: str) -> Any:  # noqa: ANN401 - JSON
    """Run a command; return the JSON that it prints."""
    return json.loads(text(stack, *words, "--json"))


def submit(stack: Stack, count: int = 1, **metadata: str) -> list[str]:
    """Submit jobs with the key of a tenant; return their ids."""
    tenant = Client(stack.url, key=stack.key)
    options = {"metadata": metadata}
    jobs = [tenant.submit([IMAGE], "How many shapes?", options=options) for _ in range(count)]
    return [str(job["id"]) for job in jobs]


def test_what_is_known_of_a_job_is_shown_and_exported(
    stack: Stack, api: Client, tmp_path: Path
) -> None:
    ids = submit(stack, 3, case="export")
    ended = {job_id: api.wait(job_id) for job_id in ids}
    first = ids[0]

    for part in ("timeline", "attempts"):
        assert (
            run(stack, "jobs", part, first)["data"] == api.look(f"/v1/jobs/{first}/{part}")["data"]
        )
    assert run(stack, "jobs", "timeline", first)["data"][0]["action"] == "submitted"
    text(stack, "jobs", "image", first, "-o", str(tmp_path / "image"))
    image = ended[first]["images"][0]["id"]
    assert (tmp_path / "image").read_bytes() == api.content(f"/v1/images/{image}/content")

    lines = text(stack, "jobs", "export", "meta.case:export").splitlines()
    assert {line["id"]: line["answer"] for line in map(json.loads, lines)} == {
        job_id: job["answer"] for job_id, job in ended.items()
    }
    listed = {job["id"]: job for job in api.look("/v1/jobs", q="meta.case:export")["data"]}
    assert all(json.loads(line) == listed[json.loads(line)["id"]] for line in lines)
    table = text(stack, "jobs", "export", "meta.case:export", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["id"] for row in rows] == ids[::-1]
    assert list(rows[0]) == list(job_output.FIELDS)
    assert set(listed[first]) - set(rows[0]) <= {"object", "queue", "progress", "urls", "warnings"}
    [summed] = run(stack, "jobs", "stats", "meta.case:export")["data"]
    tokens = sum(job["usage"]["output_tokens"] for job in ended.values())
    assert (summed["succeeded"], summed["output_tokens"]) == (3, tokens)


def test_the_queue_is_paused_and_engines_and_workers_are_taken_out(
    stack: Stack, api: Client
) -> None:
    run(stack, "queue", "pause", "--reason", "test")
    [paused] = submit(stack)
    assert api.job(paused)["queue"]["paused"] is True
    assert run(stack, "queue")["pauses"][0]["reason"] == "test"
    api.act("/v1/queue/resume")
    api.wait(paused)
    api.act("/v1/queue/pause")
    run(stack, "queue", "resume")

    assert run(stack, "engines", "drain", ENGINE)["data"][0]["cordoned"] is True
    [waiting] = submit(stack)
    api.act("/v1/engines/uncordon", {"url": ENGINE})
    api.wait(waiting)
    api.act("/v1/engines/cordon", {"url": ENGINE})
    run(stack, "engines", "uncordon", ENGINE)

    [worker] = api.look("/v1/workers")["data"]
    run(stack, "workers", "drain", worker["id"], "--wait")
    [waiting] = submit(stack)
    assert api.job(waiting)["status"] == "queued"
    run(stack, "workers", "undrain", worker["id"])
    assert api.wait(waiting)["status"] == "succeeded"
    api.act("/v1/workers/drain", {"worker": worker["id"]})
    api.act("/v1/workers/undrain", {"worker": worker["id"]})
    assert eventually(lambda: api.look("/v1/workers")["data"][0]["state"] == "live")


def operate(api: Client, action: str, query: str) -> dict[str, Any]:
    """Run an operation through the API until it has ended."""
    made = api.act("/v1/operations", {"action": action, "query": query})
    path = f"/v1/operations/{made['id']}"
    assert eventually(lambda: api.look(path)["finished_at"] is not None)
    return api.look(path)


def test_many_jobs_are_rerun_cancelled_and_deleted_by_a_query(stack: Stack, api: Client) -> None:
    for job_id in submit(stack, 4, case="bulk"):
        api.wait(job_id)
    done = run(stack, "jobs", "rerun", "meta.case:bulk", "rerun:none", "--wait")
    assert (done["status"], done["total"], done["done"]) == ("succeeded", 4, 4)
    again = api.look("/v1/jobs", q=f"operation:{done['id']}")["data"]
    for job in again:
        api.wait(job["id"])
    once_more = operate(api, "rerun", f"id:{again[0]['id']}")
    assert once_more["done"] == 1
    [last] = api.look("/v1/jobs", q=f"operation:{once_more['id']}")["data"]
    api.wait(last["id"])

    api.act("/v1/queue/pause")
    submit(stack, 4, case="cancel")
    moved = run(stack, "jobs", "run-now", "meta.case:cancel", "--wait")
    assert (moved["total"], moved["skipped"]) == (4, 4)
    assert operate(api, "run_now", "meta.case:cancel")["reasons"] == {"already_due": 4}
    done = run(stack, "jobs", "cancel", "meta.case:cancel", "--wait")
    assert (done["total"], done["done"]) == (4, 4)
    assert operate(api, "cancel", "meta.case:cancel")["skipped"] == 4
    api.act("/v1/queue/resume")

    done = run(stack, "jobs", "rm", "meta.case:cancel", "--wait")
    assert (done["total"], done["done"]) == (4, 4)
    ended = "meta.case:bulk status:succeeded rerun:any"
    assert operate(api, "delete", ended)["done"] == 5
