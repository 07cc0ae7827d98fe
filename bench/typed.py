"""The delay of text in typed streams of responses, next to native streams of the same jobs, and its cost to the worker.

    python -m bench.typed [--jobs 1 16] [--rate 30] [--seconds 15] [--database sqlite] [--quick]

Each job has a typed and a native reader. Typed deltas are the native ones, in the same order, so the delay of each is
from the same ``at``, when the worker created the event, to its arrival here. Typed streams show only stored text.
"""

from __future__ import annotations

import argparse
import re
import selectors
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime

import orjson
import sqlalchemy as sa

from bench import figures, service
from jobs.records.attempts import TraceChunk

_OPTIONS = "?behavior=no_answer_at_length&prefill_tokens_per_second=0&max_queued=512"
_AT = re.compile(rb'"type":"trace\.delta","at":"([^"]+)"')
_TYPED = b"event: response.reasoning_text.delta"
_PIECE = 2**16
#: Seconds that do not count: the readers connect, and the jobs start.
_SETTLE_SECONDS = 5


@dataclass
class Follower:
    """One stream; the times of its deltas in order, in Unix seconds.

    Attributes:
        arrived: when each delta came.
        created: when the worker created it; a typed stream does not say.
    """

    socket: socket.socket
    rest: bytes = b""
    arrived: list[float] = field(default_factory=list)
    created: list[float] = field(default_factory=list)

    def read(self) -> bool:
        """Read what has come; return whether there may be more."""
        data = self.socket.recv(_PIECE)
        now = time.time()
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            if line.startswith(_TYPED):
                self.arrived.append(now)
            elif found := _AT.search(line):
                self.arrived.append(now)
                self.created.append(datetime.fromisoformat(found[1].decode()).timestamp())
        return bool(data)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--jobs", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rate", type=int, default=30, help="tokens per second of each job")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--quick", action="store_true", help="a few seconds each")
    options = parser.parse_args()
    seconds = 6 if options.quick else options.seconds
    rows = [_row(options, count, seconds) for count in options.jobs]
    figures.show(
        f"Text in typed streams at {options.rate} tokens/s, {figures.machine()}; aim: p50 < 300 ms",
        (
            *("jobs", "p50 / native", "typed p50 ms", "p99 ms", "native p50 ms", "p99 ms"),
            *("writes/s of a job", "API cores", "worker cores"),
        ),
        rows,
    )


def _row(options: argparse.Namespace, count: int, seconds: int) -> list[str]:
    engine = f"{_OPTIONS}&window={count}&tokens_per_second={options.rate}"
    with service.ground(engine) as ground, service.databases(ground, options.database) as makers:
        make = next(iter(makers.values()))
        with service.running(ground, make(), worker_slots=str(count)) as running:
            tokens = options.rate * (seconds + 4 * _SETTLE_SECONDS)
            jobs = _submit(running, count, min(tokens, service.MODEL.max_output_tokens))
            pairs = [(_follow(running, job, typed=True), _follow(running, job)) for job in jobs]
            worker = running.start_worker()
            everyone = [follower for pair in pairs for follower in pair]
            since = _begun(everyone) + _SETTLE_SECONDS
            _read(everyone, until=since)
            before = [figures.cpu_seconds(process.pid) for process in (running.api, worker)]
            _read(everyone, until=since + seconds)
            after = [figures.cpu_seconds(process.pid) for process in (running.api, worker)]
            with running.database.reading() as transaction:
                rows = transaction.scalar(sa.select(sa.func.count()).select_from(TraceChunk))
            elapsed = time.time() - since + _SETTLE_SECONDS
            for follower in everyone:
                follower.socket.close()
            api, work = ((late - soon) / seconds for soon, late in zip(before, after, strict=True))
    typed = [delay for pair in pairs for delay in _delays(pair[0], pair[1], since)]
    native = [delay for _, one in pairs for delay in _delays(one, one, since)]
    middle, other = figures.percentile(typed, 0.5), figures.percentile(native, 0.5)
    return [
        str(count),
        f"{middle / other:.1f}",
        f"{middle:.0f}",
        f"{figures.percentile(typed, 0.99):.0f}",
        f"{other:.0f}",
        f"{figures.percentile(native, 0.99):.0f}",
        f"{rows / count / elapsed:.1f}",
        f"{api:.2f}",
        f"{work:.2f}",
    ]


def _submit(running: service.Service, count: int, tokens: int) -> list[str]:
    caller = running.caller()
    body = {"input": "Tell me all.", "background": True, "max_output_tokens": tokens}
    return [
        str(caller.post("/v1/responses", orjson.dumps(body))["id"]).removeprefix("resp_")
        for _ in range(count)
    ]


def _follow(running: service.Service, job: str, *, typed: bool = False) -> Follower:
    path = f"/v1/responses/resp_{job}?stream=true" if typed else f"/v1/jobs/job_{job}/events"
    one = socket.create_connection(("127.0.0.1", running.wiring.port))
    one.sendall(
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {running.key}\r\n\r\n".encode()
    )
    return Follower(one)


def _begun(followers: list[Follower]) -> float:
    """Read until every stream has text; return that time."""
    while not all(follower.arrived for follower in followers):
        _read(followers, until=time.time() + 1)
    return time.time()


def _read(followers: list[Follower], *, until: float) -> None:
    with selectors.DefaultSelector() as selector:
        for follower in followers:
            selector.register(follower.socket, selectors.EVENT_READ, follower)
        while time.time() < until:
            for key, _ in selector.select(timeout=0.1):
                if not key.data.read():
                    selector.unregister(key.fileobj)


def _delays(follower: Follower, native: Follower, since: float) -> list[float]:
    """Return the milliseconds from the creation of each delta to its arrival."""
    return [
        1000 * (arrived - created)
        for arrived, created in zip(follower.arrived, native.created, strict=False)
        if created >= since
    ]


if __name__ == "__main__":
    main()
