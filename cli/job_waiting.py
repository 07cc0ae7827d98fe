"""How commands wait for jobs: their place in the queue, what is missing for them to run, and their text as it grows."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import Final

from cli import client, job_output, output, waiting
from core import errors

_PROBE_SECONDS: Final = 3.0
#: Seconds between two looks at a job: on a terminal, and in a pipe, where each change is a line.
_HOLD_SECONDS: Final = 5
_HOLD_SECONDS_PIPED: Final = 15
#: The least time between two looks at a job whose stream has no event.
_REFRESH_SECONDS: Final = 2.0
#: A check of ``/readyz`` -> what it means for jobs when it is not ok.
LACKS: Final = {
    "workers": "no worker is alive: jobs wait; start `longlook up`, or `celery -A worker.app worker`",
    "engines": "no engine answers: jobs wait; start one, or check LONGLOOK_ENGINE_URLS",
}


def wait(service: client.Client, job: output.Json, *, people: bool) -> output.Json:
    """Return a job once it has finished, and show meanwhile how it stands."""
    job_id = str(job["id"])
    with _line(job_id, people=people) as line:
        line.show(standing(service, job))
        return service.wait(
            job_id, hold=_hold(), report=lambda now: line.show(standing(service, now))
        )


def wait_for_group(service: client.Client, group: output.Json, *, people: bool) -> output.Json:
    """Return a group once all of its jobs have finished, and show meanwhile how it stands."""
    back = f"longlook jobs ls group:{group['id']}"
    jobs = [job for job in group["jobs"] if not client.finished(job)]
    with waiting.wait_for(f"Group {group['id']}", back=back, people=people) as line:
        for number, job in enumerate(jobs):
            begin = f"{number} of {len(jobs)} jobs have finished; "

            def report(now: output.Json, begin: str = begin) -> None:
                line.show(begin + standing(service, now))

            report(job)
            service.wait(str(job["id"]), hold=_hold(), report=report)
    return service.group(str(group["id"]))


def follow(service: client.Client, job_id: str, *, people: bool) -> output.Json:
    """Show a job's trace as it grows, or its events as JSON lines; return the finished job."""
    job = service.job(job_id)
    live = job_output.LiveText(
        output.width(), samples=(job.get("options") or {}).get("samples") or 1
    )
    with _line(job_id, people=people) as line:
        if not client.finished(job):
            line.show(standing(service, job))
        for event in service.follow(job_id, idle=_Idle(service, job_id, line, live=live)):
            if event["type"] == "job.finished":
                job = event["job"]
            elif people:
                line.clear()
                live.show(event)
            else:
                output.json_line(event)
        line.clear()
        if people:
            live.end()
    return job


def standing(service: client.Client, job: output.Json) -> str:
    """Return how an unfinished job stands, and what is missing for a queued one to run."""
    text = f"{job['id']} is {job_output.state(job)}"
    missing = lacks(service) if job["status"] == "queued" else []
    return "; ".join([text, *missing])


def lacks(service: client.Client) -> list[str]:
    """Return what is missing for jobs to run, as sentences with the remedy; operators see why an engine is away."""
    _, ready = client.probe(f"{service.url}/readyz", seconds=_PROBE_SECONDS)
    checks = ready.get("checks") or {}
    missing = [name for name in LACKS if checks.get(name, "ok") != "ok"]
    reasons = engine_reasons(service) if "engines" in missing else []
    return [LACKS[name] for name in missing] + reasons


def engine_reasons(service: client.Client) -> list[str]:
    """Return why each engine is away; nothing if the key is not that of an operator."""
    try:
        engines = service.look("/v1/queue").get("engines") or ()
    except errors.LonglookError:
        return []
    return [f"{engine['url']}: {engine['reason']}" for engine in engines if engine.get("reason")]


class _Idle:
    """Shows how a job stands while its stream has no event: it waits, or waits again."""

    def __init__(
        self,
        service: client.Client,
        job_id: str,
        line: waiting.WaitingLine,
        *,
        live: job_output.LiveText,
    ) -> None:
        self._service, self._job_id, self._line, self._live = service, job_id, line, live
        self._next = 0.0

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _REFRESH_SECONDS
        try:
            job = self._service.job(self._job_id)
        except errors.Unavailable:
            return
        if client.finished(job) or (job["status"] == "running" and self._live.in_line):
            return
        # Text of a lost attempt: its last line has no end yet.
        self._live.end()
        self._line.show(standing(self._service, job))


def _line(job_id: str, *, people: bool) -> AbstractContextManager[waiting.WaitingLine]:
    return waiting.wait_for(job_id, back=f"longlook jobs watch {job_id}", people=people)


def _hold() -> int:
    return _HOLD_SECONDS if sys.stderr.isatty() else _HOLD_SECONDS_PIPED
