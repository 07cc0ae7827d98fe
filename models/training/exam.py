"""Pictures with questions and known answers that no training has seen: what the model card is measured by.

Needs Pillow only, so that the service's benchmarks and tests can set the same exam.
"""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageChops

from models.training import questions, scenes

#: The seed of the model card's tables.
SEED = 20250101

#: A normal distribution in 256 equal shares: turns random bytes into noise of one grey level's deviation.
_NORMAL = tuple(statistics.NormalDist().inv_cdf((share + 0.5) / 256) for share in range(256))
#: The grey that stands for "no change", as a picture of changes cannot be negative.
_NO_CHANGE = 128


@dataclass(frozen=True)
class Sheet:
    """One picture with its question, the true answer, and the trace that leads to it."""

    image: Image.Image
    kind: str
    question: str
    answer: str
    trace: str
    things: int
    grid: tuple[int, int]


def sheets(count: int, seed: int = SEED, *, clear: float = 0.75) -> Iterator[Sheet]:
    """Yield ``count`` sheets: uploads of 150 to 900 pixels, 0 to 8 things, all kinds of questions."""
    for number in range(count):
        yield _sheet(number, random.Random(seed * 100_003 + number), clear=clear)


def boxed(text: str) -> str | None:
    r"""Return what is in the last ``\boxed{}`` of a text."""
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return found[-1].strip() if found else None


def listing(text: str) -> list[tuple[str, ...]]:
    """Return the things that a trace lists: row, column, colour, shape."""
    return re.findall(r"\((\d),(\d)\) (\w+) (\w+)", text)


def _sheet(number: int, rng: random.Random, *, clear: float) -> Sheet:
    """Return one sheet; the same number and seed give the same one, to the pixel."""
    longer = rng.uniform(150, 900)
    ratio = rng.choice([1, 1, 1.25, 4 / 3, 4 / 3, 1.5, 16 / 9, rng.uniform(1, 1.8)])
    size = (round(longer), round(longer / ratio))
    if rng.random() >= 0.6:
        size = size[::-1]
    scene = scenes.sample(rng, count=number % 9, grid=scenes.grid_of(*size), clear=clear)
    kind = questions.KINDS[number // 9 % len(questions.KINDS)] if number % 3 else None
    question = questions.ask(rng, scene, kind)
    image = scenes.draw(rng, scene, size)
    trace, answer = questions.reason(rng, scene, question)
    text = question.text if number % 2 else questions.dress(rng, question)
    return Sheet(
        image=_wear(rng, image),
        kind=question.kind,
        question=text,
        answer=answer,
        trace=trace,
        things=len(scene.things),
        grid=(scene.rows, scene.columns),
    )


def _wear(rng: random.Random, image: Image.Image) -> Image.Image:
    """Return the picture as a camera sees it: with grain, with light from one side, with both, or as it is."""
    throw = rng.random()
    if 0.35 <= throw < 0.75:
        deviation = rng.uniform(1, 9)
        grain = Image.frombytes("L", image.size, rng.randbytes(image.width * image.height))
        image = _changed(image, grain.point([_grey(deviation * value) for value in _NORMAL]))
    if throw > 0.6:
        across, down = rng.uniform(-22, 22), rng.uniform(-22, 22)
        row = Image.frombytes("L", (image.width, 1), _ramp(image.width, across))
        column = Image.frombytes("L", (1, image.height), _ramp(image.height, down))
        image = _changed(_changed(image, row.resize(image.size)), column.resize(image.size))
    return image


def _changed(image: Image.Image, change: Image.Image) -> Image.Image:
    """Return the picture with every channel changed by a picture of changes."""
    return ImageChops.add(image, Image.merge("RGB", (change,) * 3), offset=-_NO_CHANGE)


def _ramp(length: int, rise: float) -> bytes:
    """Return changes that rise evenly from one edge to the other."""
    return bytes(_grey(rise * (step / max(1, length - 1) - 0.5)) for step in range(length))


def _grey(change: float) -> int:
    """Return the grey that stands for a change."""
    return max(0, min(255, _NO_CHANGE + round(change)))
