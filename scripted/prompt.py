"""The prompt of a request in tokens, and a model of SGLang's prefix cache.

As in SGLang's radix cache: prefixes are shared only under the same salt, images match by content, the last
token of a prompt is always computed, and the least recently used prefixes are evicted first.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from core.profiles import ModelProfile
from jobs import engine, images
from jobs.images.dimensions import dimensions
from scripted.behaviors import tokens

#: Tokens that are cached or evicted together (a word, or all tokens of an image): their identity and their number.
Part = tuple[Hashable, int]

#: Tokens of the chat template (ChatML) around the system prompt, and around the question.
_SYSTEM_FRAME, _TURN_FRAME = 5, 8
#: Tokens of an answer that are cached or evicted together.
_PAGE = 16


class BadRequest(Exception):
    """SGLang would answer this request with status 400. ``message`` follows SGLang's wording."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Prompt:
    """Everything that the engine computes before the first token.

    Attributes:
        base: system prompt, images and question, then the first answer and the follow-up if there are any.
        continuation: tokens of the answer so far, which the engine continues.
        image_tokens: visual tokens, without their markers.
    """

    base: tuple[Part, ...]
    continuation: tuple[str, ...]
    image_tokens: int

    @classmethod
    def of(cls, request: engine.GenerationRequest, profile: ModelProfile) -> Self:
        """Return the prompt of ``request``.

        Raises:
            BadRequest: an image cannot be decoded, or the prompt exceeds the context length.
        """
        system_tokens = len(tokens(request.system)) + _SYSTEM_FRAME
        base: list[Part] = [((request.salt, request.system), system_tokens)]
        image_tokens = 0
        for image in request.images:
            size = dimensions(image.data)
            if size is None:
                raise BadRequest("Could not decode image: cannot identify image file")
            count = images.image_tokens(*size, profile)
            base.append((("image", image.key), count + images.MARKER_TOKENS))
            image_tokens += count
        base += ((token, 1) for token in tokens(request.requested))
        base.append(("assistant", _TURN_FRAME))
        if request.turn is not None:
            base += _pages(tokens(request.turn.said))
            base += ((token, 1) for token in tokens(request.turn.requested))
            base.append(("second assistant turn", _TURN_FRAME))
        prompt = cls(tuple(base), tuple(tokens(request.continuation or "")), image_tokens)
        prompt._check(request.max_output_tokens, profile.context_tokens)
        return prompt

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts that the engine computes before the first token."""
        return self.followed_by(())

    @cached_property
    def length(self) -> int:
        """The number of tokens."""
        return sum(count for _, count in self.parts)

    def followed_by(self, output: Sequence[str]) -> tuple[Part, ...]:
        """Return the parts of the prompt and of the tokens generated after it, which a continuation can reuse."""
        return (*self.base, *_pages((*self.continuation, *output)))

    def _check(self, output_tokens: int, context_tokens: int) -> None:
        if self.length > context_tokens:
            raise BadRequest(
                f"The input ({self.length} tokens) is longer than the model's context length "
                f"({context_tokens} tokens)."
            )
        if self.length + output_tokens > context_tokens:
            raise BadRequest(
                "Requested token count exceeds the model's maximum context length of "
                f"{context_tokens} tokens."
            )


class PrefixCache:
    """Prefixes of prompts. Thread-safe.

    Args:
        capacity: tokens at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        #: Hash of all parts up to a node of the prefix tree -> tokens of that node's part; least recently used first.
        self._nodes: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def match(self, parts: Sequence[Part]) -> int:
        """Return the number of cached tokens at the beginning of ``parts``; at most all but one."""
        cached = 0
        with self._lock:
            for node, count in _nodes(parts):
                if node not in self._nodes:
                    return cached
                cached += count
        return max(cached - 1, 0)

    def insert(self, parts: Sequence[Part]) -> None:
        """Cache all prefixes of ``parts``."""
        # Longest first, so that a prefix is more recent than its extensions and is evicted after them.
        with self._lock:
            for node, count in reversed(_nodes(parts)):
                if node not in self._nodes:
                    self._nodes[node] = count
                    self._size += count
                self._nodes.move_to_end(node)
            while self._size > self._capacity:
                self._size -= self._nodes.popitem(last=False)[1]

    def clear(self) -> None:
        """Evict everything."""
        with self._lock:
            self._nodes.clear()
            self._size = 0


def _pages(output: Sequence[str]) -> Iterator[Part]:
    for start in range(0, len(output), _PAGE):
        page = tuple(output[start : start + _PAGE])
        yield page, len(page)


def _nodes(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Return the nodes of the prefix tree along ``parts``, each with its tokens."""
    path = 0
    nodes = []
    for identity, count in parts:
        path = hash((path, identity))
        nodes.append((path, count))
    return nodes
