"""Batches of pictures and of questions, drawn as they are needed: no picture is ever seen twice."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.training import forced, foreign, pixels, prompts, questions, scenes

#: No loss is taken where the label is this.
IGNORED = -100
#: Shares of the questions that a picture does not answer, and of the traces that are cut short.
FOREIGN, CUT = 0.06, 0.4


class Encoder:
    """Text to token numbers; short texts are remembered, as most come again and again."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.image = tokenizer.token_to_id("<|image_pad|>")
        self.end = tokenizer.encode("<|im_end|>").ids
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """Return the token numbers of a text."""
        numbers = self._known.get(text)
        if numbers is None:
            numbers = self.tokenizer.encode(text).ids
            if len(self._known) < 200_000 and len(text) < 200:
                self._known[text] = numbers
        return numbers

    def free(self) -> Tensor:
        """Return the tokens where openings and closings part: any choice among them counts as right."""
        found: set[int] = set()
        for family in (questions.INTROS, questions.CLOSERS):
            encoded = [self(phrase) for phrase in family]
            for index, one in enumerate(encoded):
                for other in encoded[index + 1 :]:
                    parting = next(
                        (pair for pair in zip(one, other, strict=False) if len(set(pair)) > 1), ()
                    )
                    found.update(parting)
        return torch.tensor(sorted(found))


@dataclass(frozen=True)
class Pictures:
    """Pictures on one grid.

    Attributes:
        pixels: (pictures, patches, 588).
        cells: (pictures, rows x columns): -1 for nothing, else colour x 4 + shape.
    """

    scenes: list[scenes.Scene]
    pixels: Tensor
    cells: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class Texts:
    """Questions with their traces about some pictures, padded on the right to one length.

    Attributes:
        ids: (rows, length) token numbers.
        labels: (rows, length) the next token where it is the model's to say, else ``IGNORED``.
        positions: (3, rows, length) frame, row and column of Qwen2-VL's rotary embedding.
        starts: (rows,) where the image's tokens begin.
        pictures: (rows,) which picture it is about.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    starts: Tensor
    pictures: Tensor


def draw(
    rng: random.Random,
    noise: np.random.Generator,
    count: int,
    grid: tuple[int, int],
    things: Sequence[int] = (),
) -> Pictures:
    """Return pictures on one grid, with one of these numbers of things each (any number if empty)."""
    drawn, pixel_rows, cell_rows = [], [], []
    for _ in range(count):
        scene = scenes.sample(rng, count=rng.choice(things) if things else None, grid=grid)
        cell = rng.choice([34, 42, 56, 56, 70])
        # The upload's aspect ratio is not exactly the grid's.
        stretch = math.exp(rng.uniform(-0.09, 0.09))
        size = (round(scene.columns * cell * stretch), round(scene.rows * cell / stretch))
        image = scenes.draw(rng, scene, size)
        drawn.append(scene)
        pixel_rows.append(pixels.patches(image, scene, noise))
        cell_rows.append(_cells(scene))
    return Pictures(
        drawn,
        torch.from_numpy(np.stack(pixel_rows)),
        torch.from_numpy(np.stack(cell_rows)),
        grid,
    )


def ask(
    rng: random.Random,
    encode: Encoder,
    pictures: Pictures,
    each: int,
    *,
    weights: Sequence[float] = questions.WEIGHTS,
    plain: float = 0.5,
) -> Texts:
    """Return ``each`` questions on every picture; the share ``plain`` of them has no frills."""
    rows = [
        (_written(rng, encode, scene, weights=weights, plain=plain), picture)
        for picture, scene in enumerate(pictures.scenes)
        for _ in range(each)
    ]
    tokens = pictures.grid[0] * pictures.grid[1]
    longest = max(len(row.before) + tokens + len(row.after) + len(row.trace) for row, _ in rows)
    shape = (len(rows), (longest + 7) // 8 * 8)
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    positions, starts = np.zeros((3, *shape), np.int64), np.zeros(len(rows), np.int64)
    for row, (written, _) in enumerate(rows):
        before, after, trace = written.before, written.after, written.trace
        whole = before + [encode.image] * tokens + after + trace
        ids[row, : len(whole)] = whole
        # The label of a place is the token after it.
        labels[row, len(whole) - len(trace) - 1 : len(whole) - 1] = trace
        positions[:, row, : len(whole)] = _positions(
            len(before), pictures.grid, len(after) + len(trace)
        )
        starts[row] = len(before)
    return Texts(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        torch.from_numpy(positions),
        torch.from_numpy(starts),
        torch.tensor([picture for _, picture in rows]),
    )


@dataclass(frozen=True)
class _Written:
    """One question on a scene as tokens: before the image, after it, and what the model has to say."""

    before: list[int]
    after: list[int]
    trace: list[int]


def _written(
    rng: random.Random,
    encode: Encoder,
    scene: scenes.Scene,
    *,
    weights: Sequence[float],
    plain: float,
) -> _Written:
    """Return one question on a scene, a share of them foreign, a share of them cut short."""
    is_plain = rng.random() < plain
    if rng.random() < FOREIGN:
        text = foreign.ask(rng)
        trace, truth = foreign.reason(rng)
    else:
        question = questions.ask(rng, scene, weights=weights)
        trace, truth = questions.reason(rng, scene, question)
        text = question.text if is_plain else questions.dress(rng, question)
    system = prompts.PLAIN_SYSTEM if is_plain else rng.choice(prompts.SYSTEMS)
    before, after = prompts.around(text, system, text_first=rng.random() < 0.1)
    if rng.random() >= CUT:
        return _Written(
            encode(before), encode(after), encode.tokenizer.encode(trace).ids + encode.end
        )
    cut = forced.cut(rng, trace, truth)
    # What was said is the model's context and no lesson. An engine reads it as one text with what is before it.
    return _Written(
        encode(before),
        encode.tokenizer.encode(after + cut.said).ids,
        encode(cut.rest) + encode.end,
    )


def _cells(scene: scenes.Scene) -> np.ndarray:
    """Return what lies in each cell of a scene, as in :class:`Pictures`."""
    cells = np.full(scene.rows * scene.columns, -1, np.int64)
    for thing in scene.things:
        place = (thing.row - 1) * scene.columns + thing.column - 1
        cells[place] = scenes.COLOURS.index(thing.colour) * 4 + scenes.SHAPES.index(thing.shape)
    return cells


def _positions(before: int, grid: tuple[int, int], after: int) -> np.ndarray:
    """Return Qwen2-VL's three positions of each token: the image's share a frame and count rows and columns."""
    rows, columns = grid
    tokens = rows * columns
    positions = np.empty((3, before + tokens + after), np.int64)
    positions[:, :before] = np.arange(before)
    positions[0, before : before + tokens] = before
    positions[1, before : before + tokens] = before + np.repeat(np.arange(rows), columns)
    positions[2, before : before + tokens] = before + np.tile(np.arange(columns), rows)
    positions[:, before + tokens :] = before + max(rows, columns) + np.arange(after)
    return positions
