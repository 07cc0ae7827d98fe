"""Whether a job fits into the model's context, and how long its answer may be.

Only the engine has the tokenizer, so a question's tokens are bounded from both sides:

* at least one for 16 characters. Ordinary text has one for 2 to 5; only long runs of one character have
  fewer than that. A job that would not fit even so is refused.
* at most one for each character, two for each outside of the Basic Multilingual Plane (emoji). With the
  vocabulary of Qwen2 a digit is a token, a Chinese character about 0.7, four English letters one. What the
  images, this and the template leave of the context is the room for the answer.

A script that the vocabulary hardly knows may take more; then the engine refuses and the job fails.
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
    """Return the tokens that the answer may have: what was ``requested`` for, or what is left.

    Raises:
        core.errors.InvalidRequest: images, question and a minimum of answer cannot fit.
    """
    wanted = requested or profile.default_output_tokens
    needed = min(wanted, profile.min_output_tokens)
    with_images = sum(image_tokens) + MARKER_TOKENS * len(image_tokens)
    room = profile.context_tokens - profile.overhead_tokens - with_images
    if room - -(-len(question) // _CHARS_PER_TOKEN) < needed:
        raise errors.InvalidRequest(
            f"This cannot fit into the model's {profile.context_tokens} tokens: the images take {with_images}, "
            f"the prompt {profile.overhead_tokens}, an answer at least {needed}, and then there is the question.",
            code="context_length_exceeded",
            param="images",
        )
    sent = profile.special_tokens.neutralize(question)
    return min(wanted, max(needed, room - _tokens_at_most(sent)))


def _tokens_at_most(question: str) -> int:
    """Return the number of UTF-16 code units: one for most characters, two for the others."""
    return len(question.encode("utf-16-le")) // 2
