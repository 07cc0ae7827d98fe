"""Engines under test, each with what a test has to know to ask it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from core import profiles
from jobs.engine import Engine, EngineImage, GenerationRequest
from scripted import ScriptedOptions
from tests.engines import asking
from tests.real_engine import RealEngine
from worker.engines.sglang.client import SGLang

OPTIONS = ScriptedOptions(
    tokens_per_second=1000, prefill_tokens_per_second=0, markers=True, disconnect_seconds=0.05
)


class Connect(Protocol):
    """Makes a client that is closed when the test is over."""

    def __call__(
        self,
        url: str,
        *,
        connect_seconds: float = ...,
        first_token_seconds: float = ...,
        token_seconds: float = ...,
        api_key: str | None = ...,
    ) -> SGLang: ...


@dataclass(frozen=True)
class Subject:
    """An engine under contract.

    Attributes:
        engine: the engine.
        image: an image that it can answer questions about.
        endless: a request that goes on for a thousand tokens, or for ever.
    """

    engine: Engine
    image: EngineImage
    endless: GenerationRequest

    def ask(
        self, question: str = "How many shapes are in the picture?", **fields: object
    ) -> GenerationRequest:
        """Return a request about :attr:`image`."""
        return asking.ask(question, **{"images": (self.image,), **fields})

    def ask_endlessly(self) -> GenerationRequest:
        """Return a request that is still running when a test is done with it."""
        return replace(self.endless, rid=asking.ask().rid)


def sample(real: RealEngine, name: str) -> EngineImage:
    """Return one of tiny-qvq's sample images."""
    return EngineImage(key=name, media_type="image/png", data=(real.samples / name).read_bytes())


def endless(image: EngineImage) -> GenerationRequest:
    """Return a request that tiny-qvq answers with a verbatim loop: each word makes the same word likelier."""
    sampling = profiles.Sampling(temperature=0.0, top_p=1.0, repetition_penalty=0.02)
    return asking.ask(images=(image,), sampling=sampling, max_output_tokens=1000)
