"""Whether the service is ready, and what it says of what is missing."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from api.app import create_app, service_of
from api.framework import Router
from core.database import Database
from core.settings import Settings
from core.vault import Vault
from jobs.images import ImageReader
from jobs.store import workers
from tests.api import batches
from tests.api.conftest import Caller
from tests.databases import Age, PostgresSource
from tests.fakes import RecordingWakeup
from webhooks import secrets


def test_without_workers_and_redis_the_service_is_degraded_but_ready(
    client: FlaskClient, wakeup: RecordingWakeup
) -> None:
    wakeup.redis = False
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.get_json() == {
        "status": "degraded",
        "checks": {
            "accepting": "ok",
            "disk": "ok",
            "redis": "degraded",
            "database": "ok",
            "workers": "degraded",
            "vault": "ok",
        },
        "reasons": {"redis": "It does not respond."},
        "notes": [],
    }


def test_with_everything_there_it_is_ok(client: FlaskClient, database: Database) -> None:
    heartbeat = workers.WorkerHeartbeat(id="w", host="h", pid=1, version="1", slots=1)
    workers.beat(database, heartbeat, alive=timedelta(minutes=1))
    assert client.get("/readyz").get_json()["status"] == "ok"


@pytest.mark.parametrize(
    ("states", "check"),
    [
        (("away",), "degraded"),
        (("away", "away"), "degraded"),
        (("away", "ok"), None),
        (("resting",), None),
        ((), None),
    ],
)
def test_without_an_engine_that_responds_it_is_degraded(
    client: FlaskClient,
    database: Database,
    states: tuple[Literal["ok", "resting", "away"], ...],
    check: str | None,
) -> None:
    engines = tuple(
        workers.EngineState(f"http://secret{number}", state, reason="refused by http://secret")
        for number, state in enumerate(states)
    )
    heartbeat = workers.WorkerHeartbeat(
        id="w", host="h", pid=1, version="1", slots=1, engines=engines
    )
    workers.beat(database, heartbeat, alive=timedelta(minutes=1))
    answer = client.get("/readyz")
    ready = answer.get_json()
    assert (answer.status_code, ready["checks"].get("engines")) == (200, check)
    assert ("engines" in ready["reasons"]) == (check == "degraded")
    assert "secret" not in answer.get_data(as_text=True)


def test_with_a_batch_that_no_process_works_on_it_is_degraded(
    app: Router, client: FlaskClient, caller: Caller, age: Age
) -> None:
    batches.create(caller, batches.lines(1))
    fresh = client.get("/readyz").get_json()
    age(301)
    answer = client.get("/readyz")
    batches.runner_of(app).run_slice()
    worked_on = client.get("/readyz").get_json()

    stuck = answer.get_json()
    assert "batches" not in fresh["checks"]
    assert (answer.status_code, stuck["checks"]["batches"]) == (200, "degraded")
    assert stuck["reasons"]["batches"] == (
        "No API process has worked on a due batch for 5 minutes."
    )
    assert "batches" not in worked_on["checks"]


def test_without_the_vault_of_its_secrets_the_service_is_degraded(
    client: FlaskClient, database: Database
) -> None:
    other = Vault(["another key"])
    secrets.signing_key(database, make=lambda: secrets.new_pair(other))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["checks"]["vault"]) == (200, "degraded")


def test_a_draining_service_is_not_ready_but_lives(app: Router, client: FlaskClient) -> None:
    service_of(app).drain()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["checks"]["accepting"]) == (503, "unavailable")
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("url", ["sqlite:///{folder}/empty.db", "sqlite:///{folder}/no/such.db"])
def test_without_its_tables_the_service_is_not_ready(
    settings: Settings, decoder: ImageReader, tmp_path: Path, url: str
) -> None:
    database = Database(url.format(folder=tmp_path))
    app = create_app(settings, database=database, wakeup=RecordingWakeup(), images=decoder)
    answer = app.test_client().get("/readyz")
    database.close()
    assert answer.status_code == 503
    assert answer.get_json()["checks"]["database"] == "unavailable"


def test_without_a_database_requests_are_answered_with_503(
    settings: Settings, decoder: ImageReader, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path}/no/such.db")
    app = create_app(settings, database=database, wakeup=RecordingWakeup(), images=decoder)
    headers = {"Authorization": f"Bearer ll_{'x' * 43}"}
    answer = app.test_client().get("/v1/jobs", headers=headers)
    database.close()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["x-should-retry"] == "true"
    assert answer.get_json()["error"]["code"] == "database_unavailable"


@pytest.mark.parametrize("session", ["read-write", "any"])
def test_on_a_server_that_cannot_write_the_service_is_not_ready(
    settings: Settings,
    postgres_source: PostgresSource,
    decoder: ImageReader,
    session: str,
) -> None:
    url = sa.make_url(postgres_source.create())
    name = url.database or ""
    change = f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'
    postgres_source.server.run("postgres", change)
    url = url.update_query_dict({"target_session_attrs": session})
    with contextlib.closing(Database(url.render_as_string(hide_password=False))) as database:
        app = create_app(settings, database=database, wakeup=RecordingWakeup(), images=decoder)
        answer = app.test_client().get("/readyz")
    postgres_source.server.drop(name)
    assert answer.status_code == 503
    assert answer.get_json()["checks"]["database"] == "unavailable"


def test_on_a_full_disk_the_service_is_not_ready(
    settings: Settings, database: Database, decoder: ImageReader
) -> None:
    floor = settings.model_copy(update={"disk_floor_mb": 2**40})
    app = create_app(floor, database=database, wakeup=RecordingWakeup(), images=decoder)
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.get_json()["checks"]["disk"]) == (503, "unavailable")


@pytest.mark.parametrize(("revision", "status"), [("0001", 503), ("of a later version", 200)])
def test_processes_of_the_version_before_stay_ready_when_the_schema_grows(
    client: FlaskClient, database: Database, revision: str, status: int
) -> None:
    with database.transaction() as transaction:
        transaction.execute(
            sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
        )

    assert client.get("/readyz").status_code == status
