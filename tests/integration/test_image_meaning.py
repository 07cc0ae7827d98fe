"""What a file says about its values is heeded: profiles and codes of colors, white, transparency, shape, and pages."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from jobs.images import icc, pipeline
from jobs.images.containers import Signal, signals
from tests import image_files
from tests import image_writers as writers

SIZE = (84, 56)
MIDDLE = (42, 28)
RGB = (200, 100, 50)


def seen(data: bytes, at: tuple[int, int] = MIDDLE) -> object:
    return image_files.image_of(pipeline.canonicalize(data)).convert("RGB").getpixel(at)


def size_of(data: bytes) -> tuple[int, int]:
    """The size that the file's image has for the eye."""
    original = pipeline.canonicalize(data).original
    return original.width, original.height


class TestProfiles:
    @pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("called", ["GIMP built-in Linear sRGB", "sRGB-elle-V4-g10.icc", "x"])
    def test_a_straight_curve_is_converted_whatever_the_profile_is_called(
        self, name: str, called: str
    ) -> None:
        profile = image_files.linear_profile(called)
        data = image_files.file_of(Image.new("RGB", SIZE, (128,) * 3), name, icc_profile=profile)

        assert image_files.near(seen(data), (188, 188, 188))

    def test_wide_primaries_are_converted_although_the_name_says_srgb(self) -> None:
        wide = icc.profile(Signal((0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)))
        named = wide.replace(b"signal\x00", b"sRGB v2")
        data = image_files.file_of(Image.new("RGB", SIZE, RGB), icc_profile=named)

        assert named != wide
        assert image_files.near(seen(data), (241, 76, 29), within=2)

    @pytest.mark.parametrize("called", ["sRGB", "Camera profile 7", ""])
    def test_srgb_under_any_name_changes_no_pixel(self, called: str) -> None:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        profile = srgb.replace("sRGB".encode("utf-16-be"), called.ljust(4)[:4].encode("utf-16-be"))
        image = image_files.gradient(*SIZE)
        data = image_files.file_of(image, icc_profile=profile)

        assert image_files.image_of(pipeline.canonicalize(data)).tobytes() == image.tobytes()

    def test_a_palette_is_converted(self) -> None:
        image = Image.new("P", SIZE, 1)
        image.putpalette([0, 0, 0, 128, 128, 128])
        data = image_files.file_of(image, icc_profile=image_files.linear_profile())

        assert image_files.near(seen(data), (188, 188, 188))

    def test_gray_with_a_profile_of_colors_is_converted(self) -> None:
        image = Image.new("L", SIZE, 128)
        data = image_files.file_of(image, "JPEG", icc_profile=image_files.linear_profile())

        assert image_files.near(seen(data), (188, 188, 188))

    def test_the_profile_in_a_bmp_is_used(self) -> None:
        profile = image_files.linear_profile()
        data = bytearray(writers.bmp(SIZE, 24, lambda _x, _y: 0x808080, header=124, tail=profile))
        data[70:74] = b"DEBM"
        struct.pack_into("<II", data, 126, len(data) - len(profile) - 14, len(profile))

        assert image_files.near(seen(bytes(data)), (188, 188, 188))


def png(*chunks: tuple[bytes, bytes], color: tuple[int, ...] = RGB) -> bytes:
    return writers.png(
        SIZE,
        8,
        2 if len(color) > 1 else 0,
        writers.flat(*color),
        chunks=[writers.chunk(name, content) for name, content in chunks],
    )


def codes(primaries: int, transfer: int, *, full_range: bool = True) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, 0, full_range])


LINEAR = b"gAMA", struct.pack(">I", 100_000)
USUAL = b"gAMA", struct.pack(">I", 45_455)
P3 = b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
GRAY = (128, 128, 128)


