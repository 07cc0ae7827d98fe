"""A proxy whose connections a test can break: by a reset, or silently, so that neither end notices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

_CHUNK = 64 << 10

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Ends]]


class _Link:
    """A client's connection and the corresponding connection to the server."""

    def __init__(self, near: Ends, far: Ends) -> None:
        self._near = near
        self._far = far
        self.whole = asyncio.Event()
        self.whole.set()

    async def carry(self) -> None:
        """Forward bytes in both directions until one end closes."""
        ways = (
            asyncio.ensure_future(self._pump(self._near[0], self._far[1])),
            asyncio.ensure_future(self._pump(self._far[0], self._near[1])),
        )
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self.cut()
        await asyncio.wait(ways)

    def cut(self) -> None:
        """Reset both ends."""
        self.whole.set()
        self._near[1].transport.abort()
        self._far[1].transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self.whole.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        # A broken link does not even forward the end of a connection.
        await self.whole.wait()


class Proxy:
    """Listens on a free port of the loopback interface, in a thread: ``with Proxy(dial) as proxy``.

    Args:
        dial: connects to the server. If it fails, the proxy closes the client's connection.
    """

    def __init__(self, dial: Dial) -> None:
        self.port = 0
        self._dial = dial
        self._links: set[_Link] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """The address on which it listens, in the form ``host:port``."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def break_half(self) -> None:
        """Silently stop forwarding on the current connections until :meth:`reset`; new connections work."""
        self._loop.call_soon_threadsafe(self._break_half)

    def reset(self) -> None:
        """Reset the current connections."""
        self._loop.call_soon_threadsafe(self._reset)

    def _break_half(self) -> None:
        for link in self._links:
            link.whole.clear()

    def _reset(self) -> None:
        for link in self._links:
            link.cut()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset()
        await asyncio.gather(*self._handlers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            far = await self._dial()
        except OSError:
            writer.transport.abort()
            self._handlers.discard(task)
            return
        link = _Link((reader, writer), far)
        self._links.add(link)
        try:
            await link.carry()
        finally:
            self._links.discard(link)
            self._handlers.discard(task)
