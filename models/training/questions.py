"""Questions about a scene, their true answers, and the reasoning that leads to them.

A trace goes through the things in reading order and keeps count: that is the long look which tiny-qvq
was trained to take. Needs nothing beyond the standard library and :mod:`models.training.scenes`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.training.scenes import COLOURS, SHAPES, Scene, Thing

KINDS = (
    "count_all",
    "count_colour",
    "count_shape",
    "count_both",
    "exists",
    "colour_of",
    "shape_of",
    "compare",
)
#: How often each kind is asked in training, unless a leg says otherwise.
WEIGHTS = (12, 16, 16, 16, 12, 9, 7, 12)

INTROS = ("Let me look at the picture.", "Okay, let me look closely.", "Let me see.")
CLOSERS = ("So", "All right, so")

_PREFIXES = (*("",) * 6, "Look at the picture. ", "Look at the image. ", "Please help: ")
_SUFFIXES = (
    *("",) * 5,
    " Think step by step.",
    " Please reason step by step.",
    " Put your final answer in \\boxed{}.",
    " Answer with a short reasoning.",
    " Explain your reasoning.",
)
_ALL = (
    "How many shapes are there?",
    "How many shapes are in the picture?",
    "How many objects are there?",
    "Count the shapes.",
    "How many things do you see?",
    "How many shapes can you see in this image?",
    "Count all the objects in the image.",
)

Match = Callable[[Thing], bool]


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        goal: what is looked for, as the trace says it.
        match: which things count.
        against: of a comparison: which things count on its other side.
        sides: of a comparison: what its two sides are called.
    """

    kind: str
    text: str
    goal: str
    match: Match
    against: Match | None = None
    sides: tuple[str, str] = ("", "")


def ask(
    rng: random.Random,
    scene: Scene,
    kind: str | None = None,
    *,
    weights: Sequence[float] = WEIGHTS,
) -> Question:
    """Return a question; one that the scene cannot answer turns into a count of the same subject."""
    kind = kind or rng.choices(KINDS, weights)[0]
    if kind == "colour_of" and not _single(scene, "shape", SHAPES):
        kind = "count_shape"
    if kind == "shape_of" and not _single(scene, "colour", COLOURS):
        kind = "count_colour"
    if kind == "count_all":
        return Question(kind, rng.choice(_ALL), "all the shapes", lambda _thing: True)
    return _ASKERS[kind](rng, scene)


def answer(scene: Scene, question: Question) -> str:
    """Return the true answer: a number, a colour, a shape, yes or no."""
    hits = [thing for thing in scene.things if question.match(thing)]
    if question.against is not None:
        others = sum(question.against(thing) for thing in scene.things)
        return "yes" if len(hits) > others else "no"
    if question.kind == "exists":
        return "yes" if hits else "no"
    if question.kind == "colour_of":
        return hits[0].colour
    if question.kind == "shape_of":
        return hits[0].shape
    return str(len(hits))


def reason(rng: random.Random, scene: Scene, question: Question) -> tuple[str, str]:
    """Return the trace that a right answer has, and the answer in its box."""
    verb = {"exists": "find", "colour_of": "find", "shape_of": "find", "compare": "compare"}.get(
        question.kind, "count"
    )
    lines = [f"{rng.choice(INTROS)} I need to {verb} {question.goal}."]
    first = second = 0
    for thing in scene.things:
        if question.match(thing):
            first += 1
            verdict = {"count": f"count {first}", "compare": f"first {first}"}.get(verb, "yes")
        elif question.against is not None and question.against(thing):
            second += 1
            verdict = f"second {second}"
        else:
            verdict = "skip"
        lines.append(f"({thing.row},{thing.column}) {thing.colour} {thing.shape}, {verdict}.")
    truth = answer(scene, question)
    left, right = question.sides
    ending = {
        "compare": f"I have {first} {left} and {second} {right}.",
        "exists": f"there is {'one' if truth == 'yes' else 'none'}.",
        "colour_of": f"it is {truth}.",
        "shape_of": f"it is {article(truth)}.",
    }.get(question.kind, f"the total is {truth}.")
    lines.append(f"{rng.choice(CLOSERS)} {ending}")
    return "\n".join(lines) + f"\n\n**Final Answer**\n\n\\boxed{{{truth}}}", truth


def dress(rng: random.Random, question: Question) -> str:
    """Return the question as somebody types it: in lower case, without its mark, with a please."""
    text = question.text
    throw = rng.random()
    if throw < 0.08:
        text = text.lower()
    elif throw < 0.14:
        text = text.rstrip("?.")
    return rng.choice(_PREFIXES) + text + rng.choice(_SUFFIXES)


