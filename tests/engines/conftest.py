"""The engines that the contract holds for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from scripted import Scripted
from tests.engines import asking, subjects
from tests.real_engine import RealEngine
from tests.scripted_server import BackgroundServer
from worker.engines.sglang.client import SGLang


@pytest.fixture
def connect() -> Iterator[subjects.Connect]:
    """Return what makes clients, with patience for a busy machine."""
    with contextlib.ExitStack() as made:

        def make(
            url: str,
            *,
            connect_seconds: float = 10.0,
            first_token_seconds: float = 60.0,
            token_seconds: float = 30.0,
            api_key: str | None = None,
        ) -> SGLang:
            client = SGLang(
                url,
                api_key=api_key,
                connect_seconds=connect_seconds,
                first_token_seconds=first_token_seconds,
                token_seconds=token_seconds,
            )
            made.callback(client.close)
            return client

        yield make


@pytest.fixture(
    params=["scripted", "scripted over HTTP", pytest.param("SGLang", marks=pytest.mark.engine)]
)
def subject(
    request: pytest.FixtureRequest, connect: subjects.Connect
) -> Iterator[subjects.Subject]:
    """Return each engine in turn."""
    # It goes on until it is aborted, however long a busy machine takes for that.
    talks_on = asking.ask("[[behavior:silent]] What is there?", max_output_tokens=1800)
    if request.param == "scripted":
        yield subjects.Subject(Scripted(options=subjects.OPTIONS), asking.png(), talks_on)
    elif request.param == "scripted over HTTP":
        with BackgroundServer(subjects.OPTIONS) as server:
            yield subjects.Subject(connect(server.url), asking.png(), talks_on)
    else:
        real: RealEngine = request.getfixturevalue("real_engine")
        image = subjects.sample(real, "s03.png")
        yield subjects.Subject(connect(real.url), image, subjects.endless(image))
