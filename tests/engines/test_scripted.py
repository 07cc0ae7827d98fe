"""The scripted engine's own manners: pace, room, personas, prefixes. Time passes when a test says so."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors, profiles
from jobs import engine, images
from scripted import Scripted, ScriptedOptions
from scripted.script import PERSONAS, tokens
from tests.engines import asking

AT_ONCE = ScriptedOptions(tokens_per_second=0, prefill_tokens_per_second=0, markers=True)


class Watch:
    """Time that passes as soon as somebody waits for it."""

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
        watch = Watch()
        subject = Scripted(clock=watch)

        chunks = asking.read(subject, asking.ask(images=(asking.png(shade),)))

        tokens_said = asking.bill(chunks).output_tokens
        assert 150 <= tokens_said <= 330
        assert watch.seconds == pytest.approx(tokens_said / 50, abs=0.1)


def test_the_first_token_waits_for_the_part_of_the_prompt_that_is_not_cached() -> None:
    watch = Watch()
    subject = Scripted(options=ScriptedOptions(prefill_tokens_per_second=10), clock=watch)
    request = asking.ask()
    first_at = []
    for question in ("How many stars?", "How many?"):
        began = watch.seconds
        with subject.stream(asking.ask(question, salt=request.salt)) as stream:
            next(iter(stream))
        first_at.append(watch.seconds - began)

    assert first_at[0] > 5
    assert first_at[1] < 2


def test_a_prompt_is_known_to_others_from_its_first_token_on() -> None:
    subject = Scripted(options=ScriptedOptions(prefill_tokens_per_second=10), clock=Watch())
    request = asking.ask("How many stars?")

    with subject.stream(request) as leader:
        next(iter(leader))
        follower = asking.bill(asking.read(subject, asking.ask("How many?", salt=request.salt)))

    assert follower.cached_tokens > 0.8 * follower.input_tokens


def test_the_same_question_about_the_same_pictures_has_the_same_answer() -> None:
    assert answer() == answer()
    assert answer() != answer(images=(asking.png(9),))
    assert answer() != answer("Which colour is it?")


def test_at_a_temperature_the_seed_decides() -> None:
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
def test_tokens_make_up_their_text(text: str) -> None:
    assert "".join(tokens(text)) == text


def test_a_persona_without_an_answer_talks_until_its_output_is_full() -> None:
    chunks = asking.read(
        Scripted(options=AT_ONCE),
        asking.ask("[[persona:no_answer_at_length]]", max_output_tokens=700),
    )

    assert "boxed" not in asking.text(chunks)
    assert chunks[-2].finish_reason == "length"
    assert asking.bill(chunks).output_tokens == 700


def test_a_persona_with_an_open_box_never_closes_it() -> None:
    said = answer("[[persona:unterminated_box]]", max_output_tokens=700)

    assert "**Final Answer**\n\n\\boxed{\\text{" in said
    assert "}" not in said.rpartition("\\boxed{")[2]


def test_a_continuation_that_goes_another_way_comes_to_the_answer_at_once() -> None:
    said = answer(continuation="Something quite different.")

    assert said.startswith("\n\n**Final Answer**\n\n\\boxed{")


def test_markers_count_only_where_they_are_allowed() -> None:
    options = AT_ONCE.model_copy(update={"markers": False})

    assert "boxed" in answer("[[persona:busy]]", options=options)


def test_a_marker_that_names_no_persona_changes_nothing() -> None:
    assert "boxed" in answer("[[persona:nobody]]")


@pytest.mark.parametrize(
    ("persona", "fault"),
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
def test_a_mishap_is_the_same_fault_as_over_http(
    persona: str, fault: type[errors.EngineError]
) -> None:
    reader = asking.Reader(Scripted(options=AT_ONCE), asking.ask(f"[[persona:{persona}]]"))

    assert len(reader.join()) == PERSONAS[persona].after
    assert type(reader.error) is fault


def test_a_silent_engine_can_be_closed_and_aborted() -> None:
    subject = Scripted(options=AT_ONCE)
    closed, aborted = (asking.Reader(subject, asking.ask("[[persona:silent]]")) for _ in "ab")
    closed.wait_for_text()
    aborted.wait_for_text()

    closed.close()
    subject.abort(aborted.request.rid)

    assert asking.text(closed.join()) == asking.text(aborted.join())
    assert aborted.chunks[-2].finish_reason == "abort"
    assert closed.error is None
    assert subject.load() == engine.EngineLoad(running=0, waiting=0)


def test_slow_headers_delay_the_first_token() -> None:
    watch = Watch()
    options = ScriptedOptions(prefill_tokens_per_second=0, markers=True)

    asking.read(Scripted(options=options, clock=watch), asking.ask("[[persona:slow_headers]]"))

    assert watch.seconds > 5 + 3


def test_who_finds_no_room_waits_and_who_finds_no_queue_is_refused() -> None:
    subject = Scripted(options=AT_ONCE.model_copy(update={"window": 1, "max_queued": 1}))
    running = asking.Reader(subject, asking.ask("[[persona:silent]]"))
    running.wait_for_text()
    waiting = asking.Reader(subject, asking.ask())
    assert asking.eventually(lambda: subject.load() == engine.EngineLoad(running=1, waiting=1))

    with pytest.raises(errors.EngineBusy):
        asking.read(subject, asking.ask())

    subject.abort(running.request.rid)
    assert waiting.join()[-2].finish_reason == "stop"
    assert subject.load() == engine.EngineLoad(running=0, waiting=0)


def test_an_abort_in_the_queue_costs_nothing() -> None:
    subject = Scripted(options=AT_ONCE.model_copy(update={"window": 1}))
    running = asking.Reader(subject, asking.ask("[[persona:silent]]"))
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


def test_of_those_that_wait_the_longest_cached_prefix_goes_first() -> None:
    subject = Scripted(options=AT_ONCE.model_copy(update={"window": 1}))
    salt = asking.ask().salt
    asking.read(subject, asking.ask(salt=salt))
    running = asking.Reader(subject, asking.ask("[[persona:silent]]"))
    running.wait_for_text()
    cold = asking.Reader(subject, asking.ask("[[persona:silent]]"))
    assert asking.eventually(lambda: subject.load().waiting == 1)
    warm = asking.Reader(subject, asking.ask("[[persona:silent]]", salt=salt))
    assert asking.eventually(lambda: subject.load().waiting == 2)

    running.close()

    warm.wait_for_text()
    assert not cold.spoke.is_set()
    for reader in (warm, cold):
        reader.close()
        reader.join()
    running.join()


def test_aborts_match_by_prefix_but_only_of_a_stream_that_lives() -> None:
    subject = Scripted(options=AT_ONCE)
    one, two, three = (
        asking.Reader(subject, asking.ask("[[persona:silent]]", rid=rid))
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


def test_what_was_said_is_cached_for_a_continuation() -> None:
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
        ("persona=nobody", "nobody"),
        ("markers=perhaps", "markers"),
    ],
)
def test_an_option_that_cannot_be_meant_is_an_error(query: str, message: str) -> None:
    with pytest.raises(errors.SettingsError, match=message):
        Scripted(f"scripted:?{query}")


def test_options_come_from_the_url() -> None:
    options = ScriptedOptions.parse(
        "scripted:?tokens_per_second=500&persona=busy&markers=1&window=3"
    )

    assert options == ScriptedOptions(tokens_per_second=500, persona="busy", markers=True, window=3)
    assert ScriptedOptions.parse("scripted:") == ScriptedOptions()
