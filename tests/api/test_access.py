"""What each role may do, and that no account ever sees another's things."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from api.framework import Router
from core.database import Database
from jobs.lifecycle import Role
from jobs.store import accounts
from tests import factories
from tests.api import batches, worker
from tests.api.conftest import Caller, Json

#: Every route with something in its path, and what else to send.
ON_THINGS = [
    ("GET", "/v1/jobs/<job_id>"),
    ("GET", "/v1/jobs/<job_id>/trace"),
    ("GET", "/v1/jobs/<job_id>/attempts"),
    ("GET", "/v1/jobs/<job_id>/timeline"),
    ("GET", "/v1/jobs/<job_id>/events"),
    ("POST", "/v1/jobs/<job_id>/stream_token"),
    ("POST", "/v1/jobs/<job_id>/cancel"),
    ("POST", "/v1/jobs/<job_id>/run_now"),
    ("POST", "/v1/jobs/<job_id>/rerun"),
    ("DELETE", "/v1/jobs/<job_id>"),
    ("GET", "/v1/groups/<group_id>"),
    ("GET", "/v1/images/<image_id>"),
    ("GET", "/v1/images/<image_id>/content"),
    ("DELETE", "/v1/images/<image_id>"),
    ("GET", "/v1/responses/<response_id>"),
    ("DELETE", "/v1/responses/<response_id>"),
    ("POST", "/v1/responses/<response_id>/cancel"),
    ("GET", "/v1/responses/<response_id>/input_items"),
    ("GET", "/v1/jobs/<job_id>/deliveries"),
    ("GET", "/v1/deliveries/<delivery_id>"),
    ("POST", "/v1/deliveries/<delivery_id>/redeliver"),
    ("GET", "/v1/webhook_endpoints/<endpoint_id>"),
    ("POST", "/v1/webhook_endpoints/<endpoint_id>"),
    ("DELETE", "/v1/webhook_endpoints/<endpoint_id>"),
    ("POST", "/v1/webhook_endpoints/<endpoint_id>/rotate_secret"),
    ("POST", "/v1/webhook_endpoints/<endpoint_id>/test"),
    ("POST", "/v1/webhook_endpoints/<endpoint_id>/enable"),
    ("POST", "/v1/webhook_endpoints/<endpoint_id>/recover"),
    ("GET", "/v1/webhook_endpoints/<endpoint_id>/recoveries/<recovery_id>"),
    ("GET", "/v1/webhook_endpoints/<endpoint_id>/deliveries"),
    ("GET", "/v1/files/<file_id>"),
    ("GET", "/v1/files/<file_id>/content"),
    ("DELETE", "/v1/files/<file_id>"),
    ("GET", "/v1/batches/<batch_id>"),
    ("GET", "/v1/batches/<batch_id>/results"),
    ("POST", "/v1/batches/<batch_id>/cancel"),
    ("POST", "/v1/batches/<batch_id>/retry"),
]
ON_ALL = [
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("POST", "/v1/groups"),
    ("POST", "/v1/images"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/responses/input_tokens"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/<path:model_id>"),
    ("POST", "/v1/operations"),
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys"),
    ("GET", "/v1/keys/<key_id>"),
    ("DELETE", "/v1/keys/<key_id>"),
    ("GET", "/v1/operations"),
    ("GET", "/v1/operations/<operation_id>"),
    ("GET", "/v1/operations/<operation_id>/jobs"),
    ("POST", "/v1/operations/<operation_id>/cancel"),
    ("GET", "/v1/engines"),
    ("POST", "/v1/engines/cordon"),
    ("POST", "/v1/engines/uncordon"),
    ("GET", "/v1/workers"),
    ("POST", "/v1/workers/drain"),
    ("POST", "/v1/workers/undrain"),
    ("GET", "/v1/queue"),
    ("GET", "/v1/queue/pauses"),
    ("POST", "/v1/queue/pause"),
    ("POST", "/v1/queue/resume"),
    ("GET", "/v1/usage"),
    ("POST", "/v1/webhook_endpoints"),
    ("GET", "/v1/webhook_endpoints"),
    ("GET", "/v1/webhook_event_types"),
    ("GET", "/v1/webhook_secret"),
    ("POST", "/v1/webhook_secret/rotate"),
    ("GET", "/v1/deliveries"),
    ("GET", "/v1/quarantine"),
    ("POST", "/v1/quarantine/<image_id>/release"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches"),
    ("GET", "/metrics"),
]
PUBLIC = [
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/<name>"),
    ("GET", "/llms.txt"),
    ("GET", "/.well-known/longlook-webhook-key"),
]


def at(rule: str, job: Json) -> str:
    """Return the path of a rule for the things of ``job``."""
    path = rule.replace("<job_id>", job["id"]).replace("<image_id>", job["images"][0]["id"])
    for name in ("group", "endpoint", "delivery", "recovery", "file", "batch"):
        path = path.replace(f"<{name}_id>", job.get(name, ""))
    path = path.replace("<response_id>", job["id"].replace("job_", "resp_"))
    return path.replace("<path:model_id>", "tiny-qvq")


def things(caller: Caller, database: Database) -> Json:
    """Return a job that has ended, with one of everything that belongs to it."""
    endpoint = caller(
        "POST",
        "/v1/webhook_endpoints",
        json={"name": "a", "url": "https://a.example/", "event_types": ["job.succeeded"]},
    ).get_json()["id"]
    job: Json = caller.group()["jobs"][0]
    worker.finish(database)
    [reported] = caller("GET", f"/v1/jobs/{job['id']}/deliveries").get_json()["data"]
    recovery = caller("POST", f"/v1/webhook_endpoints/{endpoint}/recover", json={"since": "0"})
    batch = batches.create(caller, batches.lines(1))
    return job | {
        "file": batch["input_file_id"],
        "batch": batch["id"],
        "endpoint": endpoint,
        "delivery": reported["id"],
        "recovery": recovery.get_json()["id"],
    }


def test_every_route_is_in_one_of_the_three_lists(app: Router) -> None:
    routes = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routes == {*ON_THINGS, *ON_ALL, *PUBLIC}


@pytest.mark.parametrize(("method", "rule"), ON_THINGS + ON_ALL)
def test_no_route_answers_without_a_key(
    client: FlaskClient, caller: Caller, database: Database, method: str, rule: str
) -> None:
    answer = client.open(at(rule, things(caller, database)), method=method)
    assert answer.status_code == 401


@pytest.mark.parametrize(("method", "rule"), PUBLIC)
def test_health_and_the_document_need_no_key(client: FlaskClient, method: str, rule: str) -> None:
    path = rule.replace("<name>", "start.js")
    assert client.open(path, method=method).status_code == 200


@pytest.mark.parametrize("role", [Role.READ, Role.SUBMIT])
@pytest.mark.parametrize("route", ON_THINGS, ids=" ".join)
def test_a_resource_of_another_account_looks_like_a_missing_one(
    database: Database, caller: Caller, role: Role, route: tuple[str, str]
) -> None:
    method, rule = route
    job = things(caller, database)
    stranger = Caller(caller.client, factories.make_key(database, account="stranger", role=role))
    theirs = stranger(method, at(rule, job))
    absent = {
        "id": f"job_{'0' * 32}",
        "group": f"grp_{'0' * 32}",
        "endpoint": f"we_{'0' * 32}",
        "delivery": f"dlv_{'0' * 32}",
        "recovery": f"rcv_{'0' * 32}",
        "file": f"file-{'0' * 32}",
        "batch": f"batch_{'0' * 32}",
        "images": [{"id": f"img_{'0' * 32}"}],
    }
    nobodys = stranger(method, at(rule, absent))
    assert theirs.status_code == nobodys.status_code
    reads = method == "GET" or rule.endswith("/stream_token")
    assert theirs.status_code == (404 if reads or role is Role.SUBMIT else 403)
    assert theirs.get_json()["detail"] == nobodys.get_json()["detail"]
    # It exists: a route shows it, or has another method.
    shown = caller("GET", at(rule, job))
    assert shown.status_code in (200, 405) or "with this method" in shown.get_json()["detail"]
    assert caller("GET", job["urls"]["self"]).get_json()["data_removed"] is False


def test_another_accounts_jobs_are_not_listed_by_any_filter(
    caller: Caller, stranger: Caller
) -> None:
    job = caller.group(metadata={"a": "b"})["jobs"][0]
    image = job["images"][0]
    for query in (
        "", "metadata[a]=b", f"image={image['id']}", f"image={image['sha256']}", f"after={job['id']}&order=asc",
        "status=queued", f"q=group:{job['group']}",
    ):  # fmt: skip
        assert stranger("GET", f"/v1/jobs?{query}").get_json()["data"] == []


def test_another_accounts_image_cannot_be_used(caller: Caller, stranger: Caller) -> None:
    image = caller.image()["id"]
    body = {"question": "What?", "images": [{"image_id": image}]}
    answer = stranger("POST", "/v1/jobs", json=body)
    assert answer.status_code == 422
    assert answer.get_json()["errors"] == [
        {"pointer": "#/images/0/image_id", "detail": "There is no such image.", "code": "not_found"}
    ]


def test_the_same_file_of_two_accounts_is_two_images(caller: Caller, stranger: Caller) -> None:
    assert caller.image()["id"] != stranger.image()["id"]


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.READ, {"read"}),
        (Role.SUBMIT, {"read", "submit", "steer"}),
        (Role.OPERATE, {"read", "steer", "everywhere"}),
        (Role.ADMIN, {"read", "submit", "steer", "everywhere"}),
    ],
)
def test_a_role_may_do_what_the_table_says(
    client: FlaskClient, database: Database, caller: Caller, role: Role, may: set[str]
) -> None:
    own = Caller(client, factories.make_key(database, account="own", role=role))
    owner = Caller(client, factories.make_key(database, account="own"))
    mine, theirs = owner.job(), caller.job()
    found: set[str] = set()
    if own("GET", mine["urls"]["self"]).status_code == 200:
        found.add("read")
    if own.submit().status_code == 202:
        found.add("submit")
    if own("POST", mine["urls"]["cancel"]).status_code == 200:
        found.add("steer")
    if own("GET", theirs["urls"]["self"]).status_code == 200:
        found.add("everywhere")
    assert found == may


def test_an_operator_steers_jobs_of_all_accounts_and_a_rerun_stays_with_its_account(
    operator: Caller, caller: Caller, database: Database
) -> None:
    job = caller.job()
    assert operator("POST", job["urls"]["cancel"]).get_json()["status"] == "cancelled"
    rerun = operator("POST", job["urls"]["rerun"]).get_json()
    assert rerun["account"] == job["account"]
    assert caller("GET", rerun["urls"]["self"]).status_code == 200
    assert operator("DELETE", job["urls"]["self"]).status_code == 200
    worker.finish(database)
    assert operator("DELETE", f"/v1/images/{job['images'][0]['id']}").status_code == 200


def test_an_operator_lists_all_accounts_or_one_by_name_or_id(
    operator: Caller, caller: Caller, stranger: Caller
) -> None:
    first, second = caller.job(), stranger.job()

    def listed(query: str) -> list[str]:
        return [job["id"] for job in operator("GET", f"/v1/jobs?{query}").get_json()["data"]]

    assert listed("") == [second["id"], first["id"]]
    assert listed("account=stranger") == [second["id"]]
    assert listed(f"account={first['account']}") == [first["id"]]
    assert operator("GET", "/v1/jobs?account=nobody").status_code == 404


def test_only_an_operator_may_name_an_account(caller: Caller) -> None:
    assert caller("GET", "/v1/jobs?account=default").status_code == 403


def test_a_revoked_key_is_refused_at_once(caller: Caller, database: Database) -> None:
    assert caller("GET", "/v1/models").status_code == 200
    assert accounts.revoke_key(database, accounts.keys(database)[0].key_id)
    assert caller("GET", "/v1/models").status_code == 401
