"""What the service makes of a second look at an answer, by the scripted engine's behaviors and by a conducted one."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from api.schemas import jobs as jobs_shown
from core import errors, profiles
from jobs import engine
from jobs.answers.extraction import Answer
from jobs.engine import Chunk
from jobs.findings import Action, FindingKind
from jobs.lifecycle import Status
from scripted import Scripted, ScriptedOptions
from tests.fakes import NoSandbox
from tests.worker import behaviors
from tests.worker.behaviors import BUDGET, found, run_behavior
from tests.worker.conftest import NO_MATHEMATICS, Bench
from worker import equality
from worker.guards import prompts, verify
from worker.leases import StopReason

TRACE = "I see six. **Final Answer** \\boxed{6}"


@pytest.mark.parametrize(
    ("behavior", "action"),
    [("clean", "confirmed"), ("mistaken", "corrected"), ("unsure", "doubted")],
)
def test_a_verification_confirms_corrects_or_doubts(
    bench: Bench, behavior: str, action: str
) -> None:
    job_id = run_behavior(bench, behavior, temperature=0, verify=True)

    job = bench.view(job_id).job
    first, second = bench.trace(job_id)
    assert found(bench, job_id) == [("verify", action)]
    assert (second.continues, second.valid_chars) == (0, len(first.text))
    assert second.inserted == prompts.verification("How many circles?")
    before = first.text.rpartition("\\boxed{")[2].removesuffix("}")
    after = second.text.rpartition("\\boxed{")[2].removesuffix("}")
    assert job.answer_text == (after if action == "corrected" else before)
    assert (before != after) is (action != "confirmed")
    assert job.answer_forced is False
    # All but the words that ask for it is known to the engine.
    assert second.cached_tokens is not None
    assert second.input_tokens is not None
    assert second.cached_tokens > 0.8 * second.input_tokens
    assert job.output_tokens == first.output_tokens + second.output_tokens
    assert job.cached_tokens == (first.cached_tokens or 0) + second.cached_tokens


def test_a_forced_answer_is_verified(bench: Bench) -> None:
    job_id = run_behavior(bench, "verbatim_loop", tokens_per_second=2000, verify=True)

    _, forced, second = bench.trace(job_id)
    job = bench.view(job_id).job
    assert found(bench, job_id) == [("loop", "forced"), ("verify", "confirmed")]
    assert (second.continues, forced.text, job.answer_forced) == (1, f"{job.answer_text}}}", True)


def test_without_an_answer_there_is_no_verification(bench: Bench) -> None:
    job_id = run_behavior(bench, "no_answer_at_length", budget=False, verify=True)

    assert found(bench, job_id) == [("no_answer", "none")]
    assert len(bench.trace(job_id)) == 1


def submit(bench: Bench, **options: object) -> uuid.UUID:
    return bench.submit(
        options={"max_output_tokens": BUDGET, "guards": {"verify": True}, **options}
    )


def test_a_verification_is_a_turn_of_the_same_chat_within_the_budget(bench: Bench) -> None:
    submit(bench)
    bench.engine.answer(TRACE)
    bench.engine.answer("Yes. **Final Answer** \\boxed{6}")

    bench.runner.work()

    first, second = bench.engine.requests
    assert second.turn == engine.FollowUp(TRACE, prompts.verification("How many?"))
    assert (second.question, second.salt, second.images) == (
        first.question,
        first.salt,
        first.images,
    )
    assert second.sampling.temperature == 0
    assert first.max_output_tokens + second.max_output_tokens < BUDGET


@pytest.mark.parametrize(
    ("said", "answer_format", "action", "answer"),
    [
        ("**Final Answer** \\boxed{ 6. }", None, Action.CONFIRMED, "6"),
        ("**Final Answer** \\boxed{six}", None, Action.CONFIRMED, "6"),
        ("**Final Answer** \\boxed{6 pelicans}", {"type": "number"}, Action.CONFIRMED, "6"),
        ("**Final Answer** \\boxed{7}", {"type": "number"}, Action.CORRECTED, "7"),
        ("**Final Answer** \\boxed{many}", {"type": "number"}, Action.DOUBTED, "6"),
        ("**Final Answer** \\boxed{I cannot tell}", None, Action.DOUBTED, "6"),
        ("Six or seven.", None, Action.DOUBTED, "6"),
        ("我看到七个圆，没有遗漏。**最终答案** \\boxed{七个}", None, Action.DOUBTED, "6"),  # noqa: RUF001 - Chinese as written
        ("", None, Action.DOUBTED, "6"),
    ],
)
def test_only_a_second_answer_in_the_right_form_replaces_the_first(
    bench: Bench,
    said: str,
    answer_format: dict[str, str] | None,
    action: Action,
    answer: str,
) -> None:
    job_id = submit(bench, answer_format=answer_format)
    bench.engine.answer(TRACE)
    bench.engine.answer(said)

    bench.runner.work()

    assert found(bench, job_id) == [(FindingKind.VERIFY, action)]
    assert bench.view(job_id).job.answer_text == answer


@pytest.mark.parametrize(
    "fault",
    [
        errors.EngineBusy("Full."),
        errors.EngineRejected("Too long."),
        errors.EngineLost("It hung up."),
        errors.EngineFault("It fell silent."),
    ],
)
def test_a_fault_of_the_verification_leaves_the_answer_as_it_is(
    bench: Bench, fault: errors.EngineError
) -> None:
    bench = bench.with_engine(bench.engine, now=lambda: 0.0)
    job_id = submit(bench)
    bench.engine.answer(TRACE)
    bench.engine.feed(Chunk(text="Look"), fault)

    bench.runner.work()

    job = bench.view(job_id).job
    assert (job.status, job.answer_text, job.failures) == (Status.SUCCEEDED, "6", 0)
    assert (job.finish_reason, job.confidence) == ("stop", None)
    assert found(bench, job_id) == [("verify", "none")]
    assert [trace.text for trace in bench.trace(job_id)] == [TRACE, "Look"]
    # An engine that is full or gone gets no stream, or one at a time.
    permits = [bench.engines.acquire() for _ in range(2)]
    rests = isinstance(fault, errors.EngineBusy | errors.EngineLost)
    assert (None in permits) is rests


def test_a_verification_does_not_get_a_loop_after_the_answer(bench: Bench) -> None:
    job_id = submit(bench, guards={"verify": True, "loop": True})
    bench.engine.feed(Chunk(text=f"{TRACE} "), *[Chunk(text="So I count them again. ")] * 64)
    bench.engine.after_abort = [
        [Chunk(text=TRACE), Chunk(finish_reason="stop"), bench.engine.END],
    ]

    bench.runner.work()

    turn = bench.engine.requests[1].turn
    first, second = bench.trace(job_id)
    assert turn is not None
    assert first.text[: second.valid_chars] == turn.said
    assert len(turn.said) < len(first.text)
    assert found(bench, job_id) == [("loop", "stopped"), ("verify", "confirmed")]


@pytest.mark.parametrize("said", ["Yes, it is \\boxed{6}", "I cannot tell."])
def test_the_finish_reason_of_the_job_is_not_that_of_the_verification(
    bench: Bench, said: str
) -> None:
    job_id = submit(bench)
    bench.engine.answer(TRACE)
    bench.engine.feed(Chunk(text=said), Chunk(finish_reason="length"), bench.engine.END)

    bench.runner.work()

    assert bench.view(job_id).job.finish_reason == "stop"
    assert [trace.finish_reason for trace in bench.trace(job_id)] == ["stop", "length"]


@pytest.mark.parametrize("reason", [one for one in StopReason if one is not StopReason.UNNEEDED])
def test_a_verification_can_be_stopped_like_any_generation(
    bench: Bench, reason: StopReason
) -> None:
    job_id = submit(bench)
    bench.engine.answer(TRACE)
    thread = bench.run_in_thread()
    assert bench.engine.second.wait(60)

    bench.runner.drain()
    bench.leases.end((job_id, 1), reason)

    thread.join(60)
    assert not thread.is_alive()
    assert bench.engine.aborted == [bench.engine.requests[1].rid]
    assert bench.status(job_id) is {
        StopReason.CANCEL: Status.CANCELLED,
        StopReason.DEADLINE: Status.FAILED,
        StopReason.DRAIN: Status.QUEUED,
        StopReason.LOST: Status.RUNNING,
    }.get(reason)


@pytest.mark.parametrize(
    ("first", "second", "options", "action"),
    [
        ("unknown", "Unknown", None, Action.CONFIRMED),
        ("6", "unknown", None, Action.DOUBTED),
        ("unknown", "B", ["red", "unknown"], Action.CONFIRMED),
        ("red", "unknown", ["red", "unknown"], Action.CORRECTED),
        ("red", "unclear", ["red", "unknown"], Action.DOUBTED),
    ],
)
def test_an_option_that_sounds_like_a_refusal_is_an_answer(
    first: str, second: str, options: list[str] | None, action: Action
) -> None:
    answer_format = {"type": "choice", "options": options} if options else None

    assert verified(first, f"**Final Answer** \\boxed{{{second}}}", answer_format) is action


def verified(
    first: str,
    said: str,
    answer_format: dict[str, Any] | None = None,
    question: str = "Which?",
) -> Action:
    """Return what a verification that says something comes to."""
    same = NO_MATHEMATICS.of(answer_format, account_id=uuid.UUID(int=1), question=question)
    return verify.Comparison(Answer(first, "boxed"), question, answer_format, same).action(
        said, ended=True
    )


NUMBER, BOOLEAN = {"type": "number"}, {"type": "boolean"}
SIDES = {"type": "choice", "options": ["left", "right"]}


@pytest.mark.parametrize(
    ("first", "said", "answer_format"),
    [
        ("6", "I count them once more. So the answer is correct.", None),
        ("6", "I count them once more. So the answer is correct.", NUMBER),
        ("6", "So my answer stands.", None),
        ("6", "I see six lamps. That matches.", None),
        ("6", "I see six lamps. That matches my answer. It is a quiet street.", None),
        ("6", "Confirmed.", NUMBER),
        ("6", "The answer is right, because two and four are six.", NUMBER),
        ("6", "**Final Answer**\n\nMy answer is correct.", None),
        ("6", "**Final Answer** \\boxed{\\text{Correct}}", NUMBER),
        ("6", "The first count was not wrong.", None),
        ("六", "我再数一遍。所以答案是正确的。", None),
        ("6", "两盏加四盏。没错。", NUMBER),
        ("6", "核对后答案无误。", NUMBER),
        ("\\text{否}", "我再看一遍。所以答案是正确的。", BOOLEAN),
        ("No", "The answer is correct.", BOOLEAN),
        ("No", "The answer is no.", BOOLEAN),
        ("left", "The answer is correct.", SIDES),
        ("\\text{Six lamps}", "**Final Answer** \\boxed{six lamps}", None),
        ("90^\\circ", "**Final Answer** \\boxed{90°}", None),
        ("ABC123", "The answer is ABC123.", None),
        ("6", "I did not make any mistake.", NUMBER),
        ("6", "6 is the correct answer.", None),
        ("B", "B is right.", None),
        ("6", "I was right.", None),
        ("六", "答案不是错误的。", None),
        ("六", "我没有数错。", None),
    ],
)
def test_a_verification_confirms_an_answer_in_any_wording(
    first: str, said: str, answer_format: dict[str, Any] | None
) -> None:
    assert verified(first, said, answer_format) is Action.CONFIRMED


@pytest.mark.parametrize(
    ("first", "said", "answer_format"),
    [
        ("6", "The answer is wrong.", None),
        ("6", "My first count was not right. I cannot say more.", NUMBER),
        ("6", "这个答案是错误的，让我再数一遍", NUMBER),  # noqa: RUF001 - Chinese as written
        ("6", "Seven or eight.", None),
        ("6", "Let me check whether the answer is correct.", None),
        ("6", "Is the answer correct?", None),
        ("6", "The answer is only partially correct.", None),
        ("6", "The answer is far from correct.", None),
        ("6", "The answer is correct on the left but wrong overall.", None),
        ("6", "Neither answer is correct.", None),
        ("6", "None of this is correct.", NUMBER),
        ("6", "我不能确认答案是否正确。", None),
        ("6", "答案部分正确。", None),
        ("6", "That is right next to the door. Then I see something else.", None),
    ],
)
def test_a_verification_without_another_answer_doubts(
    first: str, said: str, answer_format: dict[str, Any] | None
) -> None:
    assert verified(first, said, answer_format) is Action.DOUBTED


@pytest.mark.parametrize(
    ("first", "said", "answer_format", "question"),
    [
        ("No", "The answer is true.", BOOLEAN, "Is it lit?"),
        ("left", "The answer is right.", SIDES, "Which side?"),
        ("left", "So the answer is right.", None, "Is it on the left or on the right?"),
        ("6", "That is wrong. The answer is 7.", NUMBER, "How many?"),
        ("6", "Once more.\n\n**答案**\n\n7", NUMBER, "How many?"),
        ("6", "### Answer\n7", NUMBER, "How many?"),
        ("6", "The first answer was wrong; the correct answer is 7.", None, "How many?"),
        ("B", "Option C is correct.", None, "Which one?"),
        ("否", "所以答案是：是。", BOOLEAN, "灯亮着吗？"),  # noqa: RUF001 - Chinese as written
        ("6", "The first answer is wrong.\n\n**最终答案**\n\n7", NUMBER, "有几个？"),  # noqa: RUF001 - Chinese as written
        ("ABC123", "**Final Answer** \\boxed{BAC123}", None, "Which plate?"),
        ("3-1", "**Final Answer** \\boxed{2-0}", None, "Which score?"),
    ],
)
def test_a_verification_corrects_with_another_answer(
    first: str, said: str, answer_format: dict[str, Any] | None, question: str
) -> None:
    assert verified(first, said, answer_format, question) is Action.CORRECTED


def test_answers_that_cannot_be_compared_leave_the_first_one(bench: Bench) -> None:
    class Failing(NoSandbox):
        def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
            del payload, arguments
            raise errors.Unavailable("A sandbox cannot be started.")

    places = equality.shares(most_waiting=1)
    failing = bench.with_engine(
        bench.engine, mathematics=equality.Equality(Failing(), places, pause_seconds=0)
    )
    job_id = submit(bench)
    bench.engine.answer("**Final Answer** \\boxed{6}")
    bench.engine.answer("**Final Answer** \\boxed{2 \\cdot 3}")

    failing.runner.work()

    assert found(bench, job_id) == [(FindingKind.VERIFY, Action.NONE)]
    assert bench.view(job_id).job.answer_text == "6"


def test_a_budget_without_room_for_a_verification_has_none(bench: Bench) -> None:
    job_id = submit(bench, max_output_tokens=64)
    bench.engine.answer(TRACE)

    bench.runner.work()

    assert len(bench.engine.requests) == 1
    assert (bench.view(job_id).job.answer_text, found(bench, job_id)) == ("6", [])


def test_a_verification_is_requested_in_the_language_of_the_question() -> None:
    assert "再看一遍" in prompts.verification("有几个圆？")  # noqa: RUF001 - Chinese as written
    assert prompts.verification("How {many}?").endswith("How {many}?")
    assert not prompts.in_cjk(prompts.verification("How many?"))


def test_each_sample_of_a_vote_is_verified_before_it_votes(bench: Bench) -> None:
    job_id = behaviors.submit(bench, samples=3, temperature=0.0, verify=True)
    engine_options = ScriptedOptions(
        tokens_per_second=0, prefill_tokens_per_second=0, behavior="mistaken"
    )

    behaviors.work(bench, Scripted(options=engine_options, profile=profiles.QVQ))

    job = bench.view(job_id).job
    traces = {trace.number: trace for trace in bench.trace(job_id)}
    looks = [trace for trace in traces.values() if trace.continues is None]
    seconds = [trace for trace in traces.values() if trace.continues is not None]
    assert job.votes is not None
    assert job.votes["begun"] == len(looks) >= 2
    voted = job.votes["classes"][0]["generations"]
    assert set(voted) <= {trace.number for trace in seconds}
    wrong = {trace.text.rpartition("\\boxed{")[2].removesuffix("}") for trace in looks}
    assert job.answer_text not in wrong
    assert {(one.kind, one.action) for one in bench.view(job_id).findings} == {
        ("verify", "corrected")
    }
    assert all(trace.complete for trace in traces.values())
    assert job.output_tokens == sum(trace.output_tokens for trace in traces.values())


@pytest.mark.parametrize(("behavior", "verdict"), [("clean", "confirmed"), ("unsure", "doubted")])
def test_a_vote_belongs_to_the_sample_that_answered_not_to_its_verification(
    bench: Bench, behavior: str, verdict: str
) -> None:
    job_id = behaviors.submit(bench, samples=3, temperature=0.0, verify=True)
    engine_options = ScriptedOptions(
        tokens_per_second=0, prefill_tokens_per_second=0, behavior=behavior
    )

    behaviors.work(bench, Scripted(options=engine_options, profile=profiles.QVQ))

    view = bench.view(job_id)
    traces = {trace.number: trace for trace in bench.trace(job_id)}
    assert view.job.votes is not None
    voted = view.job.votes["classes"][0]["generations"]
    assert all(traces[number].continues is None for number in voted)
    assert traces[view.job.votes["look"]].continues == voted[0]
    shown = jobs_shown.JobAnswer.of(view)
    assert shown is not None
    assert (shown.verdict, shown.confidence) == (verdict, 1.0)
    votes = jobs_shown.Votes.of(view.job)
    assert votes is not None
    assert votes.classes[0].generations == voted


def test_an_answer_in_json_has_no_verification_and_no_probes(bench: Bench) -> None:
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer"}},
        "required": ["count"],
        "additionalProperties": False,
    }
    job_id = behaviors.submit(
        bench,
        verify=True,
        convergence=True,
        answer_format={"type": "json_schema", "schema": schema},
    )
    engine_options = ScriptedOptions(tokens_per_second=0, prefill_tokens_per_second=0)

    behaviors.work(bench, Scripted(options=engine_options, profile=profiles.QVQ))

    assert bench.view(job_id).job.answer_rule == "json_schema"
    assert (found(bench, job_id), len(bench.trace(job_id))) == ([], 2)
