"""The scripted engine in process: speed, capacity, behaviors, prefix cache. The test controls the time."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors, profiles
from jobs import engine, images
from scripted import Clock, Scripted, ScriptedOptions
from scripted.behaviors import BEHAVIORS, tokens
from tests.engines import asking

AT_ONCE = ScriptedOptions(tokens_per_second=0, prefill_tokens_per_second=0, markers=True)


class SkippingClock(Clock):
    """A clock that moves ahead instead of waiting."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        if seconds is None:
            assert event.wait(30), "nothing wakes the stream"
        elif not event.is_set():
            self.seconds += seconds


def answer(
    question: str = "How many stars?", *, options: ScriptedOptions = AT_ONCE, **fields: object
) -> str:
    """Return the answer of a new engine."""
    return asking.text(asking.read(Scripted(options=options), asking.ask(question, **fields)))


def test_an_answer_takes_three_to_six_seconds_by_default() -> None:
    for shade in range(8):
        clock = SkippingClock()
        subject = Scripted(clock=clock)

        chunks = asking.read(subject, asking.ask(images=(asking.png(shade),)))

        output_tokens = asking.bill(chunks).output_tokens
        assert 150 <= output_tokens <= 330
        assert clock.seconds == pytest.approx(output_tokens / 50, abs=0.1)


def test_the_first_token_waits_for_the_uncached_part_of_the_prompt() -> None:
    clock = SkippingClock()
    subject = Scripted(options=ScriptedOptions(prefill_tokens_per_second=10), clock=clock)
    request = asking.ask()
    first_at = []
    for question in ("How many stars?", "How many?"):
        began = clock.seconds
        with subject.stream(asking.ask(question, salt=request.salt)) as stream:
            next(iter(stream))
        first_at.append(clock.seconds - began)

    assert first_at[0] > 5
    assert first_at[1] < 2


def test_other_requests_can_reuse_a_prompt_after_its_first_token() -> None:
    subject = Scripted(options=ScriptedOptions(prefill_tokens_per_second=10), clock=SkippingClock())
    request = asking.ask("How many stars?")

    with subject.stream(request) as leader:
        next(iter(leader))
        follower = asking.bill(asking.read(subject, asking.ask("How many?", salt=request.salt)))

    assert follower.cached_tokens > 0.8 * follower.input_tokens


def test_the_same_question_about_the_same_images_has_the_same_answer() -> None:
    assert answer() == answer()
    assert answer() != answer(images=(asking.png(9),))
    assert answer() != answer("Which colour is it?")


def test_above_temperature_0_the_seed_decides() -> None:
    warm = profiles.Sampling(temperature=0.7, top_p=0.9, top_k=40)

    assert answer(sampling=warm, seed=1) == answer(sampling=warm, seed=1)
    assert answer(sampling=warm, seed=1) != answer(sampling=warm, seed=2)
    assert answer(sampling=warm) != answer(sampling=warm)


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("How many stars are there?", set("012345678")),
        ("Which colour is the star?", {"red", "green", "blue", "yellow", "purple", "black"}),
        ("Is there a star?", {"yes", "no"}),
    ],
)
def test_an_answer_fits_its_question(question: str, answers: set[str]) -> None:
    box = answer(question).rpartition("\\boxed{")[2].removesuffix("}")

    assert box in answers


@given(st.text())
def test_joined_tokens_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


def test_a_behavior_without_an_answer_continues_to_the_output_limit() -> None:
    chunks = asking.read(
        Scripted(options=AT_ONCE),
        asking.ask("[[behavior:no_answer_at_length]]", max_output_tokens=700),
    )

    assert "boxed" not in asking.text(chunks)
    assert chunks[-2].finish_reason == "length"
    assert asking.bill(chunks).output_tokens == 700


def test_the_unterminated_box_is_never_closed() -> None:
    text = answer("[[behavior:unterminated_box]]", max_output_tokens=700)

    assert "**Final Answer**\n\n\\boxed{\\text{" in text
    assert "}" not in text.rpartition("\\boxed{")[2]


def test_a_continuation_of_another_text_is_the_answer_alone() -> None:
    text = answer(continuation="Something quite different.")

    assert text.startswith("\n\n**Final Answer**\n\n\\boxed{")


def test_markers_have_an_effect_only_if_they_are_enabled() -> None:
    options = AT_ONCE.model_copy(update={"markers": False})

    assert "boxed" in answer("[[behavior:busy]]", options=options)


def test_a_marker_with_an_unknown_behavior_changes_nothing() -> None:
    assert "boxed" in answer("[[behavior:unknown]]")


@pytest.mark.parametrize(
    ("behavior", "fault"),
    [
        ("busy", errors.EngineBusy),
        ("early_abort", errors.EngineBusy),
        ("starting", errors.EngineUnavailable),
        ("refuse", errors.EngineRejected),
        ("fault", errors.EngineFault),
        ("evicted", errors.EngineFault),
        ("reset", errors.EngineLost),
        ("cut_off", errors.EngineFault),
        ("bare_abort", errors.EngineFault),
    ],
)
def test_a_failure_raises_the_same_error_as_over_http(
    behavior: str, fault: type[errors.EngineError]
) -> None:
    reader = asking.Reader(Scripted(options=AT_ONCE), asking.ask(f"[[behavior:{behavior}]]"))

    assert len(reader.join()) == BEHAVIORS[behavior].failure_after
    assert type(reader.error) is fault


