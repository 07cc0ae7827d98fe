"""The dialect: what is sent, and what the events mean."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors, profiles
from jobs import engine, refusals
from tests.engines import asking
from worker.engines.sglang import wire

#: Events as SGLang 0.5.23 wrote them, by name.
RECORDED = {
    name: event.encode()
    for name, _, event in (
        line.partition(" ")
        for line in (Path(__file__).parent / "sglang_events.txt").read_text().splitlines()
    )
}


def sent(request: engine.GenerationRequest) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(wire.body(request, wire.EncodedImages()))
    return body


def test_a_request_has_system_then_images_then_question() -> None:
    request = asking.ask("What?", images=(asking.png(1), asking.png(2)))

    messages = sent(request)["messages"]

    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"] == profiles.QVQ_SYSTEM_PROMPT
    parts = messages[1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    head, _, data = parts[0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == request.images[0].data
    assert parts[2]["text"] == "What?"


def test_nothing_is_left_to_the_engines_defaults() -> None:
    sampling = profiles.Sampling(0.7, 0.9, top_k=40, min_p=0.1, repetition_penalty=1.05)
    request = asking.ask(sampling=sampling, max_output_tokens=77, seed=3)

    body = sent(request)

    assert {
        "model": "tiny-qvq",
        "rid": request.rid,
        "cache_salt": request.salt,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_completion_tokens": 77,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.05,
        "skip_special_tokens": True,
        "seed": 3,
    } == {name: value for name, value in body.items() if name != "messages"}


def test_priority_and_several_samples_are_never_asked_for() -> None:
    assert not {"priority", "n", "stop", "continue_final_message", "seed"} & set(sent(asking.ask()))


def test_a_continuation_is_the_assistants_and_says_so() -> None:
    body = sent(asking.ask(continuation="So far: \\boxed{"))

    assert body["messages"][-1] == {"role": "assistant", "content": "So far: \\boxed{"}
    assert body["continue_final_message"] is True


def test_the_instruction_stands_behind_the_question() -> None:
    content = sent(asking.ask("How many?", instruction="\n\nA number."))["messages"][1]["content"]

    assert content[-1] == {"type": "text", "text": "How many?\n\nA number."}


def test_a_schema_is_what_the_grammar_is_made_of() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "null"}}}

    form = sent(asking.ask(schema=schema))["response_format"]

    assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", schema)
    assert list(form["json_schema"]["schema"]["properties"]) == ["b", "a"]
    assert form["json_schema"]["strict"] is True
    assert "response_format" not in sent(asking.ask())


def test_an_image_is_encoded_once_while_there_is_room() -> None:
    images = wire.EncodedImages(budget=10_000)
    first = asking.png(1)

    images.part(first)

    # Bytes never change under a key: other ones show which were used.
    other = images.part(replace(first, data=b"other"))
    assert orjson.dumps(other) == orjson.dumps(images.part(first))


@pytest.mark.parametrize("size", [100, 20_000])
def test_an_image_is_sent_whole_with_and_without_a_cached_encoding(size: int) -> None:
    images = wire.EncodedImages(budget=10_000)

    for key in "abababa" * 20:
        image = engine.EngineImage(key=key, media_type="image/png", data=key.encode() * size)
        body = json.loads(wire.body(asking.ask(images=(image,)), images))
        url = body["messages"][1]["content"][0]["image_url"]["url"]
        assert base64.b64decode(url.partition(",")[2]) == image.data


def test_events_mean_what_sglang_means() -> None:
    assert wire.chunk(RECORDED["OPENING"]) == engine.Chunk()
    assert wire.chunk(RECORDED["WORD"]) == engine.Chunk(text="Let")
    assert wire.chunk(RECORDED["FINISH"]) == engine.Chunk(finish_reason="stop")
    assert wire.chunk(RECORDED["USAGE"]) == engine.Chunk(usage=engine.TokenUsage(54, 7, 24, 78))
    assert wire.chunk(RECORDED["NO_USAGE"]) == engine.Chunk(usage=engine.TokenUsage())


def test_text_and_an_end_can_come_together() -> None:
    event = b'{"choices":[{"delta":{"content":"}"},"finish_reason":"length"}],"usage":null}'

    assert wire.chunk(event) == engine.Chunk(text="}", finish_reason="length")


def test_an_error_in_band_is_raised_with_its_code() -> None:
    with pytest.raises(wire.InBandError) as raised:
        wire.chunk(RECORDED["FULL"])

    assert (raised.value.code, raised.value.text) == (503, "The request queue is full.")


@pytest.mark.parametrize(
    "event",
    [b"", b"{", b"7", b"[]", b'{"choices":7}', b'{"choices":[{}]}', b'{"error":"x"}', b"\xff"],
)
def test_an_event_of_another_shape_is_a_fault(event: bytes) -> None:
    with pytest.raises(errors.EngineFault):
        wire.chunk(event)


@given(st.data(), st.lists(st.text(max_size=20), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_events_are_the_same_however_the_bytes_are_cut(
    data: st.DataObject, texts: list[str], end: str
) -> None:
    events = [json.dumps(text).encode() for text in texts]
    stream = b"".join(
        b": ping%b" % end.encode() + b"data: " + event + end.encode() * 2 for event in events
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [
        stream[start:stop]
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        if start < stop
    ]
    read = iter([*pieces, b""])

    assert list(wire.payloads(lambda: next(read))) == events


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"object":"error","message":"flat"}', "flat"),
        (b'{"error":{"message":"nested"}}', "nested"),
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b"<html>", ""),
        (b"[1]", ""),
        (b"", ""),
    ],
)
def test_the_message_is_found_in_each_shape_of_an_errors_body(body: bytes, message: str) -> None:
    assert wire.message(body) == message


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "Grammar preprocessing timed out: req.grammar_key=('json', '{\"title\": \"queue is full\"}')",
            errors.SchemaTimedOut,
        ),
        ("Failed to compile json grammar: the property `queue is full` …", errors.EngineRejected),
    ],
)
def test_what_an_engine_says_of_a_grammar_is_not_read_for_words_of_the_schema(
    said: str, kind: type[errors.EngineError]
) -> None:
    assert type(refusals.understand(400, said).error) is kind


def test_the_count_of_a_chunk_of_text_is_no_bill() -> None:
    counted = {
        "choices": [{"index": 0, "delta": {"content": "ten lamps"}, "finish_reason": None}],
        "usage": {"prompt_tokens": 54, "completion_tokens": 10, "prompt_tokens_details": None},
    }

    chunk = wire.chunk(orjson.dumps(counted))

    assert chunk == engine.Chunk("ten lamps", output_tokens=10)
