"""The guards on the real SGLang: what they stop, what they have it go on with, and how much of that it had cached."""

from __future__ import annotations

import dataclasses
import json
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from jobs import engine
from jobs.lifecycle import Status
from jobs.store import commands
from tests.engines.conftest import connect
from tests.engines.subjects import Connect
from tests.real_engine import RealEngine
from tests.worker import behaviors
from tests.worker.behaviors import found
from tests.worker.conftest import Bench, submitted
from worker.engines.sglang.chat import Chat
from worker.engines.sglang.client import SGLang
from worker.guards import convergence, prompts

pytestmark = pytest.mark.engine

__all__ = ["connect"]

SAMPLES: list[dict[str, str]] = json.loads((RealEngine.samples / "samples.json").read_text())
BUDGET = 1000


class Runaway:
    """The real engine, whose first generations are made to run away."""

    def __init__(
        self, inner: SGLang, how: Callable[[engine.GenerationRequest], engine.GenerationRequest]
    ) -> None:
        self.url = inner.url
        self.inner = inner
        self.how = how
        self.requested: list[engine.GenerationRequest] = []

    def stream(self, request: engine.GenerationRequest) -> Chat:
        self.requested.append(request)
        if request.continuation is None and request.turn is None:
            request = self.how(request)
        return self.inner.stream(request)

    def abort(self, rid: str) -> None:
        self.inner.abort(rid)

    def facts(self) -> engine.EngineFacts:
        return self.inner.facts()

    def load(self) -> engine.EngineLoad:
        return self.inner.load()

    def close(self) -> None:
        return


#: Words that tiny-qvq never learnt, for it to begin with; only the answer after them is its own choice.
CHINESE = (
    "我再看一遍这张图。先数绿色的。再数橙色的。两种都要数清楚。绿色的只有上面那个三角形。橙色的只有下面那个三角形。"
    * 2
)
#: By the engine's own grammar, which makes it a JSON string.
DRIFT = {
    "type": "string",
    "pattern": rf"^{CHINESE}\*\*最终答案\*\*\\boxed\{{[一二三四五六七八九十是否]\}}$",
}


def circling(request: engine.GenerationRequest) -> engine.GenerationRequest:
    """Have each word said again rather than a new one."""
    sampling = dataclasses.replace(request.sampling, repetition_penalty=0.02)
    return dataclasses.replace(request, sampling=sampling)


def drifting(request: engine.GenerationRequest) -> engine.GenerationRequest:
    """Have the rest said in Chinese."""
    return dataclasses.replace(request, schema=DRIFT)


def submit(bench: Bench, sample: dict[str, str], **switched: bool) -> uuid.UUID:
    options: dict[str, Any] = {"max_output_tokens": BUDGET, "temperature": 0.0}
    data = (RealEngine.samples / sample["file"]).read_bytes()
    return bench.submit(
        question=sample["question"],
        options=options | {"guards": behaviors.ON | switched},
        image=dataclasses.replace(submitted(), data=data),
    )


def test_a_loop_is_aborted_and_continued_from_the_cache(
    bench: Bench, real_engine: RealEngine, connect: Connect
) -> None:
    subject = Runaway(connect(real_engine.url), circling)
    job_id = submit(bench, SAMPLES[0])

    behaviors.work(bench, subject)

    job = bench.view(job_id).job
    [finding] = bench.view(job_id).findings
    assert (finding.kind, finding.action, job.status) == ("loop", "forced", Status.SUCCEEDED)
    assert finding.tokens_saved >= 0.5 * BUDGET
    look, forced = bench.trace(job_id)
    assert (look.finish_reason, forced.continues) == ("cut", 0)
    assert job.answer_text is not None
    assert forced.text.startswith(job.answer_text)
    assert (forced.cached_tokens or 0) > 0.7 * (forced.input_tokens or 0)
    assert subject.load().running == 0