def test_a_silent_engine_can_be_closed_and_aborted() -> None:
    subject = Scripted(options=AT_ONCE)
    closed, aborted = (asking.Reader(subject, asking.ask("[[behavior:silent]]")) for _ in "ab")
    closed.wait_for_text()
    aborted.wait_for_text()

    closed.close()
    subject.abort(aborted.request.rid)

    assert asking.text(closed.join()) == asking.text(aborted.join())
    assert aborted.chunks[-2].finish_reason == "abort"
    assert closed.error is None
    assert subject.load() == engine.EngineLoad(running=0, waiting=0)


def test_slow_headers_delay_the_first_token() -> None:
    clock = SkippingClock()
    options = ScriptedOptions(prefill_tokens_per_second=0, markers=True)

    asking.read(Scripted(options=options, clock=clock), asking.ask("[[behavior:slow_headers]]"))

    assert clock.seconds > 5 + 3


def test_a_request_waits_beyond_the_window_and_is_rejected_beyond_the_queue() -> None:
    subject = Scripted(options=AT_ONCE.model_copy(update={"window": 1, "max_queued": 1}))
    running = asking.Reader(subject, asking.ask("[[behavior:silent]]"))
    running.wait_for_text()
    waiting = asking.Reader(subject, asking.ask())
    assert asking.eventually(lambda: subject.load() == engine.EngineLoad(running=1, waiting=1))

    with pytest.raises(errors.EngineBusy):
        asking.read(subject, asking.ask())

    subject.abort(running.request.rid)
    assert waiting.join()[-2].finish_reason == "stop"
    assert subject.load() == engine.EngineLoad(running=0, waiting=0)


def test_a_request_aborted_in_the_queue_has_no_usage() -> None:
    subject = Scripted(options=AT_ONCE.model_copy(update={"window": 1}))
    running = asking.Reader(subject, asking.ask("[[behavior:silent]]"))
    running.wait_for_text()
    waiting = asking.Reader(subject, asking.ask())
    assert asking.eventually(lambda: subject.load().waiting == 1)

    subject.abort(waiting.request.rid)

    assert waiting.join() == [
        engine.Chunk(finish_reason="abort"),
        engine.Chunk(usage=engine.TokenUsage()),
    ]
    running.close()
    running.join()


def test_the_waiting_request_with_the_longest_cached_prefix_starts_first() -> None:
    subject = Scripted(options=AT_ONCE.model_copy(update={"window": 1}))
    salt = asking.ask().salt
    asking.read(subject, asking.ask(salt=salt))
    running = asking.Reader(subject, asking.ask("[[behavior:silent]]"))
    running.wait_for_text()
    cold = asking.Reader(subject, asking.ask("[[behavior:silent]]"))
    assert asking.eventually(lambda: subject.load().waiting == 1)
    warm = asking.Reader(subject, asking.ask("[[behavior:silent]]", salt=salt))
    assert asking.eventually(lambda: subject.load().waiting == 2)

    running.close()

    warm.wait_for_text()
    assert not cold.spoke.is_set()
    for reader in (warm, cold):
        reader.close()
        reader.join()
    running.join()


def test_an_abort_matches_by_prefix_if_the_id_itself_is_a_running_stream() -> None:
    subject = Scripted(options=AT_ONCE)
    one, two, three = (
        asking.Reader(subject, asking.ask("[[behavior:silent]]", rid=rid))
        for rid in ("job-1", "job-10", "job-2")
    )
    for reader in (one, two, three):
        reader.wait_for_text()

    subject.abort("job")
    assert subject.load().running == 3
    subject.abort("job-1")

    assert one.join()[-2].finish_reason == two.join()[-2].finish_reason == "abort"
    assert subject.load().running == 1
    three.close()
    three.join()


def test_image_tokens_are_those_of_the_served_model() -> None:
    image = asking.png(width=300, height=200)

    usage = asking.bill(
        asking.read(Scripted(options=AT_ONCE), asking.ask(images=(image, asking.png(2))))
    )

    assert usage.image_tokens == images.image_tokens(300, 200, profiles.TINY) + 25


def test_a_continuation_reuses_the_cached_output() -> None:
    subject = Scripted(options=AT_ONCE)
    salt = asking.ask().salt
    whole = asking.text(asking.read(subject, asking.ask(salt=salt)))

    usage = asking.bill(asking.read(subject, asking.ask(salt=salt, continuation=whole[:400])))

    assert usage.cached_tokens > 0.8 * usage.input_tokens


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tokens_per_seconds=5", "tokens_per_seconds"),
        ("window=0", "window"),
        ("behavior=unknown", "unknown"),
        ("markers=perhaps", "markers"),
    ],
)
def test_an_invalid_option_is_an_error(query: str, message: str) -> None:
    with pytest.raises(errors.SettingsError, match=message):
        Scripted(f"scripted:?{query}")


def test_options_come_from_the_url() -> None:
    options = ScriptedOptions.parse(
        "scripted:?tokens_per_second=500&behavior=busy&markers=1&window=3"
    )

    assert options == ScriptedOptions(
        tokens_per_second=500, behavior="busy", markers=True, window=3
    )
    assert ScriptedOptions.parse("scripted:") == ScriptedOptions()


def test_with_an_interval_a_chunk_has_several_tokens_and_says_how_many() -> None:
    whole = answer()
    options = AT_ONCE.model_copy(update={"stream_interval": 10})

    chunks = asking.read(Scripted(options=options), asking.ask("How many stars?"))

    assert asking.text(chunks) == whole
    output_tokens = asking.bill(chunks).output_tokens
    counts = [chunk.output_tokens for chunk in chunks if chunk.text]
    assert counts == [*range(10, output_tokens, 10), output_tokens]