def article(word: str) -> str:
    """Return the word with its article."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def _single(scene: Scene, feature: str, values: Sequence[str]) -> list[str]:
    """Return the values of a feature that exactly one thing has."""
    seen = [getattr(thing, feature) for thing in scene.things]
    return [value for value in values if seen.count(value) == 1]


def _seen(scene: Scene, feature: str) -> list[str]:
    """Return the values of a feature that are in the scene, in alphabetical order."""
    return sorted({getattr(thing, feature) for thing in scene.things})


def _pick(rng: random.Random, scene: Scene, feature: str) -> str:
    """Return a value of a feature, sometimes (or if need be) one that is not in the scene."""
    present = _seen(scene, feature)
    absent = [value for value in _VALUES[feature] if value not in present]
    if not present or (absent and rng.random() < 0.15):
        return rng.choice(absent)
    return rng.choice(present)


def _pair(rng: random.Random, scene: Scene, likely: float) -> tuple[str, str]:
    """Return a colour and a shape: of one thing, or each for itself (so perhaps not together)."""
    if scene.things and rng.random() < likely:
        thing = rng.choice(scene.things)
        return thing.colour, thing.shape
    return _pick(rng, scene, "colour"), _pick(rng, scene, "shape")


def _count_colour(rng: random.Random, scene: Scene) -> Question:
    colour = _pick(rng, scene, "colour")
    noun = rng.choice(["shapes", "shapes", "objects", "things"])
    text = rng.choice(
        [
            f"How many {colour} {noun} are there?",
            f"How many {colour} {noun} are in the picture?",
            f"Count the {colour} {noun}.",
            f"How many of the {noun} are {colour}?",
            f"How many {colour} {noun} do you see?",
        ]
    )
    goal = f"the {colour} shapes"
    return Question("count_colour", text, goal, lambda thing: thing.colour == colour)


def _count_shape(rng: random.Random, scene: Scene) -> Question:
    shape = _pick(rng, scene, "shape")
    text = rng.choice(
        [
            f"How many {shape}s are there?",
            f"How many {shape}s are in the picture?",
            f"Count the {shape}s.",
            f"How many {shape}s do you see?",
            f"How many {shape}s can you see in this image?",
        ]
    )
    return Question("count_shape", text, f"the {shape}s", lambda thing: thing.shape == shape)


def _count_both(rng: random.Random, scene: Scene) -> Question:
    colour, shape = _pair(rng, scene, 0.75)
    text = rng.choice(
        [
            f"How many {colour} {shape}s are there?",
            f"How many {colour} {shape}s are in the picture?",
            f"Count the {colour} {shape}s.",
            f"How many {colour} {shape}s do you see?",
        ]
    )
    return Question("count_both", text, f"the {colour} {shape}s", _both(colour, shape))


def _exists(rng: random.Random, scene: Scene) -> Question:
    colour, shape = _pair(rng, scene, 0.5)
    thing = f"{article(colour)} {shape}"
    text = rng.choice(
        [
            f"Is there {thing}?",
            f"Is there {thing} in the picture?",
            f"Do you see {thing}?",
            f"Can you see {thing} in the image?",
        ]
    )
    return Question("exists", text, thing, _both(colour, shape))


def _colour_of(rng: random.Random, scene: Scene) -> Question:
    shape = rng.choice(_single(scene, "shape", SHAPES))
    noun = rng.choice(["colour", "color"])
    text = rng.choice(
        [
            f"What {noun} is the {shape}?",
            f"Which {noun} does the {shape} have?",
            f"What is the {noun} of the {shape}?",
        ]
    )
    return Question("colour_of", text, f"the {shape}", lambda thing: thing.shape == shape)


def _shape_of(rng: random.Random, scene: Scene) -> Question:
    colour = rng.choice(_single(scene, "colour", COLOURS))
    noun = rng.choice(["object", "thing", "shape"])
    text = rng.choice(
        [
            f"What shape is the {colour} {noun}?",
            f"Which shape is {colour}?",
            f"What shape does the {colour} {noun} have?",
        ]
    )
    return Question("shape_of", text, f"the {colour} shape", lambda thing: thing.colour == colour)


def _compare(rng: random.Random, scene: Scene) -> Question:
    feature = "shape" if rng.random() < 0.6 else "colour"
    present = _seen(scene, feature)
    if len(present) < 2 or rng.random() < 0.25:
        left, right = rng.sample(_VALUES[feature], 2)
    else:
        left, right = rng.sample(present, 2)
    noun = "{}s" if feature == "shape" else "{} shapes"
    sides = noun.format(left), noun.format(right)
    text = rng.choice(
        [
            f"Are there more {sides[0]} than {sides[1]}?",
            f"Do you see more {sides[0]} than {sides[1]}?",
        ]
    )
    return Question(
        "compare",
        text,
        f"the {sides[0]} and the {sides[1]}",
        lambda thing: getattr(thing, feature) == left,
        against=lambda thing: getattr(thing, feature) == right,
        sides=sides,
    )


def _both(colour: str, shape: str) -> Match:
    return lambda thing: thing.colour == colour and thing.shape == shape


_VALUES = {"shape": SHAPES, "colour": COLOURS}
_ASKERS: dict[str, Callable[[random.Random, Scene], Question]] = {
    "count_colour": _count_colour,
    "count_shape": _count_shape,
    "count_both": _count_both,
    "exists": _exists,
    "colour_of": _colour_of,
    "shape_of": _shape_of,
    "compare": _compare,
}