def test_a_drift_is_answered_in_the_language_of_the_question_from_the_cache(
    bench: Bench, real_engine: RealEngine, connect: Connect
) -> None:
    job_id = submit(bench, SAMPLES[0])

    behaviors.work(bench, Runaway(connect(real_engine.url), drifting))

    job = bench.view(job_id).job
    [finding] = bench.view(job_id).findings
    assert (finding.kind, finding.action, job.status) == ("language", "forced", Status.SUCCEEDED)
    assert (finding.evidence["question"], finding.evidence["answer"]) == (0, 1)
    assert finding.evidence["trace"] > 0.5
    look, forced = bench.trace(job_id)
    # It went over to Chinese before it had counted anything, and says so.
    assert (job.answer_text, job.answer_forced) == ("I cannot tell", True)
    assert forced.text.startswith(f"{job.answer_text}}}")
    # What is thrown away is the Chinese answer alone; all that stood before it the engine still has.
    assert look.text[: forced.valid_chars].endswith(CHINESE)
    assert look.text[forced.valid_chars or 0 :].startswith("**最终答案**")
    assert forced.inserted == prompts.forced_answer(SAMPLES[0]["question"])
    assert (forced.cached_tokens or 0) > 0.9 * (forced.input_tokens or 0)
    assert forced.output_tokens < 0.2 * look.output_tokens


def test_probes_that_agree_stop_the_real_engine(
    bench: Bench, real_engine: RealEngine, connect: Connect
) -> None:
    # Which words stand before a probe hangs on how quick the engine is, and what it says hangs on them: the answers to
    # one question may never agree.
    for sample in SAMPLES:
        subject = Runaway(connect(real_engine.url), circling)
        job_id = submit(bench, sample, loop=False, convergence=True)
        behaviors.work(bench, subject)
        [finding] = bench.view(job_id).findings
        if finding.kind == "converged":
            break

    job = bench.view(job_id).job
    assert (finding.kind, finding.action, job.status) == ("converged", "forced", Status.SUCCEEDED)
    look, forced = bench.trace(job_id)
    requested = [
        request for request in subject.requested if request.max_output_tokens == convergence.TOKENS
    ]
    assert len(requested) == finding.evidence["probes"] >= 2
    # On the bill of the look are the prompts of its probes. Each has only that computed which came since the one
    # before it: all together no more than the prompt of the answer, trace included.
    alone = look.input_tokens or 0
    assert alone > 1.5 * (forced.input_tokens or 0)
    assert alone - (look.cached_tokens or 0) <= 1.2 * (forced.input_tokens or 0)
    assert job.input_tokens == alone + (forced.input_tokens or 0)
    assert (forced.cached_tokens or 0) > 0.7 * (forced.input_tokens or 0)
    assert job.answer_text
    assert subject.load().running == 0


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["file"])
def test_a_verification_is_a_turn_that_the_real_engine_has_in_its_cache(
    bench: Bench, real_engine: RealEngine, connect: Connect, sample: dict[str, str]
) -> None:
    job_id = submit(bench, sample, verify=True)

    behaviors.work(bench, connect(real_engine.url))

    job = bench.view(job_id).job
    [(kind, action)] = found(bench, job_id)
    assert (kind, job.status) == ("verify", Status.SUCCEEDED)
    assert action in {"confirmed", "corrected", "doubted"}
    first, second = bench.trace(job_id)
    assert f"\\boxed{{{sample['truth']}}}" in first.text
    # The model was trained for one turn; what stands is the first answer unless the second one is one.
    assert (job.answer_text == sample["truth"]) is (action != "corrected")
    assert second.text
    assert (second.cached_tokens or 0) > (first.input_tokens or 0)
    assert job.output_tokens == first.output_tokens + second.output_tokens


def test_a_cancel_during_probes_leaves_nothing_at_the_real_engine(
    bench: Bench,
    real_engine: RealEngine,
    connect: Connect,
    wait_for: Callable[[Callable[[], bool]], bool],
) -> None:
    subject = Runaway(connect(real_engine.url), circling)
    job_id = submit(bench, SAMPLES[0], loop=False, budget=False, convergence=True)
    slot = threading.Thread(target=behaviors.work, args=(bench, subject))
    slot.start()
    assert wait_for(lambda: len(subject.requested) > 1)

    commands.cancel(bench.database, job_id, account_id=None, actor="key:test")
    bench.leases.look()
    slot.join(30)

    assert not slot.is_alive()
    assert bench.status(job_id) is Status.CANCELLED
    assert wait_for(lambda: subject.load().running == 0)
    [look] = bench.trace(job_id)
    assert (look.finish_reason, look.complete) == ("cancel", True)
