r"""What the scripted engine generates: its behaviors, and the text of an answer.

The same question about the same images has the same answer at temperature 0; above it the seed (or the
stream's id) counts as well. The text has the form of QVQ's answers: reasoning in the first person, then
``**Final Answer**`` and ``\boxed{…}``. If the request has a JSON Schema, the text is a value of that schema.
"""

import hashlib
import itertools
import math
import random
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from jobs import engine
from jobs.answers import json_schema

#: How a stream can fail. The first three replace the answer; the others occur after ``failure_after`` tokens.
Failure = Literal[
    "busy", "refused", "starting", "failed", "evicted", "reset", "cut_off", "given_up", "silent"
]

_HEADING = "\n\n**Final Answer**\n\n"
#: At most six letters, a sign, or white space: about the length of a model's tokens.
_TOKEN = re.compile(r"\s?\w{1,6}|\s?[^\w\s]|\s")
_MARKER = re.compile(r"\[\[behavior:(\w+)\]\]")


@dataclass(frozen=True)
class Behavior:
    """How an answer proceeds.

    Attributes:
        reasoning: the text before the ending; by default sentences about the image.
        ending: the text after the reasoning; ``{answer}`` is replaced.
        endless: whether the text continues after the ending until the output limit.
        loop: sentences to continue with, chosen at random; by default further sentences about the image.
        verification: whether a verification confirms the answer, replaces a wrong answer by the right one, or
            reaches no answer.
        failure: how the stream fails, and ``failure_after`` how many tokens.
        ignores_schema: whether the text ignores the request's JSON Schema.
        endless_json: whether an object of any shape continues until the output limit.
        delay_seconds: extra time before the first token.
    """

    reasoning: str = ""
    ending: str = _HEADING + "\\boxed{{{answer}}}"
    endless: bool = False
    loop: tuple[str, ...] = ()
    verification: Literal["confirmed", "corrected", "doubted"] = "confirmed"
    failure: Failure | None = None
    failure_after: int = 0
    ignores_schema: bool = False
    endless_json: bool = False
    delay_seconds: float = 0.0


BEHAVIORS: dict[str, Behavior] = {
    "clean": Behavior(),
    "no_answer_at_length": Behavior(ending="", endless=True),
    "remark_at_length": Behavior(
        ending=" The answer is wrong for the first image, I think.", endless=True
    ),
    "no_marker": Behavior(ending=""),
    "refusal": Behavior(reasoning="I'm sorry, but I can't assist with that.", ending=""),
    "unterminated_box": Behavior(ending=_HEADING + "\\boxed{{\\text{{", endless=True),
    "verbatim_loop": Behavior(
        ending="", endless=True, loop=(" So I count them again, one by one, from the left.",)
    ),
    "paraphrase_loop": Behavior(
        ending="",
        endless=True,
        loop=(
            " Wait, let me re-check the left edge.",
            " Hmm, let me recount from the left.",
            " Alternatively, there could be one more.",
            " Wait, there could be one less.",
            " Hmm, let me re-examine the middle.",
        ),
    ),
    "chinese_drift": Behavior(
        reasoning="Let me look at the picture. 嗯，我来数一数图中的圆。左边有三个红色的圆，右边还有两个蓝色的圆，"  # noqa: RUF001 - Chinese as written
        "所以一共有五个圆，没有遗漏任何一个。",  # noqa: RUF001 - same
        ending="\n\n**最终答案**\n\n\\boxed{{一共五个}}",
    ),
    "mistaken": Behavior(verification="corrected"),
    "unsure": Behavior(verification="doubted"),
    "deaf": Behavior(ignores_schema=True),
    "endless_json": Behavior(endless_json=True),
    "busy": Behavior(failure="busy"),
    "refuse": Behavior(failure="refused"),
    "starting": Behavior(failure="starting"),
    "fault": Behavior(failure="failed", failure_after=20),
    "evicted": Behavior(failure="evicted", failure_after=20),
    "reset": Behavior(failure="reset", failure_after=20),
    "cut_off": Behavior(failure="cut_off", failure_after=20),
    "bare_abort": Behavior(failure="given_up", failure_after=20),
    "early_abort": Behavior(failure="given_up"),
    "silent": Behavior(failure="silent", failure_after=20),
    "mute": Behavior(failure="silent"),
    "slow_headers": Behavior(delay_seconds=5.0),
}

