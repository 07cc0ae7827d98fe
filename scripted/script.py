r"""What the scripted engine says: personas as data, and answers worked out from what was asked.

Equal questions about equal pictures get equal answers, unless the temperature is above 0: then the seed
(or the stream's id) counts too. The text has QVQ's form: a long look in the first person, then
``**Final Answer**`` and ``\boxed{…}``. Under a grammar it is JSON of the schema, and nothing else.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import orjson

from scripted import instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs import engine

#: What can go wrong. The first three are answers to the request, the others come ``after`` some tokens.
Mishap = Literal[
    "busy", "refused", "starting", "failed", "evicted", "reset", "cut_off", "given_up", "silent"
]

_HEADING = "\n\n**Final Answer**\n\n"
#: Pieces of at most six letters, a sign, or white space: about as many as a model's tokens.
_TOKEN = re.compile(r"\s?\w{1,6}|\s?[^\w\s]|\s")
_MARKER = re.compile(r"\[\[persona:(\w+)\]\]")


@dataclass(frozen=True)
class Behavior:
    """How an answer goes.

    Attributes:
        ending: what follows the look; ``{answer}`` is filled in.
        endless: whether it then talks on until the output is full.
        refrain: what it says over and over instead, then, picked from at random when there are several.
        look: what it says instead of a look.
        second: what a second look at its answer comes to: the same, the right answer (the first one is wrong then),
            or none.
        mishap: what goes wrong, and ``after`` how many tokens.
        deaf: whether it takes no notice of a grammar.
        head_seconds: extra time before the first token.
    """

    ending: str = _HEADING + "\\boxed{{{answer}}}"
    endless: bool = False
    refrain: tuple[str, ...] = ()
    look: str = ""
    second: Literal["confirmed", "corrected", "doubted"] = "confirmed"
    mishap: Mishap | None = None
    after: int = 0
    deaf: bool = False
    head_seconds: float = 0.0


PERSONAS: dict[str, Behavior] = {
    "clean": Behavior(),
    "no_answer_at_length": Behavior(ending="", endless=True),
    "unterminated_box": Behavior(ending=_HEADING + "\\boxed{{\\text{{", endless=True),
    "verbatim_loop": Behavior(
        ending="", endless=True, refrain=(" So I count them again, one by one, from the left.",)
    ),
    "paraphrase_loop": Behavior(
        ending="",
        endless=True,
        refrain=(
            " Wait, let me re-check the left edge.",
            " Hmm, let me recount from the left.",
            " Alternatively, there could be one more.",
            " Wait, there could be one less.",
            " Hmm, let me re-examine the middle.",
        ),
    ),
    "chinese_drift": Behavior(
        look="Let me look at the picture. 嗯，我来数一数图中的圆。左边有三个红色的圆，右边还有两个蓝色的圆，"  # noqa: RUF001 - Chinese as written
        "所以一共有五个圆，没有遗漏任何一个。",  # noqa: RUF001 - same
        ending="\n\n**最终答案**\n\n\\boxed{{一共五个}}",
    ),
    "mistaken": Behavior(second="corrected"),
    "unsure": Behavior(second="doubted"),
    "deaf": Behavior(deaf=True),
    "busy": Behavior(mishap="busy"),
    "refuse": Behavior(mishap="refused"),
    "starting": Behavior(mishap="starting"),
    "fault": Behavior(mishap="failed", after=20),
    "evicted": Behavior(mishap="evicted", after=20),
    "reset": Behavior(mishap="reset", after=20),
    "cut_off": Behavior(mishap="cut_off", after=20),
    "bare_abort": Behavior(mishap="given_up", after=20),
    "early_abort": Behavior(mishap="given_up"),
    "silent": Behavior(mishap="silent", after=20),
    "mute": Behavior(mishap="silent"),
    "slow_headers": Behavior(head_seconds=5.0),
}

_OPENINGS = (
    "Let me take a long look at the picture.",
    "So I have a picture here and a question about it.",
    "Alright, let me go through this picture step by step.",
)
_SENTENCES = (
    "Near the {place} I can see {count} {colour} {shape}s.",
    "There is a {colour} {shape} close to the {place}.",
    "The {place} seems to be empty apart from a {colour} {shape}.",
    "Wait, let me check the {place} again, I may have missed a {shape}.",
    "Yes, the {colour} {shape} is there, so my first count stands.",
    "Compared with the {place}, this part of the picture is darker.",
    "Hmm, the {shape} at the {place} could also be {colour}, but I think it is not.",
    "That leaves the {place}, where I count {count} more.",
)
_WORDS = {
    "place": ("top left", "top right", "middle", "bottom left", "bottom right", "left edge"),
    "count": ("one", "two", "three", "four", "five"),
    "colour": ("red", "green", "blue", "yellow", "purple", "black"),
    "shape": ("circle", "square", "triangle", "star"),
}
_ANSWERS = (
    (re.compile(r"\bhow many|\bcount\b", re.IGNORECASE), tuple(str(n) for n in range(9))),
    (re.compile(r"\bcolou?r\b", re.IGNORECASE), _WORDS["colour"]),
    (re.compile(r"\bshape\b", re.IGNORECASE), _WORDS["shape"]),
    (re.compile(r"^\s*(is|are|does|do|can|has)\b", re.IGNORECASE), ("yes", "no")),
)
_LOOK_TOKENS = (150, 300)


def tokens(text: str) -> list[str]:
    """Cut ``text`` into tokens; joined they are ``text`` again."""
    return _TOKEN.findall(text)


def persona(question: str, default: str, *, markers: bool) -> Behavior:
    """Return the persona that a ``[[persona:name]]`` in the question names, if that is allowed, or the default."""
    found = _MARKER.search(question) if markers else None
    return PERSONAS.get(found.group(1) if found else default, PERSONAS[default])


def speak(request: engine.GenerationRequest, how: Behavior) -> Iterator[str]:
    """Yield the answer's tokens, without end for an endless persona; a continuation is gone on from."""
    dice = _dice(request)
    if request.schema is not None and not how.deaf:
        yield from tokens(orjson.dumps(instances.make(request.schema, dice)).decode())
        return
    answer = _answer(request.requested, dice)
    if request.turn is not None:
        yield from _again(request.turn, how, answer)
        return
    if how.second == "corrected":
        answer = _another(request.requested, answer)
    ending = how.ending.format(answer=answer)
    if request.continuation is None:
        yield from _whole(dice, how, ending)
    elif _in_a_box(request.continuation):
        yield from tokens(f"{answer}}}")
    else:
        yield from _rest(_whole(dice, how, ending), request.continuation, ending)


