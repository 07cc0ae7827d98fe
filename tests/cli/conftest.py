"""A canned API, an image, and a home directory with a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import GROUP, IMAGE_ID, JOB, QUARANTINED, group, local
from tests.cli.fake_api import Canned, FakeApi, delta, events, job, serving, trace


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(b"picture")
    return path


@pytest.fixture
def api() -> Iterator[FakeApi]:
    answers = {
        "POST /v1/jobs": [Canned(202, job("queued"))],
        f"GET {JOB}": [
            Canned(200, job("running"), {"Retry-After": "0"}),
            Canned(200, job("succeeded")),
        ],
        "POST /v1/groups": [Canned(202, group("queued", "queued"))],
        f"GET {GROUP}": [Canned(200, group("succeeded", "succeeded"))],
        f"GET {JOB}/trace": [Canned(200, trace("One, "))],
        f"GET {JOB}/events": [
            events(
                delta("One, "),
                delta("two."),
                {"type": "job.finished", "job": job("succeeded")},
            )
        ],
        f"POST {JOB}/cancel": [Canned(200, job("cancelled"))],
        "GET /v1/quarantine": [Canned(200, {"object": "list", "data": [QUARANTINED]})],
        f"POST /v1/quarantine/{IMAGE_ID}/release": [Canned(200, {"image_id": IMAGE_ID})],
        "GET /v1/jobs": [Canned(200, {"object": "list", "data": [job("succeeded")]})],
    }
    with serving(answers) as fake:
        yield fake


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cli") / "home"
    code, printed = local(home, "db", "upgrade")
    assert code == 0
    assert "the schema is at" in printed
    return home