_OPENINGS = (
    "Let me take a long look at the picture.",
    "So I have a picture here and a question about it.",
    "Alright, let me go through this picture step by step.",
)
_SENTENCES = (
    "Near the {place} I can see {count} {color} {shape}s.",
    "There is a {color} {shape} close to the {place}.",
    "The {place} seems to be empty apart from a {color} {shape}.",
    "Wait, let me check the {place} again, I may have missed a {shape}.",
    "Yes, the {color} {shape} is there, so my first count stands.",
    "Compared with the {place}, this part of the picture is darker.",
    "Hmm, the {shape} at the {place} could also be {color}, but I think it is not.",
    "That leaves the {place}, where I count {count} more.",
)
_WORDS = {
    "place": ("top left", "top right", "middle", "bottom left", "bottom right", "left edge"),
    "count": ("one", "two", "three", "four", "five"),
    "color": ("red", "green", "blue", "yellow", "purple", "black"),
    "shape": ("circle", "square", "triangle", "star"),
}
_ANSWERS = (
    (re.compile(r"\bhow many|\bcount\b", re.IGNORECASE), tuple(str(n) for n in range(9))),
    (re.compile(r"\bcolou?r\b", re.IGNORECASE), _WORDS["color"]),
    (re.compile(r"\bshape\b", re.IGNORECASE), _WORDS["shape"]),
    (re.compile(r"^\s*(is|are|does|do|can|has)\b", re.IGNORECASE), ("yes", "no")),
)
_REASONING_TOKENS = (150, 300)


def tokens(text: str) -> list[str]:
    """Split ``text`` into tokens; joined, they are ``text`` again."""
    return _TOKEN.findall(text)


def select(question: str, default: str, *, markers: bool) -> Behavior:
    """Return the behavior that ``[[behavior:name]]`` in the question names if ``markers`` allows it, or the default."""
    marker = _MARKER.search(question) if markers else None
    return BEHAVIORS.get(marker.group(1) if marker else default, BEHAVIORS[default])


def generate(request: engine.GenerationRequest, behavior: Behavior) -> Iterator[str]:
    """Yield the tokens of the answer, which never end if ``behavior`` is endless."""
    rng = _rng(request)
    if request.schema == json_schema.ANY_OBJECT and behavior.endless_json:
        yield from itertools.chain(tokens('{"seen": ['), itertools.cycle(tokens('{"a": ["x"]}, ')))
    if request.schema is not None and not behavior.ignores_schema:
        yield from tokens(orjson.dumps(sample_value(request.schema, rng)).decode())
        return
    choices = _choices(request.requested)
    answer = rng.choice(choices)
    if request.turn is not None:
        yield from _verification(request.turn, behavior, answer)
        return
    if behavior.verification == "corrected":
        answer = choices[(choices.index(answer) + 1) % len(choices)]
    ending = behavior.ending.format(answer=answer)
    if request.continuation is None:
        yield from _whole(rng, behavior, ending)
    elif _in_a_box(request.continuation):
        yield from tokens(f"{answer}}}")
    else:
        yield from _rest(_whole(rng, behavior, ending), request.continuation, ending)


def _rng(request: engine.GenerationRequest) -> random.Random:
    """Return a generator whose seed depends on nothing but the request."""
    parts = [request.system, request.requested, *(image.key for image in request.images)]
    if request.sampling.temperature > 0 and request.sampling.top_k != 1:
        parts.append(request.rid if request.seed is None else str(request.seed))
    seed = hashlib.sha256("\0".join(parts).encode()).digest()
    return random.Random(seed)  # noqa: S311 - it picks sentences, not secrets


def _choices(question: str) -> tuple[str, ...]:
    """Return the answers that fit ``question``."""
    for pattern, choices in _ANSWERS:
        if pattern.search(question):
            return choices
    return _WORDS["shape"]


def _verification(turn: engine.FollowUp, behavior: Behavior, right: str) -> Iterator[str]:
    """Yield a verification of the answer in ``turn``."""
    yield from tokens("Let me look at the picture again, from the left to the right.")
    if behavior.verification == "doubted":
        yield from tokens(" It could be so, or it could be different.")
        return
    first = turn.said.rpartition("\\boxed{")[2].partition("}")[0]
    answer = first if behavior.verification == "confirmed" else right
    yield from tokens(f"{_HEADING}\\boxed{{{answer}}}")


def _whole(rng: random.Random, behavior: Behavior, ending: str) -> Iterator[str]:
    """Yield the reasoning and the ending: 150 to 300 tokens, unless the reasoning is fixed."""
    last = tokens(ending)
    if behavior.reasoning:
        yield from tokens(behavior.reasoning)
        yield from last
        return
    left = rng.randint(*_REASONING_TOKENS) - len(last)
    for sentence in _sentences(rng):
        of_sentence = tokens(sentence)
        yield from of_sentence
        left -= len(of_sentence)
        if left <= 0:
            break
    yield from last
    if behavior.endless:
        more = _loop(rng, behavior.loop) if behavior.loop else _sentences(rng)
        yield from itertools.chain.from_iterable(map(tokens, more))


