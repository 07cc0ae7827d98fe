"""The utilization of an engine: tokens per second through the service, and with direct requests to the engine.

    python -m bench.streams [--loads 32x40 128x40 128x80] [--quick]

The engine is scripted, in its own process, with a fixed number of streams at a fixed rate; their product is
its maximum. The jobs, with answers of different lengths, are all queued before the
worker starts; the time is from the first request to the engine to the end of the last answer. The peer is a bare
``http.client`` loop that only parses, with one thread per engine slot of the service. All processes share the
cores of one machine: when the total CPU nears them, the engine slows down, and the row says
nothing about the service.
"""

from __future__ import annotations

import argparse
import http.client
import queue
import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson
import sqlalchemy as sa
from rich.progress import Progress

from bench import figures, service
from core import profiles
from jobs import engine
from jobs.lifecycle import Status
from jobs.records.attempts import Generation
from jobs.records.jobs import Job
from worker.engines.sglang import wire

_OPTIONS = "?behavior=no_answer_at_length&prefill_tokens_per_second=0&max_queued=512"
_QUESTION = "What is there to see?"
#: Seconds of a mean answer, and the number of consecutive answers per stream.
_ANSWER_SECONDS = 12
_ROUNDS = 4
_LOOK_SECONDS = 0.5
_BEGIN_SECONDS = 0.05


@dataclass(frozen=True)
class Figure:
    """The result of one way to the engine."""

    tokens: int
    seconds: float
    #: CPU seconds of the client's side and of the engine.
    client_cpu: float
    engine_cpu: float
    peak_mib: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    @property
    def cost(self) -> float:
        """CPU microseconds per token on the client's side."""
        return 1e6 * self.client_cpu / self.tokens


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--loads",
        nargs="+",
        default=["32x40", "128x40", "128x80"],
        help="streams x tokens/s of each",
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter answers")
    options = parser.parse_args()
    seconds, rounds = (3, 3) if options.quick else (_ANSWER_SECONDS, _ROUNDS)
    rows: list[list[str]] = []
    for load in options.loads:
        streams, rate = map(int, load.split("x"))
        lengths = _lengths(streams * rounds, rate * seconds)
        rows.append(_row(options.database, streams, rate, lengths))
    figures.show(
        f"Tokens/s through the service and directly to the engine, {figures.machine()}; goal: a ratio of 0.98",
        (
            *(
                "ratio",
                "CPU ratio",
                "streams",
                "tokens/s each",
                "tokens/s",
                "straight",
                "worker cores",
            ),
            *("engine cores", "µs CPU per token", "bare µs", "worker MiB"),
        ),
        rows,
    )


