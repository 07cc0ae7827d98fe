"""The overhead of the service per job, from its acceptance to its visible answer, compared with a plain app.

    python -m bench.overhead [--jobs 200] [--database both] [--quick]

The scripted engine answers at once, so the time, minus that of a bare request to the engine, is
overhead. The peer is :mod:`bench.plain`: Flask, Celery, and SQLAlchemy without guarantees, with the same Redis, engine,
kind of database, and number of threads. Both are observed in the same way: every 2 ms a query finds the finished jobs.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import orjson
import sqlalchemy as sa

from bench import figures, plain, service
from cli.launch.process import Process, Program
from core import ids
from core.database import Database, Transaction
from core.redis_url import RedisURL
from jobs.lifecycle import Status
from jobs.records.jobs import Job

_ENGINE = "?tokens_per_second=0&prefill_tokens_per_second=0&window=256"
_TOKENS = 16
_QUESTION = "What is there to see?"
_LOOK_SECONDS = 0.002
_WARM_UP = 20
_LONGEST_SECONDS = 60
_THREADS = 64

#: Returns which of some jobs are done.
Look = Callable[[Transaction, Collection[str]], Collection[str]]


@dataclass(frozen=True)
class Way:
    """A way to run jobs: how a job is submitted over a new connection, its processes, and how its end is seen."""

    submitter: Callable[[], Callable[[], str]]
    look: Look
    database: Database
    processes: tuple[Process, ...]


@dataclass(frozen=True)
class Taken:
    """Seconds of overhead of each job, and CPU seconds per job."""

    seconds: list[float]
    cpu: float


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--jobs", type=int, default=200, help="number of jobs per row")
    parser.add_argument("--quick", action="store_true", help="40 jobs")
    options = parser.parse_args()
    jobs = 40 if options.quick else options.jobs
    rows: list[list[str]] = []
    with service.ground(_ENGINE) as ground, service.databases(ground, options.database) as makers:
        engine_p50 = _engine_alone(ground)
        for name, make in makers.items():
            with _plain(ground, make()) as peer, _ours(ground, make()) as ours:
                for at_once in (1, 8):
                    taken = _measure([ours, peer], jobs, at_once, less=engine_p50)
                    rows.append([*_row(*taken), str(at_once), name])
    title = f"Overhead of a job in ms, {jobs} jobs per row, {figures.machine()}"
    figures.show(
        f"{title}; the engine alone: {1e3 * engine_p50:.1f} ms, subtracted",
        (
            *("p50 ratio", "p99 ratio", "p50", "plain p50", "p99", "plain p99"),
            *("CPU", "plain CPU", "at once", "database"),
        ),
        rows,
    )


def _row(ours: Taken, peer: Taken) -> list[str]:
    counted = [
        figures.percentile(way.seconds, share) for share in (0.5, 0.99) for way in (ours, peer)
    ]
    p50, plain_p50, p99, plain_p99 = counted
    return [
        f"{p50 / plain_p50:.2f}",
        f"{p99 / plain_p99:.2f}",
        *(f"{1e3 * seconds:.1f}" for seconds in (*counted, ours.cpu, peer.cpu)),
    ]


def _engine_alone(ground: service.Ground) -> float:
    """Return the p50 of a bare request, seconds."""
    caller = service.Caller(ground.engine_url)
    seconds: list[float] = []
    for _ in range(_WARM_UP + 100):
        began = time.perf_counter()
        caller.post("/v1/chat/completions", _request())
        seconds.append(time.perf_counter() - began)
    return figures.percentile(seconds[_WARM_UP:], 0.5)


def _request() -> bytes:
    """Return an engine request with the sample image, not streamed, like the plain app's."""
    image = base64.b64encode(service.SAMPLE.read_bytes()).decode()
    url = {"url": f"data:image/png;base64,{image}"}
    content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": _QUESTION}]
    return orjson.dumps(
        {
            "model": service.MODEL.name,
            "rid": uuid.uuid4().hex,
            "messages": [{"role": "user", "content": content}],
            "max_completion_tokens": _TOKENS,
            "temperature": 0,
        }
    )


@contextlib.contextmanager
def _ours(ground: service.Ground, database_url: str) -> Iterator[Way]:
    """Yield the service with one worker, and an uploaded image."""
    with service.running(ground, database_url, worker_slots=str(_THREADS)) as running:
        worker = running.start_worker()
        body = orjson.dumps(
            {
                "question": _QUESTION,
                "images": [{"image_id": running.upload()}],
                "options": {"max_output_tokens": _TOKENS},
            }
        )

        def submitter() -> Callable[[], str]:
            caller = running.caller()
            return lambda: str(caller.post("/v1/jobs", body)["id"])

        yield Way(submitter, _our_done, running.database, (running.api, worker))


