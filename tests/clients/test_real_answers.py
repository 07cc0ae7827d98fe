"""The core of OpenAI's surface on the real SGLang: whole answers and streams, chats, JSON, and a batch."""

from __future__ import annotations

import base64
import datetime as dt
import json
import uuid
from typing import Any

import openai
import pydantic
import pytest

from core import profiles
from tests.e2e.stack import eventually
from tests.real_engine import RealEngine

pytestmark = [pytest.mark.e2e, pytest.mark.engine]

SAMPLES: list[dict[str, str]] = json.loads((RealEngine.samples / "samples.json").read_text())
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"count": {"type": "integer"}},
    "required": ["count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine(real_engine: RealEngine) -> RealEngine:
    """Return the real engine, in place of the scripted one."""
    return real_engine


def image_url(sample: dict[str, str]) -> str:
    data = (RealEngine.samples / sample["file"]).read_bytes()
    return "data:image/png;base64," + base64.b64encode(data).decode()


def asked(sample: dict[str, str]) -> list[Any]:
    """Return the input of a response."""
    content = [
        {"type": "input_image", "image_url": image_url(sample)},
        {"type": "input_text", "text": sample["question"]},
    ]
    return [{"role": "user", "content": content}]


def messages(sample: dict[str, str]) -> list[Any]:
    """Return the messages of a chat."""
    content = [
        {"type": "image_url", "image_url": {"url": image_url(sample)}},
        {"type": "text", "text": sample["question"]},
    ]
    return [{"role": "user", "content": content}]


def test_a_background_response_is_answered_and_its_stream_has_the_same_texts(
    client: openai.OpenAI,
) -> None:
    sample = SAMPLES[0]
    created = client.responses.create(model="tiny-qvq", input=asked(sample), background=True)
    assert eventually(
        lambda: client.responses.retrieve(created.id).status == "completed", seconds=150
    )

    response = client.responses.retrieve(created.id)
    events = list(client.responses.retrieve(created.id, stream=True))

    assert response.output_text == sample["truth"]
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    joined = "".join(
        event.delta for event in events if event.type == "response.reasoning_text.delta"
    )
    assert "**Final Answer**" in joined
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output == response.output
    reasoning = next(item for item in response.output if item.type == "reasoning")
    assert [part.text for part in reasoning.content or ()] == [joined]


def test_a_chat_is_answered_whole_and_in_chunks(client: openai.OpenAI) -> None:
    sample = SAMPLES[1]

    whole = client.chat.completions.create(model="tiny-qvq", messages=messages(sample))
    chunks = list(
        client.chat.completions.create(
            model="tiny-qvq",
            messages=messages(sample),
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert whole.choices[0].message.content == sample["truth"]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == sample["truth"]
    traces = ["".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)]
    traces.append(getattr(whole.choices[0].message, "reasoning_content", ""))
    assert all("**Final Answer**" in trace for trace in traces)
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_an_answer_in_json_is_held_by_the_grammar(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}

    done = client.chat.completions.create(
        model="tiny-qvq", messages=messages(SAMPLES[1]), response_format=form
    )

    value = json.loads(done.choices[0].message.content or "")
    assert list(value) == ["count"]
    assert isinstance(value["count"], int)


class Receipt(pydantic.BaseModel):
    """What the model reads, or makes up."""

    day: dt.date
    number: uuid.UUID


def test_a_date_and_a_uuid_are_held_by_the_grammar(client: openai.OpenAI) -> None:
    response = client.responses.parse(
        model="tiny-qvq", input=asked(SAMPLES[0]), text_format=Receipt
    )

    assert response.status == "completed", response.error
    assert isinstance(response.output_parsed, Receipt)


@pytest.mark.parametrize("budget", [None, 60])
def test_an_object_of_any_shape_is_held_by_the_grammar_and_ends_within_its_budget(
    client: openai.OpenAI, budget: int | None
) -> None:
    """The tiny model was never trained on JSON: it may end an object or use up its tokens, and nothing else."""
    form: Any = {"format": {"type": "json_object"}}

    done = client.responses.create(
        model="tiny-qvq", input=asked(SAMPLES[1]), text=form, max_output_tokens=budget
    )

    assert done.status in ("completed", "incomplete")
    items = [item.type for item in done.output]
    if done.status == "completed":
        assert isinstance(json.loads(done.output_text), dict)
        assert items == ["reasoning", "message"]
    else:
        assert done.incomplete_details is not None
        assert done.incomplete_details.reason == "max_output_tokens"
        assert items == ["reasoning"]
    assert done.usage is not None
    assert 0 < done.usage.output_tokens_details.reasoning_tokens < done.usage.output_tokens
    assert budget is None or done.usage.output_tokens <= budget


@pytest.mark.parametrize("with_image", [False, True])
def test_counted_input_tokens_are_an_upper_bound_of_those_of_the_answer(
    client: openai.OpenAI,
    with_image: bool,  # noqa: FBT001 - a parameter
) -> None:
    sample = SAMPLES[2]
    sent: Any = asked(sample) if with_image else sample["question"]

    counted = client.responses.input_tokens.count(model="tiny-qvq", input=sent).input_tokens
    done = client.responses.create(
        model="tiny-qvq",
        input=sent,
        # Guards may add generations, whose prompts count, too.
        extra_body={"options": {"guards": {"convergence": False, "verify": False}}},
    )

    assert done.usage is not None
    used = done.usage.input_tokens
    # The bounds of the template and of the question are all that exceeds.
    assert used <= counted < used + profiles.TINY.overhead_tokens + len(sample["question"])


def test_a_batch_has_the_answer_of_each_line(client: openai.OpenAI) -> None:
    lines = [
        {
            "custom_id": sample["file"],
            "method": "POST",
            "url": "/v1/responses",
            "body": {"model": "tiny-qvq", "input": asked(sample)},
        }
        for sample in SAMPLES
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    sent = client.files.create(file=("lines.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=sent.id, endpoint="/v1/responses", completion_window="24h"
    )
    assert eventually(lambda: client.batches.retrieve(batch.id).status == "completed", seconds=150)

    output = client.files.content(client.batches.retrieve(batch.id).output_file_id or "").text
    answers = {}
    for line in output.splitlines():
        entry = json.loads(line)
        texts = [part["text"] for part in entry["response"]["body"]["output"][-1]["content"]]
        answers[entry["custom_id"]] = "".join(texts)
    assert answers == {sample["file"]: sample["truth"] for sample in SAMPLES}
