"""A request as the scripted engine counts it: parts with their tokens, in the order that shares prefixes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from jobs import images
from jobs.images.dimensions import dimensions
from scripted import script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from core.profiles import ModelProfile
    from jobs import engine
    from scripted.prefix_cache import Part

#: Tokens of the chat template (ChatML) around the system prompt, and around the question.
_SYSTEM_FRAME, _TURN_FRAME = 5, 8
#: Tokens of an answer that the prefix cache keeps or forgets together.
_PAGE = 16


class Refused(Exception):
    """A request that SGLang would answer with 400. ``message`` is in SGLang's words."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Prompt:
    """What is computed before the first token.

    Attributes:
        requested: system prompt, pictures and question; what was said to it and asked then, if anything was.
        given: tokens of the assistant's that are gone on from.
        image_tokens: visual tokens, their markers apart.
    """

    requested: tuple[Part, ...]
    given: tuple[str, ...]
    image_tokens: int

    @classmethod
    def of(cls, request: engine.GenerationRequest, profile: ModelProfile) -> Self:
        """Return the prompt of ``request``. Raises :class:`Refused` when it cannot be read or is too long."""
        system = len(script.tokens(request.system)) + _SYSTEM_FRAME
        requested: list[Part] = [((request.salt, request.system), system)]
        image_tokens = 0
        for image in request.images:
            size = dimensions(image.data)
            if size is None:
                raise Refused("Could not decode image: cannot identify image file")
            seen = images.image_tokens(*size, profile)
            requested.append((("image", image.key), seen + images.MARKER_TOKENS))
            image_tokens += seen
        requested += ((token, 1) for token in script.tokens(request.requested))
        requested.append(("assistant", _TURN_FRAME))
        if request.turn is not None:
            requested += _pages(script.tokens(request.turn.said))
            requested += ((token, 1) for token in script.tokens(request.turn.requested))
            requested.append(("assistant again", _TURN_FRAME))
        prompt = cls(
            tuple(requested), tuple(script.tokens(request.continuation or "")), image_tokens
        )
        prompt._check(request.max_output_tokens, profile.context_tokens)
        return prompt

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All that is computed before the first token."""
        return (*self.requested, *_pages(self.given))

    @cached_property
    def tokens(self) -> int:
        """Its length."""
        return sum(tokens for _, tokens in self.parts)

    def after(self, said: Sequence[str]) -> tuple[Part, ...]:
        """Return the parts once ``said`` has been generated: what a continuation of it can reuse."""
        return (*self.requested, *_pages((*self.given, *said)))

    def _check(self, output_tokens: int, context_tokens: int) -> None:
        if self.tokens > context_tokens:
            raise Refused(
                f"The input ({self.tokens} tokens) is longer than the model's context length "
                f"({context_tokens} tokens)."
            )
        if self.tokens + output_tokens > context_tokens:
            raise Refused(
                "Requested token count exceeds the model's maximum context length of "
                f"{context_tokens} tokens."
            )


def _pages(tokens: Sequence[str]) -> Iterator[Part]:
    for at in range(0, len(tokens), _PAGE):
        page = tuple(tokens[at : at + _PAGE])
        yield page, len(page)
