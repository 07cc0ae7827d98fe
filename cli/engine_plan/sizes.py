"""GPU memory that a checkpoint of the Qwen2-VL family needs: weights and cache."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from core import errors

QVQ = "Qwen/QVQ-72B-Preview"

_GIB = 2**30
_QUANTIZED = re.compile(r"awq|gptq|int4|int8|fp8|bnb|gguf|mlx|exl2", re.IGNORECASE)
#: Attention heads of the family's vision tower; tensor parallelism must divide them.
_VISION_HEADS = 16


@dataclass(frozen=True)
class Size:
    """The memory that a checkpoint needs.

    Attributes:
        weights: GiB of the weights in their stored precision (bf16 by default).
        token: KiB of key-value cache per token in bf16, summed over all GPUs.
        heads: attention heads of the language model.
    """

    weights: float
    token: float
    heads: int

    def splits(self, parts: int) -> bool:
        """Whether tensor parallelism over ``parts`` GPUs is possible."""
        return self.heads % parts == 0 and _VISION_HEADS % parts == 0


#: The three sizes of the family. Weights: parameters (73.4, 8.29 and 2.21 billion) x 2 bytes. Cache: layers
#: x 2 x KV heads x 128 x 2 bytes. Source: ``config.json`` of the checkpoints.
FAMILY = {
    "72B": Size(weights=136.7, token=320, heads=64),
    "7B": Size(weights=15.4, token=56, heads=28),
    "2B": Size(weights=4.1, token=28, heads=12),
}


def measure(model: str) -> Size:
    """Return the size of a checkpoint, from the files of a directory or by its name on the Hugging Face Hub.

    Raises:
        core.errors.LaunchError: it is neither a directory with a checkpoint nor a name of known size.
    """
    folder = Path(model)
    if folder.is_dir():
        return _of_directory(folder)
    if not _QUANTIZED.search(model):
        for label, size in FAMILY.items():
            if re.search(rf"(?<![\d.]){label}\b", model):
                return size
    raise errors.LaunchError(
        f"The size of {model!r} is unknown: download it and pass its directory as --model-path."
    )


def _of_directory(folder: Path) -> Size:
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    try:
        config = json.loads((folder / "config.json").read_text())
        text = config.get("text_config", config)
        layers, heads = int(text["num_hidden_layers"]), int(text["num_attention_heads"])
        pairs = (
            2 * int(text.get("num_key_value_heads", heads)) * (int(text["hidden_size"]) // heads)
        )
    except (OSError, ValueError, KeyError) as error:
        raise errors.LaunchError(
            f"{folder} is not a checkpoint: its config.json is missing or invalid."
        ) from error
    if not weights:
        raise errors.LaunchError(f"{folder} is not a checkpoint: it contains no *.safetensors.")
    return Size(weights=weights / _GIB, token=layers * pairs * 2 / 1024, heads=heads)
