"""Batches, as the official clients run them: hundreds of lines next to single requests, through deaths of processes."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import openai
import pytest
from openai.types import Batch

from scripted.options import ScriptedOptions
from tests.api import image_files
from tests.clients.service import Service
from tests.e2e.stack import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LINES = 150
ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def engine_options() -> ScriptedOptions:
    """Return a fast engine, so that hundreds of lines take seconds."""
    return ScriptedOptions(tokens_per_second=4000, markers=True)


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """Return settings with one slot: the queue is never empty during a batch.

    A claim that has begun before a job was submitted does not see the job, so with one slot one other job at most can
    start before it.
    """
    return {
        "LONGLOOK_BATCH_WINDOW": "24",
        "LONGLOOK_WORKER_SLOTS": "1",
        "LONGLOOK_LEASE_SECONDS": "5",
        "LONGLOOK_SWEEP_SECONDS": "1",
    }


def line(number: int, *, chat: bool = False, question: str = "How many?") -> dict[str, Any]:
    """Return a line of an input file."""
    text = f"{question} ({number})"
    body = {"messages": [{"role": "user", "content": text}]} if chat else {"input": text}
    return {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/chat/completions" if chat else "/v1/responses",
        "body": body,
    }


def start(
    client: openai.OpenAI,
    lines: Sequence[dict[str, Any]],
    **options: Any,  # noqa: ANN401 - the client's own
) -> Batch:
    """Upload lines and create their batch."""
    data = "".join(f"{json.dumps(each)}\n" for each in lines).encode()
    file = client.files.create(file=("lines.jsonl", data), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint=lines[0]["url"],
        completion_window="24h",
        **options,
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    """Wait for the end of a batch."""
    # Seldom: each question costs as much as a line of the batch.
    assert eventually(
        lambda: client.batches.retrieve(batch.id).status in ENDED, seconds=120, every=0.5
    )
    return client.batches.retrieve(batch.id)


def read(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """Return the lines of a file, none without a file."""
    if file_id is None:
        return []
    return [json.loads(each) for each in client.files.content(file_id).text.splitlines()]


def test_a_batch_of_responses_completes(client: openai.OpenAI) -> None:
    batch = start(client, [line(number) for number in range(20)], metadata={"set": "a"})
    assert batch.status == "validating"

    done = ended(client, batch)
    assert (done.status, done.errors, done.error_file_id) == ("completed", None, None)
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed) == (20, 20)
    assert done.usage is not None
    output = read(client, done.output_file_id)
    assert {each["custom_id"] for each in output} == {f"line-{n}" for n in range(20)}
    bodies = [each["response"]["body"] for each in output]
    assert done.usage.total_tokens == sum(body["usage"]["total_tokens"] for body in bodies) > 0
    for body in bodies:
        retrieved = client.responses.retrieve(body["id"])
        assert retrieved.output_text
        assert retrieved.to_dict()["output"] == body["output"]
    assert done.output_file_id in {file.id for file in client.files.list(purpose="batch_output")}
    assert client.batches.list(limit=1).data[0].id == batch.id


def test_the_usage_of_a_batch_is_that_of_its_lines(client: openai.OpenAI) -> None:
    """Also of the tokens that are of an answer in JSON alone."""
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    formats = [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "name": "count", "schema": schema},
    ]
    lines = [line(number) for number in range(len(formats))]
    for each, form in zip(lines, formats, strict=True):
        each["body"]["text"] = {"format": form}
    done = ended(client, start(client, lines))

    usages = [each["response"]["body"]["usage"] for each in read(client, done.output_file_id)]
    assert len(usages) == len(formats)
    assert done.usage is not None
    assert done.usage.output_tokens == sum(usage["output_tokens"] for usage in usages)
    reasoned = [usage["output_tokens_details"]["reasoning_tokens"] for usage in usages]
    assert done.usage.output_tokens_details.reasoning_tokens == sum(reasoned)


def test_a_batch_of_chat_completions_has_their_traces(client: openai.OpenAI) -> None:
    done = ended(client, start(client, [line(number, chat=True) for number in range(5)]))

    output = read(client, done.output_file_id)
    assert len(output) == 5
    for each in output:
        body = each["response"]["body"]
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"]["reasoning_content"]
        assert body["usage"]["total_tokens"] > 0
    assert done.usage is not None
    assert done.usage.output_tokens > 0


def test_every_fault_of_every_line_is_named(client: openai.OpenAI) -> None:
    broken = [line(1), line(1), line(2) | {"body": {"input": 5}}, line(3) | {"url": "/v1/x"}]
    failed = ended(client, start(client, broken))

    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(fault.line, fault.param) for fault in failed.errors.data] == [
        (2, "custom_id"), (3, "body.input"), (4, "url"),
    ]  # fmt: skip


def test_single_requests_get_the_first_or_second_free_place(client: openai.OpenAI) -> None:
    passed: list[int] = []
    # A batch may end before so many single requests, when the machine is busy.
    while len(passed) < 5:
        batch = start(client, [line(number) for number in range(LINES)])
        assert eventually(functools.partial(has_begun, client, batch))
        while client.batches.retrieve(batch.id).status == "in_progress" and len(passed) < 10:
            single = client.responses.create(input="And this one?", background=True)
            # The time in its row is that at which its transaction began, which a busy machine ends late.
            accepted = datetime.now(UTC)
            job_id = single.id.replace("resp_", "job_")
            wait_for(client, job_id)
            passed.append(started_before(client, job_id, accepted))
        done = ended(client, batch)
        assert done.request_counts is not None
        assert done.request_counts.completed == LINES
    assert max(passed) <= 1, passed


def has_begun(client: openai.OpenAI, batch: Batch) -> bool:
    """Whether the lines of a batch have been read."""
    return client.batches.retrieve(batch.id).status != "validating"


def wait_for(client: openai.OpenAI, job_id: str) -> None:
    """Wait for the end of a job with requests that the service holds open."""
    status = "queued"
    while status in {"queued", "running"}:
        job = client.get(
            f"/jobs/{job_id}", cast_to=object, options={"headers": {"Prefer": "wait=20"}}
        )
        assert isinstance(job, dict)
        status = job["status"]


def started_before(client: openai.OpenAI, job_id: str, accepted: datetime) -> int:
    """Return how many other jobs a worker has started between ``accepted`` and the start of this one."""
    recent = client.get("/jobs?limit=100", cast_to=object)
    assert isinstance(recent, dict)
    jobs = {job["id"]: job for job in recent["data"]}
    single = jobs.pop(job_id)
    starts = [job["started_at"] for job in (single, *jobs.values()) if job["started_at"]]
    start, *others = map(datetime.fromisoformat, starts)
    return sum(accepted < other < start for other in others)


def test_a_batch_survives_the_death_of_its_api_and_its_worker(
    client: openai.OpenAI, service: Service
) -> None:
    batch = start(client, [line(number) for number in range(LINES)])
    for least in (LINES // 5, LINES // 2):
        assert eventually(functools.partial(has_completed, client, batch, least))
        service.restart()

    done = ended(client, batch)
    assert done.status == "completed"
    assert done.request_counts is not None
    output, failed = (read(client, each) for each in (done.output_file_id, done.error_file_id))
    assert failed == []
    assert sorted(each["custom_id"] for each in output) == sorted(f"line-{n}" for n in range(LINES))
    assert len({each["response"]["body"]["id"] for each in output}) == LINES


def completed(client: openai.OpenAI, batch: Batch) -> int:
    """Return how many lines of a batch have an answer; 0 while it does not respond."""
    try:
        counts = client.batches.retrieve(batch.id).request_counts
    except openai.APIConnectionError:
        return 0
    return 0 if counts is None else counts.completed


def has_completed(client: openai.OpenAI, batch: Batch, least: int) -> bool:
    """Whether at least so many lines have an answer."""
    return completed(client, batch) >= least


def test_a_cancelled_batch_keeps_what_has_finished(client: openai.OpenAI) -> None:
    # The only slot is held by the first of the lines without an end, so that the batch cannot complete.
    endless = "How many? [[behavior:silent]]"
    lines = [line(n) if n < 40 else line(n, question=endless) for n in range(LINES)]
    batch = start(client, lines)
    assert eventually(lambda: completed(client, batch) >= 10)
    partial = client.get(f"/batches/{batch.id}/results", cast_to=object)
    assert isinstance(partial, dict)
    assert len(partial["data"]) >= 10

    assert client.batches.cancel(batch.id).status == "cancelling"
    done = ended(client, batch)
    assert done.status == "cancelled"
    output, failed = (read(client, each) for each in (done.output_file_id, done.error_file_id))
    assert len(output) >= 10
    assert len(output) + len(failed) == LINES
    assert {each["error"]["code"] for each in failed} == {"batch_cancelled"}
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_an_image_file_is_an_input_of_responses_and_chats(client: openai.OpenAI) -> None:
    image = client.files.create(file=("a.png", image_files.png()), purpose="vision")
    text = "How many?"
    response = client.responses.create(
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "file_id": image.id, "detail": "low"},
                    {"type": "input_text", "text": text},
                ],
            }
        ]
    )
    assert response.status == "completed"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "file_id": "file-" + "0" * 32, "detail": "low"}
                    ],
                }
            ]
        )
    assert caught.value.param == "input[0].content[0].file_id"
