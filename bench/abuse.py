"""Response times of one account while another account, or a client without a key, attacks the service.

    python -m bench.abuse [--only lingering queue] [--seconds 10] [--database sqlite]

Each attack (:mod:`bench.attacks`) runs in its own process, from the address of the measured account. Meanwhile that
account reads a job ten times a second and submits a small new image twice a second, and a third client reads
``/livez``; the row "idle" is the same without an attack. "slots" counts the engine slots that the worker granted from
the account's first submission until the slot of that job. All processes, with the attacker's, share the cores of one
machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import orjson
import sqlalchemy as sa
from PIL import Image

from bench import attacks, figures, service
from core import ids
from core.database import Database, utcnow
from jobs import phrases
from jobs.lifecycle import Priority, Role, Status
from jobs.phrases import Part
from jobs.records.attempts import Attempt
from jobs.records.jobs import Job
from jobs.records.search import SearchText
from jobs.store import accounts

_ENGINE = "?window=4&tokens_per_second=200&prefill_tokens_per_second=0"
_READY_SECONDS = 120
_END_SECONDS = 60
#: The time limit of a call; a call without a response counts as this long.
_PATIENCE_SECONDS = 30
_ATTACKER = "attacker"
_RUN = "from bench import attacks; attacks.main()"
#: The data that the attacker's searches read.
_TRACES, _TRACE_CHARACTERS = 2_000, 20_000
_AIMS = (
    "goals: GET p95 < 250 ms, POST p95 < 1,500 ms, slots ≤ 2, /livez < 1,000 ms, API < 1,024 MiB"
)


@dataclass
class _Calls:
    """One client that repeats a request, each time on a new connection."""

    port: int
    every: float
    request: Callable[[], tuple[str, str, bytes, dict[str, str]]]
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    answers: list[bytes] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop`` is set."""
        while not stop.wait(self.every):
            method, path, body, headers = self.request()
            began = time.perf_counter()
            try:
                status, answer = self._call(method, path, body, headers)
            except (OSError, http.client.HTTPException):
                status, answer = 0, b""
            took = time.perf_counter() - began
            good = 200 <= status < 300
            self.seconds.append(took if good else max(took, _PATIENCE_SECONDS))
            self.refused += not good
            if good:
                self.answers.append(answer)

    def _call(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.read()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=["idle", *attacks.ATTACKS], default=None)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    options = parser.parse_args()
    names: Sequence[str] = options.only or ["idle", *attacks.ATTACKS]
    with service.ground(_ENGINE) as ground, service.databases(ground, options.database) as makers:
        make = next(iter(makers.values()))
        rows = [_row(ground, make(), name, options.seconds) for name in names]
    figures.show(
        f"Another account's figures under attack, {options.database}, {figures.machine()}; {_AIMS}",
        ("attack", "GET p95 ms", "POST p95 ms", "slots", "/livez max ms", "API MiB", "refused"),
        rows,
    )


def _row(ground: service.Ground, url: str, name: str, seconds: float) -> list[str]:
    with service.running(ground, url) as running:
        key = accounts.new_key()
        accounts.create_key(
            running.database,
            key,
            pepper=running.environ["LONGLOOK_PEPPER"].encode(),
            account=_ATTACKER,
            role=Role.SUBMIT,
            name="bench",
        )
        if name == "searches":
            _fill(running.database, accounts.account_id(running.database, _ATTACKER))
        running.start_worker()
        caller = service.Caller(f"http://127.0.0.1:{running.wiring.port}", key=key)
        theirs = str(orjson.loads(_submit(caller))["id"])
        answer = _submit(running.caller())
        job = str(orjson.loads(answer)["id"])
        _wait_for_claim(running.database, [answer])
        with _attack(name, running.wiring.port, key, theirs):
            calls = _measure(running, job, seconds)
            memory = sum(figures.peak_mib(pid) for pid in _family(running.api.pid))
            slots = _slots(running.database, calls[1].answers)
    return [
        name,
        _ms(figures.percentile(calls[0].seconds, 0.95)),
        _ms(figures.percentile(calls[1].seconds, 0.95)),
        slots,
        _ms(max(calls[2].seconds)),
        f"{memory:,.0f}",
        str(sum(one.refused for one in calls)),
    ]