def _loop(rng: random.Random, sentences: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield rng.choice(sentences)


def _sentences(rng: random.Random) -> Iterator[str]:
    yield rng.choice(_OPENINGS)
    while True:
        words = {name: rng.choice(choices) for name, choices in _WORDS.items()}
        yield rng.choice((" ", " ", "\n\n")) + rng.choice(_SENTENCES).format(**words)


def _in_a_box(text: str) -> bool:
    r"""Whether ``text`` ends inside an unterminated ``\boxed{``."""
    start = text.rfind("\\boxed{")
    return start >= 0 and text.count("{", start) > text.count("}", start)


def _rest(whole: Iterator[str], continuation: str, ending: str) -> Iterator[str]:
    """Yield the part of ``whole`` after ``continuation``, or the ending alone if the two differ."""
    start = ""
    for token in whole:
        start += token
        if len(start) >= len(continuation) or not continuation.startswith(start):
            break
    if start.startswith(continuation):
        yield from tokens(start[len(continuation) :])
        yield from whole
    else:
        yield from tokens(ending)


def sample_value(schema: Mapping[str, Any], rng: random.Random) -> Any:  # noqa: ANN401 - JSON
    """Return a short random value of a schema without :func:`jobs.answers.json_schema.faults`, or any object."""
    if schema == json_schema.ANY_OBJECT:
        return {"count": rng.randint(0, 9), "notes": {"sure": rng.choice((False, True))}}
    return _sample(schema, schema.get("$defs", {}), rng)


def _sample(schema: Mapping[str, Any], defs: Mapping[str, Any], rng: random.Random) -> Any:  # noqa: ANN401 - JSON
    """Return a value of ``schema``, a part of the JSON Schema with the definitions ``defs``."""
    if "$ref" in schema:
        return _sample(defs[schema["$ref"].rpartition("/")[2]], defs, rng)
    if "anyOf" in schema:
        return _sample(rng.choice(schema["anyOf"]), defs, rng)
    if "type" not in schema or "enum" in schema or "const" in schema:
        return rng.choice(schema.get("enum") or [schema["const"]])
    kind = schema["type"] if isinstance(schema["type"], str) else rng.choice(schema["type"])
    value: Any = None
    match kind:
        case "object":
            value = {name: _sample(part, defs, rng) for name, part in schema["properties"].items()}
        case "array":
            value = [_sample(schema["items"], defs, rng) for _ in range(schema.get("minItems", 0))]
        case "string":
            value = (
                # It need not match a pattern.
                _FORMATTED[schema["format"]](rng)
                if "format" in schema
                else "x" * schema.get("minLength", 0)
            )
        case "integer":
            value = _integer(schema, rng)
        case "number":
            value = _number(schema)
        case "boolean":
            value = rng.choice((False, True))
    return value


def _day(rng: random.Random) -> str:
    return f"20{rng.randint(10, 30)}-0{rng.randint(1, 9)}-{rng.randint(10, 28)}"


def _clock(rng: random.Random) -> str:
    return f"{rng.randint(10, 23)}:{rng.randint(10, 59)}:00Z"


#: Random strings of each format.
_FORMATTED: Mapping[str, Callable[[random.Random], str]] = {
    "date-time": lambda rng: f"{_day(rng)}T{_clock(rng)}",
    "date": _day,
    "time": _clock,
    "duration": lambda rng: f"P{rng.randint(1, 9)}DT{rng.randint(1, 23)}H",
    "email": lambda rng: f"name{rng.randint(0, 9)}@mail.example.com",
    "hostname": lambda rng: f"host{rng.randint(0, 9)}.example.com",
    "ipv4": lambda rng: f"192.0.2.{rng.randint(0, 255)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 9)}",
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
}


def _integer(schema: Mapping[str, Any], rng: random.Random) -> int:
    least = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + 1)
    most = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - 1)
    if least == -math.inf:
        least = most - 9 if most < 0 else 0
    return rng.randint(math.ceil(least), math.floor(min(most, least + 9)))


def _number(schema: Mapping[str, Any]) -> float:
    least: float = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    most: float = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    if least == -math.inf:
        return 0.5 if most == math.inf else most - 1
    if most == math.inf:
        return least + 1
    return least if least == most else (least + most) / 2
