"""Grammars are compiled in turn; which schema an engine could not compile is remembered."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable

import pytest

from core import errors
from jobs.engine import Chunk
from jobs.lifecycle import Outcome, Role, Status
from jobs.store import accounts, quarantine
from tests.worker import sample_engine
from tests.worker.conftest import ENDS, Bench, submitted
from tests.worker.json_jobs import one, reason, submit
from tests.worker.sample_engine import SampleEngine
from worker import compilations
from worker.leases import StopReason

WaitFor = Callable[[Callable[[], bool]], bool]


class Crowd:
    """Jobs of two accounts, each with a schema of its own, on an engine that a test conducts."""

    def __init__(self, bench: Bench, *, places: int = 2, look_seconds: float = 60) -> None:
        self.sample_streams = SampleEngine()
        self.grammars = compilations.Compilations(
            most_waiting=64, places=places, look_seconds=look_seconds
        )
        self.mine = bench.with_engine(self.sample_streams, margin=0, grammars=self.grammars)
        key = accounts.new_key()
        accounts.create_key(
            bench.database, key, pepper=b"p", account="other", role=Role.SUBMIT, name="test"
        )
        other = accounts.account_id(bench.database, "other")
        self.theirs = dataclasses.replace(self.mine, account_id=other)
        self.places = self.grammars.at(SampleEngine.url)
        self.slots: list[threading.Thread] = []

    def run(self, bench: Bench, sample: int, schema: object = None) -> uuid.UUID:
        """Have a job run to the end of its reasoning."""
        own = one({"const": sample}) if schema is None else schema
        job_id = submit(
            bench,
            seed=sample_engine.FIRST_SEED + sample,
            answer_format={"type": "json_schema", "schema": own},
            guards={},
        )
        self.sample_streams.feed(
            sample, Chunk(text="I see."), Chunk(finish_reason="stop"), self.sample_streams.END
        )
        slot = threading.Thread(target=bench.runner.work, daemon=True)
        slot.start()
        self.slots.append(slot)
        return job_id

    def answer(self, sample: int) -> None:
        self.sample_streams.say(sample, f'{{"a": {sample}}}')
        self.sample_streams.feed(sample, Chunk(finish_reason="stop"), self.sample_streams.END)

    def under_grammar(self) -> list[int]:
        """Return the samples whose generations have a grammar, in the order of their requests."""
        return self.sample_streams.votes(under_grammar=True)

    def ended(self) -> bool:
        for slot in self.slots:
            slot.join(60)
        return not any(slot.is_alive() for slot in self.slots)


def test_schemas_of_one_account_are_compiled_in_turn_and_do_not_delay_other_accounts(
    bench: Bench, wait_for: WaitFor
) -> None:
    crowd = Crowd(bench)
    jobs = [crowd.run(crowd.mine, sample) for sample in (10, 20, 30)]
    # The job that does not wait has its place, and its request comes a moment later.
    assert wait_for(lambda: crowd.places.waiting == 2 and len(crowd.under_grammar()) == 1)
    [first] = crowd.under_grammar()

    jobs.append(crowd.run(crowd.theirs, 40))

    assert wait_for(lambda: crowd.under_grammar() == [first, 40])
    assert crowd.places.waiting == 2
    crowd.answer(first)
    assert wait_for(lambda: len(crowd.under_grammar()) == 3)
    for sample in {10, 20, 30, 40} - {first}:
        crowd.answer(sample)
    assert crowd.ended()
    assert {bench.status(job_id) for job_id in jobs} == {Status.SUCCEEDED}
    assert crowd.places.held == 0


def test_a_schema_that_an_engine_knows_waits_for_no_turn(bench: Bench, wait_for: WaitFor) -> None:
    crowd = Crowd(bench, places=1)
    same = one({"enum": [10, 20, 30]})
    first = crowd.run(crowd.mine, 10, same)
    assert wait_for(lambda: crowd.under_grammar() == [10])
    second = crowd.run(crowd.mine, 20, same)
    assert wait_for(lambda: crowd.places.waiting == 1)

    crowd.sample_streams.say(10, "{")
    assert wait_for(lambda: crowd.under_grammar() == [10, 20])
    crowd.run(crowd.theirs, 40)
    assert wait_for(lambda: crowd.under_grammar() == [10, 20, 40])
    third = crowd.run(crowd.mine, 30, same)

    assert wait_for(lambda: crowd.under_grammar() == [10, 20, 40, 30])
    crowd.sample_streams.say(10, '"a": 10}')
    crowd.sample_streams.feed(10, Chunk(finish_reason="stop"), crowd.sample_streams.END)
    for sample in (20, 30, 40):
        crowd.answer(sample)
    assert crowd.ended()
    assert {bench.status(job_id) for job_id in (first, second, third)} == {Status.SUCCEEDED}


@pytest.mark.parametrize("reason", ENDS)
def test_a_job_that_waits_for_its_turn_can_be_stopped(
    bench: Bench, wait_for: WaitFor, reason: StopReason
) -> None:
    crowd = Crowd(bench, places=1, look_seconds=0.01)
    with crowd.places.hold(uuid.uuid4(), seconds=0):
        job_id = crowd.run(crowd.mine, 10)
        assert wait_for(lambda: crowd.places.waiting == 1)

        crowd.mine.runner.drain()
        crowd.mine.leases.end((job_id, 1), reason)

        assert crowd.ended()
    assert crowd.mine.outcome(job_id) == ENDS[reason]
    assert crowd.under_grammar() == []


def test_a_schema_over_which_an_engine_falls_silent_twice_fails_and_is_not_retried(
    bench: Bench,
) -> None:
    jobs = [submit(bench) for _ in range(3)]
    for _ in range(2):
        reason(bench)
        bench.engine.feed(silence(answers_others=True))

    bench.runner.work()

    ends = [(bench.outcome(job_id), bench.attempt(job_id).attempt.error_code) for job_id in jobs]
    assert ends[0] == ((Status.QUEUED, Outcome.RETRIED), "engine_silent")
    assert ends[1:] == [((Status.FAILED, Outcome.FAILED), "schema_timed_out")] * 2
    assert len(bench.engine.requests) == 4
    assert [trace.finish_reason for trace in bench.trace(jobs[2])] == ["error"]


def silence(*, answers_others: bool = False, silent_to_others: bool = False) -> errors.EngineSilent:
    fault = errors.EngineSilent("The engine said nothing.")
    fault.answers_others, fault.silent_to_others = answers_others, silent_to_others
    return fault


def test_an_engine_that_fails_blames_no_schema(bench: Bench) -> None:
    jobs = [submit(bench) for _ in range(3)]
    for _ in jobs:
        reason(bench)
        bench.engine.feed(errors.EngineFault("The engine failed with status 500."))

    bench.runner.work()

    codes = [bench.attempt(job_id).attempt.error_code for job_id in jobs]
    assert codes == ["engine_fault"] * 3


def test_silence_over_a_new_schema_accuses_no_image(bench: Bench) -> None:
    """Its grammar may be what the engine works at, while it answers others."""
    bench = bench.with_engine(bench.engine, quarantine_crashes=1)
    job_id = submit(bench)
    reason(bench)
    bench.engine.feed(silence(answers_others=True))

    bench.runner.work()

    assert bench.outcome(job_id) == (Status.QUEUED, Outcome.RETRIED)
    assert bench.attempt(job_id).attempt.error_code == "engine_silent"
    assert not quarantine.held(bench.database, bench.account_id, [submitted().key])


def test_an_engine_that_is_silent_to_all_blames_no_schema(bench: Bench, wait_for: WaitFor) -> None:
    jobs = [submit(bench) for _ in range(3)]
    for _ in jobs:
        reason(bench)
        bench.engine.feed(silence(silent_to_others=True))

    for _ in jobs:
        # The engine rests after each of them.
        assert wait_for(lambda: bench.runner.work() > 0)

    codes = [bench.attempt(job_id).attempt.error_code for job_id in jobs]
    assert codes == ["engine_fault"] * 3


def test_an_engine_that_falls_silent_in_an_answer_blames_no_schema(bench: Bench) -> None:
    jobs = [submit(bench) for _ in range(3)]
    for _ in jobs:
        reason(bench)
        bench.engine.feed(Chunk(text="{"), errors.EngineFault("The engine was silent."))

    bench.runner.work()

    codes = [bench.attempt(job_id).attempt.error_code for job_id in jobs]
    assert codes == ["engine_fault"] * 3
