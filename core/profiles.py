"""The limits of a served model: context, output, images, sampling. One row per model family.

The arithmetic of image tokens is in :mod:`jobs.images`; the numbers here are the model's own.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from core import special_tokens
from core.special_tokens import SpecialTokens

#: Pixels of one visual token: patch 14, spatial merge 2, on both sides.
TOKEN_PIXELS = 28 * 28

Detail = Literal["low", "standard", "high", "max"]

#: The largest number of visual tokens of a canonical image, by detail tier. One token covers 28 x 28
#: pixels (patch 14, spatial merge 2). Source: Qwen2-VL's preprocessor, and the price table of 4K-16K images.
DETAIL_TOKENS: dict[Detail, int] = {"low": 1280, "standard": 2560, "high": 4096, "max": 8192}

#: QVQ's system prompt as evaluation harnesses send it (VLMEvalKit, ``QVQ-72B-Preview``).
QVQ_SYSTEM_PROMPT = (
    "You are a helpful and harmless assistant. You are Qwen developed by Alibaba. "
    "You should think step-by-step."
)


@dataclass(frozen=True)
class Sampling:
    """All sampling parameters of a request. The engine's defaults are near-greedy, so none of them is used."""

    temperature: float
    top_p: float
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class ModelProfile:
    """The limits of a served model."""

    name: str
    #: Tokens of prompt and output together.
    context_tokens: int
    default_output_tokens: int
    max_output_tokens: int
    #: A job with less room for its answer is refused at submission.
    min_output_tokens: int
    max_question_chars: int
    #: The processor's own limits, in pixels: it resizes images outside of them.
    min_pixels: int
    max_pixels: int
    system_prompt: str
    #: Tokens of the chat template and the system prompt, an upper bound.
    overhead_tokens: int
    #: When the model was published.
    published: date
    #: Of its tokenizer: a caller's choices and names must not spell them.
    special_tokens: SpecialTokens = special_tokens.ASSUMED
    #: Whether it follows instructions about the format of its answer: see :mod:`jobs.answers.instructions`.
    instructed: bool = True
    sampling: Sampling = Sampling(temperature=0.0, top_p=1.0)
    #: For jobs with several samples: greedy ones would all be equal.
    voting: Sampling = Sampling(temperature=0.7, top_p=0.9, top_k=40)

    def sampling_of(self, samples: int) -> Sampling:
        """Return the sampling of a job that has this number of samples and sets no sampling."""
        return self.sampling if samples == 1 else self.voting


QVQ = ModelProfile(
    name="qvq-72b-preview",
    context_tokens=32768,
    default_output_tokens=8192,
    max_output_tokens=16384,
    min_output_tokens=256,
    max_question_chars=24_000,
    min_pixels=3136,
    max_pixels=12_845_056,
    system_prompt=QVQ_SYSTEM_PROMPT,
    overhead_tokens=64,
    published=date(2024, 12, 25),
)

TINY = ModelProfile(
    name="tiny-qvq",
    context_tokens=2048,
    default_output_tokens=512,
    max_output_tokens=1536,
    min_output_tokens=64,
    max_question_chars=1_000,
    min_pixels=12_544,
    max_pixels=23_520,
    # It was trained with QVQ's system prompt. The longer shared prefix is worth its tokens: without it
    # less than 80 % of a second question's prompt would come from the cache.
    system_prompt=QVQ_SYSTEM_PROMPT,
    overhead_tokens=48,
    published=date(2026, 11, 23),
    # It was trained on plain questions: with a sentence after the question it gets 0 of 44 numbers right, not 43.
    instructed=False,
    # Its distributions are sharper than those of a large model: at 0.7 its samples hardly differ.
    voting=Sampling(temperature=1.0, top_p=1.0),
)

PROFILES: dict[str, ModelProfile] = {"qvq": QVQ, "tiny": TINY}
