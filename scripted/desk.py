"""What the scripted engine's server tells of itself: state, load, metrics, and aborts, as SGLang tells them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from scripted import dialect, http
from scripted.engine import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripted.http import Call
    from scripted.stage import Scheduler


class AdminEndpoints:
    """Answers every call but chats.

    Args:
        stage: the streams.
        model: the name of the model that the engine stands in for.
    """

    def __init__(self, stage: Scheduler, *, model: str) -> None:
        self._stage = stage
        self._model = model
        self._answers: dict[tuple[str, str], Callable[[Call], bytes]] = {
            ("GET", "/health"): lambda _: http.reply(200),
            ("GET", "/ready"): lambda _: http.reply(200),
            ("GET", "/server_info"): lambda _: http.reply(200, self._info()),
            ("GET", "/v1/models"): lambda _: http.reply(200, self._models()),
            ("GET", "/v1/loads"): lambda _: http.reply(200, self._loads()),
            ("GET", "/metrics"): lambda _: self._metrics(),
            ("POST", "/flush_cache"): self._flush,
            ("POST", "/abort_request"): self._abort,
            ("POST", "/v1/tokenize"): self._tokenize,
        }

    def answer(self, call: Call) -> bytes:
        """Return the whole response to ``call``."""
        handler = self._answers.get((call.method, call.path))
        return handler(call) if handler else http.reply(404, {"detail": "Not Found"})

    def _info(self) -> dict[str, Any]:
        return {
            "status": "ready",
            "version": VERSION,
            "served_model_name": self._model,
            "model_path": VERSION,
            "context_length": self._stage.profile.context_tokens,
            "max_running_requests": self._stage.options.window,
            "max_queued_requests": self._stage.options.max_queued,
        }

    def _models(self) -> dict[str, Any]:
        model = {"id": self._model, "object": "model", "owned_by": "scripted"}
        context = {"max_model_len": self._stage.profile.context_tokens}
        return {"object": "list", "data": [{**model, **context}]}

    def _loads(self) -> dict[str, Any]:
        load = self._stage.load()
        rank = {
            "timestamp": time.time(),
            "dp_rank": 0,
            "num_running_reqs": load.running,
            "num_waiting_reqs": load.waiting,
            "max_running_requests": self._stage.options.window,
        }
        return {"version": VERSION, "loads": [rank]}

    def _metrics(self) -> bytes:
        load = self._stage.load()
        values = {"num_running_reqs": load.running, "num_queue_reqs": load.waiting}
        values |= {f"{name}_total": total for name, total in self._stage.totals.items()}
        label = f'{{model_name="{self._model}"}}'
        text = "".join(f"sglang:{name}{label} {value}\n" for name, value in values.items())
        return http.reply(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _flush(self, _: Call) -> bytes:
        self._stage.cache.clear()
        return http.reply(200, b"Cache flushed.\n", "text/plain")

    def _tokenize(self, call: Call) -> bytes:
        specials = self._stage.profile.special_tokens
        try:
            prompt = orjson.loads(call.body)["prompt"]
            several = isinstance(prompt, list)
            ids = [dialect.tokenized(text, specials) for text in (prompt if several else [prompt])]
        except (ValueError, LookupError, TypeError):
            return http.reply(400, dialect.error(400, "1 validation error"))
        counts = [len(of_text) for of_text in ids]
        reported = (ids, counts) if several else (ids[0], counts[0])
        return http.reply(200, dict(zip(("tokens", "count"), reported, strict=True)))

    def _abort(self, call: Call) -> bytes:
        try:
            fields = orjson.loads(call.body)
            if fields.get("abort_all"):
                self._stage.abort_all()
            else:
                self._stage.abort(str(fields["rid"]))
        except (ValueError, LookupError, AttributeError):
            return http.reply(400, dialect.error(400, "1 validation error"))
        return http.reply(200)
