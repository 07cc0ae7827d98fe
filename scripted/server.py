"""The scripted engine behind SGLang's HTTP API: for tests and load tests that need no model.

One event loop with one timer serves hundreds of streams, so that it costs little next to the program under test.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any, cast

import orjson
import structlog

from core import profiles
from scripted import chat, http
from scripted.engine import VERSION
from scripted.options import ScriptedOptions
from scripted.prompt import BadRequest
from scripted.scheduler import Scheduler

#: Seconds between two checks for due tokens: the most that a token is late. Tokens due together share a write.
_TICK_SECONDS = 0.02
_PUBLIC = ("/health", "/ready", "/metrics")

log = structlog.get_logger(__name__)


class AdminEndpoints:
    """Answers every request except chats: state, load, metrics, and aborts, in SGLang's formats.

    Args:
        scheduler: the engine's generations.
        model: the name of the model that the engine replaces.
    """

    def __init__(self, scheduler: Scheduler, *, model: str) -> None:
        self._scheduler = scheduler
        self._model = model
        self._handlers: dict[tuple[str, str], Callable[[bytes], bytes]] = {
            ("GET", "/health"): lambda _: http.response(200),
            ("GET", "/ready"): lambda _: http.response(200),
            ("GET", "/server_info"): lambda _: http.response(200, self._info()),
            ("GET", "/v1/models"): lambda _: http.response(200, self._models()),
            ("GET", "/v1/loads"): lambda _: http.response(200, self._loads()),
            ("GET", "/metrics"): lambda _: self._metrics(),
            ("POST", "/flush_cache"): lambda _: self._flush(),
            ("POST", "/abort_request"): self._abort,
            ("POST", "/v1/tokenize"): self._tokenize,
        }

    def answer(self, request: http.HttpRequest) -> bytes:
        """Return the complete response to ``request``."""
        handler = self._handlers.get((request.method, request.path))
        return handler(request.body) if handler else http.response(404, {"detail": "Not Found"})

    def _info(self) -> dict[str, Any]:
        return {
            "status": "ready",
            "version": VERSION,
            "served_model_name": self._model,
            "model_path": VERSION,
            "context_length": self._scheduler.profile.context_tokens,
            "max_running_requests": self._scheduler.options.window,
            "max_queued_requests": self._scheduler.options.max_queued,
        }

    def _models(self) -> dict[str, Any]:
        model = {"id": self._model, "object": "model", "owned_by": "scripted"}
        context = {"max_model_len": self._scheduler.profile.context_tokens}
        return {"object": "list", "data": [{**model, **context}]}

    def _loads(self) -> dict[str, Any]:
        load = self._scheduler.load()
        rank = {
            "timestamp": time.time(),
            "dp_rank": 0,
            "num_running_reqs": load.running,
            "num_waiting_reqs": load.waiting,
            "max_running_requests": self._scheduler.options.window,
        }
        return {"version": VERSION, "loads": [rank]}

    def _metrics(self) -> bytes:
        load = self._scheduler.load()
        values = {"num_running_reqs": load.running, "num_queue_reqs": load.waiting}
        values |= {f"{name}_total": total for name, total in self._scheduler.totals.items()}
        label = f'{{model_name="{self._model}"}}'
        text = "".join(f"sglang:{name}{label} {value}\n" for name, value in values.items())
        return http.response(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _flush(self) -> bytes:
        self._scheduler.cache.clear()
        return http.response(200, b"Cache flushed.\n", "text/plain")

    def _tokenize(self, body: bytes) -> bytes:
        specials = self._scheduler.profile.special_tokens
        try:
            prompt = orjson.loads(body)["prompt"]
            several = isinstance(prompt, list)
            ids = [chat.tokenize(text, specials) for text in (prompt if several else [prompt])]
        except (ValueError, LookupError, TypeError):
            return http.response(400, chat.error_body(400, "1 validation error"))
        counts = [len(of_text) for of_text in ids]
        tokens, count = (ids, counts) if several else (ids[0], counts[0])
        return http.response(200, {"tokens": tokens, "count": count})

    def _abort(self, body: bytes) -> bytes:
        try:
            fields = orjson.loads(body)
            if fields.get("abort_all"):
                self._scheduler.abort_all()
            else:
                self._scheduler.abort(str(fields["rid"]))
        except (ValueError, LookupError, AttributeError):
            return http.response(400, chat.error_body(400, "1 validation error"))
        return http.response(200)


class ScriptedServer:
    """The server. Its methods must run in its event loop.

    Args:
        options: how the engine behaves.
        profile: the limits of the model that the engine replaces.
        model: the name of that model.
        api_key: the bearer key that clients must send, if any.
    """

    def __init__(
        self,
        options: ScriptedOptions,
        *,
        profile: profiles.ModelProfile = profiles.TINY,
        model: str = "",
        api_key: str | None = None,
    ) -> None:
        self.url = ""
        self._key = api_key
        self._scheduler = Scheduler(options, profile, time.monotonic)
        self._admin = AdminEndpoints(self._scheduler, model=model or profile.name)
        self._writers: set[chat.ResponseWriter] = set()
        #: Set while there is a writer, and when a generation changes.
        self._active = asyncio.Event()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 chooses a free port. Raises :class:`OSError` if the address is in use."""
        self._server = await asyncio.start_server(self._connection, host, port, backlog=1024)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{host}:{port}"
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Break all connections and stop."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.give_up()
        # Not cancelled: asyncio of Python 3.11 logs connection handlers that are.
        for connection in self._connections.values():
            connection.transport.abort()
        await asyncio.gather(*self._connections)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await self._active.wait()
            now = time.monotonic()
            for writer in list(self._writers):
                writer.advance(now)
            await asyncio.sleep(_TICK_SECONDS)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections[task] = writer
        try:
            reusable = True
            while reusable:
                request = await http.read_request(reader)
                reusable = request is not None and await self._answer(request, reader, writer)
        finally:
            del self._connections[task]
            writer.close()

    async def _answer(
        self, request: http.HttpRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; return whether the connection is reusable."""
        if not self._authorized(request):
            writer.write(http.response(401, {"error": "Unauthorized"}))
            return True
        if (request.method, request.path) == ("POST", "/v1/chat/completions"):
            return await self._chat(request, reader, writer)
        response = self._admin.answer(request)
        writer.write(http.closing(response) if request.last else response)
        return not request.last

    def _authorized(self, request: http.HttpRequest) -> bool:
        if not self._key or request.path in _PUBLIC:
            return True
        return request.headers.get("authorization") == f"Bearer {self._key}"

    async def _chat(
        self, request: http.HttpRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        try:
            parsed = chat.parse(request.body, self._scheduler.profile)
            generation = self._scheduler.add(
                parsed.request, self._active.set, stuck=chat.gets_stuck(parsed.request)
            )
        except BadRequest as rejection:
            writer.write(http.response(400, chat.error_body(400, rejection.message)))
            return True
        response = chat.ResponseWriter(parsed, generation, self._scheduler, writer.transport)
        self._writers.add(response)
        self._active.set()
        try:
            response.advance(time.monotonic())
            return await self._finish(response, reader)
        finally:
            self._scheduler.remove(generation)
            self._writers.discard(response)
            if not self._writers:
                self._active.clear()

    async def _finish(self, response: chat.ResponseWriter, reader: asyncio.StreamReader) -> bool:
        """Wait for the end of a response, or until the client has been disconnected for a while."""
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((gone, response.done), return_when=asyncio.FIRST_COMPLETED)
            if response.done.done():
                return response.done.result()
            await asyncio.wait({response.done}, timeout=self._scheduler.options.disconnect_seconds)
            response.generation.abort_requested = True
            return False
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


def serve(
    host: str,
    port: int,
    *,
    options: ScriptedOptions | None = None,
    profile: profiles.ModelProfile = profiles.TINY,
    model: str = "",
    api_key: str | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Must be called from the main thread of its own process.

    Raises:
        OSError: the address is in use.
    """
    server = ScriptedServer(
        options or ScriptedOptions(), profile=profile, model=model, api_key=api_key
    )
    asyncio.run(_serve(server, host, port))


async def _serve(server: ScriptedServer, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start(host, port)
    log.info("scripted_engine_ready", url=server.url)
    try:
        await stop.wait()
    finally:
        await server.stop()
