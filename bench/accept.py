"""The cost of accepting a job: ``POST /v1/jobs`` through the real API, compared with the unavoidable work.

    python -m bench.accept [--database both] [--quick]

With a photograph: a JPEG of 12 megapixels as a form, one at a time, each a new image; compared with the bare
Pillow work (decode, resize, encode) on the same images in a separate process, alternating with the service.
By image id: small JSON about an uploaded image; compared with the rate of one-row commits on the
same database, because each accepted job is one. No worker runs. CPU is the total of the API's processes.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import LiteralString

import orjson
import psycopg
import sqlalchemy as sa

from bench import accept_images, figures, service

_BOUNDARY = "bench-boundary"
_AIM = 1000.0
_WARM_UP = 3
_COMMITS = 200
_QUESTION = "What is there to see?"


@dataclass(frozen=True)
class Load:
    """The times of a series of calls: seconds of each, wall-clock seconds of all, and CPU seconds."""

    seconds: Sequence[float]
    wall: float
    cpu: float

    @property
    def each(self) -> float:
        """CPU seconds of one call."""
        return self.cpu / len(self.seconds)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    options = parser.parse_args()
    photographs = list(_photographs(8 if options.quick else 40))
    jobs = 200 if options.quick else 1000
    by_photograph: list[list[str]] = []
    by_id: list[list[str]] = []
    with service.ground("") as ground, service.databases(ground, options.database) as makers:
        for name, make in makers.items():
            url = make()
            with service.running(ground, url) as running, ProcessPoolExecutor(1) as bare:
                by_photograph.append([*_photograph_row(running, bare, photographs), name])
                commits = _commits_a_second(url)
                by_id += [[*_id_row(running, jobs, clients, commits), name] for clients in (1, 8)]
    machine = figures.machine()
    figures.show(
        f"A job with a 12 MP JPEG, one at a time, {len(photographs) - _WARM_UP} photographs, {machine}",
        (
            *("p50 ratio", "CPU ratio", "p50", "p99", "bare p50", "CPU per job", "bare CPU"),
            *("jobs/s per core", "database"),
        ),
        by_photograph,
    )
    figures.show(
        f"A job by image id, {jobs} of them, {machine}; goal: {_AIM:,.0f} jobs/s per core",
        (
            *("of the goal", "jobs/s per core", "CPU per job", "clients", "jobs/s", "p50", "p99"),
            *("bare commits/s", "database"),
        ),
        by_id,
    )


def _photographs(count: int) -> Iterator[bytes]:
    """Yield different JPEGs: each has its own quantization table, so that no pixels are known."""
    photograph = accept_images.photograph()
    table = photograph.index(b"\xff\xdb") + 5
    for number in range(_WARM_UP + count):
        changed = bytearray(photograph)
        # The coefficients next to the mean, in zigzag order: they matter at every scale.
        changed[table + 1] += number % 8
        changed[table + 2] += number // 8
        yield bytes(changed)


def _photograph_row(
    running: service.Service, bare: ProcessPoolExecutor, photographs: Sequence[bytes]
) -> list[str]:
    caller = running.caller()
    theirs: list[tuple[float, float]] = []
    ours: list[float] = []
    cpu = 0.0
    for number, photograph in enumerate(photographs):
        form = _form(photograph)
        theirs.append(bare.submit(_bare, photograph).result())
        before, began = figures.cpu_seconds(running.api.pid), time.perf_counter()
        caller.post("/v1/jobs", form, kind=f"multipart/form-data; boundary={_BOUNDARY}")
        ours.append(time.perf_counter() - began)
        if number >= _WARM_UP:
            cpu += figures.cpu_seconds(running.api.pid) - before
    ours, theirs = ours[_WARM_UP:], theirs[_WARM_UP:]
    each, bare_cpu = cpu / len(ours), sum(spent for _, spent in theirs) / len(theirs)
    p50 = figures.percentile(ours, 0.5)
    bare_p50 = figures.percentile((seconds for seconds, _ in theirs), 0.5)
    return [
        f"{p50 / bare_p50:.2f}",
        f"{each / bare_cpu:.2f}",
        _ms(p50),
        _ms(figures.percentile(ours, 0.99)),
        _ms(bare_p50),
        _ms(each),
        _ms(bare_cpu),
        f"{1 / each:.1f}",
    ]


def _bare(photograph: bytes) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds of the bare work."""
    began, cpu = time.perf_counter(), time.process_time()
    accept_images.bare(photograph, "standard")
    return time.perf_counter() - began, time.process_time() - cpu


def _form(photograph: bytes) -> bytes:
    """Return a form with a photograph and a question."""
    return (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="question"\r\n\r\n{_QUESTION}\r\n'
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="p.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode() + b"%b\r\n--%b--\r\n" % (photograph, _BOUNDARY.encode())


def _id_row(running: service.Service, jobs: int, clients: int, commits: float) -> list[str]:
    image = running.upload()
    body = orjson.dumps({"question": _QUESTION, "images": [{"image_id": image}]})
    _load(running, body, 20, clients=1)
    load = _load(running, body, jobs, clients=clients)
    return [
        f"{1 / load.each / _AIM:.2f}",
        f"{1 / load.each:,.0f}",
        _ms(load.each),
        str(clients),
        f"{len(load.seconds) / load.wall:,.0f}",
        _ms(figures.percentile(load.seconds, 0.5)),
        _ms(figures.percentile(load.seconds, 0.99)),
        f"{commits:,.0f}",
    ]


def _load(running: service.Service, body: bytes, jobs: int, *, clients: int) -> Load:
    """Submit ``jobs`` jobs by ``clients`` clients that each wait for their response."""
    seconds: list[float] = []

    def client() -> None:
        caller = running.caller()
        for _ in range(jobs // clients):
            began = time.perf_counter()
            caller.post("/v1/jobs", body)
            seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    cpu, began = figures.cpu_seconds(running.api.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began
    if len(seconds) < jobs // clients * clients:
        raise SystemExit("A job was not accepted.")
    return Load(seconds, wall, figures.cpu_seconds(running.api.pid) - cpu)


def _commits_a_second(url: str) -> float:
    """Return the number of sequential one-row transactions that the database commits in a second."""
    began = time.perf_counter()
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(sa.make_url(url).database or "")) as connection:
            connection.isolation_level = None
            connection.execute("PRAGMA synchronous=FULL")
            _commit(connection.execute)
    else:
        with psycopg.connect(url, autocommit=True) as session:
            _commit(session.execute)
    return _COMMITS / (time.perf_counter() - began)


def _commit(execute: Callable[[LiteralString], object]) -> None:
    execute("CREATE TABLE floor (number INTEGER)")
    for _ in range(_COMMITS):
        execute("INSERT INTO floor VALUES (1)")


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


if __name__ == "__main__":
    main()
