"""Train the byte-level BPE on questions and traces, with Qwen2's own way to split, so any text fits in.

python -m models.training.tokenizer OUT.json
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from models.training import prompts, questions, scenes

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LARGEST = 640


def corpus(count: int = 6000, seed: int = 7) -> Iterator[str]:
    """Yield what the model will read and write."""
    rng = random.Random(seed)
    for system in sorted(set(prompts.SYSTEMS)):
        for _ in range(30):
            yield "system\n" + system
            yield "user\n"
            yield "assistant\n"
    for _ in range(count):
        scene = scenes.sample(rng)
        question = questions.ask(rng, scene)
        yield questions.dress(rng, question)
        yield questions.reason(rng, scene, question)[0]


def train() -> Tokenizer:
    """Return a tokenizer trained on the corpus, with Qwen2-VL's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST - len(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(special, special=True, normalized=False) for special in SPECIALS]
    )
    return tokenizer


def main() -> None:
    """Train, save, and say how long traces come out."""
    parser = argparse.ArgumentParser(description="Train tiny-qvq's tokenizer.")
    parser.add_argument("out")
    out = parser.parse_args().out
    tokenizer = train()
    tokenizer.save(out)
    rng = random.Random(3)
    lengths = []
    for _ in range(2000):
        scene = scenes.sample(rng)
        trace, _ = questions.reason(rng, scene, questions.ask(rng, scene))
        lengths.append(len(tokenizer.encode(trace).ids))
    print(f"vocabulary {tokenizer.get_vocab_size()}")
    print(f"trace tokens: mean {statistics.mean(lengths):.1f}, longest {max(lengths)}")


if __name__ == "__main__":
    main()
