"""``longlook batches`` and ``longlook files`` against canned answers."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.commands import longlook
from tests.cli.fake_api import Canned, serving

ID = f"batch_{'0' * 32}"
FILE = f"file-{'0' * 32}"
BATCH: dict[str, Any] = {
    "id": ID,
    "object": "batch",
    "endpoint": "/v1/responses",
    "status": "in_progress",
    "input_file_id": FILE,
    "output_file_id": None,
    "error_file_id": None,
    "retry_of": None,
    "errors": None,
    "waiting_for": "queue_full",
    "created_at": 1_760_000_000,
    "request_counts": {"total": 10, "completed": 4, "failed": 1},
}
FAULTS = {
    "errors": {
        "object": "list",
        "total": 1_200,
        "data": [{"code": "c", "line": 7, "message": "This is required.", "param": "body.input"}],
    }
}


def page(*data: dict[str, Any], more: bool = False) -> dict[str, Any]:
    """Return a page of a list."""
    last = data[-1]["id"] if data else None
    return {"object": "list", "data": list(data), "last_id": last, "has_more": more}


def test_batches_are_listed_with_their_progress() -> None:
    with serving({"GET /v1/batches": [Canned(200, page(BATCH, more=True))]}) as api:
        _, printed = longlook(api, "batches", "ls", "-o", "table")
    assert api.seen[0].path == "/v1/batches?limit=20"
    for word in (ID, "in_progress", "10", "2025-10-09 08:53:20"):
        assert word in printed


def test_a_batch_is_shown_with_what_it_waits_for_and_its_faults() -> None:
    with serving({f"GET /v1/batches/{ID}": [Canned(200, BATCH | FAULTS)]}) as api:
        _, printed = longlook(api, "batches", "show", ID, "-o", "table")
    assert "4 completed, 1 failed of 10" in printed
    assert "queue_full" in printed
    assert "line 7: body.input: This is required." in printed


def test_a_batch_is_cancelled_and_repeated() -> None:
    answers = {
        f"POST /v1/batches/{ID}/cancel": [Canned(200, BATCH | {"status": "cancelling"})],
        f"POST /v1/batches/{ID}/retry": [Canned(200, BATCH | {"retry_of": ID})],
    }
    with serving(answers) as api:
        _, cancelled = longlook(api, "batches", "cancel", ID, "--json")
        _, again = longlook(api, "batches", "retry", ID, "--json")
    assert json.loads(cancelled)["status"] == "cancelling"
    assert json.loads(again)["retry_of"] == ID


def test_all_pages_of_results_are_printed_as_lines() -> None:
    first, second = ({"id": f"batch_req_{number}", "custom_id": str(number)} for number in (1, 2))
    answers = {
        f"GET /v1/batches/{ID}/results": [
            Canned(200, page(first, more=True)),
            Canned(200, page(second)),
        ]
    }
    with serving(answers) as api:
        _, printed = longlook(api, "batches", "results", ID, "--failed")
    assert [json.loads(each) for each in printed.splitlines()] == [first, second]
    assert api.seen[0].path == f"/v1/batches/{ID}/results?status=failed&limit=100"
    assert api.seen[1].path.endswith("&after=batch_req_1")


def test_files_are_listed_and_removed() -> None:
    file = {
        "id": FILE,
        "purpose": "batch",
        "bytes": 2_000_000,
        "created_at": 1_760_000_000,
        "filename": "試験.jsonl",
    }
    answers = {
        "GET /v1/files": [Canned(200, page(file))],
        f"DELETE /v1/files/{FILE}": [Canned(200, {"id": FILE, "object": "file", "deleted": True})],
    }
    with serving(answers) as api:
        _, listed = longlook(api, "files", "ls", "--purpose", "batch", "-o", "table")
        _, removed = longlook(api, "files", "rm", FILE, "-o", "table")
    assert api.seen[0].path == "/v1/files?purpose=batch&limit=20"
    assert "試験.jsonl" in listed
    assert removed.strip() == f"removed {FILE}"
