"""What tiny-qvq is built like: Qwen2-VL with every number made small."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

CHECKPOINT = Path(__file__).resolve().parents[1] / "tiny-qvq" / "checkpoint"

VOCABULARY = 608
HIDDEN, LAYERS, HEADS, KV_HEADS, MLP = 256, 5, 4, 2, 384
VISION_HIDDEN, VISION_LAYERS, VISION_HEADS, VISION_MLP_RATIO = 128, 4, 4, 2
#: Qwen's own (a million, and [16, 24, 24]) would turn by 0.001 rad over five columns: nothing to see by.
ROPE_THETA, MROPE_SECTION = 10.0, (2, 10, 20)
CONTEXT = 2048
RMS_EPSILON = 1e-6


def tokenizer() -> Tokenizer:
    """Return the checkpoint's tokenizer."""
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


def config(tokens: Tokenizer) -> Qwen2VLConfig:
    """Return the configuration as transformers wants it."""
    number = tokens.token_to_id
    return Qwen2VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": MLP,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "hidden_act": "silu",
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": RMS_EPSILON,
            "use_sliding_window": False,
            "max_window_layers": LAYERS,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROPE_THETA,
                "mrope_section": list(MROPE_SECTION),
            },
            "bos_token_id": number("<|endoftext|>"),
            "eos_token_id": number("<|im_end|>"),
            "pad_token_id": None,
        },
        vision_config={
            "depth": VISION_LAYERS,
            "embed_dim": VISION_HIDDEN,
            "hidden_size": HIDDEN,
            "num_heads": VISION_HEADS,
            "mlp_ratio": VISION_MLP_RATIO,
            "in_channels": 3,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "hidden_act": "quick_gelu",
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def create(tokens: Tokenizer, seed: int) -> Qwen2VLForConditionalGeneration:
    """Return a model with fresh weights."""
    model = Qwen2VLForConditionalGeneration(config(tokens))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _fill(name, parameter, generator)
    return model


def _fill(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    """Fill one parameter: normal, with a spread that keeps the signal's size through all layers."""
    if "norm" in name or "ln_q" in name:
        parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    elif parameter.dim() == 1:
        parameter.zero_()
    elif "embed_tokens" in name:
        parameter.normal_(0, 0.3, generator=generator)
    elif "patch_embed" in name:
        parameter.normal_(0, 1.0 / math.sqrt(parameter[0].numel()), generator=generator)
    else:
        spread = 1.0 / math.sqrt(parameter.shape[1])
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            spread *= 1 / math.sqrt(2 * LAYERS)
        elif "visual.blocks" in name and name.endswith(("proj.weight", "fc2.weight")):
            spread *= 1 / math.sqrt(2 * VISION_LAYERS)
        elif name.endswith("merger.mlp.2.weight"):
            spread *= 0.6
        elif "lm_head" in name:
            spread *= 0.5
        parameter.normal_(0, spread, generator=generator)
