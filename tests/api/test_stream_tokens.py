"""A stream token opens one job's stream, for an hour, for pages that cannot send a key."""

from __future__ import annotations

import base64
import uuid

import pytest
from flask.testing import FlaskClient

from api.tokens import LIFE, StreamTokens
from core import ids
from core.database import Database, utcnow
from core.peppers import Peppers
from jobs.lifecycle import Role
from jobs.store import accounts
from tests import factories
from tests.api import worker
from tests.api.conftest import Caller, Json
from tests.databases import Clock

TOKENS = StreamTokens(peppers=Peppers([b"pepper"]), clock=utcnow)


def token(caller: Caller, job: Json) -> Json:
    """Make a token."""
    answer = caller("POST", f"{job['urls']['self']}/stream_token")
    assert answer.status_code == 201, answer.text
    made: Json = answer.get_json()
    return made


@pytest.fixture
def job(caller: Caller, database: Database) -> Json:
    """Return a job that has finished."""
    job = caller.job()
    worker.finish(database, text="I see six.")
    return job


def test_a_token_opens_its_jobs_stream_without_a_key(
    client: FlaskClient, caller: Caller, job: Json
) -> None:
    made = token(caller, job)

    answer = client.get(made["url"])

    assert answer.status_code == 200
    assert "I see six." in answer.text
    assert made["job_id"] == job["id"]


def test_a_token_opens_nothing_else(client: FlaskClient, caller: Caller, job: Json) -> None:
    made = token(caller, job)["token"]
    other = caller.job()

    paths = [other["urls"]["events"], job["urls"]["self"], job["urls"]["trace"], "/v1/jobs"]
    assert [client.get(f"{path}?token={made}").status_code for path in paths] == [401] * 4
    as_key = client.get(job["urls"]["events"], headers={"Authorization": f"Bearer {made}"})
    assert as_key.status_code == 401
    steering = client.post(f"{job['urls']['self']}/stream_token?token={made}")
    assert steering.status_code == 401


def test_a_token_ends_after_an_hour(
    client: FlaskClient, caller: Caller, job: Json, clock: Clock
) -> None:
    url = token(caller, job)["url"]
    clock.advance(LIFE.total_seconds() - 60)
    assert client.get(url).status_code == 200

    clock.advance(61)

    assert client.get(url).status_code == 401


def test_a_token_ends_with_the_key_that_made_it(
    client: FlaskClient, database: Database, job: Json
) -> None:
    reader = Caller(client, factories.make_key(database, role=Role.READ))
    url = token(reader, job)["url"]
    key_id = accounts.authenticate(database, reader.key, peppers=[factories.PEPPER])
    assert key_id is not None

    accounts.revoke_key(database, key_id.key_id)

    assert client.get(url).status_code == 401


def test_an_operators_token_opens_any_accounts_job(
    client: FlaskClient, operator: Caller, job: Json
) -> None:
    assert client.get(token(operator, job)["url"]).status_code == 200


def test_a_key_that_is_sent_too_is_what_counts(stranger: Caller, caller: Caller, job: Json) -> None:
    assert stranger("GET", token(caller, job)["url"]).status_code == 404


def test_no_changed_token_is_good() -> None:
    job_id, key_id = ids.new(), ids.new()
    made, _ = TOKENS.issue(job_id=job_id, key_id=key_id)
    assert TOKENS.read(made, job_id=job_id) == key_id

    raw = base64.urlsafe_b64decode(made.removeprefix("lls_") + "=")
    for position in range(len(raw)):
        changed = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        forged = "lls_" + base64.urlsafe_b64encode(changed).decode().rstrip("=")
        assert TOKENS.read(forged, job_id=job_id) is None
    assert TOKENS.read(made, job_id=uuid.uuid4()) is None
    elsewhere = StreamTokens(peppers=Peppers([b"another"]), clock=utcnow)
    assert elsewhere.read(made, job_id=job_id) is None


def test_a_token_has_one_spelling() -> None:
    job_id, key_id = ids.new(), ids.new()
    made, _ = TOKENS.issue(job_id=job_id, key_id=key_id)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    padding = "=" * (-len(made.removeprefix("lls_")) % 4)
    raw = base64.urlsafe_b64decode(made.removeprefix("lls_") + padding)

    others = [made + "=", made + "==", made.replace("-", "+").replace("_", "/") + "\n", f" {made}"]
    others += [made[:-1] + char for char in alphabet if char != made[-1]]
    same = [
        other
        for other in others[4:]
        if base64.urlsafe_b64decode(other.removeprefix("lls_") + padding) == raw
    ]

    assert same, "the last character has no bits to spare: choose another length"
    assert [other for other in others if TOKENS.read(other, job_id=job_id)] == []


@pytest.mark.parametrize("text", ["", "lls_", "lls_%%%", "lls_ä", "ll_x", "lls_AAAA", "x" * 5000])
def test_what_is_no_token_is_refused_as_one_that_is_not_good(
    client: FlaskClient, job: Json, text: str
) -> None:
    answer = client.get(job["urls"]["events"], query_string={"token": text})
    assert answer.status_code == 401
    assert answer.get_json()["error"]["code"] == "invalid_api_key"


def test_a_token_outlives_a_rotation_of_the_pepper() -> None:
    job_id, key_id = ids.new(), ids.new()
    token, _ = TOKENS.issue(job_id=job_id, key_id=key_id)

    during = StreamTokens(peppers=Peppers([b"newer", b"pepper"]), clock=utcnow)
    after = StreamTokens(peppers=Peppers([b"newer"]), clock=utcnow)

    assert during.read(token, job_id=job_id) == key_id
    assert after.read(token, job_id=job_id) is None
    assert after.read(during.issue(job_id=job_id, key_id=key_id)[0], job_id=job_id) == key_id
