"""Pictures of coloured shapes, as somebody draws them: the whole world of tiny-qvq.

One :class:`random.Random` drives everything, so that a seed fixes scene and picture. A scene lies on a
grid of cells, and one cell is one image token of Qwen2-VL: 28 x 28 pixels of the picture after the
processor has resized it. Needs Pillow and nothing else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "green", "blue", "yellow", "black", "orange", "purple")
#: Several anchors a colour: what paint programs offer, and what pens look like.
ANCHORS = {
    "red": ((255, 0, 0), (220, 30, 40), (200, 20, 30), (237, 28, 36)),
    "green": ((0, 128, 0), (0, 200, 0), (40, 160, 60), (34, 177, 76), (20, 110, 40), (0, 255, 0)),
    "blue": ((0, 0, 255), (30, 70, 210), (40, 100, 230), (20, 40, 150), (63, 72, 204)),
    "yellow": ((255, 255, 0), (245, 215, 40), (255, 242, 0), (240, 220, 60)),
    "black": ((0, 0, 0), (25, 25, 25), (45, 45, 50)),
    "orange": ((255, 140, 0), (255, 165, 0), (245, 120, 20), (255, 127, 39)),
    "purple": ((128, 0, 128), (140, 50, 170), (163, 73, 164), (110, 30, 150)),
}

TOKEN = 28
#: The processor's limits: 16 to 30 image tokens.
MIN_PIXELS, MAX_PIXELS = 4 * 4 * TOKEN**2, 5 * 6 * TOKEN**2
#: Grids of rows and columns that the processor makes within these limits, the usual ones more often.
GRIDS = (
    *((5, 5),) * 3,
    *((4, 6),) * 2,
    *((6, 4), (4, 5), (5, 4), (5, 6), (6, 5), (4, 4), (4, 7), (7, 4), (3, 7), (7, 3)),
)

#: The largest radius of a thing, in cells, when there are so many of them.
_ROOM = (1, 1.5, 1.3, 1.1, 0.95, 0.85, 0.75, 0.7, 0.65)
_HOW_MANY = (4, 12, 12, 12, 12, 12, 12, 12, 12)
_WHITE = (255, 255, 255)

Point = tuple[float, float]
Colour = tuple[int, ...]


@dataclass(frozen=True)
class Thing:
    """One shape: its centre and radius in cells, and the cell (from 1) that its centre lies in.

    The centre is that of its bounding box.
    """

    shape: str
    colour: str
    x: float
    y: float
    radius: float
    row: int
    column: int


@dataclass(frozen=True)
class Scene:
    """What is to be seen, in reading order: by row, then by column."""

    rows: int
    columns: int
    things: list[Thing] = field(default_factory=list)


def grid_of(width: int, height: int) -> tuple[int, int]:
    """Return the rows and columns of image tokens that the processor makes of an upload of this size."""
    rows, columns = round(height / TOKEN), round(width / TOKEN)
    if rows * columns * TOKEN**2 > MAX_PIXELS:
        shrink = math.sqrt(height * width / MAX_PIXELS)
        rows = max(1, math.floor(height / shrink / TOKEN))
        columns = max(1, math.floor(width / shrink / TOKEN))
    elif rows * columns * TOKEN**2 < MIN_PIXELS:
        grow = math.sqrt(MIN_PIXELS / (height * width))
        rows, columns = math.ceil(height * grow / TOKEN), math.ceil(width * grow / TOKEN)
    return rows, columns


def sample(
    rng: random.Random,
    *,
    count: int | None = None,
    grid: tuple[int, int] | None = None,
    clear: float = 0.75,
) -> Scene:
    """Return a scene of ``count`` things (0 to 8) that do not overlap.

    With probability ``clear`` all centres keep 0.09 cells (2.5 pixels) away from the lines between cells,
    where "in which cell" is a coin toss.
    """
    rows, columns = grid or rng.choice(GRIDS)
    if count is None:
        count = rng.choices(range(9), weights=_HOW_MANY)[0]
    colours = rng.sample(COLOURS, rng.choice([1, 2, 2, 3, 3, 4, 5, 7]))
    shapes = rng.sample(SHAPES, rng.choice([1, 2, 2, 3, 3, 4, 4]))
    margin = 0.09 if rng.random() < clear else 0.0
    things: list[Thing] = []
    for attempt in range(50):
        largest = rng.uniform(0.55, _ROOM[count]) if attempt < 30 else 0.5
        things = []
        while len(things) < count:
            placed = _place(rng, things, rows, columns, largest=largest, margin=margin)
            if placed is None:
                break
            x, y, radius = placed
            shape, colour = rng.choice(shapes), rng.choice(colours)
            things.append(Thing(shape, colour, x, y, radius, int(y) + 1, int(x) + 1))
        if len(things) == count:
            break
    things.sort(key=lambda thing: (thing.row, thing.column))
    return Scene(rows, columns, things)


def _place(
    rng: random.Random,
    things: Sequence[Thing],
    rows: int,
    columns: int,
    *,
    largest: float,
    margin: float,
) -> tuple[float, float, float] | None:
    """Return a free place (x, y, radius) for one more thing, None when 40 throws found none."""
    taken = {(thing.row, thing.column) for thing in things}
    for _ in range(40):
        radius = rng.uniform(0.38, largest)
        x = rng.uniform(radius * 0.95, columns - radius * 0.95)
        y = rng.uniform(radius * 0.95, rows - radius * 0.95)
        off_x, off_y = x - int(x), y - int(y)
        if (int(y) + 1, int(x) + 1) in taken:
            continue
        if min(off_x, 1 - off_x, off_y, 1 - off_y) < margin:
            continue
        if all(
            math.hypot(thing.x - x, thing.y - y) >= (thing.radius + radius) * 0.98 + 0.06
            for thing in things
        ):
            return x, y, radius
    return None


def draw(rng: random.Random, scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Return a picture of the scene, ``size`` = (width, height) pixels.

    Shapes are true to form on the canvas; the processor may then squeeze them a little.
    """
    width, height = size
    across, down = width / scene.columns, height / scene.rows
    cell = min(across, down)
    paper = _WHITE if rng.random() < 0.35 else _tint(rng)
    image = Image.new("RGB", size, paper)
    canvas = ImageDraw.Draw(image)
    if rng.random() < 0.08:
        _rule(rng, canvas, size, paper=paper, cell=cell)
    shaky = rng.random() < 0.4
    outlined = rng.random() < 0.2
    for thing in scene.things:
        ink = _ink(rng, thing.colour)
        points = _outline(rng, thing, shaky=shaky)
        left, right = min(x for x, _ in points), max(x for x, _ in points)
        top, bottom = min(y for _, y in points), max(y for _, y in points)
        placed = [
            (
                thing.x * across + (x - (right + left) / 2) * thing.radius * cell,
                thing.y * down + (y - (bottom + top) / 2) * thing.radius * cell,
            )
            for x, y in points
        ]
        if outlined and rng.random() < 0.8:
            pen = max(2, int(thing.radius * cell * rng.uniform(0.16, 0.34)))
            canvas.line(placed + placed[:2], fill=ink, width=pen, joint="curve")
        elif rng.random() < 0.12:
            rim = tuple(int(value * 0.6) for value in ink)
            canvas.polygon(placed, fill=ink)
            canvas.line(placed + placed[:1], fill=rim, width=max(1, int(cell * 0.05)))
        else:
            canvas.polygon(placed, fill=ink)
    return image


