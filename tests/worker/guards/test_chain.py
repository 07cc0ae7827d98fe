"""The guards leave clean traces alone, and a guard that is off sees nothing."""

from __future__ import annotations

import random

from core import profiles
from jobs import engine
from models.training import questions, scenes
from scripted import behaviors
from tests import recorded_traces
from tests.worker.guarded import feed, make_guards
from worker.guards.chain import GuardChain

ALL = dict.fromkeys(("loop", "budget", "language"), True)


def make_watch(question: str = "How many circles?", **switched: bool) -> GuardChain:
    return make_guards(ALL | switched, question=question)


def test_three_hundred_clean_traces_raise_no_finding() -> None:
    for seed in range(300):
        request = engine.GenerationRequest(
            rid=f"{seed:032x}",
            model="m",
            system="s",
            images=(),
            question="How many circles are there?",
            sampling=profiles.Sampling(temperature=1.0, top_p=1.0),
            max_output_tokens=4096,
            salt="s",
        )
        text = "".join(behaviors.generate(request, behaviors.BEHAVIORS["clean"]))
        watch = make_watch()
        assert feed(watch, text)[0] is None
        assert watch.reasoning.end(text, "stop") is None


def test_three_hundred_traces_that_the_small_model_wrote_on_the_real_engine_raise_no_finding() -> (
    None
):
    recorded = recorded_traces.read()
    assert len(recorded) == recorded_traces.COUNT
    assert len({"".join(trace["tokens"]) for trace in recorded}) > 0.9 * len(recorded)
    for trace in recorded:
        watch = make_watch(trace["question"])
        assert not any(watch.reasoning.see(token) for token in trace["tokens"])
        assert watch.reasoning.end("".join(trace["tokens"]), "stop") is None


def test_three_hundred_traces_that_the_small_model_was_taught_raise_no_finding() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        scene = scenes.sample(dice)
        kind = dice.choice(list(questions.KINDS))
        question = questions.ask(dice, scene, kind)
        trace, _ = questions.reason(dice, scene, question)
        watch = make_watch()
        assert feed(watch, trace)[0] is None
        assert watch.reasoning.end(trace, "stop") is None


def test_a_guard_that_is_off_sees_nothing() -> None:
    watch = make_watch(loop=False, budget=False, language=False)
    assert feed(watch, "again and " * 500)[0] is None
    assert watch.reasoning.end("", "length") is None
