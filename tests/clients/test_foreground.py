"""A client that hangs up, and a service that dies: no client waits, so the engine stops."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import openai
import pytest
import sqlalchemy as sa

from core.database import Database, utcnow
from jobs.records.jobs import HeldJob
from scripted.options import ScriptedOptions
from tests.api import image_files
from tests.clients.service import Service
from tests.e2e.stack import eventually, running

pytestmark = pytest.mark.e2e

IMAGE = image_files.data_url(image_files.png())


@pytest.fixture(scope="module")
def engine_options() -> ScriptedOptions:
    """Answers last for more than a minute."""
    return ScriptedOptions(tokens_per_second=20, markers=True)


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return {"LONGLOOK_SWEEP_SECONDS": "0.5"}


def fields(**others: object) -> dict[str, Any]:
    """Return the fields of a request whose answer takes long."""
    parts = [
        {"type": "image_url", "image_url": {"url": IMAGE}},
        {"type": "text", "text": "How many? [[behavior:no_answer_at_length]]"},
    ]
    guards = {"loop": False, "budget": False, "convergence": False}
    return {
        "model": "tiny-qvq",
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": 1500,
        "options": {"guards": guards},
        **others,
    }


@contextlib.contextmanager
def opened(service: Service, **others: object) -> Iterator[Iterator[bytes]]:
    """Send a request, and hang up at the end of the block."""
    headers = {"Authorization": f"Bearer {service.key}"}
    url = f"{service.base_url}/chat/completions"
    with httpx2.stream("POST", url, json=fields(**others), headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        # An iterator that nothing refers to closes the connection.
        data = answer.iter_raw()
        assert next(data)
        yield data


def newest(service: Service) -> dict[str, Any]:
    """Return the newest job."""
    headers = {"Authorization": f"Bearer {service.key}"}
    answer = httpx2.get(f"{service.base_url}/jobs?limit=1", headers=headers, timeout=60)
    job: dict[str, Any] = answer.json()["data"][0]
    return job


def idle(service: Service) -> bool:
    """Whether the engine generates nothing."""
    return running(service.stack.engine_urls) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_stops_when_the_client_hangs_up(service: Service, stream: bool) -> None:  # noqa: FBT001 - a parameter
    with opened(service, stream=stream):
        assert eventually(lambda: not idle(service))
    assert eventually(lambda: idle(service))
    assert eventually(lambda: newest(service)["status"] == "cancelled")


def test_the_engine_stops_when_the_official_client_times_out(service: Service) -> None:
    sent = fields()
    options = sent.pop("options")
    with pytest.raises(openai.APITimeoutError):
        service.client(timeout=2).chat.completions.create(**sent, extra_body={"options": options})
    assert eventually(lambda: newest(service)["status"] == "cancelled")
    assert eventually(lambda: idle(service))


def test_the_engine_stops_some_time_after_the_api_was_killed(service: Service) -> None:
    with opened(service), contextlib.closing(Database(service.stack.database_url)) as database:
        assert eventually(lambda: not idle(service))
        service.stack.restart_api()
        assert newest(service)["status"] == "running"
        with database.transaction() as transaction:
            assert transaction.execute(sa.select(HeldJob.job_id)).scalars().all()
            transaction.update(HeldJob, until=utcnow() - timedelta(seconds=1))
    assert eventually(lambda: newest(service)["status"] == "cancelled")
    assert eventually(lambda: idle(service))
