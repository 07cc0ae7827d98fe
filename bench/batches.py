"""A batch of 10,000 lines while single jobs arrive: its rate, how long single jobs wait, and the memory of the service.

    python -m bench.batches [--lines 10000] [--seconds 240] [--database sqlite]

The engine responds at once, so the rest is Longlook's work. First single jobs alone give the rate to compare with. Then
a batch runs, and a single job arrives about every second: how many other jobs start before it, from its creation on
and from the response to its request on. No worker can see it between its creation and its commit. Memory is that of the
processes that serve requests and run jobs, at a tenth of the batch and at the end. A run ends after its time limit,
with the lines that have ended by then.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Final

import orjson

from bench import figures, service

_ENGINE: Final = "?tokens_per_second=0&prefill_tokens_per_second=0&window=256"
_BOUNDARY: Final = "bench-boundary"
_SINGLE: Final = 200
_EVERY_SECONDS: Final = 1.0
_ENDED: Final = {"completed", "failed", "expired", "cancelled"}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=240.0, help="time limit of the batch")
    parser.add_argument("--database", default="sqlite", choices=("sqlite", "postgresql", "both"))
    options = parser.parse_args()
    rows: list[list[str]] = []
    with (
        service.ground(_ENGINE) as ground,
        service.databases(ground, options.database) as makers,
    ):
        for name, make in makers.items():
            with service.running(ground, make(), worker_slots="16") as running:
                worker = running.start_worker()
                single = _single_rate(running)
                rows.append([*_batch_row(running, worker.pid, options, single), name])
    figures.show(
        f"A batch of {options.lines:,} lines, {figures.machine()}",
        (
            *(
                "of single jobs",
                "lines/s",
                "single jobs/s",
                "lines",
                "most started before a single, created / accepted",
            ),
            *("singles", "API MiB", "worker MiB", "database"),
        ),
        rows,
    )


def _single_rate(running: service.Service) -> float:
    """Return how many single jobs end per second."""
    caller = running.caller()
    began = time.perf_counter()
    ids = [_submit(caller) for _ in range(_SINGLE)]
    while caller.get(f"/v1/responses/{ids[-1]}")["status"] in {"queued", "in_progress"}:
        time.sleep(0.01)
    return _SINGLE / (time.perf_counter() - began)


def _batch_row(
    running: service.Service, worker: int, options: argparse.Namespace, single: float
) -> list[str]:
    caller = running.caller()
    batch = create(caller, b"".join(line(number) for number in range(options.lines)))
    while caller.get(f"/v1/batches/{batch}")["status"] == "validating":
        time.sleep(0.05)
    began = time.perf_counter()
    early: tuple[float, float] | None = None
    passed: list[tuple[int, int]] = []
    while True:
        shown = caller.get(f"/v1/batches/{batch}")
        ended = shown["request_counts"]["completed"] + shown["request_counts"]["failed"]
        spent = time.perf_counter() - began
        if early is None and ended >= options.lines / 10:
            early = _memory(running.api.pid, worker)
        if shown["status"] != "in_progress" or spent > options.seconds:
            break
        passed.append(_passed(caller))
        time.sleep(_EVERY_SECONDS)
    while shown["status"] not in _ENDED and time.perf_counter() - began < options.seconds:
        time.sleep(0.2)
        shown = caller.get(f"/v1/batches/{batch}")
    late = _memory(running.api.pid, worker)
    before = early or late
    return [
        f"{ended / spent / single:.2f}",
        f"{ended / spent:.0f}",
        f"{single:.0f}",
        f"{ended:,} ({shown['status']})",
        " / ".join(str(max(numbers, default=0)) for numbers in zip(*passed, strict=True)) or "-",
        str(len(passed)),
        f"{before[0]:.0f} → {late[0]:.0f}",
        f"{before[1]:.0f} → {late[1]:.0f}",
    ]


def _passed(caller: service.Caller) -> tuple[int, int]:
    """Submit a single job; return how many others started before it did, since its creation and since the response."""
    response = _submit(caller)
    accepted = datetime.now(UTC)
    while caller.get(f"/v1/responses/{response}")["status"] in {"queued", "in_progress"}:
        time.sleep(0.005)
    jobs = {job["id"]: job for job in caller.get("/v1/jobs?limit=100")["data"]}
    single = jobs.pop(response.replace("resp_", "job_"))
    created, started = map(datetime.fromisoformat, (single["created_at"], single["started_at"]))
    starts = [
        datetime.fromisoformat(job["started_at"]) for job in jobs.values() if job["started_at"]
    ]
    return (
        sum(created < start < started for start in starts),
        sum(accepted < start < started for start in starts),
    )


def line(number: int, **body: object) -> bytes:
    """Return a line of an input file."""
    question = f"How many circles are there? ({number})"
    request = {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/responses",
        "body": {"input": question} | body,
    }
    return orjson.dumps(request) + b"\n"


def create(caller: service.Caller, lines: bytes) -> str:
    """Upload a file and return the id of its batch."""
    head = 'Content-Disposition: form-data; name="{}"{}\r\n\r\n'
    form = (
        f"--{_BOUNDARY}\r\n{head.format('purpose', '')}batch\r\n--{_BOUNDARY}\r\n"
        f"{head.format('file', '; filename=lines.jsonl')}".encode()
        + lines
        + f"\r\n--{_BOUNDARY}--\r\n".encode()
    )
    file = caller.post("/v1/files", form, kind=f"multipart/form-data; boundary={_BOUNDARY}")
    body = {
        "input_file_id": file["id"],
        "endpoint": "/v1/responses",
        "completion_window": "24h",
    }
    return str(caller.post("/v1/batches", orjson.dumps(body))["id"])


def _submit(caller: service.Caller) -> str:
    body = orjson.dumps({"input": "How many circles are there?", "background": True})
    return str(caller.post("/v1/responses", body)["id"])


def _memory(api: int, worker: int) -> tuple[float, float]:
    """Return the resident memory of the two services with their children, in MiB."""
    return figures.resident_mib(api), figures.resident_mib(worker)


if __name__ == "__main__":
    main()
