"""The seam between the worker and whatever generates tokens: four verbs.

``stream(request) -> chunks``, ``abort(rid)``, ``facts()``, ``load()``. Implementations are in :mod:`worker.engines`;
one contract suite (``tests/engines``) holds for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from core.profiles import Sampling

#: ``abort`` is only ever the answer to an abort of ours: an unrequested one is an error.
FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class EngineImage:
    """A canonical image as the engine gets it."""

    key: str
    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class FollowUp:
    """A second turn of a chat: what the assistant had ``said`` to the question, and what it is ``requested`` then."""

    said: str = field(repr=False)
    requested: str = field(repr=False)


@dataclass(frozen=True)
class GenerationRequest:
    """One engine stream: system prompt, pictures, question, in this order, so that prefixes are shared.

    Attributes:
        rid: 32 hex characters. SGLang matches aborts by prefix, so ids have one length.
        instruction: what stands behind the question, with the white space before it.
        salt: isolates the prefix cache: the account and the ordered image keys.
        continuation: text of the assistant's that the engine goes on from, or None.
        turn: what was said and asked since the question, or None.
        schema: what the engine's grammar holds the text to, as :mod:`jobs.answers.json_schema` has it; None: nothing.
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
        """The question with what stands behind it."""
        return self.question + self.instruction


@dataclass(frozen=True)
class TokenUsage:
    """What one stream cost, in tokens. ``input_tokens`` includes image and cached tokens."""

    input_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream: text, or the end (``finish_reason``), or the bill (``usage``), or several at once."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: TokenUsage | None = None


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says of itself.

    Attributes:
        window: streams it runs at once (``max_running_requests``).
        context_tokens: its context length, 0 when it does not say.
    """

    model: str
    version: str
    window: int
    context_tokens: int = 0


@dataclass(frozen=True)
class EngineLoad:
    """Streams that the engine runs and holds waiting right now."""

    running: int
    waiting: int


class GenerationStream(Protocol):
    """A running stream. Iterating blocks; :meth:`close` may be called from another thread."""

    def __iter__(self) -> Iterator[Chunk]:
        """Yield chunks until the end.

        Raises:
            core.errors.EngineUnavailable: the engine cannot be reached or is starting.
            core.errors.EngineBusy: refused for lack of room, before the first token.
            core.errors.EngineLost: it hung up on the request, before or after its first token.
            core.errors.EngineFault: it failed or aborted by itself after it took the request.
            core.errors.EngineSilent: it took the request and says nothing, or nothing more.
            core.errors.EngineRejected: it will never take this request.
        """

    def close(self) -> None:
        """End the reading from any thread; the reader stops at once. Idempotent."""


class Engine(Protocol):
    """Whatever generates tokens, reached by any number of threads."""

    url: str

    def stream(self, request: GenerationRequest) -> AbstractContextManager[GenerationStream]:
        """Return the stream of ``request``; leaving the context closes it. Nothing is sent before iteration."""

    def abort(self, rid: str) -> None:
        """Ask the engine to stop the stream ``rid``. Unknown ids are silently fine."""

    def facts(self) -> EngineFacts:
        """Return what the engine says of itself. Raises :class:`core.errors.EngineUnavailable`."""

    def load(self) -> EngineLoad:
        """Return its load right now. Raises :class:`core.errors.EngineUnavailable`."""

    def close(self) -> None:
        """Release connections."""
