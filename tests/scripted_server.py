"""The scripted engine's server in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Self

from scripted import ScriptedOptions
from scripted.server import ScriptedServer


class BackgroundServer:
    """The server on a free port: ``with BackgroundServer(...) as server``.

    Args:
        options: how the engine behaves.
        api_key: the bearer key that clients must send, if any.
    """

    def __init__(self, options: ScriptedOptions, *, api_key: str | None = None) -> None:
        self._server = ScriptedServer(options, api_key=api_key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-engine")

    @property
    def url(self) -> str:
        """The server's address."""
        return self._server.url

    def stop(self) -> None:
        """Break all connections at once, as a crash does. Idempotent."""
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