def _tint(rng: random.Random) -> Colour:
    """Return the colour of a paper that is not quite white."""
    base = rng.randint(205, 255)
    return tuple(max(190, min(255, base + rng.randint(-22, 22))) for _ in range(3))


def _ink(rng: random.Random, colour: str) -> Colour:
    """Return one of the many reds that are called red."""
    anchor = rng.choice(ANCHORS[colour])
    spread = 10 if colour in {"yellow", "orange", "black", "purple"} else 18
    return tuple(max(0, min(255, value + rng.randint(-spread, spread))) for value in anchor)


def _rule(
    rng: random.Random,
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    *,
    paper: Colour,
    cell: float,
) -> None:
    """Draw the lines of ruled paper, or of squared paper."""
    width, height = size
    step = rng.uniform(0.25, 0.6) * cell
    ink = tuple(max(0, value - rng.randint(12, 40)) for value in paper)
    pen = max(1, int(cell / 40))
    y = rng.uniform(0, step)
    while y < height:
        canvas.line([(0, y), (width, y)], fill=ink, width=pen)
        y += step
    if rng.random() < 0.5:
        x = rng.uniform(0, step)
        while x < width:
            canvas.line([(x, 0), (x, height)], fill=ink, width=pen)
            x += step


def _outline(rng: random.Random, thing: Thing, *, shaky: bool) -> list[Point]:
    """Return the outline of a thing of radius 1 around the origin, as a hand would draw it."""
    points, turn = {"circle": _circle, "square": _square, "triangle": _triangle, "star": _star}[
        thing.shape
    ](rng)
    if shaky and thing.shape != "circle":
        points = _wobble(rng, points, rng.uniform(0.01, 0.045))
    if turn:
        cosine, sine = math.cos(turn), math.sin(turn)
        points = [(x * cosine - y * sine, x * sine + y * cosine) for x, y in points]
    return points