def _our_done(transaction: Transaction, open_jobs: Collection[str]) -> set[str]:
    requested = [ids.parse("job", job) for job in open_jobs]
    rows = transaction.execute(
        sa.select(Job.id).where(Job.id.in_(requested), Job.status == Status.SUCCEEDED)
    )
    return {ids.show("job", row.id) for row in rows}


@contextlib.contextmanager
def _plain(ground: service.Ground, database_url: str) -> Iterator[Way]:
    """Yield the plain app with one worker; each request carries the image."""
    database = Database(database_url)
    environment = ground.environment | {
        "PLAIN_DATABASE": database.url.render_as_string(hide_password=False),
        "PLAIN_BROKER": RedisURL.parse(ground.redis_url).broker,
        "PLAIN_ENGINE": ground.engine_url,
    }
    with service.listening() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        api = ground.start(
            Program(
                name="plain-api",
                command=(
                    *(sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"),
                    *(
                        "--worker-class",
                        "gthread",
                        "--threads",
                        str(_THREADS),
                        "--keep-alive",
                        "75",
                    ),
                    *("--no-control-socket", "bench.plain:create_app()"),
                ),
                environment=environment,
                stop_seconds=5,
                descriptors=(listener.fileno(),),
            )
        )
        worker = ground.start(
            Program(
                name="plain-worker",
                command=(
                    *(sys.executable, "-m", "celery", "-A", "bench.plain", "worker"),
                    *("-P", "threads", "-c", str(_THREADS), "--without-gossip"),
                    *("--without-mingle", "--without-heartbeat"),
                ),
                environment=environment,
                stop_seconds=5,
            )
        )
        service.wait(lambda: service.Caller(url).alive("/ready"), api)
        body = _request()

        def submitter() -> Callable[[], str]:
            caller = service.Caller(url)
            return lambda: str(caller.post("/jobs", body)["id"])

        try:
            yield Way(submitter, _plain_done, database, (api, worker))
        finally:
            service.stop(worker)
            service.stop(api)
            database.close()


def _plain_done(transaction: Transaction, open_jobs: Collection[str]) -> set[str]:
    rows = transaction.execute(
        sa.select(plain.Job.id).where(plain.Job.id.in_(open_jobs), plain.Job.answer.is_not(None))
    )
    return {row.id for row in rows}


def _measure(ways: list[Way], jobs: int, at_once: int, *, less: float) -> list[Taken]:
    """Return the result of each way; they alternate, a quarter of the jobs at a time, under the same conditions."""
    for way in ways:
        _run(way, max(_WARM_UP, at_once), at_once)
    turns: list[list[Taken]] = [[] for _ in ways]
    for _ in range(4):
        for way, taken in zip(ways, turns, strict=True):
            cpu = sum(figures.cpu_seconds(process.pid) for process in way.processes)
            seconds = [spent - less for spent in _run(way, jobs // 4, at_once)]
            spent = sum(figures.cpu_seconds(process.pid) for process in way.processes) - cpu
            taken.append(Taken(seconds, spent))
    return [
        Taken([spent for turn in taken for spent in turn.seconds], sum(t.cpu for t in taken) / jobs)
        for taken in turns
    ]


def _run(way: Way, jobs: int, at_once: int) -> list[float]:
    """Run ``jobs`` jobs, ``at_once`` of them open at any time; return the seconds from accepted to visible."""
    seconds: list[float] = []
    done: dict[str, threading.Event] = {}
    lock = threading.Lock()

    def client() -> None:
        submit = way.submitter()
        for _ in range(jobs // at_once):
            job = submit()
            accepted = time.perf_counter()
            with lock:
                visible = done[job] = threading.Event()
            if not visible.wait(_LONGEST_SECONDS):
                return
            seconds.append(time.perf_counter() - accepted)

    threads = [threading.Thread(target=client) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(_LOOK_SECONDS)
        with lock:
            open_jobs = list(done)
        if open_jobs:
            with way.database.reading() as transaction:
                found = way.look(transaction, open_jobs)
            with lock:
                for job in found:
                    done.pop(job).set()
    if len(seconds) < jobs // at_once * at_once:
        raise SystemExit("A job did not end in time.")
    return seconds


if __name__ == "__main__":
    main()
