"""The delay of live events, for one reader and for hundreds, and the API's response times meanwhile.

    python -m bench.live [--readers 1 500] [--jobs 32] [--rate 30] [--seconds 20] [--quick]

The jobs run on a scripted engine at a fixed rate; the readers, one thread with all sockets, are spread evenly over the
jobs. The delay of an event is from its ``at``, when the worker created it, to its arrival here; the worker collects
tokens for up to 50 ms before that. The first seconds, while the readers connect, do not count. At the same time a
client reads a job ten times a second. All processes, with the readers, share the cores of one machine.
"""

from __future__ import annotations

import argparse
import re
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from bench import figures, service

_OPTIONS = "?behavior=no_answer_at_length&prefill_tokens_per_second=0&max_queued=512"
_AT = re.compile(rb'"type":"trace\.delta","at":"([^"]+)"')
#: Seconds until all readers have connected.
_SETTLE_SECONDS = 8
_ASK_SECONDS = 0.1
_PIECE = 2**16


@dataclass
class Readers:
    """Sockets that follow jobs; delays are in seconds."""

    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    refused: int = 0

    def connect(self, port: int, path: str, key: str) -> None:
        """Open the stream of a job."""
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        )
        self.sockets[one.fileno()] = one
        self.selector.register(one, selectors.EVENT_READ)

    def read(self, *, since: float, until: float) -> None:
        """Read all streams; events before ``since`` (Unix time) do not count."""
        while (now := time.time()) < until:
            for key, _ in self.selector.select(timeout=0.1):
                data = self.sockets[key.fd].recv(_PIECE)
                now = time.time()
                if not data:
                    self.selector.unregister(key.fileobj)
                self.refused += data.startswith(b"HTTP/1.1 503")
                if now >= since:
                    self.delays += [now - _moment(at) for at in _AT.findall(data)]

    def close(self) -> None:
        """Close all sockets."""
        self.selector.close()
        for one in self.sockets.values():
            one.close()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--readers", nargs="+", type=int, default=[1, 500])
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--rate", type=int, default=30, help="tokens per second of each job")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--quick", action="store_true", help="a few seconds each")
    options = parser.parse_args()
    seconds = 5 if options.quick else options.seconds
    rows = [_row(options, readers, seconds) for readers in options.readers]
    figures.show(
        f"Live events of {options.jobs} jobs at {options.rate} tokens/s, {figures.machine()}; aim: p99 < 300 ms",
        (
            *("readers", "events/s", "p50 ms", "p99 ms", "max ms", "refused"),
            *("GET p50 ms", "GET p99 ms", "API cores", "API MiB", "worker cores"),
        ),
        rows,
    )


def _row(options: argparse.Namespace, count: int, seconds: int) -> list[str]:
    engine = f"{_OPTIONS}&window={options.jobs}&tokens_per_second={options.rate}"
    with service.ground(engine) as ground, service.databases(ground, options.database) as makers:
        make = next(iter(makers.values()))
        with service.running(ground, make(), worker_slots=str(options.jobs)) as running:
            jobs = _submit(running, options.jobs, options.rate * (seconds + 4 * _SETTLE_SECONDS))
            worker = running.start_worker()
            readers, requested = Readers(), _Asking(running, jobs[0])
            for number in range(count):
                path = f"/v1/jobs/{jobs[number % len(jobs)]}/events"
                readers.connect(running.wiring.port, path, running.key)
            since = time.time() + _SETTLE_SECONDS
            readers.read(since=since, until=since)
            before = [figures.cpu_seconds(process.pid) for process in (running.api, worker)]
            requested.start()
            readers.read(since=since, until=since + seconds)
            after = [figures.cpu_seconds(process.pid) for process in (running.api, worker)]
            gets = requested.stop()
            readers.close()
            api, work = ((late - soon) / seconds for soon, late in zip(before, after, strict=True))
            memory = sum(figures.peak_mib(pid) for pid in _family(running.api.pid))
    delays = [1000 * delay for delay in readers.delays]
    return [
        str(count),
        f"{len(delays) / seconds:,.0f}",
        f"{figures.percentile(delays, 0.5):.0f}",
        f"{figures.percentile(delays, 0.99):.0f}",
        f"{max(delays):.0f}",
        str(readers.refused),
        f"{1000 * figures.percentile(gets, 0.5):.0f}",
        f"{1000 * figures.percentile(gets, 0.99):.0f}",
        f"{api:.2f}",
        f"{memory:.0f}",
        f"{work:.2f}",
    ]


def _submit(running: service.Service, count: int, tokens: int) -> list[str]:
    image, caller = running.upload(), running.caller()
    body = {
        "question": "What is there to see?",
        "images": [{"image_id": image}],
        "options": {"max_output_tokens": min(tokens, service.MODEL.max_output_tokens)},
    }
    return [str(caller.post("/v1/jobs", orjson.dumps(body))["id"]) for _ in range(count)]


class _Asking:
    """A client that reads a job repeatedly and records the time of each response."""

    def __init__(self, running: service.Service, job: str) -> None:
        self._caller = running.caller()
        self._path = f"/v1/jobs/{job}"
        self._seconds: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Sequence[float]:
        self._stop.set()
        self._thread.join()
        return self._seconds

    def _run(self) -> None:
        while not self._stop.wait(_ASK_SECONDS):
            began = time.perf_counter()
            if self._caller.alive(self._path):
                self._seconds.append(time.perf_counter() - began)


def _family(pid: int) -> list[int]:
    """Return a process and its children: gunicorn and its workers."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:  # noqa: PTH123 - /proc
        return [pid, *map(int, children.read().split())]


def _moment(text: bytes) -> float:
    return datetime.fromisoformat(text.decode()).timestamp()


if __name__ == "__main__":
    main()
