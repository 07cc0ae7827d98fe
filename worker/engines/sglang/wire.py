"""The wire format of SGLang's chat API: requests to bytes, bytes of a stream to chunks. Pure, without sockets.

The shapes are those of SGLang 0.5.23 (``srt/entrypoints/openai``); each event is one ``data:`` line.
"""

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, cast

import orjson

from core import errors, special_tokens
from core.special_tokens import SpecialTokens
from jobs import engine

DONE = b"[DONE]"
_PREFIX = b"data:"
_FINISHES = ("stop", "length", "abort")


class EncodedImages:
    """Images as JSON content parts, encoded once for several requests about the same image.

    Args:
        budget: bytes to keep; the least recently used image is dropped first.
    """

    def __init__(self, *, budget: int = 64 << 20) -> None:
        self._budget = budget
        self._size = 0
        self._parts: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def part(self, image: engine.EngineImage) -> orjson.Fragment:
        """Return ``image`` as an ``image_url`` part with a ``data:`` URL: the engine fetches nothing."""
        key = (image.key, image.media_type)
        with self._lock:
            known = self._parts.get(key)
            if known is not None:
                self._parts.move_to_end(key)
                return orjson.Fragment(known)
        # Base64 and media types need no JSON escapes.
        encoded = b'{"type":"image_url","image_url":{"url":"data:%b;base64,%b"}}' % (
            image.media_type.encode("ascii"),
            base64.b64encode(image.data),
        )
        with self._lock:
            if key not in self._parts and len(encoded) <= self._budget:
                self._parts[key] = encoded
                self._size += len(encoded)
                while self._size > self._budget:
                    self._size -= len(self._parts.popitem(last=False)[1])
        return orjson.Fragment(encoded)


def body(
    request: engine.GenerationRequest,
    images: EncodedImages,
    specials: SpecialTokens = special_tokens.ASSUMED,
) -> bytes:
    """Return the body of ``POST /v1/chat/completions``.

    The chat template and all texts in it are tokenized together, so a text that spells one of ``specials`` would
    become one. On the wire it gets a space inside; the stored text stays unchanged. A special token that the model
    generates does not appear in its text (``skip_special_tokens``).

    Every sampling parameter is explicit: SGLang takes missing ones from the model's near-greedy
    ``generation_config.json``. Without ``continue_final_message`` SGLang would silently turn the
    trailing assistant message into a user's.
    """
    plain = specials.neutralize
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": plain(request.system)},
        {
            "role": "user",
            "content": [
                *(images.part(image) for image in request.images),
                {"type": "text", "text": plain(request.requested)},
            ],
        },
    ]
    sampling = request.sampling
    fields: dict[str, Any] = {
        "model": request.model,
        "rid": request.rid,
        "cache_salt": request.salt,
        "stream": True,
        # A chunk can hold several tokens, so each one says how many there are so far.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "messages": messages,
        "max_completion_tokens": request.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "skip_special_tokens": True,
    }
    if request.seed is not None:
        fields["seed"] = request.seed
    if request.turn is not None:
        messages.append({"role": "assistant", "content": plain(request.turn.said)})
        messages.append({"role": "user", "content": plain(request.turn.requested)})
    if request.continuation is not None:
        messages.append({"role": "assistant", "content": plain(request.continuation)})
        fields["continue_final_message"] = True
    if request.schema is not None:
        form = {"name": "answer", "schema": request.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": form}
    return orjson.dumps(fields)


def payloads(read: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield the text after ``data:`` of each line of a server-sent event stream.

    Args:
        read: returns the next bytes of the stream, in pieces of any size, and ``b""`` at its end.
    """
    rest = b""
    while piece := read():
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line.startswith(_PREFIX):
                yield line[5:].strip()


class InBandError(Exception):
    """An error within a response of status 200. ``code`` is the HTTP status that fits the error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.text = text


def chunk(payload: bytes) -> engine.Chunk:
    """Return one event as a chunk.

    Raises:
        InBandError: the event is an error.
        core.errors.EngineFault: the shape of the event is unknown.
    """
    try:
        event = orjson.loads(payload)
        text, finish, usage, output_tokens = "", None, None, None
        if choices := event.get("choices"):
            text = choices[0]["delta"].get("content") or ""
            finish = choices[0].get("finish_reason")
        elif error := event.get("error"):
            raise InBandError(int(error.get("code") or 500), str(error.get("message") or ""))
        if bill := event.get("usage"):
            # The bill comes in an event of its own; a count of the tokens so far comes with text.
            if choices:
                output_tokens = int(bill.get("completion_tokens") or 0) or None
            else:
                usage = _usage(bill)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise errors.EngineFault("The engine sent an event that cannot be read.") from error
    if finish is not None and finish not in _FINISHES:
        raise errors.EngineFault("The engine ended the stream for an unknown reason.")
    return engine.Chunk(text, cast("engine.FinishReason | None", finish), usage, output_tokens)


def message(answer: bytes) -> str:
    """Return the message in the body of an error, or an empty text. It may quote the request: do not show or log it."""
    try:
        event = orjson.loads(answer)
        error = event.get("error", event)
        return str(error.get("message", "") if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        return ""


def _usage(bill: dict[str, Any]) -> engine.TokenUsage:
    details = bill.get("prompt_tokens_details") or {}
    return engine.TokenUsage(
        input_tokens=bill.get("prompt_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
        image_tokens=details.get("image_tokens") or 0,
        output_tokens=bill.get("completion_tokens") or 0,
    )
