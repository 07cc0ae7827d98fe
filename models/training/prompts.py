"""The chat form of a question, the same as the checkpoint's chat template makes."""

from __future__ import annotations

PLAIN_SYSTEM = "You are a helpful assistant."
QVQ_SYSTEM = (
    "You are a helpful and harmless assistant. You are Qwen developed by Alibaba. "
    "You should think step-by-step."
)
#: System prompts of the training, QVQ's own among them, the plain one more often.
SYSTEMS = (
    *(PLAIN_SYSTEM,) * 5,
    "You are a helpful and harmless assistant. You should think step-by-step.",
    QVQ_SYSTEM,
    "You are a careful assistant.",
    "",
)


def around(text: str, system: str = PLAIN_SYSTEM, *, text_first: bool = False) -> tuple[str, str]:
    """Return what stands before the image's tokens and what stands after them."""
    before = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    before += "<|im_start|>user\n"
    after = "<|im_end|>\n<|im_start|>assistant\n"
    if text_first:
        return before + text + "<|vision_start|>", "<|vision_end|>" + after
    return before + "<|vision_start|>", "<|vision_end|>" + text + after
