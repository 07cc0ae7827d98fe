"""How large a checkpoint of the Qwen2-VL family is in a GPU's memory: its weights and its cache."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from core import errors

QVQ = "Qwen/QVQ-72B-Preview"

_GIB = 2**30
_QUANTISED = re.compile(r"awq|gptq|int4|int8|fp8|bnb|gguf|mlx|exl2", re.IGNORECASE)
#: Attention heads of the vision tower of the whole family; tensor parallelism has to divide them.
_VISION_HEADS = 16


@dataclass(frozen=True)
class Size:
    """What has to fit.

    Attributes:
        weights: GiB of weights as they are stored (bf16 unless the folder says otherwise).
        token: KiB of key-value cache that one token takes, over all GPUs together, in bf16.
        heads: attention heads of the language model.
    """

    weights: float
    token: float
    heads: int

    def splits(self, parts: int) -> bool:
        """Whether tensor parallelism over ``parts`` GPUs is possible."""
        return self.heads % parts == 0 and _VISION_HEADS % parts == 0


#: The family comes in three sizes. Parameters (73.4, 8.29 and 2.21 billion) by two bytes; cache: layers
#: x 2 x KV heads x 128 x 2 bytes. Source: ``config.json`` of the checkpoints.
FAMILY = {
    "72B": Size(weights=136.7, token=320, heads=64),
    "7B": Size(weights=15.4, token=56, heads=28),
    "2B": Size(weights=4.1, token=28, heads=12),
}


def measure(model: str) -> Size:
    """Return the size of a checkpoint: a folder is weighed, a hub's name is looked up.

    Raises:
        core.errors.LaunchError: it is neither a folder with a checkpoint nor a name of known size.
    """
    folder = Path(model)
    if folder.is_dir():
        return _weigh(folder)
    if not _QUANTISED.search(model):
        for label, size in FAMILY.items():
            if re.search(rf"(?<![\d.]){label}\b", model):
                return size
    raise errors.LaunchError(
        f"The size of {model!r} is not known here: download it and give its folder as --model-path."
    )


def _weigh(folder: Path) -> Size:
    """Return the size of the checkpoint in a folder."""
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
            f"{folder} is not a checkpoint: its config.json cannot be used."
        ) from error
    if not weights:
        raise errors.LaunchError(f"{folder} is not a checkpoint: it has no *.safetensors.")
    return Size(weights=weights / _GIB, token=layers * pairs * 2 / 1024, heads=heads)
