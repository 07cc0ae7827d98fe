"""The checkpoint's processor for plain transformers, without torchvision.

transformers 5 cannot build ``Qwen2VLProcessor`` without torchvision, because of its *video* half. Here the
other two parts are put together: the Pillow image processor, and the tokenizer with its chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from transformers import AutoTokenizer, BatchFeature
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

_IMAGE = "<|image_pad|>"


class Processor:
    """Turns questions with one picture each into a batch for ``generate``."""

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._images = Qwen2VLImageProcessorPil.from_pretrained(checkpoint)

    def __call__(
        self,
        questions: Sequence[str],
        images: Sequence[Image.Image],
        said: Sequence[str] | None = None,
    ) -> BatchFeature:
        """Return the batch, padded on the left; each answer goes on from what was ``said``."""
        pixels = self._images(list(images), return_tensors="pt")
        merged = self._images.merge_size**2
        counts = (pixels["image_grid_thw"].prod(-1) // merged).tolist()
        texts = [
            self._prompt(question).replace(_IMAGE, _IMAGE * count) + beginning
            for question, count, beginning in zip(
                questions, counts, said or [""] * len(counts), strict=True
            )
        ]
        batch = dict(self.tokenizer(texts, padding=True, return_tensors="pt"))
        image = self.tokenizer.convert_tokens_to_ids(_IMAGE)
        batch["mm_token_type_ids"] = (batch["input_ids"] == image).int()
        return BatchFeature(batch | dict(pixels))

    def _prompt(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
