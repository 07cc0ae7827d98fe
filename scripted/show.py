"""One play over HTTP: what came due, written to its client in SGLang's order."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from scripted import dialect, http

if TYPE_CHECKING:
    from scripted.dialect import ChatRequest
    from scripted.play import End, ScriptedGeneration
    from scripted.stage import Scheduler

#: Ends that are an error, with the status they are told with.
_ERRORS = {
    "busy": (503, "The request queue is full."),
    "starting": (503, "The server is starting."),
    "evicted": (503, "The request is aborted by a higher priority request."),
    "failed": (500, "The scripted engine was told to fail."),
}


class ResponseWriter:
    """A play and the client that watches it.

    Args:
        requested: what the client wants.
        play: the stream.
        stage: what it leaves before its client hears of the end.
        transport: where the client is.
    """

    def __init__(
        self,
        requested: ChatRequest,
        play: ScriptedGeneration,
        stage: Scheduler,
        transport: asyncio.WriteTransport,
    ) -> None:
        self.play = play
        #: Set to whether the connection can be used again, once nothing more will be written.
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._requested = requested
        self._stage = stage
        self._transport = transport
        self._events = dialect.Events(requested.request)
        self._began = False
        self._text: list[str] = []

    def advance(self, now: float) -> None:
        """Write what came due up to ``now``."""
        if self.over.done():
            return
        step = self.play.advance(now)
        if step.end is not None:
            self._stage.leave(self.play)
        if self._requested.streamed:
            # The head comes with the first token, or with the end.
            out = [] if not step.tokens else [*self._opening()]
            out += map(self._events.token, step.tokens)
            if step.end is not None:
                out += self._ending(step.end)
            self._write(b"".join(out))
        else:
            self._text += step.tokens
            if step.end is not None:
                self._write(self._whole(step.end))
        if step.end is not None:
            self.over.set_result(step.end != "reset")

    def give_up(self) -> None:
        """Write nothing more."""
        if not self.over.done():
            self.over.set_result(False)

    def _opening(self) -> list[bytes]:
        if self._began:
            return []
        self._began = True
        return [http.EVENT_STREAM_HEAD, self._events.opening()]

    def _ending(self, end: End) -> list[bytes]:
        """Return the last bytes of a stream."""
        if end == "reset":
            self._reset()
            return []
        if end == "cut_off":
            return [*self._opening(), http.LAST_CHUNK]
        if end == "starting":
            return [http.reply(503, dialect.error(*_ERRORS[end]))]
        if end in _ERRORS:
            head = [] if self._began else [http.EVENT_STREAM_HEAD]
            last = [*head, self._events.error(*_ERRORS[end])]
        else:
            last = [*self._opening(), self._events.finish("abort" if end == "given_up" else end)]
        if self._requested.with_usage:
            last.append(self._events.usage(self.play.usage()))
        return [*last, self._events.done()]

    def _whole(self, end: End) -> bytes:
        """Return the answer of a request that is not streamed."""
        if end == "reset":
            self._reset()
            return b""
        if end in _ERRORS:
            return http.reply(_ERRORS[end][0], dialect.error(*_ERRORS[end]))
        reason = end if end in ("stop", "length") else "abort"
        text = "".join(self._text)
        return http.reply(
            200, dialect.whole(self._requested.request, text, reason, self.play.usage())
        )

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _reset(self) -> None:
        """Break the connection with a reset instead of an end: what a crash looks like."""
        if self._transport.is_closing():
            return  # Its client was quicker.
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
