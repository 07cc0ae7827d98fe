"""The detectors of guards: texts with and without findings."""

from __future__ import annotations

import random

import pytest

from core import profiles
from jobs import engine
from jobs.findings import Action, FindingKind
from models.training import questions, scenes
from scripted import script
from tests import recorded_traces
from worker.guards import detectors
from worker.guards.detectors import GenerationGuard, Verdict

ALL = dict.fromkeys(("loop", "budget", "language"), True)
OPENING = "Let me look at the picture, where five red circles are near the left edge. "


def feed(watch: GenerationGuard, text: str) -> tuple[Verdict | None, int]:
    """Feed ``text`` token by token; return the first verdict and the number of characters before it."""
    count = 0
    for token in script.tokens(text):
        count += len(token)
        if (verdict := watch.see(token)) is not None:
            return verdict, count
    return None, count


def make_watch(question: str = "How many circles?", **switched: bool) -> GenerationGuard:
    return GenerationGuard(ALL | switched, question=question, sample=0, budget=4096)


@pytest.mark.parametrize(
    "unit",
    ["a", "So I count again. ", "等等，让我再看一下。", "Then there is x. " * 20 + "But no. ", "1 2 3 4 "],  # noqa: RUF001 - Chinese as written
    ids=["letter", "sentence", "Chinese", "long", "numbers"],
)  # fmt: skip
def test_four_copies_of_a_long_enough_text_are_a_loop_truncated_after_the_first(unit: str) -> None:
    verdict, _ = feed(make_watch(), OPENING + unit * 1200)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.LOOP
    assert verdict.finding.evidence["copies"] >= 4
    assert len(OPENING) - 2 <= verdict.finding.start <= len(OPENING)
    assert (
        len(OPENING) - 2 <= verdict.stored <= len(OPENING) + 2 * verdict.finding.evidence["period"]
    )


@pytest.mark.parametrize("period", [1, 7, 70, 300, 1999])
def test_a_loop_is_detected_within_six_copies_or_five_hundred_characters(period: int) -> None:
    dice = random.Random(period)
    unit = "".join(dice.choice("abcdefgh ijklm") for _ in range(period))

    verdict, count = feed(make_watch(), OPENING + unit * 2000)

    assert verdict is not None
    assert count <= len(OPENING) + max(6 * period, 500)


@pytest.mark.parametrize(
    "text",
    [
        OPENING + "|---|---|---|\n" * 12,
        OPENING + "-" * 1000,
        OPENING + "0" * 200,
        OPENING + ("So I count again. " * 3),
        "".join(f"{n}. There is a circle, number {n}.\n" for n in range(300)),
        "\\begin{pmatrix}\n" + ("0 & " * 19 + "0 \\\\\n") * 20 + "\\end{pmatrix}",
        OPENING + "| circle | red | small |\n" * 40,
    ],
    ids=["table", "rule", "zeros", "three times", "enumeration", "matrix", "rows"],
)
def test_naturally_repetitive_text_is_not_a_loop(text: str) -> None:
    verdict, count = feed(make_watch(), text)
    assert verdict is None
    assert count == len(text)


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
        text = "".join(script.speak(request, script.PERSONAS["clean"]))
        watch = make_watch()
        assert feed(watch, text)[0] is None
        assert watch.end(text, "stop") is None


def test_three_hundred_traces_that_the_small_model_wrote_on_the_real_engine_raise_no_finding() -> (
    None
):
    recorded = recorded_traces.read()
    assert len(recorded) == recorded_traces.COUNT
    assert len({"".join(trace["tokens"]) for trace in recorded}) > 0.9 * len(recorded)
    for trace in recorded:
        watch = make_watch(trace["question"])
        assert not any(watch.see(token) for token in trace["tokens"])
        assert watch.end("".join(trace["tokens"]), "stop") is None


def test_three_hundred_traces_that_the_small_model_was_taught_raise_no_finding() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        scene = scenes.sample(dice)
        kind = dice.choice(list(questions.KINDS))
        question = questions.ask(dice, scene, kind)
        trace, _ = questions.reason(dice, scene, question)
        watch = make_watch()
        assert feed(watch, trace)[0] is None
        assert watch.end(trace, "stop") is None


def test_paraphrased_repetition_is_a_loop_after_a_thousand_tokens() -> None:
    dice = random.Random(1)
    sentences = (
        "Wait, let me re-check the left edge, number {}. ",
        "Hmm, alternatively there may be {} circles. ",
        "Wait, let me recount them, {} of them. ",
    )
    text = OPENING + "".join(dice.choice(sentences).format(dice.randint(1, 99)) for _ in range(400))

    verdict, _ = feed(make_watch(), text)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.PARAPHRASE_LOOP
    assert verdict.finding.tokens_saved <= 4096 - 1000