@contextlib.contextmanager
def _attack(name: str, port: int, key: str, job: str) -> Iterator[None]:
    """Run the attack ``name`` during the block."""
    if name == "idle":
        yield
        return
    command = [sys.executable, "-c", _RUN, name, str(port), key, job]
    with subprocess.Popen(
        command, cwd=service.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as attack:
        assert attack.stdout is not None  # noqa: S101 - for the type checker
        assert attack.stdin is not None  # noqa: S101 - same
        watchdog = threading.Timer(_READY_SECONDS, attack.kill)
        watchdog.start()
        ready = attack.stdout.readline()
        watchdog.cancel()
        if not ready:
            raise SystemExit(f"The attack {name} did not start.")
        try:
            yield
        finally:
            attack.stdin.close()
            try:
                attack.wait(5)
            except subprocess.TimeoutExpired:
                attack.kill()


def _measure(running: service.Service, job: str, seconds: float) -> list[_Calls]:
    """Call the service for ``seconds``; return the reads, the submissions, and the health checks."""
    port = running.wiring.port
    ours = {"Authorization": f"Bearer {running.key}"}
    calls = [
        _Calls(port, 0.1, lambda: ("GET", f"/v1/jobs/{job}", b"", ours)),
        _Calls(port, 0.5, lambda: _submission(running.key)),
        _Calls(port, 0.25, lambda: ("GET", "/livez", b"", {})),
    ]
    stop = threading.Event()
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in calls]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    # The first submission gets its slot during the attack.
    _wait_for_claim(running.database, calls[1].answers)
    stop.set()
    for thread in threads:
        thread.join()
    return calls


def _submission(key: str) -> tuple[str, str, bytes, dict[str, str]]:
    boundary = uuid.uuid4().hex
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="question"\r\n\r\nHow many?\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="p.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode() + b"%b\r\n--%b--\r\n" % (_image(), boundary.encode())
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
    }
    return "POST", "/v1/jobs", body, headers


def _image() -> bytes:
    """Return a small PNG that is new to the service."""
    out = io.BytesIO()
    Image.frombytes("L", (48, 48), random.randbytes(48 * 48)).save(out, "PNG")
    return out.getvalue()


def _submit(caller: service.Caller) -> bytes:
    """Submit a job and return the response."""
    image = caller.post("/v1/images", _image(), kind="image/png")["id"]
    body = {"question": "How many?", "images": [{"image_id": image}]}
    return orjson.dumps(caller.post("/v1/jobs", orjson.dumps(body)))


def _wait_for_claim(database: Database, answers: Sequence[bytes]) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline and not (answers and _claimed(database, answers[0])):
        time.sleep(0.1)


def _claimed(database: Database, answer: bytes) -> sa.Row[tuple[object, object]] | None:
    statement = sa.select(Job.created_at, Attempt.claimed_at).join(
        Attempt, Attempt.job_id == Job.id
    )
    with database.reading() as transaction:
        return transaction.execute(statement.where(Job.id == _job_id(answer))).first()


def _slots(database: Database, answers: Sequence[bytes]) -> str:
    """Return the number of slots from the first submission to its own slot, inclusive."""
    row = _claimed(database, answers[0]) if answers else None
    if row is None:
        return "none"
    given = sa.select(sa.func.count()).where(
        Attempt.claimed_at > row.created_at, Attempt.claimed_at <= row.claimed_at
    )
    with database.reading() as transaction:
        return str(transaction.execute(given).scalar_one())


def _job_id(answer: bytes) -> uuid.UUID:
    job_id = ids.parse("job", orjson.loads(answer)["id"])
    assert job_id is not None  # noqa: S101 - for the type checker
    return job_id


def _fill(database: Database, account_id: uuid.UUID) -> None:
    """Store long traces for the attacker's searches."""
    rng = random.Random(1)
    words = ["look", "long", "a", *(f"word{number}" for number in range(500))]
    for start in range(0, _TRACES, 100):
        rows, texts = [], []
        for _ in range(start, start + 100):
            now = utcnow()
            row = {
                "id": ids.new(), "account_id": account_id, "status": Status.SUCCEEDED,
                "model": service.MODEL.name, "options": {}, "metadata_": {}, "priority": Priority.NORMAL,
                "ordering_at": now, "not_before": now, "deadline_at": now + timedelta(hours=1), "attempt": 1,
                "crashes": 0, "failures": 0, "max_attempts": 5, "request_id": "req_bench",
                "created_at": now, "started_at": now, "finished_at": now,
            }  # fmt: skip
            trace = " ".join(rng.choices(words, k=_TRACE_CHARACTERS // 7))
            rows.append(row)
            texts += [
                {"job_id": row["id"], "account_id": account_id, "part": Part.TRACE, "text": text}
                for text in phrases.spellings(trace)
            ]
        with database.transaction() as transaction:
            transaction.execute(sa.insert(Job), rows)
            transaction.execute(sa.insert(SearchText), texts)


def _family(pid: int) -> list[int]:
    """Return the processes of the API without its decoders."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        pids += map(int, task.read_text().split())
    return pids


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}"


if __name__ == "__main__":
    main()
