"""The cost of accepting an image, compared with the bare Pillow work on the same image.

    python -m bench.accept_images [--rounds 30] [--detail standard]

``Images.accept`` sends the file to a child process, checks its bounds, decodes, rotates, flattens, resizes, and
encodes it, and returns the image and two hashes. The bare work is the unavoidable part:
decode (a JPEG at its draft scale), resize, and encode, in this process. Both alternate, one at a time,
so a rate is that of one core. "Inside" is the pipeline without the child. Goal: at most 1.25 at p50.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import cast

from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from core import profiles
from core.settings import Settings
from jobs import images
from jobs.images import geometry, pipeline

_WARM_UP = 3
_ACCOUNT = uuid.UUID(int=1)


def photograph(width: int = 4000, height: int = 3000) -> bytes:
    """Return a JPEG of 12 megapixels with soft shapes and sensor noise, the same in each run."""
    chance = random.Random(12)
    shapes = Image.frombytes("RGB", (40, 30), chance.randbytes(40 * 30 * 3))
    scene = shapes.resize((width, height), Image.Resampling.BICUBIC)
    noise = Image.frombytes("RGB", (width, height), chance.randbytes(width * height * 3))
    file = io.BytesIO()
    Image.blend(scene, noise, 0.08).save(file, "JPEG", quality=92)
    return file.getvalue()


def screenshot(width: int = 1920, height: int = 1080) -> bytes:
    """Return a PNG of 2 megapixels with windows, lines, and much text, the same in each run."""
    chance = random.Random(2)
    submitted = Image.new("RGB", (width, height), "#f4f4f6")
    draw = ImageDraw.Draw(submitted)
    for _ in range(12):
        left, top = chance.randrange(width - 500), chance.randrange(height - 300)
        draw.rectangle((left, top, left + 480, top + 280), "#ffffff", "#8a8f98")
        draw.rectangle((left, top, left + 480, top + 24), f"hsl({chance.randrange(360)},40%,45%)")
        for line in range(16):
            words = " ".join(f"{chance.getrandbits(24):x}" for _ in range(9))
            draw.text((left + 10, top + 32 + 15 * line), words, "#22262b")
    file = io.BytesIO()
    submitted.save(file, "PNG")
    return file.getvalue()


def bare(data: bytes, detail: profiles.Detail) -> bytes:
    """Do only the unavoidable work, with Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        lossy = image.format == "JPEG"
        height, width = geometry.canonical_size(image.height, image.width, detail)
        image.draft("RGB", (width, height))
        submitted = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if lossy:
        submitted.save(file, "JPEG", quality=pipeline.JPEG_QUALITY, subsampling="4:4:4")
    else:
        submitted.save(file, "PNG", compress_level=pipeline.PNG_LEVEL)
    return file.getvalue()


def _measure(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median seconds of each call; the calls alternate."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(_WARM_UP + rounds):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if turn >= _WARM_UP:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--detail", choices=list(profiles.DETAIL_TOKENS), default="standard")
    options = parser.parse_args()
    detail = cast("profiles.Detail", options.detail)
    # A photograph and a screenshot.
    submitted_images = {"12 MP JPEG": photograph(), "2 MP PNG": screenshot()}
    table = Table(title=f"Accepting an image, detail {detail}, p50 of {options.rounds}")
    for name in ("ratio", "image", "accept", "inside", "bare", "per s", "in", "out"):
        table.add_column(name, justify="left" if name == "picture" else "right", no_wrap=True)
    router = images.ImageReader.start(Settings.read({}))
    try:
        router.warm()
        for name, data in submitted_images.items():
            accepted, inside, alone = _measure(
                [
                    partial(router.accept, data, account_id=_ACCOUNT, detail=detail),
                    partial(pipeline.canonicalize, data, detail=detail),
                    partial(bare, data, detail),
                ],
                options.rounds,
            )
            table.add_row(
                f"{accepted / alone:.2f}",
                name,
                *(f"{seconds * 1e3:.0f} ms" for seconds in (accepted, inside, alone)),
                f"{1 / accepted:.1f}",
                f"{len(data) / 2**20:.1f} MiB",
                f"{len(router.accept(data, account_id=_ACCOUNT, detail=detail).data) / 2**20:.1f} MiB",
            )
    finally:
        router.close()
    Console().print(table)


if __name__ == "__main__":
    main()
