"""How a job is shown: as it runs, and how it came out."""

from __future__ import annotations

import typer

from cli import client, output
from jobs.lifecycle import Status


def follow(service: client.Client, job_id: str, *, people: bool) -> output.Json:
    """Show a job's trace as it grows (a line of JSON for each event in a pipe); return the finished job."""
    growth = output.LiveText()
    job: output.Json = {}
    for event in service.follow(job_id):
        if event["type"] == "job.finished":
            job = event["job"]
        elif people:
            growth.show(event)
        else:
            output.json_line(event)
    if people:
        growth.end()
    return job


def record(job: output.Json, *, people: bool) -> None:
    """Print the job as it is now; a job that did not succeed ends the command with an exit code of its own."""
    if not people:
        output.as_json(job)
    elif client.finished(job):
        output.result(job)
    else:
        queue = job.get("queue") or {}
        more = " or later" if queue.get("at_least") else ""
        place = f", position {queue['position']}{more}" if queue.get("position") else ""
        output.line(f"{job['id']} is {job['status']}{place}")
        output.warnings(job)
        output.line(f"longlook jobs show {job['id']}")
    if client.finished(job) and job["status"] != Status.SUCCEEDED:
        raise typer.Exit(output.Exit.FAILED)
