"""The arithmetic of sizes and tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import profiles, settings
from jobs import images
from jobs.images import geometry, pipeline

SIZES = {
    (256, 256): (81, 81, 81, 81, 81),
    (640, 480): (391, 391, 391, 391, 391),
    (1280, 720): (1196, 1196, 1196, 1196, 1196),
    (1920, 1080): (1222, 2479, 2691, 2691, 2691),
    (1240, 1754): (1260, 2520, 2772, 2772, 2772),
    (2480, 3508): (1260, 2520, 4028, 8132, 11125),
    (4032, 3024): (1230, 2494, 4015, 8112, 15552),
    (8064, 6048): (1230, 2494, 4015, 8112, 16170),
}
CAPS = (1280, 2560, 4096, 8192, 16384)


@pytest.mark.parametrize(
    ("size", "cap", "tokens"),
    [(size, cap, n) for size, row in SIZES.items() for cap, n in zip(CAPS, row, strict=True)],
)
def test_tokens_are_those_of_the_qwen2_vl_processor(
    size: tuple[int, int], cap: int, tokens: int
) -> None:
    width, height = size
    tall, wide = images.smart_resize(height, width, min_pixels=3136, max_pixels=cap * 784)

    assert (tall // 28) * (wide // 28) == tokens


@pytest.mark.parametrize(("side", "rounded"), [(70, 56), (98, 112), (99, 112), (126, 112)])
def test_halves_are_rounded_to_even(side: int, rounded: int) -> None:
    assert images.smart_resize(side, 280, min_pixels=1, max_pixels=10**6) == (rounded, 280)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (201, 1), (1, 201)])
def test_an_image_that_the_processor_rejects_has_no_size(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="no size"):
        images.smart_resize(height, width, min_pixels=3136, max_pixels=10**6)


@given(
    short=st.integers(2, 7000),
    ratio=st.floats(1, pipeline.MAX_RATIO),
    swap=st.sampled_from([1, -1]),
    detail=st.sampled_from(list(profiles.DETAIL_TOKENS)),
)
def test_a_canonical_size_fits_its_tier_and_shape_and_is_stable(
    short: int,
    ratio: float,
    swap: int,
    detail: profiles.Detail,
) -> None:
    height, width = (short, int(short * ratio))[::swap]

    tall, wide = geometry.canonical_size(height, width, detail)

    assert tall % 28 == wide % 28 == 0
    assert 4 <= (tall // 28) * (wide // 28) <= profiles.DETAIL_TOKENS[detail]
    # Each side is off by at most one token's, on either side of the division.
    assert (tall - 28) / (wide + 28) <= height / width <= (tall + 28) / max(wide - 28, 1)
    assert geometry.canonical_size(tall, wide, detail) == (tall, wide)


def test_tokens_of_a_canonical_image_follow_the_served_models_limits() -> None:
    assert images.image_tokens(1204, 868, profiles.QVQ) == 43 * 31
    assert images.image_tokens(1204, 868, profiles.TINY) <= profiles.TINY.max_pixels // 784
    assert images.image_tokens(56, 56, profiles.TINY) >= profiles.TINY.min_pixels // 784


def test_tokens_of_a_small_image_follow_the_least_tokens_of_the_settings() -> None:
    options = settings.Settings.read(
        {"LONGLOOK_MODEL": "qvq-72b-preview", "LONGLOOK_MIN_IMAGE_TOKENS": "1280"}
    )

    assert images.image_tokens(280, 280, profiles.QVQ) == 100
    assert images.image_tokens(280, 280, options.profile) >= 1280
    assert images.image_tokens(1204, 868, options.profile) == 43 * 31
