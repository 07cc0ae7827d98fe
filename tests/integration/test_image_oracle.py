"""Hundreds of generated files have the pixels that a second implementation, libvips, decodes.

Files have a size that the pipeline does not change, so that no resampling is compared.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
import pyvips
from PIL import Image, ImageChops, ImageCms

from jobs.images import pipeline
from tests import image_files
from tests import image_writers as writers

WIDTH, HEIGHT = SIZE = (84, 56)
LOSSLESS, LOSSY = 1, 6

Expected = Callable[[int, int], tuple[int, int, int]]
#: Files that are deliberately not read as libvips reads them: the reason, and the expected color of a pixel.
DIFFERENT: dict[str, tuple[str, Expected]] = {}


@dataclass(frozen=True)
class Sample:
    name: str
    data: bytes
    within: int = LOSSLESS
    #: A key of :data:`DIFFERENT`.
    different: str | None = None


#: The gray picture goes from 0 in one corner to this in the other one.
STEPS = WIDTH + HEIGHT - 2


def picture(bits: int, samples: int) -> writers.Picture:
    """A picture of 1 to 4 samples that all differ; the last one of two or four is alpha."""
    most = (1 << bits) - 1

    def pixel(x: int, y: int) -> writers.Pixel:
        gray = (x + y) * most // STEPS
        across, down = x * most // (WIDTH - 1), y * most // (HEIGHT - 1)
        back = (WIDTH - 1 - x) * most // (WIDTH - 1)
        return {1: (gray,), 2: (gray, back), 3: (across, down, gray)}.get(
            samples, (across, down, gray, back)
        )

    return pixel


def gray(x: int, y: int) -> tuple[int, int, int]:
    level = round((x + y) * 255 / STEPS)
    return level, level, level


def negative(x: int, y: int) -> tuple[int, int, int]:
    level = 255 - round((x + y) * 255 / STEPS)
    return level, level, level


def without_alpha(x: int, y: int) -> tuple[int, int, int]:
    red, green, blue, _ = picture(8, 4)(x, y)
    return red, green, blue


def of_inks(x: int, y: int, bits: int = 8) -> tuple[int, int, int]:
    cyan, magenta, yellow, black = (ink >> (bits - 8) for ink in picture(bits, 4)(x, y))
    red, green, blue = (round((255 - ink) * (255 - black) / 255) for ink in (cyan, magenta, yellow))
    return red, green, blue


def as_drawn(x: int, y: int) -> tuple[int, int, int]:
    red, green, blue = picture(8, 3)(x, y)
    return red, green, blue


def of_five_bits(x: int, y: int) -> tuple[int, int, int]:
    red, green, blue = (level * 255 // 31 for level in picture(5, 3)(x, y))
    return red, green, blue


DIFFERENT |= {
    "float": ("libvips clips floating-point gray at 255; 0 to 1 is meant", gray),
    "float, 0 is white": ("likewise, and libvips does not invert it", negative),
    "uint32": ("libvips clips 32 bits at 255", gray),
    "uint32, 0 is white": ("likewise, and libvips does not invert it", negative),
    "int": ("libvips shows a signed 16-bit white as half", gray),
    "int, 0 is white": ("libvips does not invert signed gray", negative),
    "12 bits": ("libvips does not read 12 bits", gray),
    "12 bits, 0 is white": ("libvips does not read 12 bits", negative),
    "unspecified samples": ("libvips takes unspecified extra samples for alpha", without_alpha),
    "unspecified gray": ("libvips takes unspecified extra samples for alpha", gray),
    "inks": ("libvips has a profile of a press; without one, inks are subtracted", of_inks),
    "deep inks": ("likewise", functools.partial(of_inks, bits=16)),
    "BMP": ("libvips does not read BMP", as_drawn),
    "BMP of 16 bits": ("libvips does not read BMP", of_five_bits),
    "lzma": ("libvips does not have this compression", as_drawn),
    "zstd": ("libvips does not have this compression", as_drawn),
}


def colors_of(bits: int) -> bytes:
    """A palette of colors that all differ."""
    most = (1 << bits) - 1
    colors = [(index * 255 // most, 255 - index, index * 7 % 256) for index in range(most + 1)]
    return bytes(itertools.chain.from_iterable(colors))


def pngs() -> Iterator[Sample]:
    kinds = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    for color_type, depths in kinds.items():
        for bits, interlaced in itertools.product(depths, (False, True)):
            yield from _pngs(color_type, bits, interlaced=interlaced)


def _pngs(color_type: int, bits: int, *, interlaced: bool) -> Iterator[Sample]:
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    pixel = picture(bits, samples)
    palette = [writers.chunk(b"PLTE", colors_of(bits))] if color_type == 3 else []
    made = functools.partial(
        writers.png, SIZE, bits, color_type, pixel, interlaced=interlaced, block=999
    )
    name = f"PNG type {color_type}, {bits} bits" + ", interlaced" * interlaced
    yield Sample(name, made(chunks=palette))
    if color_type in {0, 2}:
        clear = struct.pack(f">{samples}H", *pixel(40, 30))
        yield Sample(f"{name}, tRNS", made(chunks=[writers.chunk(b"tRNS", clear)]))
    elif color_type == 3:
        clear = bytes([0, 128, 255][: 1 << bits])
        yield Sample(f"{name}, tRNS", made(chunks=[*palette, writers.chunk(b"tRNS", clear)]))


def tiffs() -> Iterator[Sample]:
    for order, (compression, big) in itertools.product("<>", ((1, False), (8, False), (1, True))):
        suffix = f" {'little' if order == '<' else 'big'}-endian" + ", deflated" * (
            compression == 8
        )
        suffix += ", BigTIFF" * big
        for name, page, different in _pages(order, compression):
            data = writers.tiff(page, order=order, big=big)
            yield Sample(f"TIFF {name}{suffix}", data, different=different)


def _pages(order: str, compression: int) -> Iterator[tuple[str, writers.Page, str | None]]:
    def page(
        bits: int, photometric: int, drawn: writers.Picture, tags: dict[int, writers.Values]
    ) -> writers.Page:
        return writers.page(
            SIZE, bits, photometric, drawn, order=order, compression=compression, tags=tags
        )

    def floating(x: int, y: int) -> writers.Pixel:
        return (writers.float_bits((x + y) / STEPS),)

    def signed(x: int, y: int) -> writers.Pixel:
        return ((x + y) * 32767 // STEPS,)

    for photometric in (0, 1):
        inverted = ", 0 is white" * (photometric == 0)
        for bits in (1, 2, 4, 8, 16):
            yield (
                f"gray of {bits} bits{inverted}",
                page(bits, photometric, picture(bits, 1), {}),
                None,
            )
        deep: dict[str, tuple[int, writers.Picture, int]] = {
            "12 bits": (12, picture(12, 1), 1),
            "float": (32, floating, 3),
            "uint32": (32, picture(32, 1), 1),
            "int": (16, signed, 2),
        }
        for name, (bits, drawn, form) in deep.items():
            made = page(bits, photometric, drawn, {339: (writers.SHORT, [form])})
            yield f"{name}{inverted}", made, f"{name}{inverted}"
    for bits in (8, 16):
        yield f"RGB of {bits} bits", page(bits, 2, picture(bits, 3), {}), None
        alpha: dict[int, writers.Values] = {338: (writers.SHORT, [2])}
        extra: dict[int, writers.Values] = {338: (writers.SHORT, [0])}
        yield f"RGBA of {bits} bits", page(bits, 2, picture(bits, 4), alpha), None
        yield f"RGBX of {bits} bits", page(bits, 2, picture(bits, 4), extra), "unspecified samples"
        flat = functools.partial(
            writers.page, SIZE, bits, 2, order=order, compression=compression, planes=True
        )
        yield f"RGB of {bits} bits in planes", flat(picture(bits, 3)), None
        yield f"RGBA of {bits} bits in planes", flat(picture(bits, 4), tags=alpha), None
        yield (
            f"CMYK of {bits} bits",
            page(bits, 5, picture(bits, 4), {}),
            "inks" if bits == 8 else "deep inks",
        )
    yield "gray with alpha", page(8, 1, picture(8, 2), {338: (writers.SHORT, [2])}), None
    yield (
        "gray with more",
        page(8, 1, picture(8, 2), {338: (writers.SHORT, [0])}),
        "unspecified gray",
    )
    for bits in (1, 2, 4, 8):
        by_band = [value * 257 for band in range(3) for value in colors_of(bits)[band::3]]
        made = page(bits, 3, picture(bits, 1), {320: (writers.SHORT, by_band)})
        yield f"palette of {bits} bits", made, None


@functools.cache
def drawn(mode: str) -> Image.Image:
    """The picture as an image of Pillow."""
    samples = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    pixel = picture(8, samples)
    image = Image.new(mode, SIZE)
    for x, y in itertools.product(range(WIDTH), range(HEIGHT)):
        values = pixel(x, y)
        image.putpixel((x, y), values if samples > 1 else values[0])
    return image


def tiffs_of_libtiff() -> Iterator[Sample]:
    for mode, compression in itertools.product(
        ("L", "RGB", "RGBA"), ("tiff_lzw", "packbits", "tiff_deflate")
    ):
        data = image_files.file_of(drawn(mode), "TIFF", compression=compression)
        yield Sample(f"TIFF {mode}, {compression}", data)
    for compression in ("lzma", "zstd"):
        data = image_files.file_of(drawn("RGB"), "TIFF", compression=compression)
        yield Sample(f"TIFF, {compression}", data, different=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        data = image_files.file_of(drawn("L").convert("1"), "TIFF", compression=compression)
        yield Sample(f"TIFF, {compression}", data)
    for mode in ("L", "RGB"):
        data = image_files.file_of(drawn(mode), "TIFF", compression="jpeg", quality=95)
        yield Sample(f"TIFF {mode}, jpeg", data, within=LOSSY)
    whole = pyvips.Image.new_from_memory(drawn("RGB").tobytes(), *SIZE, 3, "uchar")
    deep = (whole * 257).cast("ushort")
    layouts: dict[str, dict[str, Any]] = {
        "tiles": {"tile": True, "tile_width": 32, "tile_height": 16},
        "tiles, LZW, predictor": {"tile": True, "compression": "lzw", "predictor": "horizontal"},
        "deflate, predictor": {"compression": "deflate", "predictor": "horizontal"},
        "pyramid": {"tile": True, "pyramid": True, "tile_width": 16, "tile_height": 16},
        "pyramid of SubIFDs": {"tile": True, "pyramid": True, "subifd": True, "bigtiff": True},
    }
    for name, options in layouts.items():
        yield Sample(f"TIFF RGB, {name}", whole.tiffsave_buffer(**options))
        data = deep.copy(interpretation="rgb16").tiffsave_buffer(**options)
        yield Sample(f"TIFF RGB of 16 bits, {name}", data)


def jpegs() -> Iterator[Sample]:
    for mode, sampling, progressive, quality in itertools.product(
        ("L", "RGB"), ("4:4:4", "4:2:2", "4:2:0"), (False, True), (75, 95)
    ):
        name = f"JPEG {mode}, {sampling}, quality {quality}" + ", progressive" * progressive
        options: dict[str, Any] = {
            "subsampling": sampling,
            "progressive": progressive,
            "quality": quality,
        }
        yield Sample(name, image_files.file_of(drawn(mode), "JPEG", **options), within=LOSSY)
    for restart, keep_rgb in ((4, False), (0, True)):
        data = image_files.file_of(
            drawn("RGB"), "JPEG", quality=95, restart_marker_blocks=restart, keep_rgb=keep_rgb
        )
        yield Sample(f"JPEG, restart {restart}, RGB {keep_rgb}", data, within=LOSSY)


def turned() -> Iterator[Sample]:
    every: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    for name, orientation in itertools.product(("JPEG", "TIFF", "WEBP"), range(1, 9)):
        exif = image_files.with_orientation(orientation)
        options = every.get(name, {})
        data = image_files.file_of(drawn("RGB"), name, exif=exif, **options)
        within = LOSSY if name == "JPEG" else LOSSLESS
        yield Sample(f"{name} with orientation {orientation}", data, within=within)


def webps_avifs_gifs() -> Iterator[Sample]:
    for mode, exact in itertools.product(("RGB", "RGBA"), (False, True)):
        data = image_files.file_of(drawn(mode), "WEBP", lossless=True, exact=exact)
        yield Sample(f"WebP {mode}, lossless, exact {exact}", data)
        data = image_files.file_of(drawn(mode), "WEBP", quality=90 + 5 * exact)
        yield Sample(f"WebP {mode}, lossy {exact}", data, within=LOSSY)
    for mode, sampling in itertools.product(("L", "RGB", "RGBA"), ("4:4:4", "4:2:0")):
        data = image_files.file_of(drawn(mode), "AVIF", quality=90, subsampling=sampling)
        yield Sample(f"AVIF {mode}, {sampling}", data, within=LOSSY)
    for interlaced, clear in itertools.product((0, 1), (None, 7)):
        options = {} if clear is None else {"transparency": clear}
        data = image_files.file_of(
            drawn("RGB").quantize(64), "GIF", interlace=interlaced, **options
        )
        yield Sample(f"GIF, interlace {interlaced}, clear {clear}", data)


def bmps() -> Iterator[Sample]:
    def color(x: int, y: int) -> int:
        red, green, blue = picture(8, 3)(x, y)
        return red << 16 | green << 8 | blue

    def small(x: int, y: int) -> int:
        red, green, blue = picture(5, 3)(x, y)
        return red << 10 | green << 5 | blue

    rgb = (0xFF0000, 0xFF00, 0xFF)
    clear, opaque = (*rgb, 0), (*rgb, 0xFF000000)
    for header in (40, 108, 124):
        yield Sample(
            f"BMP of 24 bits, {header}",
            writers.bmp(SIZE, 24, color, header=header),
            different="BMP",
        )
        data = writers.bmp(SIZE, 32, color, masks=rgb, header=header)
        yield Sample(f"BMP of 32 bits, masks, {header}", data, different="BMP")
        data = writers.bmp(SIZE, 16, small, header=header)
        yield Sample(f"BMP of 16 bits, {header}", data, different="BMP of 16 bits")
    for name, masks in {"no alpha": clear, "alpha 0": opaque}.items():
        data = writers.bmp(SIZE, 32, color, masks=masks, header=124)
        yield Sample(f"BMP of 32 bits, {name}", data, different="BMP")
    data = writers.bmp(SIZE, 32, lambda x, y: color(x, y) | 0xFF000000, masks=opaque, header=124)
    yield Sample("BMP of 32 bits, alpha 255", data, different="BMP")


def profiled() -> Iterator[Sample]:
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profiles = {
        "swapped": image_files.swapped_profile(),
        "sRGB": plain,
        "linear": image_files.linear_profile(),
    }
    lossless: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}
    for (label, profile), (name, options) in itertools.product(profiles.items(), lossless.items()):
        data = image_files.file_of(drawn("RGB"), name, icc_profile=profile, **options)
        yield Sample(f"{name} with the profile {label}", data)
    # Not the linear profile: its curve multiplies what a lossy format changes in dark colors.
    for label, name in itertools.product(("swapped", "sRGB"), ("JPEG", "AVIF")):
        data = image_files.file_of(
            drawn("RGB"), name, icc_profile=profiles[label], quality=95, subsampling="4:4:4"
        )
        yield Sample(f"{name} with the profile {label}", data, within=LOSSY)


def samples() -> Iterator[Sample]:
    for kind in (pngs, tiffs, tiffs_of_libtiff, jpegs, turned, webps_avifs_gifs, bmps, profiled):
        yield from kind()


def by_libvips(data: bytes) -> Image.Image:
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="perceptual")
    else:
        image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    if image.bands == 1:
        image = image.bandjoin([image, image])
    image = image.cast("uchar")
    return Image.frombytes("RGB", (image.width, image.height), image.write_to_memory())


@functools.cache
def by_formula(name: str) -> Image.Image:
    _, color = DIFFERENT[name]
    image = Image.new("RGB", SIZE)
    for x, y in itertools.product(range(WIDTH), range(HEIGHT)):
        image.putpixel((x, y), color(x, y))
    return image


def expected(sample: Sample) -> Image.Image:
    return by_formula(sample.different) if sample.different else by_libvips(sample.data)


def distance(first: Image.Image, second: Image.Image) -> int:
    """The largest difference of two samples, of 255; 256 for images of different sizes."""
    if first.size != second.size:
        return 256
    bands = ImageChops.difference(first, second).split()
    return max(cast("int", band.getextrema()[1]) for band in bands)


def test_generated_files_have_the_pixels_of_a_second_implementation() -> None:
    checked, wrong, used = 0, [], set()
    for sample in samples():
        canonical = pipeline.canonicalize(sample.data)
        found = distance(image_files.image_of(canonical).convert("RGB"), expected(sample))
        checked += 1
        used.add(sample.different)
        if found > sample.within:
            wrong.append(f"{sample.name}: {found} of 255, {sample.within} allowed")

    assert wrong == [], "\n".join(wrong)
    assert checked >= 200
    assert used == {None, *DIFFERENT}


@pytest.mark.parametrize("name", DIFFERENT)
def test_every_difference_has_a_reason(name: str) -> None:
    assert DIFFERENT[name][0]