class TestSignals:
    @pytest.mark.parametrize(
        ("chunks", "color", "expected"),
        [
            ([codes(1, 13)], RGB, RGB),
            ([codes(12, 13)], RGB, (215, 93, 31)),
            ([codes(9, 13)], RGB, (241, 76, 29)),
            ([codes(1, 8)], GRAY, (188, 188, 188)),
            ([codes(1, 1)], GRAY, GRAY),
            ([codes(1, 13, full_range=False)], (16, 126, 235), (0, 128, 255)),
            ([codes(200, 13)], RGB, RGB),
            ([codes(12, 13), (b"sRGB", b"\x00"), LINEAR], RGB, (215, 93, 31)),
            ([LINEAR], GRAY, (188, 188, 188)),
            ([LINEAR], (128,), (188, 188, 188)),
            ([USUAL], RGB, RGB),
            ([LINEAR, (b"sRGB", b"\x00")], GRAY, GRAY),
            ([USUAL, P3], RGB, (215, 93, 31)),
            ([P3], RGB, (215, 93, 31)),
            ([USUAL, (b"cHRM", bytes(32))], RGB, RGB),
            ([(b"gAMA", struct.pack(">I", 1))], RGB, RGB),
        ],
    )
    def test_a_png_without_a_profile_is_seen_as_its_chunks_say(
        self,
        chunks: list[tuple[bytes, bytes]],
        color: tuple[int, ...],
        expected: tuple[int, int, int],
    ) -> None:
        assert image_files.near(seen(png(*chunks, color=color)), expected, within=2)

    @pytest.mark.parametrize(("transfer", "white"), [(16, 148), (18, 191)])
    def test_hdr_is_mapped_to_the_range_of_srgb(self, transfer: int, white: int) -> None:
        levels = [
            seen(png(codes(9, transfer), color=(value,) * 3))
            for value in (0, white // 3, white // 2, white, (white + 255) // 2, 255)
        ]

        brightness = [level[0] for level in levels if isinstance(level, tuple)]
        assert brightness == sorted(brightness)
        assert (brightness[0], brightness[-1]) == (0, 255)
        # Reference white is nearly white; some room is left for highlights.
        assert 235 <= brightness[3] < 255
        assert all(isinstance(level, tuple) and len(set(level)) == 1 for level in levels)

    @pytest.mark.parametrize(
        ("primaries", "expected"), [(1, RGB), (12, (215, 93, 31)), (9, (241, 76, 29))]
    )
    def test_an_avif_without_a_profile_is_seen_as_its_codes_say(
        self, primaries: int, expected: tuple[int, int, int]
    ) -> None:
        data = image_files.file_of(Image.new("RGB", SIZE, RGB), "AVIF", quality=100)
        at = data.index(b"colrnclx") + 8
        coded = data[:at] + struct.pack(">HH", primaries, 13) + data[at + 4 :]

        assert image_files.near(seen(coded), expected, within=6)

    def test_primaries_without_an_area_are_not_plausible(self) -> None:
        assert signals.plausible([0.3127, 0.329] * 4) is None
        assert signals.plausible(signals.SRGB) == signals.SRGB


def gray(bits: int, value: int, **tags: tuple[int, int]) -> bytes:
    """A TIFF of one gray; keyword arguments like ``t281=(type, value)`` are further tags."""
    extra: dict[int, writers.Values] = {
        int(name[1:]): (kind, [number]) for name, (kind, number) in tags.items()
    }
    return writers.tiff(writers.page(SIZE, bits, 1, writers.flat(value), tags=extra))


class TestDepth:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (gray(12, 4095), 255),
            (gray(12, 2048), 128),
            (gray(16, 4095), 16),
            (gray(16, 4095, t281=(writers.SHORT, 4095)), 255),
            (gray(16, 1023, t341=(writers.SHORT, 1023)), 255),
            (gray(16, 65535, t281=(writers.SHORT, 65535)), 255),
            (gray(16, 837, t281=(writers.SHORT, 837)), 3),
            (gray(16, 32767, t339=(writers.SHORT, 2)), 255),
            (gray(32, 0xFFFFFFFF), 255),
            (gray(32, 4095), 255),
        ],
    )
    def test_white_is_what_the_file_says(self, data: bytes, expected: int) -> None:
        assert image_files.near(seen(data), (expected,) * 3, within=1)

    @pytest.mark.parametrize("compression", [1, 8])
    @pytest.mark.parametrize("order", "<>")
    def test_floats_of_64_bits_are_read(self, order: str, compression: int) -> None:
        high, low = divmod(int.from_bytes(struct.pack(">d", 0.5)), 2**32)
        words = (high, low) if order == ">" else (low, high)
        tags, strip = writers.page(
            (2 * SIZE[0], SIZE[1]),
            32,
            1,
            lambda x, _y: (words[x % 2],),
            order=order,
            compression=compression,
        )
        described: dict[int, writers.Values] = {
            256: (writers.LONG, [SIZE[0]]),
            258: (writers.SHORT, [64]),
            339: (writers.SHORT, [3]),
        }
        data = writers.tiff(({**tags, **described}, strip), order=order)

        assert image_files.near(seen(data), GRAY, within=1)

    @pytest.mark.parametrize("outlier", [1.02, 300.0, 1e30, -1e30])
    @pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
    def test_one_pixel_does_not_decide_white(self, white: float, outlier: float) -> None:
        image = Image.linear_gradient("L").resize((256, 256)).convert("F")
        image = image.point(lambda value: value * (white / 255) + 0)
        image.putpixel((3, 200), white * outlier)
        plain = Image.linear_gradient("L")

        data = image_files.file_of(image.crop((0, 0, 252, 252)), "TIFF")
        for y in (20, 128, 230):
            expected = plain.getpixel((9, y))
            assert isinstance(expected, int)
            assert image_files.near(seen(data, (9, y)), (expected,) * 3, within=1)

    @pytest.mark.parametrize("outlier", [256, 70_000, -5, -70_000, 2**31 - 1])
    def test_one_pixel_does_not_decide_white_of_integers(self, outlier: int) -> None:
        image = Image.linear_gradient("L").resize((256, 256)).convert("I")
        image.putpixel((3, 200), outlier)

        data = image_files.file_of(image.crop((0, 0, 252, 252)), "TIFF")
        assert image_files.near(seen(data, (9, 128)), GRAY, within=1)

    def test_a_pixel_that_is_not_a_number_is_rejected_wherever_it_is(self) -> None:
        for place in ((0, 0), (40, 30)):
            image = Image.new("F", SIZE, 0.5)
            image.putpixel(place, float("nan"))
            rejected = image_files.refusal(image_files.file_of(image, "TIFF"))

            assert rejected.specific_code == "invalid_image_mode"


