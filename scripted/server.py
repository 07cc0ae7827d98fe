"""The scripted engine behind SGLang's HTTP interface: a peer for tests and load tests that needs no model.

Hundreds of streams share one loop with one ticker, so that it costs little beside what it is a peer for.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING, Self, cast

import structlog

from core import profiles
from scripted import dialect, http
from scripted.desk import AdminEndpoints
from scripted.options import ScriptedOptions
from scripted.prompt import Refused
from scripted.show import ResponseWriter
from scripted.stage import Scheduler

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from scripted.http import Call

#: Between two looks at what came due: no stream is later than this, and tokens due together share a write.
_TICK_SECONDS = 0.02
_OPEN = ("/health", "/ready", "/metrics")

log = structlog.get_logger(__name__)


class ScriptedServer:
    """The server. Its methods belong to its loop.

    Args:
        options: how the engine behaves.
        profile: the limits of the model it stands in for.
        model: the name it gives that model.
        api_key: the bearer key it wants, if any.
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
        self._stage = Scheduler(options, profile, time.monotonic)
        self._desk = AdminEndpoints(self._stage, model=model or profile.name)
        self._shows: set[ResponseWriter] = set()
        self._audience = asyncio.Event()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. Raises :class:`OSError` when it is taken."""
        self._server = await asyncio.start_server(self._connection, host, port, backlog=1024)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{host}:{port}"
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Break all connections and end."""
        if self._server is not None:
            self._server.close()
        for show in self._shows:
            show.give_up()
        # Handlers end by themselves, for asyncio of Python 3.11 logs those that are cancelled.
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await self._audience.wait()
            now = time.monotonic()
            for show in list(self._shows):
                show.advance(now)
            await asyncio.sleep(_TICK_SECONDS)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections[task] = writer
        try:
            usable = True
            while usable:
                call = await http.read_call(reader)
                usable = call is not None and await self._answer(call, reader, writer)
        finally:
            del self._connections[task]
            writer.close()

    async def _answer(
        self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one call; return whether the connection can be used again."""
        if not self._admits(call):
            writer.write(http.reply(401, {"error": "Unauthorized"}))
            return True
        if (call.method, call.path) == ("POST", "/v1/chat/completions"):
            return await self._chat(call, reader, writer)
        response = self._desk.answer(call)
        writer.write(http.closing(response) if call.last else response)
        return not call.last

    def _admits(self, call: Call) -> bool:
        wanted = f"Bearer {self._key}" if self._key and call.path not in _OPEN else None
        return wanted is None or call.headers.get("authorization") == wanted

    async def _chat(
        self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        try:
            requested = dialect.parse(call.body, self._stage.profile)
            play = self._stage.enter(
                requested.request, self._audience.set, stuck=dialect.gets_stuck(requested.request)
            )
        except Refused as refused:
            writer.write(http.reply(400, dialect.error(400, refused.message)))
            return True
        show = ResponseWriter(requested, play, self._stage, writer.transport)
        self._shows.add(show)
        self._audience.set()
        try:
            show.advance(time.monotonic())
            return await self._watched(show, reader)
        finally:
            self._stage.leave(play)
            self._shows.discard(show)
            if not self._shows:
                self._audience.clear()

    async def _watched(self, show: ResponseWriter, reader: asyncio.StreamReader) -> bool:
        """Wait for the end of a show, or for its client to have been gone for a while."""
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((gone, show.over), return_when=asyncio.FIRST_COMPLETED)
            if show.over.done():
                return show.over.result()
            await asyncio.wait({show.over}, timeout=self._stage.options.disconnect_seconds)
            show.play.abort_requested = True
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
    """Serve until SIGTERM or SIGINT. For the main thread of a process of its own.

    Raises:
        OSError: the address is taken.
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


class BackgroundServer:
    """The server in a thread of this process, on a free port, for tests: ``with BackgroundServer(...) as server``.

    Args:
        options: how the engine behaves.
        api_key: the bearer key it wants, if any.
    """

    def __init__(self, options: ScriptedOptions, *, api_key: str | None = None) -> None:
        self._server = ScriptedServer(options, api_key=api_key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-engine")

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    def stop(self) -> None:
        """Break everything at once, as a crash does. Idempotent."""
        if self._thread.is_alive():
            self._run(self._server.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._server.start("127.0.0.1", 0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()
