"""The documentation for receivers: its examples run against messages signed by the product's code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from webhooks import signature

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "webhooks.md").read_text()
BODY = json.dumps(
    {
        "id": "evt_1",
        "object": "event",
        "created_at": 1,
        "timestamp": "2026-11-23T10:00:00.000Z",
        "type": "job.succeeded",
        "data": {"id": "job_1", "answer": {"text": "sechs ⬡"}},
    },
    ensure_ascii=False,
).encode()
NEW, OLD, OTHER = (signature.new_secret() for _ in range(3))
PYTHON = ["openai", "standardwebhooks", "by hand"]

Received = Callable[[bytes, dict[str, str], str], str]


def signed(*, minutes: int = 0) -> dict[str, str]:
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    key = signature.new_pair().private
    return signature.headers("evt_1", BODY, at=at, secrets=[NEW, OLD], private_key=key)


def example(name: str) -> str:
    [code] = re.findall(rf"```\w+\n(?:#|//) verify: {name}\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def python(name: str) -> Received:
    names: dict[str, Received] = {}
    exec(compile(example(name), name, "exec"), names)  # noqa: S102 - our own page
    return names["received"]


@pytest.mark.parametrize("name", PYTHON)
@pytest.mark.parametrize("secret", [NEW, OLD], ids=["new", "old"])
def test_an_example_accepts_a_message_signed_with_either_secret(name: str, secret: str) -> None:
    assert python(name)(BODY, signed(), secret) == "job.succeeded job_1"


@pytest.mark.parametrize("name", PYTHON)
@pytest.mark.parametrize("wrong", ["secret", "body", "time"])
def test_an_example_rejects_a_message_that_is_not_genuine(name: str, wrong: str) -> None:
    body = BODY + b" " if wrong == "body" else BODY
    headers = signed(minutes=-6 if wrong == "time" else 0)

    with pytest.raises(Exception):  # noqa: B017, PT011 - each library has its own
        python(name)(body, headers, OTHER if wrong == "secret" else NEW)


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here")
@pytest.mark.parametrize(
    ("secret", "body", "printed"),
    [
        (NEW, BODY, "job.succeeded job_1"),
        (OLD, BODY, "job.succeeded job_1"),
        (OTHER, BODY, "not genuine"),
        (NEW, BODY + b" ", "not genuine"),
    ],
    ids=["new", "old", "other", "changed"],
)
def test_the_javascript_example_does_the_same(secret: str, body: bytes, printed: str) -> None:
    script = (
        example("javascript")
        + "const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        + "try { console.log(received(Buffer.from(given.body, 'hex'), given.headers, given.secret)) }"
        + "catch (error) { console.log(error.message) }"
    )
    given = json.dumps({"body": body.hex(), "headers": signed(), "secret": secret})

    ran = subprocess.run(
        ["node", "-e", script], input=given, capture_output=True, text=True, check=False, timeout=30
    )

    assert ran.stdout.strip() == printed, ran.stderr
