"""Answers in JSON: the reasoning is free, the end is held to the schema, and what is not of it is no answer."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from core import errors
from jobs.answers import json_schema, values
from jobs.engine import Chunk
from jobs.lifecycle import Status
from jobs.store import claims, event_log
from scripted import Scripted, ScriptedOptions
from tests import factories
from tests.worker.conftest import ENDS, Bench, real_image
from tests.worker.engine_fake import LOOP
from tests.worker.json_jobs import BUDGET, OPTIONS, PROPERTIES, SCHEMA, answer, reason, submit
from worker.guards import json_answer, prompts
from worker.leases import StopReason


def test_reasoning_is_unconstrained_and_the_answer_follows_under_the_grammar(
    bench: Bench,
) -> None:
    job_id = submit(bench)
    reason(bench, "I see six.\n\n**Final Answer** \\boxed{6}\n")
    answer(bench, '{"count":6,\t"sure":true}')

    bench.runner.work()

    first, second = bench.engine.requests
    assert (first.schema, first.continuation) == (None, None)
    assert first.max_output_tokens == json_answer.rest(BUDGET)
    assert (second.schema, second.max_output_tokens) == (SCHEMA, json_answer.tokens(BUDGET))
    assert second.continuation == "I see six.\n\n**Final Answer** \\boxed{6}\n\n"
    assert (second.salt, second.images, second.sampling.temperature) == (
        first.salt,
        first.images,
        0.0,
    )
    assert first.max_output_tokens + second.max_output_tokens <= BUDGET
    job = bench.view(job_id).job
    assert (job.status, job.answer_rule, job.answer_forced) == (
        Status.SUCCEEDED,
        "json_schema",
        False,
    )
    assert (job.answer_text, job.answer_value) == (
        '{"count": 6, "sure": true}',
        {"count": 6, "sure": True},
    )
    assert (job.output_tokens, bench.view(job_id).findings) == (12, ())
    look, typed = bench.trace(job_id)
    assert (look.finish_reason, typed.text) == ("stop", '{"count":6,\t"sure":true}')
    assert (typed.continues, typed.inserted) == (0, "\n\n")
    assert look.text[: typed.valid_chars] == look.text.rstrip()


def test_a_trace_without_an_answer_gets_a_heading_in_the_script_of_the_question(
    bench: Bench,
) -> None:
    for question, heading in (("How many?", "**Final Answer**"), ("有几个？", "**最终答案**")):  # noqa: RUF001 - Chinese as written
        bench.engine.requests.clear()
        bench.submit(question=question, options=OPTIONS)
        reason(bench, "I see", "length")
        answer(bench, '{"count": 1}')

        bench.runner.work()

        continuation = bench.engine.requests[1].continuation or ""
        assert continuation == f"I see\n\n{heading}\n\n"


def test_a_loop_is_cut_off_before_the_answer(bench: Bench) -> None:
    job_id = submit(bench)
    bench.engine.loop()
    bench.engine.after_abort = [
        [Chunk(text='{"count": 2}'), Chunk(finish_reason="stop"), bench.engine.END]
    ]

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.answer_value, job.answer_forced) == ({"count": 2}, True)
    assert [finding.kind for finding in bench.view(job_id).findings] == ["loop"]
    continuation = bench.engine.requests[1].continuation
    assert continuation == f"I see. {LOOP}".rstrip() + prompts.heading("How many?")
    assert bench.engine.aborted == [bench.engine.requests[0].rid]


@pytest.mark.parametrize(
    ("text", "finish_reason", "words"),
    [
        ('{"count": 6', "length", "token limit"),
        ('{"count": 12}', "stop", "is not JSON of the schema"),
        ("So it is \\boxed{6}", "stop", "is not JSON of the schema"),
        ("", "stop", "is not JSON of the schema"),
    ],
)
def test_a_job_whose_answer_does_not_match_the_schema_fails(
    bench: Bench, text: str, finish_reason: str, words: str
) -> None:
    job_id = submit(bench)
    reason(bench, "**Final Answer** \\boxed{6}")
    answer(bench, text, finish_reason)

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.error_code, job.error_retryable) == (
        Status.FAILED,
        "answer_format_unmet",
        True,
    )
    assert words in (job.error_message or "")
    assert (job.answer_text, job.answer_value, job.output_tokens) == (None, None, 12)
    assert [trace.text for trace in bench.trace(job_id)] == ["**Final Answer** \\boxed{6}", text]


ANY = {"answer_format": {"type": "json_object"}}


def test_an_object_of_any_shape_has_the_same_course(bench: Bench) -> None:
    job_id = submit(bench, **ANY)
    reason(bench)
    answer(bench, '{"kinds":[{"name":"a","count":6}]}')

    bench.runner.work()

    first, second = bench.engine.requests
    assert (first.schema, second.schema) == (None, {"type": "object"})
    assert second.max_output_tokens == json_answer.tokens(BUDGET)
    job = bench.view(job_id).job
    assert (job.status, job.answer_rule) == (Status.SUCCEEDED, "json_object")
    assert job.answer_value == {"kinds": [{"name": "a", "count": 6}]}


@pytest.mark.parametrize(
    ("text", "finish_reason", "words"),
    [
        ('{"a": [1, 1, 1,', "length", "token limit"),
        ("[6]", "stop", "is not a JSON object"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "stop", "is not a JSON object"),
    ],
)
def test_what_is_not_a_whole_object_is_no_answer(
    bench: Bench, text: str, finish_reason: str, words: str
) -> None:
    job_id = submit(bench, **ANY)
    reason(bench)
    answer(bench, text, finish_reason)

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.error_code) == (Status.FAILED, "answer_format_unmet")
    assert words in (job.error_message or "")
    assert job.answer_text is None


def test_a_model_that_never_ends_its_object_is_stopped_by_the_budget(bench: Bench) -> None:
    script = ScriptedOptions(
        tokens_per_second=0, prefill_tokens_per_second=0, behavior="endless_json"
    )
    job_id = bench.submit(options=OPTIONS | ANY, image=real_image())

    assert bench.with_engine(Scripted(options=script)).runner.work() == 1

    job = bench.view(job_id).job
    assert (job.status, job.error_code) == (Status.FAILED, "answer_format_unmet")
    assert "token limit" in (job.error_message or "")
    assert (job.output_tokens or 0) <= BUDGET


def test_a_schema_that_the_engine_refuses_fails_the_job_with_its_reason(bench: Bench) -> None:
    job_id = submit(bench)
    reason(bench)
    bench.engine.feed(errors.EngineRejected("The grammar."))

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.error_code, job.error_message) == (
        Status.FAILED,
        "engine_rejected",
        "The grammar.",
    )


def test_an_engine_that_fails_during_the_answer_gets_another_attempt(bench: Bench) -> None:
    job_id = submit(bench)
    reason(bench)
    bench.engine.feed(Chunk(text="{"), errors.EngineFault("Gone."))

    bench.runner.work()

    assert (bench.status(job_id), bench.view(job_id).job.failures) == (Status.QUEUED, 1)
    assert [trace.text for trace in bench.trace(job_id)] == ["I see six.", "{"]


@pytest.mark.parametrize("reason_", ENDS)
def test_an_answer_in_json_can_be_stopped_like_any_stream(
    bench: Bench, reason_: StopReason
) -> None:
    job_id = submit(bench)
    reason(bench)
    bench.engine.feed(Chunk(text="{"))

    bench.stop_second(job_id, reason_)

    assert bench.outcome(job_id) == ENDS[reason_]


def test_a_cancel_between_reasoning_and_answer_stops_the_job(bench: Bench) -> None:
    job_id = submit(bench)
    thread = bench.run_in_thread()
    bench.leases.end((job_id, 1), StopReason.CANCEL)

    thread.join(60)

    assert (bench.status(job_id), len(bench.engine.requests)) == (Status.CANCELLED, 1)


def test_the_start_of_the_next_generation_is_written_once_despite_retries(bench: Bench) -> None:
    job_id = bench.submit()
    claimed = factories.claim(bench.database, "me")
    factories.begin(bench.database, claimed)

    def follow() -> object:
        return claims.follow(
            bench.database,
            claimed,
            ended=factories.make_ended("I see"),
            finding=None,
            rid="b" * 32,
            stored=5,
            inserted="\n\n",
        )

    assert follow() == follow()

    assert [trace.complete for trace in bench.trace(job_id)] == [True, False]
    assert bench.view(job_id).findings == ()


def run_scripted(
    bench: Bench,
    behavior: str,
    schema: dict[str, Any],
    **options: Any,  # noqa: ANN401 - any option
) -> uuid.UUID:
    """Run one job on a scripted engine to its end."""
    script = ScriptedOptions(tokens_per_second=0, prefill_tokens_per_second=0, behavior=behavior)
    form = {"type": "json_schema", "schema": schema}
    job_id = bench.submit(
        options=OPTIONS | {"answer_format": form} | options,
        image=real_image(),
    )
    assert bench.with_engine(Scripted(options=script)).runner.work() == 1
    return job_id


@pytest.mark.parametrize(
    "behavior", ["clean", "chinese_drift", "no_answer_at_length", "unterminated_box"]
)
def test_the_answer_to_every_kind_of_trace_matches_the_schema(bench: Bench, behavior: str) -> None:
    schema = SCHEMA | {"properties": {**PROPERTIES, "who": {"enum": ["甲", "乙"]}}}

    job = bench.view(run_scripted(bench, behavior, schema)).job

    assert (job.status, job.answer_rule) == (Status.SUCCEEDED, "json_schema")
    assert json_schema.holds(schema, job.answer_value)
    assert values.structured(job.answer_text or "", schema) == job.answer_value
    assert (job.output_tokens or 0) <= BUDGET


@pytest.mark.parametrize("budget", [1, 2, 17])
def test_a_job_with_too_few_tokens_for_json_fails(bench: Bench, budget: int) -> None:
    job = bench.view(run_scripted(bench, "clean", SCHEMA, max_output_tokens=budget)).job

    assert (job.status, job.error_code) == (Status.FAILED, "answer_format_unmet")
    assert min(json_answer.rest(budget), json_answer.tokens(budget)) >= 1


def test_an_engine_that_ignores_the_grammar_is_detected(bench: Bench) -> None:
    job = bench.view(run_scripted(bench, "deaf", SCHEMA)).job

    assert (job.status, job.error_code) == (Status.FAILED, "answer_format_unmet")


def test_an_answer_that_the_grammar_allows_and_that_is_no_date_fails_the_job(bench: Bench) -> None:
    """The pattern makes each date of the scripted engine one that the grammar allows and the schema does not."""
    day = {"type": "string", "format": "date"}
    schema = {"type": "object", "properties": {"day": day}, "required": ["day"]}
    read = json_answer.JsonFormat(schema).read
    assert read('{"day": "2026-02-28"}') is not None
    assert read('{"day": "2026-02-30"}') is None
    assert bench.view(run_scripted(bench, "clean", schema)).job.status is Status.SUCCEEDED
    never = schema | {"properties": {"day": day | {"pattern": "^1999"}}}

    job = bench.view(run_scripted(bench, "clean", never)).job

    assert (job.status, job.error_code) == (Status.FAILED, "answer_format_unmet")
    assert job.answer_value is None


def test_events_of_reasoning_and_answer_come_in_order(bench: Bench) -> None:
    job_id = run_scripted(bench, "clean", SCHEMA)

    said = [
        event.generation
        for event in bench.reported(job_id)
        if event.kind is event_log.EventKind.DELTA
    ]
    assert said == sorted(said, key=lambda generation: generation or 0)
    assert set(said) == {0, 1}


def test_samples_vote_on_the_values_of_their_json(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"sure": {"const": True}}, "required": ["sure"]}

    view = bench.view(run_scripted(bench, "clean", schema, samples=5, temperature=1.0))

    job = view.job
    assert (job.status, job.answer_value, job.confidence) == (Status.SUCCEEDED, {"sure": True}, 1.0)
    assert job.votes is not None
    assert (job.votes["begun"], job.votes["counted"]) == (3, 3)
    typed = [trace for trace in bench.trace(job.id) if trace.continues is not None]
    assert [trace.text for trace in typed] == ['{"sure":true}'] * 3


def test_if_no_sample_matches_the_schema_the_job_fails_with_all_traces(bench: Bench) -> None:
    job_id = run_scripted(bench, "deaf", SCHEMA, samples=2, temperature=1.0)

    assert bench.view(job_id).job.error_code == "answer_format_unmet"
    assert len(bench.trace(job_id)) == 4
    assert all(trace.complete for trace in bench.trace(job_id))
