"""The cost of the SGLang client compared with a bare loop: CPU per chunk with many streams.

    python -m bench.engine_client [--streams 64] [--rate 100] [--seconds 5]

The peer is a scripted engine in its own process. The bare loop is ``http.client`` with a read
time-out, ``read1``, a split at line ends, and ``orjson.loads``: the minimum for any client.
"""

from __future__ import annotations

import argparse
import http.client
import resource
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson
from rich.console import Console
from rich.table import Table

from core import errors, profiles
from jobs import engine
from worker.engines.sglang import wire
from worker.engines.sglang.client import SGLang

if TYPE_CHECKING:
    from collections.abc import Callable

_PEER = """
import sys
from core import profiles
from scripted import ScriptedOptions, server
options = ScriptedOptions.parse(sys.argv[2])
server.serve("127.0.0.1", int(sys.argv[1]), options=options, profile=profiles.QVQ)
"""


@dataclass(frozen=True)
class Figure:
    """The result of one client."""

    name: str
    chunks: int
    seconds: float
    cpu: float

    @property
    def cost(self) -> float:
        """CPU microseconds per chunk."""
        return 1e6 * self.cpu / self.chunks


def main() -> None:
    """Run the bare loop and the client one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rate", type=int, default=100, help="tokens per second of each stream")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--port", type=int, default=31899)
    flags = parser.parse_args()
    tokens = int(flags.rate * flags.seconds)
    url = f"http://127.0.0.1:{flags.port}"
    options = f"?tokens_per_second={flags.rate}&window=512&behavior=no_answer_at_length"
    peer = subprocess.Popen([sys.executable, "-c", _PEER, str(flags.port), options])
    try:
        client = SGLang(
            url, connect_seconds=5, first_token_seconds=60, token_seconds=60, connections=512
        )
        _await_ready(client)
        figures = [
            _measure("bare http.client loop", flags.streams, lambda: _bare(url, _request(tokens))),
            _measure("SGLang client", flags.streams, lambda: _ours(client, _request(tokens))),
        ]
        client.close()
    finally:
        peer.terminate()
        peer.wait()
    _print(figures, flags.streams, flags.rate)


def _request(tokens: int) -> engine.GenerationRequest:
    return engine.GenerationRequest(
        rid=uuid.uuid4().hex,
        model="bench",
        system=profiles.QVQ_SYSTEM_PROMPT,
        images=(),
        question="What is there to see?",
        sampling=profiles.Sampling(temperature=0.0, top_p=1.0),
        max_output_tokens=tokens,
        salt="bench",
    )


def _bare(url: str, request: engine.GenerationRequest) -> int:
    chunks = 0
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    body = wire.body(request, wire.EncodedImages())
    connection.request("POST", "/v1/chat/completions", body)
    response = connection.getresponse()
    rest = b""
    while piece := response.read1():
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line.startswith(b"data: {"):
                orjson.loads(line[6:])
                chunks += 1
    connection.close()
    return chunks


def _ours(client: SGLang, request: engine.GenerationRequest) -> int:
    with client.stream(request) as stream:
        return sum(1 for _ in stream)


def _measure(name: str, streams: int, run: Callable[[], int]) -> Figure:
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(run())) for _ in range(streams)]
    began, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Figure(name, sum(counts), time.perf_counter() - began, time.process_time() - cpu)


def _await_ready(client: SGLang) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            client.facts()
        except errors.EngineUnavailable:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("The peer did not start.")


def _print(figures: list[Figure], streams: int, rate: int) -> None:
    table = Table(title=f"{streams} streams at {rate} tokens/s")
    for column in ("client", "chunks/s", "CPU cores", "CPU µs/chunk", "ratio"):
        table.add_column(column, justify="left" if column == "client" else "right")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.chunks / figure.seconds:,.0f}",
            f"{figure.cpu / figure.seconds:.2f}",
            f"{figure.cost:.1f}",
            f"{figure.cost / figures[0].cost:.2f}",
        )
    Console().print(table)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    served = sum(figure.chunks for figure in figures)
    each = 1e6 * (usage.ru_utime + usage.ru_stime) / served
    print(f"The scripted server: {each:.1f} µs of CPU per chunk, including its start.")


if __name__ == "__main__":
    main()
