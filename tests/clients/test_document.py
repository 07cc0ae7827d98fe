"""Requests that schemathesis makes of the OpenAPI document: no answer is a failure of the service or undocumented.

All routes are tried by an administrator, with the ids of objects that exist. ``LONGLOOK_DOCUMENT_SEED`` and
``LONGLOOK_DOCUMENT_EXAMPLES`` (for each route, 5 by default) make other and longer runs. Above 20, the boundaries
of each schema are tried too: thousands of requests.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core.database import Database
from jobs.lifecycle import Role
from jobs.store import accounts
from tests.api import image_files
from tests.clients.service import Service
from tests.e2e.stack import PEPPER

#: A run of more examples is a long one.
_FEW = 20
SEED = os.environ.get("LONGLOOK_DOCUMENT_SEED", "1")
EXAMPLES = int(os.environ.get("LONGLOOK_DOCUMENT_EXAMPLES", "5"))
PHASES = "examples,coverage,fuzzing" if EXAMPLES > _FEW else "examples,fuzzing"
_SECONDS = 1000 if EXAMPLES <= _FEW else 200 * EXAMPLES

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(_SECONDS),
    # The requests are the same on both databases.
    pytest.mark.parametrize("service", ["sqlite"], indirect=True),
]

SCHEMATHESIS = Path(__file__).resolve().parents[2] / ".venv-tools" / "bin" / "st"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
#: It compares each event of a stream with the schema of the whole body.
OF_STREAMS = "ST108"
#: Objects of each kind that a run may delete.
SPARE = 5
#: The image of the document's examples.
PLACEHOLDER = "data:image/png;base64,iVBORw0KGgo\u2026"
#: Routes that stop engines, the queue, and workers, or change all jobs: they are tried last, and on their own.
OF_OPERATORS = r"^/v1/(engines|queue|workers|operations|quarantine)"


@dataclass
class Caller:
    """Sends requests to the service with a key."""

    service: Service
    key: str

    def post(self, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's own
        """Return what a request creates."""
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"{self.service.base_url}/{path}"
        answer = httpx2.post(url, headers=headers, timeout=60, **request)
        answer.raise_for_status()
        created: dict[str, Any] = answer.json()
        return created


@pytest.fixture
def administrator(service: Service) -> Caller:
    """Return the caller that may use every route."""
    key = accounts.new_key()
    database = Database(service.stack.database_url)
    accounts.create_key(
        database, key, pepper=PEPPER.encode(), account="default", role=Role.ADMIN, name="tests"
    )
    database.close()
    return Caller(service, key)


def objects(caller: Caller) -> dict[str, list[str]]:
    """Create an object of each kind; return the values of the parameters that name them."""
    hook = {"url": "http://127.0.0.1:9/hook", "name": "tests", "event_types": ["job.failed"]}
    question = {"input": "How many?", "model": caller.service.model, "background": True}
    line = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/responses",
        "body": {"input": "How many?"},
    }
    jobs = [
        caller.post("responses", json=question)["id"].removeprefix("resp_") for _ in range(SPARE)
    ]
    files = [
        caller.post(
            "files",
            data={"purpose": "batch"},
            files={"file": ("lines.jsonl", json.dumps(line).encode())},
        )["id"]
        for _ in range(SPARE)
    ]
    images = [image_files.data_url(image_files.png(seed=seed)) for seed in range(SPARE)]
    batch = {"input_file_id": files[0], "endpoint": "/v1/responses", "completion_window": "24h"}
    return {
        "path.response_id": [f"resp_{job}" for job in jobs],
        "path.job_id": [f"job_{job}" for job in jobs],
        "path.file_id": files,
        "path.batch_id": [caller.post("batches", json=batch)["id"]],
        "path.image_id": [caller.post("images", json={"data": image})["id"] for image in images],
        "path.endpoint_id": [caller.post("webhook_endpoints", json=hook)["id"]],
        "path.key_id": [caller.post("keys", json={"name": "for a day"})["id"]],
        "path.model_id": [caller.service.model],
        "body.model": [caller.service.model],
        "body.input_file_id": files,
        "body.endpoint": ["/v1/responses", "/v1/chat/completions"],
    }


def configuration(values: dict[str, list[str]]) -> str:
    """Return the configuration of schemathesis that takes these values most of the time."""
    lines: list[str] = []
    for name, chosen in values.items():
        dictionary = name.replace(".", "-")
        lines += [f"[dictionaries.{dictionary}]", f"values = {json.dumps(chosen)}"]
    lines.append("[parameters]")
    for name in values:
        bound = f'dictionary = "{name.replace(".", "-")}", probability = 0.8'
        lines.append(f'"{name}" = {{ {bound} }}')
    return "\n".join(lines)


def document(caller: Caller) -> str:
    """Return the document, with a model and an image of this service in its examples."""
    # Schemathesis itself waits 10 seconds for the document, which a busy machine may exceed.
    served = httpx2.get(f"{caller.service.stack.url}/openapi.json", timeout=120).json()
    text = json.dumps(served, ensure_ascii=False)
    text = text.replace('"qvq-72b-preview"', json.dumps(caller.service.model))
    return text.replace(PLACEHOLDER, image_files.data_url(image_files.png()))


def run(caller: Caller, folder: Path, *more: str) -> int:
    """Return how many requests were made and answered as the document says."""
    (folder / "openapi.json").write_text(document(caller), encoding="utf-8")
    completed = subprocess.run(
        [
            SCHEMATHESIS, "run", "openapi.json", "--url", caller.service.stack.url, "--no-color",
            "--header", f"Authorization: Bearer {caller.key}", "--checks", ",".join(CHECKS),
            "--phases", PHASES, "--max-examples", str(EXAMPLES), "--seed", SEED,
            "--request-timeout", "60", "--continue-on-failure", *more,
        ],
        cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert "Test cases:" in completed.stdout, completed.stdout + completed.stderr
    failures = re.findall(r"^- (ST\d+|[A-Z]\w+)", completed.stdout, re.MULTILINE)
    assert set(failures) <= {OF_STREAMS}, completed.stdout
    generated = re.search(r"(\d+) generated", completed.stdout)
    assert generated is not None
    return int(generated[1])


def test_no_answer_is_undocumented(administrator: Caller, tmp_path: Path) -> None:
    if not SCHEMATHESIS.exists():
        pytest.skip("schemathesis is not installed; run `make tools`.")
    administrator.service.stack.start_delivery()
    (tmp_path / "schemathesis.toml").write_text(configuration(objects(administrator)))
    made = run(administrator, tmp_path, "--exclude-path-regex", OF_OPERATORS)
    assert made > 100
    assert run(administrator, tmp_path, "--include-path-regex", OF_OPERATORS) > 20
