"""SGLang's chat API as the scripted engine speaks it: parses requests, writes answers. Formats of SGLang 0.5.23."""

import asyncio
import base64
import binascii
import dataclasses
import hashlib
import re
import socket
import struct
import time
import uuid
import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from core import profiles
from core.profiles import ModelProfile
from core.special_tokens import SpecialTokens
from jobs import engine
from scripted import behaviors, http
from scripted.prompt import BadRequest
from scripted.scheduler import End, Scheduler, ScriptedGeneration

_IMAGE = "<|image_pad|>"
#: Without sampling parameters the Qwen2-VL family is near-greedy (its ``generation_config.json``).
_GREEDY = profiles.Sampling(temperature=0.0, top_p=1.0)
#: Ends that are errors, with status and message.
_ERRORS = {
    "busy": (503, "The request queue is full."),
    "starting": (503, "The server is starting."),
    "evicted": (503, "The request is aborted by a higher priority request."),
    "failed": (500, "The scripted engine is configured to fail."),
}


@dataclass(frozen=True)
class ChatRequest:
    """A chat request and the form of its answer: a stream, with the usage at its end, and with it in each chunk."""

    request: engine.GenerationRequest
    streamed: bool
    with_usage: bool
    with_counts: bool


def parse(body: bytes, profile: ModelProfile) -> ChatRequest:
    """Return the request in a body of ``POST /v1/chat/completions``.

    Raises:
        scripted.prompt.BadRequest: the body is not a valid chat request.
    """
    try:
        fields = orjson.loads(body)
        stream_options = fields.get("stream_options") or {}
        return ChatRequest(
            request=_request(fields, profile),
            streamed=bool(fields.get("stream")),
            with_usage=bool(stream_options.get("include_usage")),
            with_counts=bool(stream_options.get("continuous_usage_stats")),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadRequest("1 validation error: the body must be a chat request.") from error


def _request(fields: dict[str, Any], profile: ModelProfile) -> engine.GenerationRequest:
    messages = list(fields["messages"])
    continuation = None
    if messages[-1]["role"] == "assistant" and fields.get("continue_final_message"):
        continuation = str(messages.pop()["content"])
    turn = None
    if [message["role"] for message in messages[-2:]] == ["assistant", "user"]:
        turn = engine.FollowUp(*(str(message["content"]) for message in messages[-2:]))
        messages = messages[:-2]
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


def _schema(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the JSON Schema that constrains the answer, if any."""
    if not response_format or response_format["type"] != "json_schema":
        return None
    return dict(response_format["json_schema"]["schema"])


def _sampling(fields: dict[str, Any]) -> profiles.Sampling:
    if "temperature" not in fields:
        return _GREEDY
    temperature = float(fields["temperature"])
    if temperature < 0:
        raise BadRequest("temperature must be a non-negative finite number.")
    return profiles.Sampling(
        temperature=temperature,
        top_p=float(fields.get("top_p", 1.0)),
        top_k=int(fields.get("top_k", -1)),
    )


def _image(url: str) -> engine.EngineImage:
    """Return the image of a ``data:`` URL; its key is a hash of its content, as SGLang matches images by pixels."""
    head, _, data = url.partition(";base64,")
    if not head.startswith("data:"):
        raise BadRequest(
            "An exception occurred while loading IMAGE data: the URL must be a data URL."
        )
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise BadRequest("An exception occurred while loading IMAGE data.") from error
    return engine.EngineImage(
        key=hashlib.sha256(content).hexdigest(),
        media_type=head.removeprefix("data:"),
        data=content,
    )


def gets_stuck(request: engine.GenerationRequest) -> bool:
    """Whether a text contains the placeholder of an image: SGLang searches for that image forever."""
    turn = request.turn or engine.FollowUp("", "")
    texts = (
        request.system,
        request.requested,
        turn.said,
        turn.requested,
        request.continuation or "",
    )
    return any(_IMAGE in text for text in texts)


def tokenize(prompt: str, specials: SpecialTokens) -> list[int]:
    """Return invented token ids of ``prompt``: one for each special token and for each piece of other text."""
    markers = "|".join(map(re.escape, sorted(specials.tokens, key=len, reverse=True)))
    parts = re.split(f"({markers})", prompt)
    pieces = [
        piece
        for index, part in enumerate(parts)
        for piece in ([part] if index % 2 else behaviors.tokens(part))
    ]
    return [zlib.crc32(piece.encode()) for piece in pieces]


def usage_body(usage: engine.TokenUsage) -> dict[str, Any]:
    """Return ``usage`` in SGLang's format, which leaves out the image tokens of a stream that never ran."""
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


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return the body of an error."""
    types = {400: "BadRequestError", 503: "SERVICE_UNAVAILABLE"}
    return {
        "object": "error",
        "message": message,
        "type": types.get(status, "INTERNAL_SERVER_ERROR"),
        "param": None,
        "code": status,
    }


class ChatEvents:
    """The events of one stream, each as one chunk of the response."""

    def __init__(self, request: engine.GenerationRequest) -> None:
        self._frame: dict[str, Any] = {
            "id": request.rid,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": request.model,
        }
        # Nearly all events are tokens, so the bytes around a token's text are made once.
        before, after = self._choice({"reasoning_content": None, "content": "\0"}).split(
            b'"\\u0000"'
        )
        self._before, self._after = before, after

    def opening(self) -> bytes:
        """Return the first event, which has a role and no text."""
        return _event(self._choice({"reasoning_content": None, "role": "assistant", "content": ""}))

    def text(self, text: str, usage: engine.TokenUsage | None = None) -> bytes:
        """Return the event of a chunk of text, with the usage up to it if there is one."""
        event = self._before + orjson.dumps(text) + self._after
        if usage is not None:
            # As SGLang does, without details: of the image tokens only the bill speaks.
            counts = orjson.dumps(usage_body(usage))
            event = b'%b,"usage":%b}' % (event[:-1], counts)
        return _event(event)

    def finish(self, reason: str) -> bytes:
        """Return the event with the finish reason."""
        return _event(self._choice({"reasoning_content": None}, reason))

    def usage(self, usage: engine.TokenUsage) -> bytes:
        """Return the event with the usage."""
        return _event(orjson.dumps({**self._frame, "choices": [], "usage": usage_body(usage)}))

    @staticmethod
    def error(status: int, message: str) -> bytes:
        """Return an error as an event of a response whose status is 200."""
        return _event(orjson.dumps({"error": error_body(status, message)}))

    @staticmethod
    def done() -> bytes:
        """Return the end of the stream and of the response."""
        return _event(b"[DONE]") + http.LAST_CHUNK

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return orjson.dumps({**self._frame, "choices": [{**choice, "matched_stop": None}]})


def _event(data: bytes) -> bytes:
    return http.chunk(b"data: %b\n\n" % data)


def _completion(
    request: engine.GenerationRequest, text: str, reason: str, usage: engine.TokenUsage
) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "reasoning_content": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {
        "id": request.rid,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{**choice, "matched_stop": None}],
        "usage": usage_body(usage),
    }


class ResponseWriter:
    """Writes one generation to its client, in SGLang's order.

    Args:
        chat: the request.
        generation: the request's generation.
        scheduler: the writer removes the generation from it before the client can see the end.
        transport: the client's connection.
    """

    def __init__(
        self,
        chat: ChatRequest,
        generation: ScriptedGeneration,
        scheduler: Scheduler,
        transport: asyncio.WriteTransport,
    ) -> None:
        self.generation = generation
        #: Resolves after the last write, to whether the connection is reusable.
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._chat = chat
        self._scheduler = scheduler
        self._transport = transport
        self._events = ChatEvents(chat.request)
        self._opened = False
        self._text: list[str] = []

    def advance(self, now: float) -> None:
        """Write the chunks due by ``now``."""
        if self.done.done():
            return
        step = self.generation.advance(now)
        if step.end is not None:
            self._scheduler.remove(self.generation)
        if self._chat.streamed:
            # SGLang sends the head with the first token, or with the end.
            out = [] if not step.chunks else [*self._opening()]
            out += map(self._text_event, step.chunks)
            if step.end is not None:
                out += self._ending(step.end)
            self._write(b"".join(out))
        else:
            self._text += (chunk.text for chunk in step.chunks)
            if step.end is not None:
                self._write(self._complete(step.end))
        if step.end is not None:
            self.done.set_result(step.end != "reset")

    def _text_event(self, chunk: engine.Chunk) -> bytes:
        """Return the event of a chunk of text."""
        if not self._chat.with_counts:
            return self._events.text(chunk.text)
        usage = self.generation.usage()
        return self._events.text(
            chunk.text, dataclasses.replace(usage, output_tokens=chunk.output_tokens or 0)
        )

    def give_up(self) -> None:
        """Write nothing more."""
        if not self.done.done():
            self.done.set_result(False)

    def _opening(self) -> list[bytes]:
        if self._opened:
            return []
        self._opened = True
        return [http.EVENT_STREAM_HEAD, self._events.opening()]

    def _ending(self, end: End) -> list[bytes]:
        """Return the last bytes of a stream."""
        if end == "reset":
            self._reset()
            return []
        if end == "cut_off":
            return [*self._opening(), http.LAST_CHUNK]
        if end == "starting":
            return [http.response(503, error_body(*_ERRORS[end]))]
        if end in _ERRORS:
            head = [] if self._opened else [http.EVENT_STREAM_HEAD]
            last = [*head, self._events.error(*_ERRORS[end])]
        else:
            last = [*self._opening(), self._events.finish("abort" if end == "given_up" else end)]
        if self._chat.with_usage:
            last.append(self._events.usage(self.generation.usage()))
        return [*last, self._events.done()]

    def _complete(self, end: End) -> bytes:
        """Return the response to a request without streaming."""
        if end == "reset":
            self._reset()
            return b""
        if end in _ERRORS:
            return http.response(_ERRORS[end][0], error_body(*_ERRORS[end]))
        reason = end if end in ("stop", "length") else "abort"
        text, usage = "".join(self._text), self.generation.usage()
        return http.response(200, _completion(self._chat.request, text, reason, usage))

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _reset(self) -> None:
        """Close the connection with a TCP reset, as a crash does."""
        if self._transport.is_closing():
            return  # The client has closed it already.
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
