"""What only the real SGLang can show: that it looks at the picture, and never at another one."""

from __future__ import annotations

import dataclasses
import io
import json
import uuid

import pytest
from PIL import Image

from core import errors
from jobs import engine
from tests.engines import asking, subjects
from tests.real_engine import RealEngine
from worker.engines.sglang.client import SGLang
from worker.guards import forced_answer, prompts
from worker.guards.trace import FORCED_TOKENS

pytestmark = pytest.mark.engine

SAMPLES = [
    case
    for case in json.loads((RealEngine.samples / "samples.json").read_text())
    if (RealEngine.samples / case["file"]).exists()
]


@pytest.fixture
def sglang(real_engine: RealEngine, connect: subjects.Connect) -> SGLang:
    return connect(real_engine.url)


@pytest.mark.parametrize("case", SAMPLES, ids=[case["file"] for case in SAMPLES])
def test_a_sample_scene_is_answered_right(
    case: dict[str, str], sglang: SGLang, real_engine: RealEngine
) -> None:
    submitted = subjects.sample(real_engine, case["file"])

    answer = asking.text(asking.read(sglang, asking.ask(case["question"], images=(submitted,))))

    assert answer.endswith(f"\\boxed{{{case['truth']}}}")


def test_one_question_about_two_images_of_one_size_gets_two_answers(
    sglang: SGLang, real_engine: RealEngine
) -> None:
    # The canary for colliding image hashes (SGLang issues #2151, #2256): one salt, cache on, both ways.
    salt = asking.ask().salt
    images = [_scaled(real_engine, name) for name in ("s09.png", "s10.png")]

    answers = [
        asking.text(asking.read(sglang, asking.ask(images=(submitted,), salt=salt)))
        for submitted in (*images, *images)
    ]

    assert answers[0] != answers[1]
    assert answers[:2] == answers[2:]


def test_more_images_than_the_engine_accepts_are_rejected(
    sglang: SGLang, real_engine: RealEngine
) -> None:
    submitted = subjects.sample(real_engine, "s03.png")

    with pytest.raises(errors.EngineRejected, match="number of images"):
        asking.read(sglang, asking.ask(images=(submitted,) * 9))


def test_bytes_that_are_no_image_are_rejected(sglang: SGLang) -> None:
    nothing = engine.EngineImage(key="x", media_type="image/png", data=b"no picture")

    with pytest.raises(errors.EngineRejected, match="cannot read the image"):
        asking.read(sglang, asking.ask(images=(nothing,)))


def _scaled(real_engine: RealEngine, name: str) -> engine.EngineImage:
    buffer = io.BytesIO()
    with Image.open(real_engine.samples / name) as image:
        image.convert("RGB").resize((252, 252)).save(buffer, "PNG")
    return engine.EngineImage(key=name, media_type="image/png", data=buffer.getvalue())


def test_a_trace_that_is_cut_short_goes_on_to_an_answer_from_the_cache(
    sglang: SGLang, real_engine: RealEngine
) -> None:
    right = 0
    for case in SAMPLES:
        requested = asking.ask(
            case["question"],
            images=(subjects.sample(real_engine, case["file"]),),
            max_output_tokens=30,
        )
        begun = asking.text(asking.read(sglang, requested))
        again = dataclasses.replace(
            requested,
            rid=uuid.uuid4().hex,
            continuation=begun + prompts.forced_answer(requested.question),
            max_output_tokens=FORCED_TOKENS,
        )

        chunks = asking.read(sglang, again)

        said, bill = asking.text(chunks), asking.bill(chunks)
        assert forced_answer.box_closed(said), said
        assert bill.cached_tokens > 0.5 * bill.input_tokens
        right += said.startswith(case["truth"] + "}")
    # Cut in the middle it has not counted everything: the model card says how often it is right.
    assert right >= len(SAMPLES) // 2


def test_an_aborted_stream_continues_at_the_given_place(
    sglang: SGLang, real_engine: RealEngine
) -> None:
    requested = asking.ask(images=(subjects.sample(real_engine, "s07.png"),))
    begun = ""
    with sglang.stream(requested) as stream:
        for chunk in stream:
            begun += chunk.text
            if begun.count("\n") == 2:
                sglang.abort(requested.rid)
                break

    again = dataclasses.replace(requested, rid=uuid.uuid4().hex, continuation=begun)
    rest = asking.text(asking.read(sglang, again))

    assert "Let me" not in rest
    assert "\\boxed{" in rest
