"""What every engine promises (:mod:`jobs.engine`), held to each of them."""

from __future__ import annotations

import threading

import pytest

from core import errors, profiles
from jobs.answers import values
from tests.engines import asking
from tests.engines.subjects import Subject


def test_a_stream_ends_with_its_reason_and_then_its_bill(subject: Subject) -> None:
    chunks = asking.read(subject.engine, subject.ask())

    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.output_tokens > 20
    assert usage.input_tokens > usage.image_tokens > 0


def test_the_pieces_of_text_make_up_the_same_answer_each_time(subject: Subject) -> None:
    first = asking.read(subject.engine, subject.ask())
    second = asking.read(subject.engine, subject.ask())

    assert len([chunk for chunk in first if chunk.text]) > 20
    assert asking.text(first) == asking.text(second)
    assert "**Final Answer**\n\n\\boxed{" in asking.text(first)


def test_each_chunk_of_text_says_how_many_tokens_there_are_so_far(subject: Subject) -> None:
    chunks = asking.read(subject.engine, subject.ask())

    counts = [chunk.output_tokens for chunk in chunks if chunk.text]
    assert None not in counts
    assert counts == sorted(set(counts), key=lambda count: count or 0)
    assert (
        asking.bill(chunks).output_tokens - 1
        <= (counts[-1] or 0)
        <= asking.bill(chunks).output_tokens
    )


def test_nothing_is_sent_before_the_stream_is_read(subject: Subject) -> None:
    with subject.engine.stream(subject.ask_endlessly()):
        assert subject.engine.load().running == 0


def test_an_abort_from_another_thread_ends_the_stream_and_frees_the_engine(
    subject: Subject,
) -> None:
    reader = asking.Reader(subject.engine, subject.ask_endlessly())
    reader.wait_for_text()

    subject.engine.abort(reader.request.rid)

    chunks = reader.join()
    assert reader.error is None
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["abort"]
    assert 0 < asking.bill(chunks).output_tokens < subject.endless.max_output_tokens
    assert asking.eventually(lambda: subject.engine.load().running == 0)


def test_an_abort_ends_only_its_own_stream(subject: Subject) -> None:
    stored = asking.Reader(subject.engine, subject.ask())
    gone = asking.Reader(subject.engine, subject.ask_endlessly())
    gone.wait_for_text()

    subject.engine.abort(gone.request.rid)

    gone.join()
    finishes = [chunk.finish_reason for chunk in stored.join() if chunk.finish_reason]
    assert finishes == ["stop"]


def test_an_abort_of_an_unknown_stream_is_silent(subject: Subject) -> None:
    subject.engine.abort("0" * 32)

    assert asking.text(asking.read(subject.engine, subject.ask()))


def test_closing_from_another_thread_frees_the_reader_and_the_engine(subject: Subject) -> None:
    reader = asking.Reader(subject.engine, subject.ask_endlessly())
    reader.wait_for_text()

    reader.close()

    chunks = reader.join()
    assert reader.error is None
    assert not any(chunk.finish_reason for chunk in chunks)
    assert asking.eventually(lambda: subject.engine.load().running == 0)


def test_leaving_a_stream_half_read_frees_the_engine(subject: Subject) -> None:
    with subject.engine.stream(subject.ask_endlessly()) as stream:
        assert next(iter(stream)) is not None

    assert asking.eventually(lambda: subject.engine.load().running == 0)


def test_a_second_question_about_an_image_reuses_its_prefix(subject: Subject) -> None:
    salt = asking.ask().salt
    asking.read(subject.engine, subject.ask(salt=salt))

    usage = asking.bill(
        asking.read(subject.engine, subject.ask("Which colour is the star?", salt=salt))
    )

    assert usage.cached_tokens > usage.image_tokens
    assert usage.cached_tokens < usage.input_tokens


def test_nothing_is_shared_between_two_salts(subject: Subject) -> None:
    asking.read(subject.engine, subject.ask())

    assert asking.bill(asking.read(subject.engine, subject.ask())).cached_tokens == 0


