"""Checks that a job fits into the model's context, and computes the limit of its answer.

Only the engine has the tokenizer, so this module bounds the tokens of a question:

* at least one per 16 characters. Ordinary text has one per 2 to 5; only long runs of one character have
  fewer. A job that would not fit even with this number is refused.
* at most one per character, and two per character outside the Basic Multilingual Plane (emoji). With the
  vocabulary of Qwen2, a digit is one token, a Chinese character about 0.7, four English letters one. The
  context without the images, the template and this number is the limit of the answer.

A script that the vocabulary hardly covers may take more; then the engine refuses the request and the job fails.
Source: "Qwen2 Technical Report" (arXiv 2407.10671), section 2.1, and the tokenizer's own files.
"""

from __future__ import annotations

from collections.abc import Sequence

from core import errors
from core.profiles import ModelProfile
from jobs.images import MARKER_TOKENS

_CHARS_PER_TOKEN = 16


def output_tokens(
    profile: ModelProfile, *, question: str, image_tokens: Sequence[int], requested: int | None
) -> int:
    """Return the maximum tokens of the answer: what is ``requested``, or what is left of the context.

    Raises:
        core.errors.InvalidRequest: the images, the question and a minimal answer do not fit.
    """
    wanted = requested or profile.default_output_tokens
    needed = min(wanted, profile.min_output_tokens)
    with_images = sum(image_tokens) + MARKER_TOKENS * len(image_tokens)
    room = profile.context_tokens - profile.overhead_tokens - with_images
    if room - -(-len(question) // _CHARS_PER_TOKEN) < needed:
        raise errors.InvalidRequest(
            f"The job must fit into the model's context of {profile.context_tokens} tokens: the images take "
            f"{with_images}, the prompt {profile.overhead_tokens}, an answer at least {needed}, and the question "
            "takes more than the rest.",
            code="context_length_exceeded",
            param="images",
        )
    sent = profile.special_tokens.neutralize(question)
    return min(wanted, max(needed, room - _tokens_at_most(sent)))


def input_tokens(profile: ModelProfile, *, question: str, image_tokens: Sequence[int]) -> int:
    """Return the most tokens that an input takes: exact for images, an upper bound for texts."""
    with_images = sum(image_tokens) + MARKER_TOKENS * len(image_tokens)
    sent = profile.special_tokens.neutralize(question)
    return profile.overhead_tokens + with_images + _tokens_at_most(sent)


def _tokens_at_most(question: str) -> int:
    """Return the number of UTF-16 code units: one or two per character."""
    return len(question.encode("utf-16-le")) // 2