def _dice(request: engine.GenerationRequest) -> random.Random:
    """Return dice that fall the same way for the same request."""
    parts = [request.system, request.requested, *(image.key for image in request.images)]
    if request.sampling.temperature > 0 and request.sampling.top_k != 1:
        parts.append(request.rid if request.seed is None else str(request.seed))
    seed = hashlib.sha256("\0".join(parts).encode()).digest()
    return random.Random(seed)  # noqa: S311 - it picks sentences, not secrets


def _answer(question: str, dice: random.Random) -> str:
    return dice.choice(_choices(question))


def _another(question: str, answer: str) -> str:
    choices = _choices(question)
    return choices[(choices.index(answer) + 1) % len(choices)]


def _choices(question: str) -> tuple[str, ...]:
    """Return the answers that fit ``question``."""
    for pattern, choices in _ANSWERS:
        if pattern.search(question):
            return choices
    return _WORDS["shape"]


def _again(turn: engine.FollowUp, how: Behavior, right: str) -> Iterator[str]:
    """Yield a second look at the answer in ``turn``."""
    yield from tokens("Let me look at the picture again, from the left to the right.")
    if how.second == "doubted":
        yield from tokens(" It could be so, or it could be different.")
        return
    first = turn.said.rpartition("\\boxed{")[2].partition("}")[0]
    answer = first if how.second == "confirmed" else right
    yield from tokens(f"{_HEADING}\\boxed{{{answer}}}")


def _whole(dice: random.Random, how: Behavior, ending: str) -> Iterator[str]:
    """Yield a look of some 150 to 300 tokens with its ending."""
    closing = tokens(ending)
    if how.look:
        yield from tokens(how.look)
        yield from closing
        return
    left = dice.randint(*_LOOK_TOKENS) - len(closing)
    for sentence in _sentences(dice):
        said = tokens(sentence)
        yield from said
        left -= len(said)
        if left <= 0:
            break
    yield from closing
    if how.endless:
        talk = _refrain(dice, how.refrain) if how.refrain else _sentences(dice)
        yield from itertools.chain.from_iterable(map(tokens, talk))


def _refrain(dice: random.Random, refrain: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield dice.choice(refrain)


def _sentences(dice: random.Random) -> Iterator[str]:
    yield dice.choice(_OPENINGS)
    while True:
        words = {name: dice.choice(choices) for name, choices in _WORDS.items()}
        yield dice.choice((" ", " ", "\n\n")) + dice.choice(_SENTENCES).format(**words)


def _in_a_box(text: str) -> bool:
    r"""Whether ``text`` ends inside a ``\boxed{`` that is still open."""
    start = text.rfind("\\boxed{")
    return start >= 0 and text.count("{", start) > text.count("}", start)


def _rest(whole: Iterator[str], given: str, ending: str) -> Iterator[str]:
    """Yield what of ``whole`` comes after ``given``, or the ending alone when it goes another way."""
    said = ""
    for token in whole:
        said += token
        if len(said) >= len(given) or not given.startswith(said):
            break
    if said.startswith(given):
        yield from tokens(said[len(given) :])
        yield from whole
    else:
        yield from tokens(ending)