class TestTransparency:
    def test_deep_colors_that_differ_in_their_last_bit_are_opaque(self) -> None:
        clear = (0x1234, 0x5678, 0x9ABC)
        near = (0x1234, 0x5678, 0x9ABD)
        data = writers.png(
            SIZE,
            16,
            2,
            lambda x, _y: clear if x < 42 else near,
            chunks=[writers.chunk(b"tRNS", struct.pack(">3H", *clear))],
        )

        assert seen(data, (20, 28)) == image_files.WHITE
        assert seen(data, (60, 28)) == (0x12, 0x56, 0x9A)

    def test_deep_grays_that_differ_in_their_last_bit_are_opaque(self) -> None:
        data = writers.png(
            SIZE,
            16,
            0,
            lambda x, _y: (0x8000 + (x >= 42),),
            chunks=[writers.chunk(b"tRNS", b"\x80\x00")],
        )

        assert seen(data, (20, 28)) == image_files.WHITE
        assert seen(data, (60, 28)) == GRAY

    def test_an_image_that_is_clear_everywhere_is_white_except_in_a_bmp(self) -> None:
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        bmp = writers.bmp(SIZE, 32, lambda _x, _y: 0xC86432, masks=masks, header=124)
        clear = Image.new("RGBA", SIZE, (*RGB, 0))

        assert seen(bmp) == RGB
        for name in ("PNG", "TIFF"):
            assert seen(image_files.file_of(clear, name)) == image_files.WHITE

    def test_a_bmp_with_some_alpha_is_on_white(self) -> None:
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        bmp = writers.bmp(
            SIZE, 32, lambda x, _y: 0xFFC86432 if x < 42 else 0xC86432, masks=masks, header=124
        )

        assert (seen(bmp, (20, 28)), seen(bmp, (60, 28))) == (RGB, image_files.WHITE)


class TestFirstFrames:
    def test_what_the_first_frame_of_a_webp_does_not_cover_is_white(self) -> None:
        first = Image.new("RGBA", SIZE, (0, 0, 0, 0))
        first.paste((*RGB, 255), (42, 0, 84, 56))
        rest = Image.new("RGBA", SIZE, (*image_files.BLUE, 255))
        data = image_files.file_of(
            first, "WEBP", save_all=True, append_images=[rest], lossless=True
        )
        # The file says that no frame is transparent.
        at = data.index(b"VP8X") + 8
        opaque = data[:at] + bytes([data[at] & ~0x10]) + data[at + 1 :]

        for file in (data, opaque):
            assert (seen(file, (20, 28)), seen(file, (60, 28))) == (image_files.WHITE, RGB)

    def test_what_the_first_frame_of_a_gif_does_not_cover_is_white(self) -> None:
        image = Image.new("P", (56, 56), 1)
        image.putpalette([*image_files.RED, *RGB])
        data = bytearray(image_files.file_of(image, "GIF"))
        struct.pack_into("<HH", data, 6, 112, 56)

        assert seen(bytes(data), (20, 28)) == RGB
        assert seen(bytes(data), (90, 28)) == image_files.WHITE


