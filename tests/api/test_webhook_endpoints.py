"""Webhook endpoints and secrets, as callers see them and as the official client does."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import structlog
from werkzeug.serving import make_server

from api import errors as problems
from api.app import create_app, service_of
from api.framework import Router
from core.database import Database
from core.settings import Settings
from core.vault import VAULT_FILE
from jobs.images import ImageReader
from jobs.lifecycle import Role
from tests import factories
from tests import webhooks as reported
from tests.api import worker
from tests.api.conftest import Caller, Json
from tests.e2e.stack import eventually
from tests.fakes import HandTimer, RecordingWakeup
from webhooks import attempts, redelivery
from webhooks.policy import AttemptOutcome, EventType

NEW = {"name": "prod", "url": "https://receiver.example/hook", "event_types": ["job.succeeded"]}
ROOT = "/v1/webhook_endpoints"
VAULT_KEY = "key-of-the-vault"


def create(caller: Caller, **facts: object) -> Json:
    answer = caller("POST", ROOT, json=NEW | facts)
    assert answer.status_code == 201, answer.text
    made: Json = answer.get_json()
    return made


def test_an_endpoint_is_shown_with_its_secret_once(caller: Caller) -> None:
    made = create(caller)
    shown = caller("GET", f"{ROOT}/{made['id']}").get_json()

    assert len(base64.b64decode(made["signing_secret"].removeprefix("whsec_"))) == 32
    assert made["signing_secret"].endswith(made["signing_secret_hint"][-4:])
    assert shown == made | {"signing_secret": None}
    assert {name: shown[name] for name in NEW} == NEW


def test_a_secret_is_stored_encrypted(caller: Caller, database: Database) -> None:
    secret = create(caller)["signing_secret"].removeprefix("whsec_").encode()

    with database.reading() as transaction:
        stored = transaction.session.connection().exec_driver_sql(
            "SELECT secret FROM webhook_endpoints"
        )
        assert secret not in stored.scalar_one()


@pytest.mark.parametrize(
    ("wrong", "pointers"),
    [
        ({"name": ""}, ["#/name"]),
        ({"name": None, "event_types": []}, ["#/name", "#/event_types"]),
        ({"event_types": ["job.exploded"]}, ["#/event_types/0"]),
        ({"url": "ftp://receiver.example/"}, ["#/url"]),
        ({"url": "https://user:password@receiver.example/"}, ["#/url"]),
        ({"url": "https://receiver.example/#part"}, ["#/url"]),
        ({"url": "http://receiver.example/"}, ["#/url"]),
        ({"url": "https://receiver.example:8443/"}, ["#/url"]),
        ({"url": "https://127.0.0.1/"}, ["#/url"]),
        ({"url": "https://[::ffff:10.0.0.1]/"}, ["#/url"]),
        ({"url": "https://2130706433/"}, ["#/url"]),
        ({"url": "https://0x7f.1/"}, ["#/url"]),
        ({"url": "https://receiver.example/\r\nx-evil: 1"}, ["#/url"]),
        ({"url": "https://receiver.example/\tx"}, ["#/url"]),
        ({"url": "https://169.254.169.254/latest"}, ["#/url"]),
        ({"colour": "red"}, ["#/colour"]),
    ],
)
def test_every_fault_of_an_endpoint_is_named(
    caller: Caller, wrong: Json, pointers: list[str]
) -> None:
    answer = caller("POST", ROOT, json=NEW | wrong)

    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"] == problems.name_of(pointers[0])
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == pointers
    assert caller("GET", ROOT).get_json()["data"] == []


def test_what_is_given_is_changed_and_nothing_else(caller: Caller) -> None:
    made = create(caller)
    path = f"{ROOT}/{made['id']}"

    changed = caller("POST", path, json={"event_types": ["job.failed", "job.failed"]}).get_json()

    assert changed["event_types"] == ["job.failed"]
    assert changed["name"] == made["name"]
    assert caller("POST", path, json={"url": "https://10.0.0.1/"}).status_code == 400
    assert caller("GET", path).get_json() == changed


def test_endpoints_come_in_pages_and_a_deleted_one_is_gone(caller: Caller) -> None:
    made = [create(caller, name=f"number {number}")["id"] for number in range(3)]

    first = caller("GET", f"{ROOT}?limit=2").get_json()
    rest = caller("GET", f"{ROOT}?limit=2&after={first['last_id']}").get_json()
    assert [one["id"] for one in first["data"] + rest["data"]] == made[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)

    gone = caller("DELETE", f"{ROOT}/{made[0]}").get_json()
    assert gone == {"id": made[0], "object": "webhook_endpoint.deleted", "deleted": True}
    assert caller("GET", f"{ROOT}/{made[0]}").status_code == 404
    assert caller("DELETE", f"{ROOT}/{made[0]}").status_code == 404


def test_a_rotated_secret_ends_at_once_or_in_a_day(caller: Caller) -> None:
    made = create(caller)
    path = f"{ROOT}/{made['id']}/rotate_secret"

    now = caller("POST", path, json={}).get_json()
    later = caller("POST", path, json={"keep_old_secret_active_for_24_hours": True}).get_json()

    assert len({made["signing_secret"], now["signing_secret"], later["signing_secret"]}) == 3
    assert now["old_secret_expires_at"] is None
    assert later["old_secret_expires_at"] - later["updated_at"] == pytest.approx(86400, abs=2)


def test_the_accounts_secret_has_a_hint_and_is_shown_when_it_is_rotated(
    caller: Caller, stranger: Caller
) -> None:
    first = caller("GET", "/v1/webhook_secret").get_json()
    rotated = caller("POST", "/v1/webhook_secret/rotate", json={}).get_json()

    assert first["signing_secret"] is None
    assert rotated["signing_secret"].startswith("whsec_")
    again = caller("GET", "/v1/webhook_secret").get_json()
    assert again["signing_secret_hint"] == rotated["signing_secret_hint"]
    assert first["signing_secret_hint"] != again["signing_secret_hint"]
    theirs = stranger("GET", "/v1/webhook_secret").get_json()
    assert theirs["signing_secret_hint"] != again["signing_secret_hint"]


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff" + VAULT_KEY.encode()])
@pytest.mark.parametrize("endpoints", [0, 1])
def test_without_a_vault_key_nothing_is_made_and_the_log_says_why(
    caller: Caller, settings: Settings, content: bytes, endpoints: int
) -> None:
    file = settings.home / VAULT_FILE
    file.write_text(VAULT_KEY)
    stored = [create(caller) for _ in range(endpoints)]
    file.write_bytes(content)
    doors = [
        ("POST", ROOT, NEW),
        ("GET", "/v1/webhook_secret", None),
        ("POST", "/v1/webhook_secret/rotate", {}),
        ("GET", "/.well-known/longlook-webhook-key", None),
        *(("POST", f"{ROOT}/{one['id']}/rotate_secret", {}) for one in stored),
    ]

    with structlog.testing.capture_logs() as logged:
        answers = [caller(verb, path, json=body) for verb, path, body in doors]

    for answer in answers:
        assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
        assert answer.get_json()["error"]["code"] == "vault_unavailable"
        assert int(answer.headers["Retry-After"]) > 0
    reported = [line for line in logged if line["event"] == "vault_unavailable"]
    assert len(reported) == len(doors)
    assert all("LONGLOOK_VAULT_KEY" in line["reason"] for line in reported)
    assert VAULT_KEY not in str([logged, *(answer.text for answer in answers)])
    shown = [one | {"signing_secret": None} for one in stored]
    assert caller("GET", ROOT).get_json()["data"] == shown
    file.write_text(VAULT_KEY)
    assert all(caller(verb, path, json=body).status_code < 300 for verb, path, body in doors)


def test_the_public_key_is_public_and_stays_the_same(caller: Caller) -> None:
    path = "/.well-known/longlook-webhook-key"

    first, second = (caller.client.get(path).get_json() for _ in range(2))

    assert first == second
    assert len(base64.b64decode(first["public_key"].removeprefix("whpk_"))) == 32


@contextlib.contextmanager
def tried_meanwhile(database: Database, result: attempts.AttemptResult) -> Iterator[None]:
    """End the one attempt that becomes due inside the block."""
    done = threading.Event()

    def deliver() -> None:
        while not done.wait(0.02):
            for claimed in reported.claim(database):
                attempts.settle(database, claimed, result, rng=reported.RNG)

    sender = threading.Thread(target=deliver)
    sender.start()
    try:
        yield
    finally:
        done.set()
        sender.join()


def test_a_test_returns_the_response_of_the_receiver(caller: Caller, database: Database) -> None:
    made = create(caller)

    with tried_meanwhile(database, reported.DOWN):
        tested = caller("POST", f"{ROOT}/{made['id']}/test", json={"event_type": "job.failed"})

    assert tested.status_code == 200
    answer = tested.get_json()
    assert answer["status_code"] == 500
    assert answer["success"] is True
    sent = caller("GET", f"/v1/deliveries/{answer['delivery_id']}").get_json()
    assert (sent["attempts"][0]["kind"], sent["payload"]["type"]) == ("test", "job.failed")
    assert caller("GET", f"{ROOT}/{made['id']}").get_json()["failing_since"] is None


@pytest.mark.parametrize("event_type", list(EventType))
def test_an_event_of_each_type_can_be_tested(
    caller: Caller, database: Database, event_type: str
) -> None:
    made = create(caller, event_types=[event_type])
    prefix = {"job": "job", "endpoint": "we", "response": "resp", "batch": "batch"}

    with tried_meanwhile(database, reported.OK):
        tested = caller("POST", f"{ROOT}/{made['id']}/test", json={"event_type": event_type})

    sent = caller("GET", f"/v1/deliveries/{tested.get_json()['delivery_id']}").get_json()
    assert sent["payload"]["type"] == event_type
    kind = prefix[event_type.partition(".")[0]]
    assert sent["payload"]["data"]["id"] == f"{kind}_{'0' * 32}"
    if kind in ("resp", "batch"):
        # As OpenAI's events, which receivers may parse strictly.
        assert list(sent["payload"]["data"]) == ["id"]


def test_a_test_that_no_process_sends_is_unavailable(
    settings: Settings, database: Database, decoder: ImageReader
) -> None:
    hours = itertools.count(0, 3600)
    app = create_app(
        settings,
        database=database,
        wakeup=RecordingWakeup(),
        delivery_wakeup=RecordingWakeup(),
        images=decoder,
        timer=lambda: float(next(hours)),
    )
    caller = Caller(app.test_client(), factories.make_key(database))
    made = create(caller)

    answer = caller("POST", f"{ROOT}/{made['id']}/test", json={"event_type": "job.failed"})

    assert answer.status_code == 503
    assert len(reported.attempts(database)) == 1
    service_of(app).drain()


def test_tests_of_one_account_leave_threads_to_another(
    settings: Settings, database: Database, decoder: ImageReader
) -> None:
    timer = HandTimer()
    app = create_app(
        settings,
        database=database,
        wakeup=RecordingWakeup(),
        delivery_wakeup=RecordingWakeup(),
        images=decoder,
        timer=timer,
    )

    def ask(caller: Caller, path: str) -> tuple[int, str, str]:
        answer = caller("POST", f"{path}/test", json={"event_type": "job.failed"})
        problem = answer.get_json()
        return answer.status_code, problem["error"]["code"], problem["detail"]

    greedy, other = (
        Caller(app.test_client(), factories.make_key(database, account=account))
        for account in ("greedy", "other")
    )
    of_greedy, of_other = (f"{ROOT}/{create(caller)['id']}" for caller in (greedy, other))
    with ThreadPoolExecutor(7) as pool:
        held = [pool.submit(ask, greedy, of_greedy) for _ in range(6)]
        assert eventually(lambda: len(reported.attempts(database)) == 6)
        refused = ask(greedy, of_greedy)
        held.append(pool.submit(ask, other, of_other))
        assert eventually(lambda: len(reported.attempts(database)) == 7)

        def over() -> bool:
            # A request that has stored its attempt may not have looked at the clock yet.
            timer.seconds += 3600
            return all(one.done() for one in held)

        assert eventually(over)
        ends = {one.result() for one in held}

    assert refused == (
        503,
        "unavailable",
        "Too many tests of endpoints are running; retry in a second.",
    )
    seconds = settings.webhook_seconds + 5
    assert ends == {
        (503, "unavailable", f"No delivery process sent the test within {seconds:g} s.")
    }
    service_of(app).drain()


def test_a_disabled_endpoint_is_enabled_and_gets_what_it_missed(
    caller: Caller, database: Database, delivery_wakeup: RecordingWakeup
) -> None:
    made = create(caller)
    caller.job()
    worker.finish(database)
    reported.try_once(database, reported.GONE)
    path = f"{ROOT}/{made['id']}"
    assert caller("GET", path).get_json()["disabled_reason"] == "gone"

    enabled = caller("POST", f"{path}/enable").get_json()
    rung = delivery_wakeup.rung
    requested = caller("POST", f"{path}/recover", json={"since": "2020-01-01T00:00:00Z"})

    assert enabled["disabled_at"] is None
    assert requested.status_code == 202
    assert requested.get_json()["status"] == "running"
    assert delivery_wakeup.rung > rung
    redelivery.recover(database)
    redelivery.recover(database)
    recovered = caller("GET", requested.headers["Location"]).get_json()
    assert (recovered["status"], recovered["resent"]) == ("done", 1)
    assert caller("POST", f"{path}/recover", json={"since": "yesterday"}).status_code == 400


def test_another_accounts_endpoints_are_not_found(caller: Caller, stranger: Caller) -> None:
    path = f"{ROOT}/{create(caller)['id']}"
    bodies = {"/test": {"event_type": "job.failed"}, "/recover": {"since": "0"}}
    begun = caller("POST", f"{path}/recover", json={"since": "0"}).get_json()
    theirs = f"{ROOT}/{create(stranger)['id']}/recoveries/{begun['id']}"

    assert stranger("GET", theirs).status_code == 404
    assert path.rpartition("/")[2] not in str(stranger("GET", ROOT).get_json())
    for method, end in [
        ("GET", ""),
        ("POST", ""),
        ("DELETE", ""),
        ("POST", "/rotate_secret"),
        ("POST", "/test"),
        ("POST", "/enable"),
        ("POST", "/recover"),
        ("GET", "/deliveries"),
        ("GET", f"/recoveries/{begun['id']}"),
    ]:
        content = {} if method == "GET" else {"json": bodies.get(end, {})}
        assert stranger(method, path + end, **content).status_code == 404, end


def test_deliveries_of_a_job_and_of_an_endpoint_show_all_attempts(
    caller: Caller, stranger: Caller, database: Database
) -> None:
    made = create(caller)
    job = caller.job(webhook={"url": "https://single.example/done?token=hidden"})
    worker.finish(database)
    reported.try_first_of_any(database, reported.DOWN)
    reported.hurry(database)
    reported.try_first_of_any(database, reported.OK)
    reported.try_first_of_any(database, reported.OK)

    of_job = caller("GET", f"/v1/jobs/{job['id']}/deliveries").get_json()["data"]
    of_endpoint = caller("GET", f"{ROOT}/{made['id']}/deliveries?status=delivered").get_json()

    assert {one["origin"] for one in of_job} == {
        "https://receiver.example",
        "https://single.example",
    }
    assert sorted(len(one["attempts"]) for one in of_job) == [1, 2]
    assert {one["event_type"] for one in of_job} == {"job.succeeded"}
    assert len({one["event_id"] for one in of_job}) == 1
    assert [one["webhook_endpoint_id"] for one in of_endpoint["data"]] == [made["id"]]
    assert "hidden" not in str(of_job)
    everything = caller("GET", "/v1/deliveries?limit=1").get_json()
    assert (len(everything["data"]), everything["has_more"]) == (1, True)
    assert stranger("GET", f"/v1/jobs/{job['id']}/deliveries").status_code == 404
    assert stranger("GET", f"/v1/deliveries/{of_job[0]['id']}").status_code == 404
    assert stranger("POST", f"/v1/deliveries/{of_job[0]['id']}/redeliver").status_code == 404
    assert stranger("GET", "/v1/deliveries").get_json()["data"] == []


HIDDEN = {
    "private": attempts.AttemptResult(
        AttemptOutcome.FAILED, error_code="address_forbidden", address="10.1.2.3", seconds=0.01
    ),
    "unknown": attempts.AttemptResult(
        AttemptOutcome.FAILED, error_code="name_not_resolved", seconds=0.2
    ),
    "silent": attempts.AttemptResult(AttemptOutcome.FAILED, error_code="timed_out", seconds=15.0),
}
ITS_OWN = {"id", "event_id", "job_id", "created_at", "next_at", "due_at", "started_at", "ended_at"}


def alike(shown: Json) -> Json:
    """Return a delivery without what differs between any two."""
    stored = {name: value for name, value in shown.items() if name not in ITS_OWN | {"payload"}}
    attempts_of_it = [
        {name: value for name, value in one.items() if name not in ITS_OWN | {"request_headers"}}
        for one in shown["attempts"]
    ]
    return stored | {"attempts": attempts_of_it}


def test_customers_cannot_distinguish_a_private_name_from_one_that_does_not_exist(
    caller: Caller, operator: Caller, database: Database
) -> None:
    shown = {}
    for name, result in HIDDEN.items():
        job = caller.job(webhook={"url": "https://internal.example/"})
        worker.finish(database)
        reported.try_once(database, result)
        [listed] = caller("GET", f"/v1/jobs/{job['id']}/deliveries").get_json()["data"]
        shown[name] = caller("GET", f"/v1/deliveries/{listed['id']}").get_json()
        assert alike(listed) == alike(shown[name])
    everything = operator("GET", "/v1/deliveries").get_json()["data"]

    assert alike(shown["private"]) == alike(shown["unknown"]) == alike(shown["silent"])
    first = shown["private"]["attempts"][0]
    assert (first["error_code"], first["seconds"], first["address"]) == (
        "no_public_address",
        None,
        None,
    )
    assert [one["attempts"][0]["error_code"] for one in everything] == [
        "timed_out",
        "name_not_resolved",
        "address_forbidden",
    ]
    assert everything[-1]["attempts"][0]["address"] == "10.1.2.3"


@pytest.mark.parametrize("result", HIDDEN.values(), ids=HIDDEN)
def test_a_test_of_an_endpoint_hides_the_same(
    caller: Caller, operator: Caller, database: Database, result: attempts.AttemptResult
) -> None:
    made = create(caller)
    reported_to_each = []
    for who in (caller, operator):
        with tried_meanwhile(database, result):
            path = f"{ROOT}/{made['id']}/test"
            reported_to_each.append(who("POST", path, json={"event_type": "job.failed"}).get_json())
    ended = caller("GET", f"/v1/deliveries/{reported_to_each[0]['delivery_id']}").get_json()

    assert [one["error_code"] for one in reported_to_each] == [
        "no_public_address",
        result.error_code,
    ]
    assert (ended["status"], ended["error_code"]) == ("failed", "no_public_address")


@pytest.mark.parametrize(
    ("address", "shown"), [("192.168.0.7", None), ("8.8.8.8", "8.8.8.8"), ("fd00::1", None)]
)
def test_the_address_of_an_allowed_private_receiver_is_the_operators(
    caller: Caller, operator: Caller, database: Database, address: str, shown: str | None
) -> None:
    job = caller.job(webhook={"url": "https://internal.example/"})
    worker.finish(database)
    reported.try_once(database, dataclasses.replace(reported.OK, address=address))
    path = f"/v1/jobs/{job['id']}/deliveries"

    seen = [who("GET", path).get_json()["data"][0]["attempts"][0] for who in (caller, operator)]

    assert [one["address"] for one in seen] == [shown, address]
    assert [one["seconds"] for one in seen] == [0.1, 0.1]


def test_a_delivery_is_sent_again_with_the_same_id(
    caller: Caller, database: Database, delivery_wakeup: RecordingWakeup
) -> None:
    create(caller)
    job = caller.job()
    worker.finish(database)
    reported.try_once(database, reported.OK)
    [sent] = caller("GET", f"/v1/jobs/{job['id']}/deliveries").get_json()["data"]
    rung = delivery_wakeup.rung

    again = caller("POST", f"/v1/deliveries/{sent['id']}/redeliver")

    assert again.status_code == 202
    assert again.get_json()["event_id"] == sent["event_id"]
    assert [one["kind"] for one in again.get_json()["attempts"]] == ["automatic", "manual"]
    assert delivery_wakeup.rung > rung


@pytest.mark.parametrize(
    ("webhook", "pointer"),
    [
        ({}, "#/options/webhook"),
        ({"url": "https://a.example/", "endpoint_id": "we_1"}, "#/options/webhook"),
        ({"url": "http://a.example/"}, "#/options/webhook/url"),
        ({"url": "https://192.168.0.1/"}, "#/options/webhook/url"),
        ({"url": "https://2130706433/"}, "#/options/webhook/url"),
        ({"url": "https://a.example/\r\nx-evil: 1"}, "#/options/webhook/url"),
        ({"endpoint_id": "we_" + "0" * 32}, "#/options/webhook/endpoint_id"),
        (
            {"url": "https://a.example/", "events": ["endpoint.disabled"]},
            "#/options/webhook/events/0",
        ),
    ],
)
def test_a_jobs_own_webhook_is_refused_with_its_fault(
    caller: Caller, webhook: Json, pointer: str
) -> None:
    answer = caller.submit(webhook=webhook)

    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == [pointer]


def test_a_job_can_name_an_endpoint_of_any_types(
    caller: Caller, stranger: Caller, database: Database
) -> None:
    made = create(caller, event_types=["endpoint.disabled"])
    webhook = {"endpoint_id": made["id"], "events": ["job.started"]}
    job = caller.job(webhook=webhook)
    worker.finish(database)

    [sent] = caller("GET", f"/v1/jobs/{job['id']}/deliveries").get_json()["data"]

    assert (sent["event_type"], sent["webhook_endpoint_id"]) == ("job.started", made["id"])
    assert stranger.submit(webhook=webhook).status_code == 422


def test_a_reader_can_read_and_change_nothing(caller: Caller, database: Database) -> None:
    path = f"{ROOT}/{create(caller)['id']}"
    reader = Caller(caller.client, factories.make_key(database, role=Role.READ))

    assert reader("GET", path).status_code == 200
    for method, target in [("POST", ROOT), ("POST", path), ("POST", "/v1/webhook_secret/rotate")]:
        assert reader(method, target, json={}).status_code == 403
    assert reader("DELETE", path).status_code == 403


@pytest.fixture
def client_of_openai(app: Router, caller: Caller) -> Iterator[openai.OpenAI]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    base_url = f"http://127.0.0.1:{server.server_port}/v1"
    with openai.OpenAI(base_url=base_url, api_key=caller.key) as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_official_client_manages_endpoints_unchanged(
    client_of_openai: openai.OpenAI, database: Database
) -> None:
    hooks = client_of_openai.webhooks
    assert "job.succeeded" in hooks.event_types.list().data

    made = hooks.create(**NEW)  # type: ignore[arg-type] # its types know OpenAI's events only
    assert made.signing_secret.startswith("whsec_")
    assert [one.id for one in hooks.list()] == [made.id]
    assert hooks.retrieve(made.id).name == "prod"
    assert hooks.update(made.id, name="other").name == "other"
    rotated = hooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != made.signing_secret
    assert hooks.delete(made.id).deleted is True
    with pytest.raises(openai.NotFoundError):
        hooks.retrieve(made.id)
    assert reported.events(database) == []