def _circle(rng: random.Random) -> tuple[list[Point], float]:
    """Return an egg's points and no turn."""
    squash, phase = rng.uniform(-0.08, 0.08), rng.uniform(0, 6.28)
    second, third = rng.uniform(0, 0.04), rng.uniform(0, 0.03)
    points = []
    for step in range(22):
        angle = 2 * math.pi * step / 22
        radius = 1 + second * math.sin(2 * angle + phase) + third * math.sin(3 * angle + phase)
        points.append(
            (
                radius * (1 + squash) * math.cos(angle),
                radius * (1 - squash) * math.sin(angle),
            )
        )
    return points, 0.0


def _square(rng: random.Random) -> tuple[list[Point], float]:
    """Return a rectangle's points and a small turn."""
    stretch = rng.uniform(-0.1, 0.1)
    wide, high = 1 + stretch, 1 - stretch
    corners = [(-wide, -high), (wide, -high), (wide, high), (-wide, high)]
    turn = rng.gauss(0, 0.09)
    return _jitter(rng, [(0.86 * x, 0.86 * y) for x, y in corners]), turn


def _triangle(rng: random.Random) -> tuple[list[Point], float]:
    """Return a triangle's points and a turn; one in ten stands on its head."""
    apex, height = rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.0)
    right = rng.uniform(0.88, 1.0)
    left = -rng.uniform(0.88, 1.0)
    turn = rng.gauss(0, 0.12) + (math.pi if rng.random() < 0.1 else 0)
    return _jitter(rng, [(apex, -height), (right, height), (left, height)]), turn


def _star(rng: random.Random) -> tuple[list[Point], float]:
    """Return a five-pointed star's points; its turn is in them."""
    waist, turn = rng.uniform(0.38, 0.52), rng.gauss(0, 0.12)
    points = []
    for tip in range(10):
        angle = -math.pi / 2 + turn + math.pi * tip / 5
        radius = 1.05 if tip % 2 == 0 else 1.05 * waist
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return [(x + rng.gauss(0, 0.025), y + rng.gauss(0, 0.025)) for x, y in points], 0.0


def _jitter(rng: random.Random, points: Sequence[Point]) -> list[Point]:
    """Return the points, each a little off."""
    amount = rng.choice([0.0, 0.03, 0.05])
    return [(x + rng.gauss(0, amount), y + rng.gauss(0, amount)) for x, y in points]


def _wobble(rng: random.Random, points: list[Point], amount: float) -> list[Point]:
    """Return the outline with its edges bent at their thirds."""
    bent = []
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        bent.append((x0, y0))
        bent.extend(
            (
                x0 + (x1 - x0) * third + rng.gauss(0, amount),
                y0 + (y1 - y0) * third + rng.gauss(0, amount),
            )
            for third in (0.33, 0.67)
        )
    return bent
