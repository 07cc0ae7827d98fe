"""The service for the official clients: API, worker and webhook sender as processes, on SQLite and on PostgreSQL.

A module starts it once for each database. Override ``engine_options`` or ``variables`` in a module whose tests need
another engine or other settings.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import openai
import pytest

from scripted.options import ScriptedOptions
from tests import children, databases
from tests.clients.javascript import JavaScript, Missing
from tests.clients.service import Service
from tests.e2e.stack import VAULT_KEY, Stack
from tests.redis_servers import RedisServer
from tests.scripted_server import BackgroundServer


@pytest.fixture(scope="module")
def engine_options() -> ScriptedOptions:
    """Return how the engine behaves: fast, and as ``[[behavior:name]]`` in a question says."""
    return ScriptedOptions(tokens_per_second=2000, markers=True)


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """Return further settings of the service."""
    return {}


@pytest.fixture(scope="module")
def engine(engine_options: ScriptedOptions) -> Iterator[BackgroundServer]:
    """Return the scripted engine over HTTP."""
    with BackgroundServer(engine_options) as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest,
    redis_server: RedisServer,
    engine: BackgroundServer,
    variables: dict[str, str],
) -> Iterator[Service]:
    """Return the running service."""
    name = "sqlite_source" if request.param == "sqlite" else "postgres_source"
    source: databases.Source = request.getfixturevalue(name)
    redis_server.flush()
    folder = children.short_folder()
    common = {
        "LONGLOOK_WEBHOOK_ALLOW": "127.0.0.0/8",
        "LONGLOOK_VAULT_KEY": VAULT_KEY,
        "LONGLOOK_REQUESTS_PER_MINUTE": "100000",
    }
    stack = Stack(folder, source.create(), redis_server.url, engine.url, common | variables)
    try:
        stack.start_api()
        stack.start_worker()
        with contextlib.closing(Service(stack, request.param)) as started:
            yield started
    finally:
        stack.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(service: Service) -> openai.OpenAI:
    """Return the official Python client."""
    return service.client()


@pytest.fixture(params=["openai7", "openai6"])
def javascript(request: pytest.FixtureRequest, service: Service) -> JavaScript:
    """Return the official JavaScript client, in both versions; without it the test is skipped."""
    try:
        return JavaScript(request.param, base_url=service.base_url, key=service.key)
    except Missing as missing:
        pytest.skip(str(missing))
