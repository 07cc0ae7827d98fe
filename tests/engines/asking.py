"""Requests for engines, with everything a test does not care about filled in."""

from __future__ import annotations

import struct
import threading
import uuid
import zlib
from collections.abc import Callable
from typing import Any

from core import profiles
from jobs import engine
from tests.e2e import stack

GREEDY = profiles.Sampling(temperature=0.0, top_p=1.0)


def png(shade: int = 0, *, width: int = 140, height: int = 140) -> engine.EngineImage:
    """Return a grey picture of ``width`` x ``height`` pixels."""
    rows = zlib.compress((b"\0" + bytes([shade]) * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + _block(b"IHDR", head) + _block(b"IDAT", rows) + _block(b"IEND", b"")
    )
    return engine.EngineImage(key=f"{shade}-{width}x{height}", media_type="image/png", data=data)


def _block(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def ask(
    question: str = "How many shapes are in the picture?", **fields: object
) -> engine.GenerationRequest:
    """Return a request; ``fields`` replace its own."""
    given: dict[str, Any] = {
        "rid": uuid.uuid4().hex,
        "model": "tiny-qvq",
        "system": profiles.QVQ_SYSTEM_PROMPT,
        "images": (png(),),
        "question": question,
        "sampling": GREEDY,
        "max_output_tokens": 512,
        "salt": uuid.uuid4().hex,
    }
    return engine.GenerationRequest(**{**given, **fields})


def read(subject: engine.Engine, request: engine.GenerationRequest) -> list[engine.Chunk]:
    """Return all chunks of a stream."""
    with subject.stream(request) as stream:
        return list(stream)


def text(chunks: list[engine.Chunk]) -> str:
    """Return the text of ``chunks``."""
    return "".join(chunk.text for chunk in chunks)


def bill(chunks: list[engine.Chunk]) -> engine.TokenUsage:
    """Return the usage in ``chunks``."""
    (usage,) = (chunk.usage for chunk in chunks if chunk.usage is not None)
    return usage


class Reader:
    """A stream that is read in a thread of its own, as a worker's slot does.

    Attributes:
        chunks: what it has read so far.
        error: what its reading raised.
        spoke: set at the first text.
    """

    def __init__(self, subject: engine.Engine, request: engine.GenerationRequest) -> None:
        self.request = request
        self.chunks: list[engine.Chunk] = []
        self.error: Exception | None = None
        self.spoke = threading.Event()
        self._context = subject.stream(request)
        self._stream = self._context.__enter__()
        self._thread = threading.Thread(target=self._read, name="reader")
        self._thread.start()

    def close(self) -> None:
        """Close the stream, from the caller's thread."""
        self._stream.close()

    def wait_for_text(self) -> None:
        """Return when the first text has come."""
        assert self.spoke.wait(60), f"no text came: {self.error!r}"

    def join(self) -> list[engine.Chunk]:
        """Wait for the end of the reading and return what was read."""
        self._thread.join(stack.WAIT_SECONDS)
        assert not self._thread.is_alive(), "the reader is still blocked"
        return self.chunks

    def _read(self) -> None:
        try:
            with self._context:
                for chunk in self._stream:
                    self.chunks.append(chunk)
                    if chunk.text:
                        self.spoke.set()
        except Exception as error:  # noqa: BLE001 - handed to the test's thread
            self.error = error


def eventually(truth: Callable[[], bool]) -> bool:
    """Return whether ``truth`` comes true in time."""
    return stack.eventually(truth, every=0.02)
