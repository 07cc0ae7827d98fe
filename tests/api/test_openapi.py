"""The OpenAPI document: committed as it is generated, and true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from api.app import openapi_document
from core.database import Database
from tests.api import worker
from tests.api.conftest import Caller, Json
from webhooks.policy import EventType

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def document() -> Json:
    return openapi_document()


def test_the_committed_document_is_the_generated_one(document: Json) -> None:
    committed = json.loads((ROOT / "openapi.json").read_text())
    assert committed == document, "run: longlook openapi > openapi.json"


def test_the_served_document_is_the_same(client: FlaskClient, document: Json) -> None:
    assert client.get("/openapi.json").get_json() == document


def test_it_is_openapi_3_1_and_all_its_references_lead_somewhere(document: Json) -> None:
    assert document["openapi"].startswith("3.1")

    def references(part: object) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return own + [found for value in part.values() for found in references(value)]
        if isinstance(part, list):
            return [found for value in part for found in references(value)]
        return []

    for reference in set(references(document)):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert target


def test_each_example_is_a_valid_value_of_its_schema(document: Json) -> None:
    """A reader, and the page for people, send them as they are."""
    created = {path for path, methods in document["paths"].items() if "post" in methods}
    shown: set[str] = set()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {})
            for described in content.values():
                schema = {**described["schema"], "components": document["components"]}
                for example in described.get("examples", {}).values():
                    jsonschema.Draft202012Validator(schema).validate(example["value"])
                    shown.add(path)
    collections = ("jobs", "groups", "responses", "chat/completions", "batches", "keys")
    others = ("webhook_endpoints", "operations")
    assert {f"/v1/{name}" for name in (*collections, *others)} <= shown <= created


def test_creating_a_job_is_described_whole(document: Json) -> None:
    operation = document["paths"]["/v1/jobs"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert [parameter["name"] for parameter in operation["parameters"]] == [
        "Prefer", "Idempotency-Key", "Cancel-After",
    ]  # fmt: skip
    assert set(operation["responses"]["202"]["headers"]) == {
        "Location", "Retry-After", "openai-poll-after-ms", "Idempotent-Replayed", "Preference-Applied",
        "RateLimit-Policy", "RateLimit", "x-request-id",
    }  # fmt: skip
    assert {"400", "401", "403", "409", "413", "415", "422", "429", "503"} <= set(
        operation["responses"]
    )
    assert operation["security"] == [{"key": []}]


def test_the_messages_of_webhooks_have_the_members_that_are_sent(
    document: Json, caller: Caller, database: Database
) -> None:
    assert set(document["webhooks"]) == {str(event) for event in EventType}
    job = caller.job(webhook={"url": "https://a.example/", "events": ["job.succeeded"]})
    worker.finish(database)
    [reported] = caller("GET", f"/v1/jobs/{job['id']}/deliveries").get_json()["data"]

    event = caller("GET", f"/v1/deliveries/{reported['id']}").get_json()["payload"]

    schemas = document["components"]["schemas"]
    for name, shown in (
        ("JobNotification", event),
        ("JobNotificationData", event["data"]),
        ("EventAnswer", event["data"]["answer"]),
        ("EventUsage", event["data"]["usage"]),
        ("EventUrls", event["data"]["urls"]),
    ):
        assert set(shown) == set(schemas[name]["properties"]), name


def test_the_metadata_filter_is_an_object_in_the_query(document: Json) -> None:
    parameters = document["paths"]["/v1/jobs"]["get"]["parameters"]
    metadata = next(parameter for parameter in parameters if parameter["name"] == "metadata")
    assert (metadata["style"], metadata["schema"]["type"]) == ("deepObject", "object")


def test_answers_have_the_members_that_the_document_says(caller: Caller, document: Json) -> None:
    schemas = document["components"]["schemas"]
    job = caller.group()["jobs"][0]
    problem = caller.submit(question="").get_json()
    for name, shown in (("Job", job), ("JobImage", job["images"][0]), ("Problem", problem),
                        ("ImageUrls", caller.image()["urls"]), ("JobUrls", job["urls"])):  # fmt: skip
        assert set(shown) == set(schemas[name]["properties"]), name


#: Headers of HTTP and of browsers' security, which no client of the API reads.
GENERAL = {"Content-Type", "Content-Length", "Cache-Control", "Connection", "Vary"}
GENERAL |= {
    "Referrer-Policy",
    "X-Content-Type-Options",
    "Content-Security-Policy",
    "X-Accel-Buffering",
}


def test_the_headers_of_answers_and_errors_are_documented(
    caller: Caller, client: FlaskClient, document: Json
) -> None:
    answers = {
        ("get", "/v1/jobs"): caller("GET", "/v1/jobs"),
        ("post", "/v1/jobs"): caller.submit(),
        ("post", "/v1/groups"): caller.submit(question=""),
        ("get", "/v1/keys"): caller("GET", "/v1/keys"),
        ("get", "/v1/usage"): client.get("/v1/usage"),
        ("get", "/v1/files"): caller("GET", "/v1/files?limit=no"),
        ("get", "/v1/jobs/{job_id}"): caller("GET", "/v1/jobs/job_1"),
        ("get", "/livez"): client.get("/livez"),
    }
    for (method, path), answer in answers.items():
        response = document["paths"][path][method]["responses"][str(answer.status_code)]
        while "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        unknown = set(answer.headers.keys()) - set(response["headers"]) - GENERAL
        assert unknown == set(), (path, answer.status_code)
        assert "x-request-id" in answer.headers, path


def test_a_body_is_required_where_an_empty_one_is_refused(document: Json) -> None:
    paths = ("/v1/images", "/v1/webhook_secret/rotate")
    required = [document["paths"][path]["post"]["requestBody"]["required"] for path in paths]
    assert required == [True, False]
