"""Pictures as the vision tower gets them: the same arithmetic as transformers' ``Qwen2VLImageProcessor``.

Training needs thousands of pictures a minute, so its grain and light are put on after the resize, with
NumPy; the exam (:mod:`models.training.exam`) puts them on the upload, as a camera does.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from models.training.scenes import TOKEN, Scene

Array = np.ndarray

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
PATCH = TOKEN // 2
#: Numbers of one patch: three channels of 14 x 14 pixels. (Its second frame is a copy, see ``forward``.)
PATCH_NUMBERS = 3 * PATCH * PATCH


def patches(image: Image.Image, scene: Scene, noise: np.random.Generator | None = None) -> Array:
    """Return the patches of a picture, (4 x rows x columns, 588), worn by ``noise`` if it is given."""
    size = (scene.columns * TOKEN, scene.rows * TOKEN)
    array = np.asarray(image.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    if noise is not None:
        array = _worn(noise, array)
    return _patchify(array, scene.rows, scene.columns)


def _worn(noise: np.random.Generator, array: Array) -> Array:
    """Return a picture of floats (height, width, 3) in 0..255 with grain and light from one side."""
    throw = noise.random()
    if throw < 0.35:
        return array
    height, width, _ = array.shape
    if throw < 0.75:
        grain = noise.normal(0, noise.uniform(1, 9), (height, width, 1))
        array = array + grain.astype(np.float32)
    if throw > 0.6:
        across, down = noise.uniform(-22, 22, 2)
        ramp_x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None]
        ramp_y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None]
        array = array + (ramp_x * across + ramp_y * down)
    return np.clip(np.rint(array), 0, 255)


def _patchify(array: Array, rows: int, columns: int) -> Array:
    """Return normalised patches in the order of the processor: the four of a token stand together."""
    scaled = ((array * np.float32(1 / 255) - MEAN) / DEVIATION).astype(np.float32)
    split = scaled.reshape(rows, 2, PATCH, columns, 2, PATCH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    return np.ascontiguousarray(split).reshape(rows * columns * 4, PATCH_NUMBERS)
