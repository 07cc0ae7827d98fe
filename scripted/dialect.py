"""The scripted engine's side of SGLang's chat dialect: requests in, events out. Shapes of SGLang 0.5.23."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from core import profiles
from jobs import engine
from scripted import http, script
from scripted.prompt import Refused

if TYPE_CHECKING:
    from core.profiles import ModelProfile
    from core.special_tokens import SpecialTokens

_IMAGE = "<|image_pad|>"
#: Without sampling parameters the Qwen2-VL family is near-greedy (its ``generation_config.json``).
_GREEDY = profiles.Sampling(temperature=0.0, top_p=1.0)


@dataclass(frozen=True)
class ChatRequest:
    """A chat request, and how its answer is to be given."""

    request: engine.GenerationRequest
    streamed: bool
    with_usage: bool


def parse(body: bytes, profile: ModelProfile) -> ChatRequest:
    """Return the request in a body of ``POST /v1/chat/completions``.

    Raises:
        scripted.prompt.Refused: it has not the shape that is needed.
    """
    try:
        fields = orjson.loads(body)
        return ChatRequest(
            request=_request(fields, profile),
            streamed=bool(fields.get("stream")),
            with_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Refused("1 validation error: the request has not the shape of a chat.") from error


def _request(fields: dict[str, Any], profile: ModelProfile) -> engine.GenerationRequest:
    messages = list(fields["messages"])
    continuation = None
    if messages[-1]["role"] == "assistant" and fields.get("continue_final_message"):
        continuation = str(messages.pop()["content"])
    turn = None
    if [message["role"] for message in messages[-2:]] == ["assistant", "user"]:
        said, requested = (str(message["content"]) for message in messages[-2:])
        turn, messages = engine.FollowUp(said, requested), messages[:-2]
    system = ""
    texts: list[str] = []
    images: list[engine.EngineImage] = []
    for message in messages:
        if message["role"] == "system":
            system = str(message["content"])
            continue
        content: str | list[dict[str, Any]] = message["content"]
        if isinstance(content, str):
            texts.append(content)
            continue
        texts += (str(part["text"]) for part in content if part["type"] == "text")
        images += (_image(part["image_url"]["url"]) for part in content if "image_url" in part)
    return engine.GenerationRequest(
        rid=str(fields.get("rid") or uuid.uuid4().hex),
        model=str(fields.get("model") or ""),
        system=system,
        images=tuple(images),
        question="\n".join(texts),
        sampling=_sampling(fields),
        max_output_tokens=int(fields.get("max_completion_tokens") or profile.context_tokens // 2),
        salt=str(fields.get("cache_salt") or ""),
        seed=fields.get("seed"),
        continuation=continuation,
        turn=turn,
        schema=_schema(fields.get("response_format")),
    )


def _schema(form: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the schema that the text is to be held to, if there is one."""
    if not form or form["type"] != "json_schema":
        return None
    return dict(form["json_schema"]["schema"])


def _sampling(fields: dict[str, Any]) -> profiles.Sampling:
    if "temperature" not in fields:
        return _GREEDY
    temperature = float(fields["temperature"])
    if temperature < 0:
        raise Refused("temperature must be a non-negative finite number.")
    return profiles.Sampling(
        temperature=temperature,
        top_p=float(fields.get("top_p", 1.0)),
        top_k=int(fields.get("top_k", -1)),
    )


def _image(url: str) -> engine.EngineImage:
    """Return the picture of a ``data:`` URL; its content is its key, as pixels are for SGLang."""
    head, _, data = url.partition(";base64,")
    if not head.startswith("data:"):
        raise Refused("An exception occurred while loading IMAGE data: only data URLs are read.")
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise Refused("An exception occurred while loading IMAGE data.") from error
    return engine.EngineImage(
        key=hashlib.sha256(content).hexdigest(),
        media_type=head.removeprefix("data:"),
        data=content,
    )


def gets_stuck(request: engine.GenerationRequest) -> bool:
    """Whether a text has the marker of a picture that is not there: SGLang never comes back from looking for it."""
    turn = request.turn or engine.FollowUp("", "")
    texts = (
        request.system,
        request.requested,
        turn.said,
        turn.requested,
        request.continuation or "",
    )
    return any(_IMAGE in text for text in texts)


def tokenized(prompt: str, specials: SpecialTokens) -> list[int]:
    """Return made-up ids of the tokens of ``prompt``, one for a special token and one for each piece of text."""
    markers = "|".join(map(re.escape, sorted(specials.tokens, key=len, reverse=True)))
    parts = re.split(f"({markers})", prompt)
    pieces = [
        piece
        for index, part in enumerate(parts)
        for piece in ([part] if index % 2 else script.tokens(part))
    ]
    return [zlib.crc32(piece.encode()) for piece in pieces]


class Events:
    """The events of one stream, each as a chunk of the response."""

    def __init__(self, request: engine.GenerationRequest) -> None:
        self._frame: dict[str, Any] = {
            "id": request.rid,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": request.model,
        }
        # A token is most of what is ever written, so all around its text is made once.
        before, after = self._choice({"reasoning_content": None, "content": "\0"}).split(
            b'"\\u0000"'
        )
        self._before, self._after = before, after

    def opening(self) -> bytes:
        """Return the first event, which has a role and no text."""
        return _event(self._choice({"reasoning_content": None, "role": "assistant", "content": ""}))

    def token(self, text: str) -> bytes:
        """Return a piece of text."""
        return _event(self._before + orjson.dumps(text) + self._after)

    def finish(self, reason: str) -> bytes:
        """Return the end of the text."""
        return _event(self._choice({"reasoning_content": None}, reason))

    def usage(self, usage: engine.TokenUsage) -> bytes:
        """Return the bill."""
        return _event(orjson.dumps({**self._frame, "choices": [], "usage": bill(usage)}))

    @staticmethod
    def error(status: int, message: str) -> bytes:
        """Return an error in band, under HTTP 200."""
        return _event(orjson.dumps({"error": error(status, message)}))

    @staticmethod
    def done() -> bytes:
        """Return the end of the stream and of the response."""
        return _event(b"[DONE]") + http.LAST_CHUNK

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return orjson.dumps({**self._frame, "choices": [{**choice, "matched_stop": None}]})


def _event(data: bytes) -> bytes:
    return http.chunk(b"data: %b\n\n" % data)


def whole(
    request: engine.GenerationRequest, text: str, reason: str, usage: engine.TokenUsage
) -> dict[str, Any]:
    """Return the answer to a request that is not streamed."""
    message = {"role": "assistant", "content": text, "reasoning_content": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {
        "id": request.rid,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{**choice, "matched_stop": None}],
        "usage": bill(usage),
    }


def bill(usage: engine.TokenUsage) -> dict[str, Any]:
    """Return ``usage`` as SGLang writes it: a stream that never ran has no image tokens."""
    details = {"cached_tokens": usage.cached_tokens}
    if usage.input_tokens:
        details["image_tokens"] = usage.image_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "completion_tokens": usage.output_tokens,
        "prompt_tokens_details": details,
        "reasoning_tokens": 0,
        "completion_tokens_details": None,
    }


def error(status: int, message: str) -> dict[str, Any]:
    """Return an error's body."""
    names = {400: "BadRequestError", 503: "SERVICE_UNAVAILABLE"}
    return {
        "object": "error",
        "message": message,
        "type": names.get(status, "INTERNAL_SERVER_ERROR"),
        "param": None,
        "code": status,
    }
