"""The load: clients that submit, retry, read, cancel and rerun jobs, each in its own thread."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cli.client import Client
from core import errors
from jobs.lifecycle import Status
from tests.chaos.submissions import Json, Order

_IMAGES = Path(__file__).resolve().parents[2] / "models" / "tiny-qvq" / "samples"
IMAGES = [_IMAGES / name for name in ("s03.png", "s07.png", "s12.png")]
#: Maximum number of unfinished jobs of a client.
_OPEN = 4
_PAUSE_SECONDS = 0.15
#: Errors that occur during faults. The client repeats the same request.
_NOT_NOW = (errors.Unavailable, errors.IdempotencyInProgress)

#: The scripted engine's behaviors of the jobs, with weights. "" is a plain answer.
_BEHAVIORS = {
    "": 70,
    "no_answer_at_length": 10,
    "fault": 4,
    "reset": 4,
    "cut_off": 2,
    "bare_abort": 2,
    "silent": 2,
    "refuse": 3,
    "busy": 2,
}
#: The share of plain jobs with a vote of several samples.
_VOTES = 0.25


class Api(Client):
    """The client of the command line, plus the requests that it lacks."""

    def rerun(self, job_id: str, *, key: str) -> Json:
        """Rerun a job; return the new job."""
        headers = {"Idempotency-Key": key}
        return self._call("POST", f"/v1/jobs/{job_id}/rerun", headers=headers).json

    def attempts(self, job_id: str) -> list[Json]:
        """Return a job's attempts."""
        attempts: list[Json] = self._call("GET", f"/v1/jobs/{job_id}/attempts").json["data"]
        return attempts


class Caller(threading.Thread):
    """One client.

    Args:
        name: part of its keys and questions.
        api: the service.
        rng: determines its actions.
    """

    def __init__(self, name: str, api: Api, *, rng: random.Random) -> None:
        super().__init__(name=name, daemon=True)
        self.orders: list[Order] = []
        self.wrong: list[str] = []
        #: The longest wait: seconds, operation, job.
        self.slowest = (0.0, "", "")
        self._api = api
        self._rng = rng
        self._waiting: list[Order] = []
        self._due: dict[str, float] = {}
        self._sated = threading.Event()
        self._over = threading.Event()

    @property
    def idle(self) -> bool:
        """Whether it submits nothing more, and all of its jobs have ended."""
        return self._sated.is_set() and not self._waiting

    @property
    def succeeded(self) -> int:
        """The number of its jobs that it has seen succeed."""
        jobs = [order.job for order in list(self.orders)]
        return sum(job is not None and job["status"] == Status.SUCCEEDED for job in jobs)

    def order_no_more(self) -> None:
        """Only read from now on."""
        self._sated.set()

    def leave(self) -> None:
        """End it."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Submit and read until :meth:`leave`; at the end, read every job once more."""
        while not self._over.wait(_PAUSE_SECONDS):
            if len(self._waiting) < _OPEN and not self._sated.is_set():
                self._order()
            for order in list(self._waiting):
                self._attempt(order, self._look if order.ids else self._send)
                if order.ended:
                    self._waiting.remove(order)
                    self._after(order)
            if self.orders:
                # Read ended jobs again: they must not have changed.
                self._attempt(self._rng.choice(self.orders), self._again)
        for order in self.orders:
            self._attempt(order, self._again)

    def _order(self) -> None:
        number = len(self.orders)
        [behavior] = self._rng.choices([*_BEHAVIORS], weights=[*_BEHAVIORS.values()])
        question = f"How many shapes are on card {number} of {self.name}?"
        options: Json = {"temperature": 0}
        if behavior:
            question += f" [[behavior:{behavior}]]"
            options["max_attempts"] = 2
        elif self._rng.random() < _VOTES:
            options = {"samples": 3}
        cancel = self._rng.uniform(0, 3) if self._rng.random() < 0.12 else None
        if behavior == "no_answer_at_length":
            options["max_output_tokens"] = 1500
            cancel = self._rng.uniform(0.5, 3)
        if behavior == "busy":
            options["deadline_seconds"] = 5
        self._add(Order(f"{self.name}-{number}", question, options, cancel_after=cancel))

    def _add(self, order: Order) -> None:
        self.orders.append(order)
        self._waiting.append(order)

    def _send(self, order: Order) -> None:
        if order.rerun_of is not None:
            order.accept(self._api.rerun(order.rerun_of, key=order.key))
        elif self._rng.random() < 0.1:
            with ThreadPoolExecutor(2) as twice:
                for answer in [twice.submit(self._submit, order) for _ in range(2)]:
                    order.accept(answer.result())
        else:
            order.accept(self._submit(order))

    def _submit(self, order: Order) -> Json:
        image = IMAGES[len(order.question) % len(IMAGES)]
        return self._api.submit(
            [image], order.question, options=order.options, idempotency_key=order.key
        )

    def _look(self, order: Order) -> None:
        now = time.monotonic()
        due = self._due.setdefault(order.key, now + (order.cancel_after or 0))
        if order.cancel_after is not None and now >= due:
            with contextlib.suppress(errors.Conflict):  # The job ended before the request.
                order.see(self._api.cancel(order.id))
            order.cancel_after = None
        order.see(self._api.job(order.id))
        if order.job is not None and order.job["status"] != Status.QUEUED:
            order.read(self._api.trace(order.id))

    def _again(self, order: Order) -> None:
        if not order.ended:
            return
        order.see(self._api.job(order.id))
        order.read(self._api.trace(order.id))
        if self._rng.random() < 0.3:
            self._send(order)

    def _after(self, order: Order) -> None:
        """Sometimes rerun a job that did not succeed."""
        if order.job is None or order.job["status"] != Status.CANCELLED:
            return
        if self._rng.random() < 0.2 and not self._sated.is_set():
            key = f"{order.key}-again"
            self._add(Order(key, order.question, order.options, 1.0, rerun_of=order.id))

    def _attempt(self, order: Order, do: Callable[[Order], None]) -> None:
        begun = time.monotonic()
        try:
            do(order)
        except _NOT_NOW:
            self._over.wait(self._rng.uniform(0.05, 0.5))
        except errors.LonglookError as error:
            self.wrong.append(f"{order.key}: the API answered {type(error).__name__}: {error}")
        finally:
            self.slowest = max(self.slowest, (time.monotonic() - begun, do.__name__, order.id))
