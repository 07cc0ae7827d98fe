"""The overhead of a job, from its acceptance to its visible answer, compared with a plain app without guarantees.

    python -m bench.overhead [--jobs 200] [--database both] [--quick]

The scripted engine answers immediately, so the time of a job minus the time of a bare request to the engine is the
overhead. The reference is :mod:`bench.plain`: Flask, Celery and SQLAlchemy, on the same Redis, engine and type of
database, with the same number of threads. For both, one query every 2 ms determines which of the open jobs are done.
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
from jobs import queue
from jobs.lifecycle import Status
from jobs.records import Job

_ENGINE = "?tokens_per_second=0&prefill_tokens_per_second=0&window=256"
_TOKENS = 16
_QUESTION = "What is there to see?"
_LOOK_SECONDS = 0.002
_WARM_UP = 20
_LONGEST_SECONDS = 60
_THREADS = 64

#: Returns the finished ones of some jobs.
Look = Callable[[Transaction, Collection[str]], Collection[str]]


@dataclass(frozen=True)
class Way:
    """A way to run jobs: its submission over a new connection, its processes, and its query for finished jobs."""

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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--jobs", type=int, default=200, help="number of jobs of each row")
    parser.add_argument("--quick", action="store_true", help="40 jobs")
    options = parser.parse_args()
    jobs = 40 if options.quick else options.jobs
    rows: list[list[str]] = []
    with service.ground(_ENGINE) as ground, service.databases(ground, options.database) as makers:
        engine_p50 = _engine_alone(ground)
        for name, make in makers.items():
            with _plain(ground, make()) as peer, _ours(ground, make()) as ours:
                for at_once in (1, 8):
                    results = _measure([ours, peer], jobs, at_once, less=engine_p50)
                    rows.append([*_row(*results), str(at_once), name])
    title = f"Overhead of a job in ms, {jobs} jobs per row, {figures.machine()}"
    figures.show(
        f"{title}; without the engine's {1e3 * engine_p50:.1f} ms",
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
    """Return the p50 of a bare request in seconds."""
    caller = service.Caller(ground.engine_url)
    seconds: list[float] = []
    for _ in range(_WARM_UP + 100):
        began = time.perf_counter()
        caller.post("/v1/chat/completions", _request())
        seconds.append(time.perf_counter() - began)
    return figures.percentile(seconds[_WARM_UP:], 0.5)


def _request() -> bytes:
    """Return an engine request with the sample image, without streaming, as the plain app sends it."""
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
    """Yield the service with one worker; its jobs use an uploaded image."""
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
    job_ids = [ids.parse("job", job) for job in open_jobs]
    rows = transaction.execute(
        sa.select(Job.id).where(Job.id.in_(job_ids), Job.status == Status.SUCCEEDED)
    )
    return {ids.show("job", row.id) for row in rows}


@contextlib.contextmanager
def _plain(ground: service.Ground, database_url: str) -> Iterator[Way]:
    """Yield the plain app with one worker; its jobs include the image."""
    database = Database(database_url)
    environment = ground.environment | {
        "PLAIN_DATABASE": database.url.render_as_string(hide_password=False),
        "PLAIN_BROKER": queue.broker_url(ground.redis_url),
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
    """Return the cost of each way; the ways alternate by quarters of the jobs, so that they have equal conditions."""
    for way in ways:
        _run(way, max(_WARM_UP, at_once), at_once)
    turns: list[list[Taken]] = [[] for _ in ways]
    for _ in range(4):
        for way, rounds in zip(ways, turns, strict=True):
            cpu = sum(figures.cpu_seconds(process.pid) for process in way.processes)
            seconds = [spent - less for spent in _run(way, jobs // 4, at_once)]
            spent = sum(figures.cpu_seconds(process.pid) for process in way.processes) - cpu
            rounds.append(Taken(seconds, spent))
    return [
        Taken(
            [seconds for turn in rounds for seconds in turn.seconds],
            sum(turn.cpu for turn in rounds) / jobs,
        )
        for rounds in turns
    ]


def _run(way: Way, jobs: int, at_once: int) -> list[float]:
    """Run ``jobs`` jobs, ``at_once`` at a time; return the seconds from acceptance to the visible answer."""
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
                ended = way.look(transaction, open_jobs)
            with lock:
                for job in ended:
                    done.pop(job).set()
    if len(seconds) < jobs // at_once * at_once:
        raise SystemExit("A job did not end in time.")
    return seconds


if __name__ == "__main__":
    main()
