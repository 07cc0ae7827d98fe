"""Valkey for the tests, as `longlook up` starts it; it can be stopped and started again.

The locked package brings the binary, whatever the machine has in PATH: no result depends on what is installed there.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import redis

from cli.launch import redis as launch
from tests import children


class RedisServer:
    """A server without persistence, on a unix socket in a short folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"
        self.url = launch.url(self.socket)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = children.spawn(
            launch.command(next(launch.bundled()), path=self.socket), folder=self._folder
        )
        children.wait_until(
            lambda: launch.answers(self.socket), self._process, log=self._folder / "log"
        )

    def stop(self, kindly: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, ``kindly`` or not."""
        if self._process is not None:
            children.stop(self._process, kindly)

    def freeze(self) -> None:
        """Let it hold its connections and answer nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End :meth:`freeze`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Forget everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def lifetimes(self, pattern: str) -> list[int]:
        """Return for how many milliseconds those keys that match ``pattern`` are still kept; -1 is for ever."""
        with redis.Redis.from_url(self.url) as client:
            return [int(client.pttl(key)) for key in client.scan_iter(match=pattern)]

    def clients(self) -> set[str]:
        """Return the ids of those who are connected now, beside whoever asks."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            own = str(client.client_id())
            return {one["id"] for one in client.client_list()} - {own}

    def length(self, queue: str) -> int:
        """Return how many messages wait in ``queue``, under whichever prefix."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            keys = client.scan_iter(match=f"*:{queue}", _type="list")
            return sum(int(str(client.llen(key))) for key in keys)
