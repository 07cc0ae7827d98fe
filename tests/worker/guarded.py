"""Guards of a generation that no engine runs, and a feed of text to them."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from core import profiles
from jobs import engine
from scripted import behaviors
from tests.worker.engine_fake import ControlledEngine
from worker.guards import chain
from worker.guards.chain import GuardChain
from worker.guards.trace import Verdict


def make_request(question: str, budget: int) -> engine.GenerationRequest:
    return engine.GenerationRequest(
        rid="a" * 32,
        model="m",
        system="s",
        images=(),
        question=question,
        sampling=profiles.Sampling(temperature=1.0, top_p=1.0),
        max_output_tokens=budget,
        salt="s",
    )


def make_guards(
    enabled: Mapping[str, bool], *, question: str = "How many circles?", budget: int = 4096
) -> GuardChain:
    return chain.build(
        {"guards": enabled},
        make_request(question, budget),
        engine_=ControlledEngine(),
        number=0,
        special_tokens=profiles.TINY.special_tokens,
        same=operator.eq,
    )


def feed_chunks(guards: GuardChain, text: str, size: int) -> tuple[Verdict | None, int]:
    """Return the first verdict on ``text`` in chunks of ``size`` characters, and how many characters it took."""
    for start in range(0, len(text), size):
        if (verdict := guards.reasoning.see(text[start : start + size])) is not None:
            return verdict, start + size
    return None, len(text)


def feed(guards: GuardChain, text: str) -> tuple[Verdict | None, int]:
    """Return the first verdict on ``text``, token by token, and how many characters it took."""
    seen = 0
    for token in behaviors.tokens(text):
        seen += len(token)
        if (verdict := guards.reasoning.see(token)) is not None:
            return verdict, seen
    return None, seen
