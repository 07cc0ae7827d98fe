"""Every command takes an id, or its first characters."""

from __future__ import annotations

import urllib.parse
from typing import Any

import pytest

from cli import names
from core import errors
from tests.cli.commands import longlook
from tests.cli.fake_api import Canned, job, serving

DIGITS = "0190abcdef0123456789abcdef012345"
OTHER = "0190abcdef0123456789abcdef0fffff"
OPERATION: dict[str, Any] = {
    "id": f"op_{DIGITS}",
    "action": "cancel",
    "query": "status:queued",
    "key_name": "k",
    "created_at": "2026-11-23T10:00:00.000Z",
    "finished_at": None,
    "status": "queued",
    "total": None,
    "done": 0,
    "skipped": 0,
    "failed": 0,
    "reasons": {},
    "waiting_for": None,
    "error": None,
}
ENDPOINT: dict[str, Any] = {
    "id": f"we_{DIGITS}",
    "name": "",
    "url": "https://receiver.example",
    "event_types": [],
    "disabled_at": None,
    "failing_since": None,
}
DELIVERY = {
    "id": f"dlv_{DIGITS}",
    "status": "failed",
    "event_type": "job.failed",
    "origin": "https://receiver.example",
    "attempts": [],
    "created_at": "2026-11-23T10:00:00.000Z",
    "payload": {},
}
#: Arguments with a beginning in place of the id -> the request that names the whole one, and its response.
COMMANDS: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {
    ("operations", "show", "op_"): ("GET /v1/operations/op_{}", OPERATION),
    ("operations", "cancel", "op_"): ("POST /v1/operations/op_{}/cancel", OPERATION),
    ("webhooks", "show", "we_"): ("GET /v1/webhook_endpoints/we_{}", ENDPOINT),
    ("webhooks", "show", "dlv_"): ("GET /v1/deliveries/dlv_{}", DELIVERY),
    ("webhooks", "show", "job_"): ("GET /v1/jobs/job_{}/deliveries", {"data": []}),
    ("webhooks", "redeliver", "dlv_"): ("POST /v1/deliveries/dlv_{}/redeliver", DELIVERY),
    ("webhooks", "test", "we_"): (
        "POST /v1/webhook_endpoints/we_{}/test",
        {"status_code": 204, "error_code": None},
    ),
    ("quarantine", "release", "img_"): ("POST /v1/quarantine/img_{}/release", {}),
    ("jobs", "show", "job_"): ("GET /v1/jobs/job_{}", job("queued", attempt=0)),
    ("jobs", "cancel", "job_"): ("POST /v1/jobs/job_{}/cancel", job("cancelled")),
}
LISTS = {
    "op": ("/v1/operations", "id"),
    "we": ("/v1/webhook_endpoints", "id"),
    "dlv": ("/v1/deliveries", "id"),
    "img": ("/v1/quarantine", "image_id"),
    "job": ("/v1/jobs", "id"),
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_first_characters_of_an_id_name_it(words: tuple[str, ...]) -> None:
    route, response = COMMANDS[words]
    kind = words[-1].removesuffix("_")
    path, field = LISTS[kind]
    route = route.format(DIGITS)
    entry = {field: f"{kind}_{DIGITS}"}
    begins = {field: f"{kind}_0190abcd" + "0" * 24}
    listed = [entry] if kind == "job" else [entry, {field: f"{kind}_" + "0" * 32}]
    answers = {
        f"GET {path}": [
            Canned(200, {"data": listed}),
            Canned(200, {"data": [entry, begins]}),
            Canned(200, {"data": []}),
        ],
        f"GET /v1/webhook_endpoints/we_{DIGITS}/deliveries": [Canned(200, {"data": []})],
        route: [Canned(200, response)],
    }
    with serving(answers) as api:
        assert longlook(api, *words[:-1], f"{words[-1]}0190abcd")[0] == 0
        assert route in [f"{seen.method} {seen.path}" for seen in api.seen]
        query = urllib.parse.parse_qs(api.seen[0].path.partition("?")[2])
        if kind != "job":
            assert query["after"] == [f"{kind}_0190abcd" + "f" * 24]
        with pytest.raises(errors.InvalidRequest, match="beginning of several ids"):
            longlook(api, *words[:-1], f"{words[-1]}0190abcd")
        with pytest.raises(errors.NotFound, match=f"no .*{kind}_0190abcd"):
            longlook(api, *words[:-1], f"{words[-1]}0190abcd")
        count = len(api.seen)
        for text in ("", "0190", "0190ABCD", DIGITS + "0", "../x"):
            with pytest.raises(errors.InvalidRequest, match="no ID"):
                longlook(api, *words[:-1], f"{words[-1]}{text}")
        assert len(api.seen) == count


def test_a_beginning_names_one_of_those_that_are_listed() -> None:
    listed = [f"key_{DIGITS}", f"key_{OTHER}"]
    assert names.only("key", f"key_{DIGITS}", listed) == f"key_{DIGITS}"
    assert names.only("key", OTHER[:-3], listed) == f"key_{OTHER}"
    with pytest.raises(errors.InvalidRequest, match="several"):
        names.only("key", "key_0190ab", listed)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("@last", True),
        ("job_", True),
        ("0190ab", True),
        ("decade", False),
        ("0190", False),
        ("pelican", False),
        ("status:failed", False),
        ('"job_0190ab"', False),
    ],
)
def test_what_is_meant_as_an_id(word: str, *, meant: bool) -> None:
    assert names.is_job([word]) is meant
    assert not names.is_job([word, word])
