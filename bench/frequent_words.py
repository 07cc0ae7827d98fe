"""Searches for frequent words in a long history: whether each ends within its budget, and what others notice of it.

Eight clients search all jobs, and those of an account with two thirds of them, for words that are in every job.
Meanwhile another client submits jobs by image ID and reads ``/readyz``, one after the other. ``--jobs`` sets the number
of jobs on PostgreSQL; SQLite gets a quarter of it.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self
from urllib.parse import quote

import orjson

from bench import crowd, figures, service
from core.database import Database
from jobs.lifecycle import Role
from jobs.store import accounts
from migrations import schema

_ENGINE = "?window=4&tokens_per_second=200&prefill_tokens_per_second=0"
_QUERIES = (
    crowd.FREQUENT_WORD,
    f'"{crowd.FREQUENT_PHRASE}"',
    f'"{crowd.SHUFFLED_PHRASE}"',
    crowd.FREQUENT_WORD[:3],
)
_CLIENTS = 8
_PERIOD_SECONDS = 15.0
_QUEUED = 20_000
#: Above any budget.
_PATIENCE_SECONDS = 60


class _Searches:
    """Clients that search until the end of a block, each with its own connection.

    Args:
        port: of the API.
        keys: the keys, which take turns among the clients.
    """

    def __init__(self, port: int, keys: list[str]) -> None:
        self._port = port
        self._stop = threading.Event()
        #: How many searches ended in which way, and the longest.
        self.ends: collections.Counter[str] = collections.Counter()
        self.longest = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(number, keys[number % len(keys)]))
            for number in range(_CLIENTS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, key: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {key}"}
        # Each client starts with another query.
        for query in itertools.islice(itertools.cycle(_QUERIES), number // 2, None):
            if self._stop.is_set():
                break
            began = time.perf_counter()
            connection.request("GET", f"/v1/jobs?limit=100&q={quote(query)}", headers=headers)
            response = connection.getresponse()
            body = orjson.loads(response.read())
            self.longest = max(self.longest, time.perf_counter() - began)
            self.ends["answered" if response.status == 200 else body["error"]["code"]] += 1
        connection.close()


def _others(running: service.Service, image: str) -> list[float]:
    """Submit and read ``/readyz`` for a while; return p50 and p95 of both in ms."""
    body = orjson.dumps({"question": "How many?", "images": [{"image_id": image}]})
    submitter, probe = running.caller(), running.caller()
    acts: list[Callable[[], object]] = [
        lambda: submitter.post("/v1/jobs", body),
        lambda: probe.alive("/readyz"),
    ]
    taken: list[list[float]] = [[], []]
    until = time.monotonic() + _PERIOD_SECONDS
    while time.monotonic() < until:
        for act, times in zip(acts, taken, strict=True):
            began = time.perf_counter()
            act()
            times.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.05)
    return [figures.percentile(times, share) for times in taken for share in (0.5, 0.95)]


def rows_of(ground: service.Ground, name: str, url: str, jobs: int) -> Iterator[list[str]]:
    """Yield the table's rows of one database, which is filled if it is empty."""
    schema.upgrade(url)
    database = Database(url)
    if not accounts.keys(database):
        crowd.fill(database, jobs, queued=_QUEUED, texts=True)
    database.close()
    settings = {"queued_jobs_total": "1000000", "queued_jobs_per_account": "1000000"}
    with service.running(ground, url, **settings) as running:
        keys = [_key(running, "large", Role.READ), _key(running, "operators", Role.ADMIN)]
        image = running.upload()
        _others(running, image)
        alone = _others(running, image)
        with _Searches(running.wiring.port, keys) as searches:
            meanwhile = _others(running, image)
    ends = ", ".join(f"{count} {end}" for end, count in sorted(searches.ends.items()))
    yield [f"{name}: searches: {ends}; the longest", "", f"{searches.longest * 1e3:,.0f}", ""]
    for what, before, after in zip(
        ("submission p50", "submission p95", "/readyz p50", "/readyz p95"),
        alone,
        meanwhile,
        strict=True,
    ):
        yield [f"{name}: {what}", f"{before:.1f}", f"{after:.1f}", f"{after / before:.1f}"]


def _key(running: service.Service, account: str, role: Role) -> str:
    key = accounts.new_key()
    pepper = running.environ["LONGLOOK_PEPPER"].encode()
    accounts.create_key(
        running.database, key, pepper=pepper, account=account, role=role, name="bench"
    )
    return key


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2_000_000)
    jobs: int = parser.parse_args().jobs
    with service.ground(_ENGINE) as ground, service.databases(ground, "both") as makers:
        rows = [
            row
            for name, make in makers.items()
            for row in rows_of(ground, name, make(), jobs if name == "PostgreSQL" else jobs // 4)
        ]
    figures.show(
        f"Searches for frequent words in {jobs} jobs (SQLite: {jobs // 4}) ({figures.machine()})",
        ("what", "without searches, ms", "with them, ms", "factor"),
        rows,
    )


if __name__ == "__main__":
    main()