@pytest.mark.parametrize(
    "sentences",
    [
        ["左边三只。", "右边两只。", "一共五只。", "中间一只。", "上面没有。", "下面四只。"],
        [f"第{number}次数，左边有三只。" for number in "一二三四五六七八九十"],  # noqa: RUF001 - Chinese as written
        [f"Count {number}: I see a circle on the left. " for number in range(90)],
    ],
    ids=["short sentences", "Chinese numerals", "numbers"],
)
def test_repeated_sentences_without_doubt_are_a_loop_in_chinese_too(sentences: list[str]) -> None:
    dice = random.Random(1)
    text = OPENING + "".join(dice.choice(sentences) for _ in range(1000))

    verdict, _ = feed(make_watch(), text)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.PARAPHRASE_LOOP


def test_rows_of_an_endless_table_are_a_loop() -> None:
    verdict, count = feed(make_watch(), OPENING + "| circle | red | small |\n" * 500)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.LOOP
    assert count < 2500


def test_an_earlier_box_does_not_end_an_endless_final_answer() -> None:
    dice = random.Random(1)
    talk = "".join(chr(dice.randint(97, 122)) + " " * dice.randint(0, 1) for _ in range(4000))
    text = f"So far \\boxed{{3}}.\n\n**Final Answer**\n\n\\boxed{{\\text{{{talk}"

    verdict, _ = feed(make_watch(), text)

    assert verdict is not None
    assert (verdict.finding.kind, text[: verdict.stored]) == (
        FindingKind.NO_ANSWER,
        "So far \\boxed{3}.",
    )


def test_a_forced_answer_has_no_more_tokens_than_the_job_has_left() -> None:
    text = OPENING + "So I count again. " * 100
    first = GenerationGuard({"loop": True}, question="How many?", sample=0, budget=4096)
    feed(first, text)
    assert first.forced_tokens == detectors.FORCED_TOKENS

    watch = GenerationGuard(
        {"loop": True}, question="How many?", sample=0, budget=first.tokens + 20
    )
    verdict, _ = feed(watch, text)

    assert verdict is not None
    assert verdict.inserted
    assert watch.forced_tokens == 20
    watch.billed(first.tokens + 12)
    assert watch.forced_tokens == 8
    assert watch.verdict == verdict
    # An engine that stops late has used the tokens that were meant for the answer.
    watch.billed(first.tokens + 15)
    assert watch.verdict is not None
    assert (watch.verdict.finding.action, watch.verdict.inserted) == (Action.STOPPED, "")
    assert watch.verdict.stored == verdict.stored


def test_with_few_tokens_left_a_loop_is_stopped_and_a_drift_is_only_reported() -> None:
    text = OPENING + "So I count again. " * 100
    first = GenerationGuard({"loop": True}, question="How many?", sample=0, budget=4096)
    feed(first, text)
    loop = GenerationGuard({"loop": True}, question="How many?", sample=0, budget=first.tokens + 5)
    verdict, _ = feed(loop, text)
    assert verdict is not None
    assert (verdict.finding.action, verdict.inserted) == (Action.STOPPED, "")

    drift = GenerationGuard({"language": True}, question="How many?", sample=0, budget=100)
    drift.billed(95)
    text = "我看到六个圆，答案应该是六个。\n\n**最终答案**\n\n\\boxed{六个}"  # noqa: RUF001 - Chinese as written
    verdict = drift.end(text, "stop")
    assert verdict is not None
    assert (verdict.finding.action, verdict.stored, verdict.inserted) == (
        Action.NONE,
        len(text),
        "",
    )


def test_a_disabled_guard_finds_nothing() -> None:
    watch = make_watch(loop=False, budget=False, language=False)
    assert feed(watch, "again and " * 500)[0] is None
    assert watch.end("", "length") is None


def test_a_budget_exhausted_inside_the_box_truncates_to_before_the_heading() -> None:
    text = "I see six.\n\n**Final Answer**\n\n\\boxed{\\text{"

    verdict = make_watch().end(text, "length")

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.BUDGET
    assert text[: verdict.stored] == "I see six."


@pytest.mark.parametrize(
    ("question", "trace", "again"),
    [
        ("How many?", "我看到六个圆，答案应该是六个。\n\n**最终答案**\n\n\\boxed{六个}", True),  # noqa: RUF001 - Chinese as written
        ("How many?", "我看到六个圆。\n\n**最终答案**\n\n\\boxed{6}", False),
        ("What does it say?", "The sign on the door says: open.\n\n**Final Answer**\n\n\\boxed{营业中}", False),
        ("有几个？", "我看到六个圆。\n\n**最终答案**\n\n\\boxed{六个}", False),  # noqa: RUF001 - same
    ],
    ids=["drift", "a number", "a quotation", "asked in Chinese"],
)  # fmt: skip
def test_only_an_answer_that_drifted_to_another_script_is_requested_again(
    question: str, trace: str, *, again: bool
) -> None:
    verdict = make_watch(question).end(trace, "stop")
    assert (verdict is not None) is again


@pytest.mark.parametrize(
    ("text", "closed"),
    [("6}", True), ("\\frac{1}{2}", False), ("\\frac{1}{2}}", True), ("\\}", False), ("", False)],
)
def test_the_matching_brace_closes_a_box(text: str, *, closed: bool) -> None:
    assert detectors.box_closed(text) is closed
