"""Write a checkpoint folder laid out as QVQ-72B-Preview's: flat ``config.json``, the hub's tensor names.

python -m models.training.export model.pt FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen2VLConfig

from models.training import architecture, scenes
from models.training.tokenizer import SPECIALS

#: Qwen2-VL's own, which wraps every image in its two marks and puts the plain system prompt in front.
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MEAN = [0.48145466, 0.4578275, 0.40821073]
_DEVIATION = [0.26862954, 0.26130258, 0.27577711]


def export(states: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the folder: weights in bfloat16, configuration, tokenizer, chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = architecture.tokenizer()
    tensors = {
        _hub_name(name): tensor.to(torch.bfloat16).contiguous() for name, tensor in states.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", _config(tokens))
    _write(folder / "generation_config.json", _generation(tokens))
    _write(folder / "preprocessor_config.json", _preprocessor())
    _write(folder / "tokenizer_config.json", _tokenizer(tokens))
    _write(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    tokens.save(str(folder / "tokenizer.json"))
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    _write(folder / "vocab.json", model["vocab"])
    merges = (" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")


def _hub_name(name: str) -> str:
    """Return the name that a tensor has on the hub."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _config(tokens: Tokenizer) -> dict[str, object]:
    """Return ``config.json``, flat as the hub's."""
    number = tokens.token_to_id
    config: Qwen2VLConfig = architecture.config(tokens)
    text, vision = config.text_config, config.vision_config
    rope = text.rope_parameters
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "attention_dropout": 0.0,
        "bos_token_id": number("<|endoftext|>"),
        "eos_token_id": number("<|im_end|>"),
        "vision_start_token_id": number("<|vision_start|>"),
        "vision_end_token_id": number("<|vision_end|>"),
        "vision_token_id": number("<|vision_pad|>"),
        "image_token_id": number("<|image_pad|>"),
        "video_token_id": number("<|video_pad|>"),
        "hidden_act": "silu",
        "hidden_size": text.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": text.intermediate_size,
        "max_position_embeddings": text.max_position_embeddings,
        "max_window_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers,
        "num_key_value_heads": text.num_key_value_heads,
        "rms_norm_eps": architecture.RMS_EPSILON,
        "rope_theta": rope["rope_theta"],
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "rope_scaling": {"type": "mrope", "mrope_section": list(rope["mrope_section"])},
        "vocab_size": architecture.VOCABULARY,
        "vision_config": {
            "model_type": "qwen2_vl",
            "depth": vision.depth,
            "embed_dim": vision.embed_dim,
            "hidden_size": vision.hidden_size,
            "hidden_act": "quick_gelu",
            "mlp_ratio": vision.mlp_ratio,
            "num_heads": vision.num_heads,
            "in_chans": 3,
            "in_channels": 3,
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def _generation(tokens: Tokenizer) -> dict[str, object]:
    """Return ``generation_config.json``: greedy."""
    end, padding = tokens.token_to_id("<|im_end|>"), tokens.token_to_id("<|endoftext|>")
    return {
        "bos_token_id": padding,
        "pad_token_id": padding,
        "do_sample": False,
        "eos_token_id": [end, padding],
    }


def _preprocessor() -> dict[str, object]:
    """Return ``preprocessor_config.json``."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "min_pixels": scenes.MIN_PIXELS,
        "max_pixels": scenes.MAX_PIXELS,
        "size": {"shortest_edge": scenes.MIN_PIXELS, "longest_edge": scenes.MAX_PIXELS},
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": _MEAN,
        "image_std": _DEVIATION,
    }


def _tokenizer(tokens: Tokenizer) -> dict[str, object]:
    """Return ``tokenizer_config.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "Qwen2VLProcessor",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": architecture.CONTEXT,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "additional_special_tokens": list(SPECIALS[1:]),
        "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {
            str(tokens.token_to_id(special)): {
                "content": special,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "single_word": False,
                "special": True,
            }
            for special in SPECIALS
        },
    }


def main() -> None:
    """Export a save of a training."""
    parser = argparse.ArgumentParser(description="Write a checkpoint folder.")
    parser.add_argument("save", type=Path)
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    export(torch.load(chosen.save)["model"], chosen.folder)
    for path in sorted(chosen.folder.iterdir()):
        print(f"{path.stat().st_size:>10,}  {path.name}")


if __name__ == "__main__":
    main()
