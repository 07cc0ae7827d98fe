"""The real application on SQLite, real decoders, and callers with keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from urllib3 import encode_multipart_formdata
from werkzeug.test import TestResponse

from api.app import create_app, service_of
from api.framework import Router
from core.database import Database
from core.settings import Settings
from jobs.images import ImageReader
from jobs.lifecycle import Priority, Role
from tests import databases, factories
from tests.api import image_files
from tests.fakes import RecordingWakeup

Json = dict[str, Any]
Part = str | bytes


@dataclass
class Caller:
    """Somebody with a key."""

    client: FlaskClient
    key: str

    def __call__(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        **content: Any,  # noqa: ANN401 - the client's own
    ) -> TestResponse:
        """Send a request with the key."""
        authorization = {"Authorization": f"Bearer {self.key}"}
        return self.client.open(
            path, method=method, headers=authorization | (headers or {}), **content
        )

    def form(
        self,
        path: str,
        fields: Mapping[str, Part | list[Part]],
        *,
        headers: dict[str, str] | None = None,
    ) -> TestResponse:
        """Send a multipart form: bytes are files, a list is a field that comes several times."""
        parts: list[tuple[str, str | tuple[str, bytes]]] = []
        for name, given in fields.items():
            listed = given if isinstance(given, list) else [given]
            parts += [(name, ("a.png", p) if isinstance(p, bytes) else p) for p in listed]
        body, content_type = encode_multipart_formdata(parts)
        return self("POST", path, data=body, content_type=content_type, headers=headers)

    def submit(
        self,
        *,
        image: bytes | None = None,
        question: str = "How many circles are there?",
        headers: dict[str, str] | None = None,
        **options: object,
    ) -> TestResponse:
        """Submit a job as JSON."""
        data = image_files.data_url(image_files.png() if image is None else image)
        body = {"question": question, "images": [{"data": data}], "options": options}
        return self("POST", "/v1/jobs", json=body, headers=headers)

    def job(self, **options: object) -> Json:
        """Submit a job that has to be accepted, and return it."""
        answer = self.submit(**options)  # type: ignore[arg-type] # the same options
        assert answer.status_code == 202, answer.text
        job: Json = answer.get_json()
        return job

    def group(
        self,
        *questions: str,
        image: bytes | None = None,
        headers: dict[str, str] | None = None,
        **options: object,
    ) -> Json:
        """Submit a group that has to be accepted, and return it."""
        data = image_files.data_url(image_files.png() if image is None else image)
        body = {
            "questions": questions or ["How many circles are there?"],
            "images": [{"data": data}],
            "options": options,
        }
        answer = self("POST", "/v1/groups", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        group: Json = answer.get_json()
        return group

    def image(self, data: bytes | None = None, *, detail: str = "standard") -> Json:
        """Upload an image that has to be taken, and return it."""
        answer = self(
            "POST",
            f"/v1/images?detail={detail}",
            data=data or image_files.png(),
            content_type="image/png",
        )
        assert answer.status_code == 201, answer.text
        image: Json = answer.get_json()
        return image


@pytest.fixture
def dialect() -> str:
    """The API is tested on SQLite, its stores on both databases."""
    return "sqlite"


@pytest.fixture(scope="session")
def decoder() -> Iterator[ImageReader]:
    """Return the real decoders of this run."""
    images = ImageReader.start(
        Settings.read({}, sandbox_processes=2, max_image_mb=1, sandbox_seconds=60)
    )
    yield images
    images.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of the application."""
    return Settings.read(
        {},
        home=tmp_path,
        pepper=SecretStr(factories.PEPPER.decode()),
        max_image_mb=1,
        max_body_mb=4,
        max_streams=2,
        disk_floor_mb=0,
    )


@pytest.fixture
def wakeup() -> RecordingWakeup:
    """Return the doorbell."""
    return RecordingWakeup()


@pytest.fixture
def delivery_wakeup() -> RecordingWakeup:
    """Return the wakeup of the delivery process."""
    return RecordingWakeup()


@pytest.fixture
def app(  # noqa: PLR0917 - fixtures, which are given by name
    settings: Settings,
    database: Database,
    wakeup: RecordingWakeup,
    delivery_wakeup: RecordingWakeup,
    decoder: ImageReader,
    clock: databases.Clock,
) -> Iterator[Router]:
    """Return the application."""
    app = create_app(
        settings,
        database=database,
        wakeup=wakeup,
        delivery_wakeup=delivery_wakeup,
        images=decoder,
        clock=clock,
    )
    yield app
    service_of(app).drain()


@pytest.fixture
def client(app: Router) -> FlaskClient:
    """Return a client without a key."""
    return app.test_client()


@pytest.fixture
def caller(client: FlaskClient, database: Database) -> Caller:
    """Return the holder of a submit key of the account ``default``, who may ask for any priority."""
    return Caller(client, factories.make_key(database, max_priority=Priority.HIGH))


@pytest.fixture
def stranger(client: FlaskClient, database: Database) -> Caller:
    """Return the holder of a submit key of another account."""
    return Caller(client, factories.make_key(database, account="stranger"))


@pytest.fixture
def operator(client: FlaskClient, database: Database) -> Caller:
    """Return the holder of an operate key."""
    return Caller(client, factories.make_key(database, account="operations", role=Role.OPERATE))
