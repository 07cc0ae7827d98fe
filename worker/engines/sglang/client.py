"""The SGLang client: streamed chat over pooled connections, shared by all threads of a worker.

It relies on these facts of SGLang 0.5.23: the response head arrives with the first token; a full queue is status 200
with an in-band error; aborts match by prefix and ignore unknown ids; idle connections are closed after five seconds.
"""

import contextlib
import http.client
import threading
import weakref
from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Any

import orjson
import structlog

from core import errors, special_tokens
from core.special_tokens import SpecialTokens
from jobs import engine, refusals
from net.connection import DialError
from worker.engines.sglang import tokenizer, wire
from worker.engines.sglang.chat import Chat, ChatTimeouts
from worker.engines.sglang.server import EngineServer

#: The time limit of an abort; its caller may have other streams to stop.
_ABORT_SECONDS = 2.0
_LOADS = "/v1/loads?include=core"
#: A scheduler reports every second, or after its current step, which can take longer.
_STALE_SECONDS = 30.0

_BROKEN = (OSError, http.client.HTTPException)

log = structlog.get_logger(__name__)


class SGLang:
    """An engine with an HTTP API.

    Args:
        url: where it listens, for example ``http://127.0.0.1:30000``.
        api_key: its bearer key, if it requires one.
        connect_seconds: longest wait for a connection, and for the response to a short request.
        first_token_seconds: longest wait for a stream's first event: the engine's queue and prefill.
        token_seconds: longest silence between two events.
        connections: the number of idle connections that are kept.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        connect_seconds: float,
        first_token_seconds: float,
        token_seconds: float,
        connections: int = 128,
    ) -> None:
        self.url = url.rstrip("/")
        self._server = EngineServer(
            self.url, api_key=api_key, connect_seconds=connect_seconds, idle=connections
        )
        self._timeouts = ChatTimeouts(connect_seconds, first_token_seconds, token_seconds)
        self._images = wire.EncodedImages()
        self._special_tokens = special_tokens.ASSUMED
        #: The tokenizer, checkpoint, and version that they belong to, and those whose special tokens are unknown.
        self._tokenizer: tuple[str, str, str] | None = None
        self._unknown_tokenizer: tuple[str, str, str] | None = None
        self._lock = threading.Lock()
        self._chats: weakref.WeakValueDictionary[str, Chat] = weakref.WeakValueDictionary()

    def stream(self, request: engine.GenerationRequest) -> Chat:
        """Return the stream of ``request``; see :class:`jobs.engine.GenerationStream` for its errors."""
        chat = Chat(
            request,
            server=self._server,
            images=self._images,
            special_tokens=self._special_tokens,
            timeouts=self._timeouts,
        )
        with self._lock:
            self._chats[request.rid] = chat
        return chat

    def abort(self, rid: str) -> None:
        """Ask the engine to abort ``rid``. Errors are logged, not raised: closing the stream ends it too."""
        with self._lock:
            chat = self._chats.get(rid)
        if chat is not None:
            chat.abort_requested = True
        try:
            status, _ = self._server.request(
                "POST", "/abort_request", body=orjson.dumps({"rid": rid}), seconds=_ABORT_SECONDS
            )
        except _BROKEN as error:
            log.warning("engine_abort_failed", url=self.url, rid=rid, reason=type(error).__name__)
            return
        if status != HTTPStatus.OK:
            log.warning("engine_abort_failed", url=self.url, rid=rid, status=status)

    def facts(self) -> engine.EngineFacts:
        """Return the engine's facts. Raises :class:`core.errors.EngineUnavailable`."""
        with _unavailable():
            info = self._ask("/server_info")
            # Both are arguments of the launch. Null means that the engine chose a value, which other paths report.
            window = info["max_running_requests"] or _total(
                self._ask(_LOADS), "max_running_requests"
            )
            context = info["context_length"] or self._ask("/v1/models")["data"][0]["max_model_len"]
            self._learn_tokenizer(info)
            return engine.EngineFacts(
                model=info["served_model_name"],
                version=info["version"],
                window=window,
                context_tokens=context,
            )

    def load(self) -> engine.EngineLoad:
        """Return the engine's load over all ranks. Raises :class:`core.errors.EngineUnavailable`."""
        with _unavailable():
            loads = self._ask(_LOADS)
            if _stale(loads):
                raise errors.EngineUnavailable("The engine's scheduler has stopped reporting.")
            return engine.EngineLoad(
                running=_total(loads, "num_running_reqs"), waiting=_total(loads, "num_waiting_reqs")
            )

    def close(self) -> None:
        """Close idle connections; running streams continue."""
        self._server.close()

    def _learn_tokenizer(self, info: dict[str, Any]) -> None:
        """Find the special tokens of the tokenizer in ``info``, unless they are known.

        This happens before the first stream, because an engine gets no streams before its facts are known. If neither
        files nor engine reveal them, every text of the shape ``<|…|>`` counts as one, and the next call tries again.
        """
        model = str(info.get("model_path") or "")
        served = (str(info.get("tokenizer_path") or model), model, str(info["version"]))
        if served == self._tokenizer:
            return
        tokens, source = tokenizer.of_checkpoint(served[0]), "files"
        if tokens is None:
            tokens, source = self._ask_special_tokens(), "engine"
        if tokens is None:
            if served != self._unknown_tokenizer:
                log.warning("special_tokens_unknown", url=self.url)
            self._unknown_tokenizer = served
            return
        self._special_tokens = SpecialTokens(tokens.union(special_tokens.QWEN2_VL))
        self._tokenizer = served
        log.info("special_tokens_found", url=self.url, source=source, count=len(tokens))

    def _ask_special_tokens(self) -> frozenset[str] | None:
        """Return the candidates that are one token in the engine; None when it does not say."""
        try:
            status, body = self._server.request("POST", "/v1/tokenize", body=tokenizer.question())
            return tokenizer.of_answer(body) if status == HTTPStatus.OK else None
        except (*_BROKEN, ValueError, LookupError, TypeError):
            return None

    def _ask(self, path: str) -> dict[str, Any]:
        """Return the JSON object at ``path``. ``/server_info`` contains secrets: never store or log it."""
        status, body = self._server.request("GET", path)
        if status != HTTPStatus.OK:
            raise errors.EngineUnavailable(refusals.understand(status, "").error.message)
        state: dict[str, Any] = orjson.loads(body)
        return state


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """Translate every error of a request into :class:`core.errors.EngineUnavailable`."""
    try:
        yield
    except _BROKEN as error:
        raise errors.EngineUnavailable(_unreachable(error)) from error
    except (ValueError, LookupError, TypeError) as error:
        raise errors.EngineUnavailable(
            "The engine does not report its state in SGLang's format."
        ) from error


def _unreachable(error: Exception) -> str:
    """Return why a request has no response, in a sentence that quotes nothing of the engine."""
    if isinstance(error, DialError):
        why = {"timed_out": "the connection timed out", "tls_failed": error.detail or "TLS failed"}
        return (
            f"The engine cannot be reached: {why.get(error.reason, 'the connection failed')}".rstrip(
                "."
            )
            + "."
        )
    if isinstance(error, TimeoutError):
        return "The engine does not answer in time."
    if isinstance(error, http.client.HTTPException):
        return "The server at the engine's URL is not an engine."
    return "The engine cannot be reached."


def _stale(loads: dict[str, Any]) -> bool:
    """Whether a rank in a response of ``/v1/loads`` has an old report: then its scheduler is stuck."""
    if "timestamp" not in loads:
        return False
    answered = datetime.fromisoformat(loads["timestamp"]).timestamp()
    oldest = min(float(rank["timestamp"]) for rank in loads["loads"])
    return answered - oldest > _STALE_SECONDS


def _total(loads: dict[str, Any], name: str) -> int:
    """Return the sum of ``name`` over the ranks in a response of ``/v1/loads``."""
    return sum(int(rank[name]) for rank in loads["loads"])