def test_a_continuation_goes_on_from_the_text_that_is_given(subject: Subject) -> None:
    whole = asking.text(asking.read(subject.engine, subject.ask()))
    # Between two words, where text and tokens are cut alike.
    given = whole[: whole.index(" ", len(whole) // 2)]

    rest = asking.text(asking.read(subject.engine, subject.ask(continuation=given)))

    assert given + rest == whole


def test_an_open_box_is_filled_in(subject: Subject) -> None:
    chunks = asking.read(subject.engine, subject.ask(continuation="**Final Answer**\n\n\\boxed{"))

    assert asking.text(chunks).index("}") < 20


def test_the_output_stops_at_its_limit(subject: Subject) -> None:
    chunks = asking.read(subject.engine, subject.ask(max_output_tokens=5))

    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]
    assert asking.bill(chunks).output_tokens == 5


@pytest.mark.parametrize(
    ("question", "max_output_tokens"), [("What is it? " * 2000, 64), ("What is it?", 100_000)]
)
def test_what_exceeds_the_context_is_rejected(
    subject: Subject, question: str, max_output_tokens: int
) -> None:
    with pytest.raises(errors.EngineRejected, match="context"):
        asking.read(subject.engine, subject.ask(question, max_output_tokens=max_output_tokens))


def test_sixteen_streams_run_at_once_and_each_gets_its_own_answer(subject: Subject) -> None:
    questions = ["How many shapes are in the picture?", "Which colour is the star?"] * 8
    alone = {
        question: asking.text(asking.read(subject.engine, subject.ask(question)))
        for question in set(questions)
    }

    readers = [asking.Reader(subject.engine, subject.ask(question)) for question in questions]

    answers = [asking.text(reader.join()) for reader in readers]
    assert answers == [alone[question] for question in questions]
    assert asking.eventually(lambda: subject.engine.load().running == 0)


def test_an_engine_tells_what_it_is(subject: Subject) -> None:
    facts = subject.engine.facts()

    assert facts.model == "tiny-qvq"
    assert facts.version
    assert facts.window >= 16
    assert facts.context_tokens == 2048


def test_a_stream_that_was_closed_before_it_was_read_is_empty(subject: Subject) -> None:
    with subject.engine.stream(subject.ask()) as stream:
        closer = threading.Thread(target=stream.close)
        closer.start()
        closer.join()

        assert list(stream) == []


@pytest.mark.parametrize("given", ["I see. ", None])
def test_under_a_grammar_all_that_is_said_is_of_the_schema(
    subject: Subject, given: str | None
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 3, "maximum": 9},
            "colours": {"type": "array", "items": {"enum": ["red", 'gr"een']}, "maxItems": 3},
            "note": {"anyOf": [{"type": "string", "maxLength": 8}, {"type": "null"}]},
            "share": {"type": "number", "minimum": 0.25, "maximum": 0.5},
            "part": {"$ref": "#/$defs/part"},
        },
        "required": ["count", "share", "part"],
        "$defs": {
            "part": {
                "type": "object",
                "properties": {"sure": {"type": "boolean"}, "kind": {"const": "shape"}},
                "required": ["kind"],
            }
        },
    }
    sampling = profiles.Sampling(temperature=1.5, top_p=1.0)
    requested = subject.ask(
        schema=schema, continuation=given, sampling=sampling, max_output_tokens=200
    )

    chunks = asking.read(subject.engine, requested)

    assert chunks[-2].finish_reason == "stop"
    assert values.structured(asking.text(chunks), schema) is not None, asking.text(chunks)


def test_a_schema_that_no_grammar_can_be_made_of_is_rejected(subject: Subject) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number", "multipleOf": 2}}}

    with pytest.raises(errors.EngineRejected, match="JSON Schema of the answer"):
        asking.read(subject.engine, subject.ask(schema=schema))


def test_a_text_without_an_image_is_answered(subject: Subject) -> None:
    chunks = asking.read(subject.engine, asking.ask("What color is the sky?", images=()))

    assert asking.text(chunks).strip()
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.image_tokens, usage.input_tokens > 0) == (0, True)