class TestShape:
    @pytest.mark.parametrize(
        ("across", "down", "expected"),
        [
            (200, 100, (84, 112)),
            (100, 200, (168, 56)),
            (72, 72, (84, 56)),
            (204, 196, (84, 56)),
            (900, 100, (84, 56)),
            (0, 100, (84, 56)),
        ],
    )
    def test_pixels_that_are_not_square_are_stretched(
        self, across: int, down: int, expected: tuple[int, int]
    ) -> None:
        tags: dict[int, writers.Values] = {
            282: (writers.RATIONAL, [Fraction(across)]),
            283: (writers.RATIONAL, [Fraction(down)]),
        }
        image = image_files.gradient(*SIZE)
        files = {
            "TIFF": writers.tiff(writers.page(SIZE, 8, 0, writers.flat(9), tags=tags)),
            "PNG": png((b"pHYs", struct.pack(">IIB", across, down, 0))),
            "BMP": writers.bmp(SIZE, 24, lambda _x, _y: 0, resolution=(across, down)),
            "JPEG": image_files.file_of(image, "JPEG").replace(
                b"\x00\x01\x00\x01\x00\x00\xff", struct.pack(">HHxxB", across, down, 255), 1
            ),
        }

        assert {name: size_of(data) for name, data in files.items()} == dict.fromkeys(
            files, expected
        )

    def test_a_fax_has_the_shape_of_its_page(self) -> None:
        page = Image.new("1", (1728, 1151), 1)
        data = image_files.file_of(page, "TIFF", compression="group4", dpi=(204, 98))
        canonical = pipeline.canonicalize(data)

        assert (canonical.original.width, canonical.original.height) == (1728, 2396)
        assert canonical.height > canonical.width

    def test_a_stretched_image_may_be_too_narrow(self) -> None:
        page = writers.page(
            (28, 700),
            8,
            1,
            writers.flat(9),
            tags={
                282: (writers.RATIONAL, [Fraction(300)]),
                283: (writers.RATIONAL, [Fraction(100)]),
            },
        )

        assert image_files.refusal(writers.tiff(page)).specific_code == "invalid_image"


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


class TestOrientation:
    @pytest.mark.parametrize("name", ["JPEG", "WEBP", "TIFF", "AVIF"])
    def test_an_orientation_in_xmp_alone_turns_nothing(self, name: str) -> None:
        data = image_files.file_of(image_files.gradient(*SIZE), name, xmp=XMP)

        assert size_of(data) == SIZE

    def test_an_orientation_in_the_texts_of_a_png_turns_nothing(self) -> None:
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        exif = image_files.with_orientation(6).tobytes().hex()
        texts.add_text("Raw profile type exif", f"\nexif\n{len(exif) // 2:8}\n{exif}\n", zip=True)
        data = image_files.file_of(image_files.gradient(*SIZE), pnginfo=texts)

        assert size_of(data) == SIZE

    def test_the_exif_data_of_a_png_turn_it_wherever_they_are(self) -> None:
        data = image_files.file_of(image_files.gradient(*SIZE))
        exif = writers.chunk(b"eXIf", image_files.with_orientation(6).tobytes()[6:])

        assert size_of(data[:33] + exif + data[33:]) == SIZE[::-1]
        assert size_of(data[:-12] + exif + data[-12:]) == SIZE[::-1]


class TestPages:
    def copy(self) -> writers.Page:
        tags: dict[int, writers.Values] = {254: (writers.LONG, [1])}
        return writers.page((28, 28), 8, 2, writers.flat(9, 9, 9), tags=tags)

    def full(self, **tags: int) -> writers.Page:
        extra: dict[int, writers.Values] = {
            int(name[1:]): (writers.LONG, [value]) for name, value in tags.items()
        }
        return writers.page(SIZE, 8, 2, writers.flat(*RGB), tags=extra)

    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("order", "<>")
    def test_a_reduced_copy_is_not_taken_for_the_image(self, order: str, *, big: bool) -> None:
        copy, full = self.copy(), self.full()
        for data in (
            writers.tiff(copy, full, order=order, big=big),
            writers.tiff(copy, below=[full], order=order, big=big),
            writers.tiff(copy, below=[copy, full], order=order, big=big),
            writers.tiff(full, copy, order=order, big=big),
        ):
            assert size_of(data) == SIZE
            # The color has the same byte order in all of these files.
            assert seen(data) == RGB

    def test_an_old_mark_of_a_reduced_copy_counts_too(self) -> None:
        tags, strip = self.copy()
        old: dict[int, writers.Values] = {
            **tags,
            254: (writers.LONG, [0]),
            255: (writers.SHORT, [2]),
        }

        assert size_of(writers.tiff((old, strip), self.full())) == SIZE

    def test_a_mask_is_not_taken_for_the_image(self) -> None:
        mask = writers.page(SIZE, 1, 4, writers.flat(1), tags={254: (writers.LONG, [4])})

        assert seen(writers.tiff(mask, self.full())) == RGB

    def test_a_copy_alone_in_its_file_is_the_image(self) -> None:
        assert size_of(writers.tiff(self.copy())) == (28, 28)

    def test_pages_are_counted(self) -> None:
        one, five = (writers.tiff(*[self.full()] * number) for number in (1, 5))
        counts = [pipeline.canonicalize(data).original.frames for data in (one, five)]

        assert counts == [1, 5]

    def test_the_images_of_a_jpeg_are_counted(self) -> None:
        file = io.BytesIO()
        image = image_files.gradient(*SIZE)
        image.save(file, "MPO", save_all=True, append_images=[image, image])

        assert pipeline.canonicalize(file.getvalue()).original.frames == 3