def _lengths(count: int, mean: int) -> list[int]:
    """Return the lengths of the answers in tokens: half to one and a half times the mean, the same in each run."""
    chance = random.Random(count)
    return [chance.randint(mean // 2, mean * 3 // 2) for _ in range(count)]


def _row(database: str, streams: int, rate: int, lengths: Sequence[int]) -> list[str]:
    options = f"{_OPTIONS}&window={streams}&tokens_per_second={rate}"
    with service.ground(options) as ground, service.databases(ground, database) as makers:
        straight = _straight(ground, streams, lengths)
        make = next(iter(makers.values()))
        ours = _through(ground, make(), streams=streams, lengths=lengths)
    return [
        f"{ours.rate / straight.rate:.3f}",
        f"{ours.cost / straight.cost:.2f}",
        str(streams),
        str(rate),
        f"{ours.rate:,.0f}",
        f"{straight.rate:,.0f}",
        f"{ours.client_cpu / ours.seconds:.2f}",
        f"{ours.engine_cpu / ours.seconds:.2f}",
        f"{ours.cost:.0f}",
        f"{straight.cost:.0f}",
        f"{ours.peak_mib:.0f}",
    ]


def _through(ground: service.Ground, url: str, *, streams: int, lengths: Sequence[int]) -> Figure:
    """Return the result of the service."""
    with service.running(ground, url, worker_slots=str(_slots(streams))) as running:
        image = running.upload()
        caller = running.caller()
        for length in lengths:
            caller.post("/v1/jobs", _body(image, length))
        engine_cpu = figures.cpu_seconds(ground.processes["engine"].pid)
        worker = running.start_worker()
        _await_first(running)
        # The start is not part of the cost per token.
        cpu = figures.cpu_seconds(worker.pid)
        _finish(running, len(lengths))
        cpu = figures.cpu_seconds(worker.pid) - cpu
        with running.database.reading() as transaction:
            row = transaction.execute(
                sa.select(
                    sa.func.min(Generation.started_at).label("began"),
                    sa.func.max(Generation.ended_at).label("ended"),
                    sa.func.sum(Generation.output_tokens).label("tokens"),
                )
            ).one()
        return Figure(
            tokens=row.tokens,
            seconds=(row.ended - row.began).total_seconds(),
            client_cpu=cpu,
            engine_cpu=figures.cpu_seconds(ground.processes["engine"].pid) - engine_cpu,
            peak_mib=figures.peak_mib(worker.pid),
        )


def _await_first(running: service.Service) -> None:
    """Wait for the first request to the engine."""
    begun = sa.select(sa.exists(sa.select(Generation.rid)))
    while True:
        with running.database.reading() as transaction:
            if transaction.execute(begun).scalar_one():
                return
        time.sleep(_BEGIN_SECONDS)


def _finish(running: service.Service, jobs: int) -> None:
    """Wait for the end of all jobs; show how many have ended."""
    counted = sa.select(sa.func.count()).select_from(Job).where(Job.status == Status.SUCCEEDED)
    with Progress(transient=True) as progress:
        task = progress.add_task("jobs", total=jobs)
        while not progress.finished:
            time.sleep(_LOOK_SECONDS)
            with running.database.reading() as transaction:
                progress.update(task, completed=transaction.execute(counted).scalar_one())


def _body(image: str, length: int) -> bytes:
    return orjson.dumps(
        {
            "question": _QUESTION,
            "images": [{"image_id": image}],
            "options": {"max_output_tokens": length},
        }
    )


def _straight(ground: service.Ground, streams: int, lengths: Sequence[int]) -> Figure:
    """Return the result of bare loops, with the service's margin as the number of queued requests."""
    wanted: queue.SimpleQueue[int] = queue.SimpleQueue()
    for length in lengths:
        wanted.put(length)
    submitted = engine.EngineImage("sample", "image/png", service.SAMPLE.read_bytes())
    images = wire.EncodedImages()
    counts: list[int] = []

    def client() -> None:
        connection = http.client.HTTPConnection(urlsplit(ground.engine_url).netloc, timeout=60)
        while True:
            try:
                length = wanted.get_nowait()
            except queue.Empty:
                return
            body = wire.body(_request(submitted, length), images)
            connection.request("POST", "/v1/chat/completions", body)
            counts.append(_parse(connection.getresponse()))

    threads = [threading.Thread(target=client) for _ in range(_slots(streams))]
    engine_pid = ground.processes["engine"].pid
    engine_cpu = figures.cpu_seconds(engine_pid)
    began, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Figure(
        tokens=sum(counts),
        seconds=time.perf_counter() - began,
        client_cpu=time.process_time() - cpu,
        engine_cpu=figures.cpu_seconds(engine_pid) - engine_cpu,
    )


def _slots(streams: int) -> int:
    """Return the number of streams that the service opens at such an engine; see :mod:`worker.engines.pool`."""
    return streams + max(4, streams // 8)


def _request(submitted: engine.EngineImage, length: int) -> engine.GenerationRequest:
    return engine.GenerationRequest(
        rid=uuid.uuid4().hex,
        model=service.MODEL.name,
        system=profiles.QVQ_SYSTEM_PROMPT,
        images=(submitted,),
        question=_QUESTION,
        sampling=service.MODEL.sampling,
        max_output_tokens=length,
        salt="bench",
    )


def _parse(response: http.client.HTTPResponse) -> int:
    """Return the number of tokens in a stream: the minimum for any client."""
    tokens, rest = 0, b""
    while piece := response.read1():
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line.startswith(b"data: {"):
                choices = orjson.loads(line[6:])["choices"]
                tokens += bool(choices and choices[0]["delta"].get("content"))
    return tokens


if __name__ == "__main__":
    main()
