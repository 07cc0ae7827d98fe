"""The interface between the worker and the engines that generate tokens.

Its four methods are ``stream(request) -> chunks``, ``abort(rid)``, ``facts()``, and ``load()``. Implementations are in
:mod:`worker.engines` and :mod:`scripted`; one contract suite (``tests/engines``) tests all of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from core.profiles import Sampling

#: Bytes of UTF-8 in a token of a longer text, and the most bytes that are taken for one token.
_TOKEN_BYTES = 4
_LONGEST_TOKEN = 16

#: ``abort`` occurs only after a requested abort: any other abort is an error.
FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class EngineImage:
    """A canonical image in a request to an engine."""

    key: str
    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class FollowUp:
    """A second turn of a chat: the assistant's text (``said``), and the next user message (``requested``)."""

    said: str = field(repr=False)
    requested: str = field(repr=False)


@dataclass(frozen=True)
class GenerationRequest:
    """One engine stream: system prompt, images, question, in this order, so that requests share prefixes.

    Attributes:
        rid: 32 hex characters. SGLang matches aborts by prefix, so ids have one length.
        instruction: the text after the question, with the white space before it.
        salt: isolates the prefix cache by account and ordered image keys.
        continuation: text of the assistant that the engine continues, or None.
        turn: the turn after the question, or None.
        schema: the JSON Schema that the text must follow, from :mod:`jobs.answers.json_schema`, or None.
    """

    rid: str
    model: str
    system: str
    images: tuple[EngineImage, ...]
    question: str = field(repr=False)
    sampling: Sampling
    max_output_tokens: int
    salt: str
    seed: int | None = None
    continuation: str | None = field(default=None, repr=False)
    turn: FollowUp | None = None
    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    instruction: str = field(default="", repr=False)

    @property
    def requested(self) -> str:
        """The question with its instruction."""
        return self.question + self.instruction


@dataclass(frozen=True)
class TokenUsage:
    """The tokens of one stream. ``input_tokens`` include image and cached tokens."""

    input_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream: text, the end (``finish_reason``), the usage, or several of them.

    Attributes:
        output_tokens: the output tokens of the stream up to and including this chunk; None: the engine does not say.
            A chunk can hold several tokens: of a speculative step, or of an interval at which the engine streams.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: TokenUsage | None = None
    output_tokens: int | None = None


def counted(before: int, text: str, reported: int | None) -> int:
    """Return the output tokens of a stream after a chunk.

    Args:
        before: those before the chunk.
        text: the chunk's text.
        reported: the engine's own count, which decides; without one the text is measured.
    """
    if reported is not None:
        return max(before, reported)
    size = len(text.encode("utf-8", "replace"))
    return before + (1 if size <= _LONGEST_TOKEN else size // _TOKEN_BYTES)


@dataclass(frozen=True)
class EngineFacts:
    """What an engine reports about its model.

    Attributes:
        window: streams that it runs at once (``max_running_requests``).
        context_tokens: its context length; 0: unknown.
    """

    model: str
    version: str
    window: int
    context_tokens: int = 0


@dataclass(frozen=True)
class EngineLoad:
    """The streams that the engine runs and has in its queue now."""

    running: int
    waiting: int


class GenerationStream(Protocol):
    """A running stream. Iterating blocks; :meth:`close` may be called from another thread."""

    def __iter__(self) -> Iterator[Chunk]:
        """Yield chunks until the end.

        Raises:
            core.errors.EngineUnavailable: the engine cannot be reached or is starting.
            core.errors.EngineBusy: it is full and refused the request, before the first token.
            core.errors.EngineLost: it closed the connection, before or after the first token.
            core.errors.EngineFault: it failed, or aborted without a request, after it accepted the request.
            core.errors.EngineSilent: it accepted the request and sends nothing, or nothing more.
            core.errors.EngineRejected: it never accepts this request.
        """

    def close(self) -> None:
        """End the reading from any thread; the reader stops at once. Idempotent."""


class Engine(Protocol):
    """Generates tokens. Thread-safe."""

    url: str

    def stream(self, request: GenerationRequest) -> AbstractContextManager[GenerationStream]:
        """Return the stream of ``request``; leaving the context closes it. Nothing is sent before iteration."""

    def abort(self, rid: str) -> None:
        """Ask the engine to stop the stream ``rid``. Unknown ids are ignored."""

    def facts(self) -> EngineFacts:
        """Return the facts of the engine. Raises :class:`core.errors.EngineUnavailable`."""

    def load(self) -> EngineLoad:
        """Return its current load. Raises :class:`core.errors.EngineUnavailable`."""

    def close(self) -> None:
        """Release connections."""
