"""Requests with one fault, and the errors that they get."""

from __future__ import annotations

from werkzeug.test import TestResponse

from core.database import Database
from jobs.records.images import Image
from jobs.records.jobs import Job
from tests.api import image_files
from tests.api.conftest import Caller

PNG = image_files.data_url(image_files.png())


def rows(database: Database) -> int:
    """How many jobs and images there are."""
    with database.reading() as transaction:
        return transaction.session.query(Job).count() + transaction.session.query(Image).count()


def faults(answer: TestResponse) -> dict[str, tuple[str, str]]:
    """The faults of an answer by their place: code and sentence."""
    assert answer.content_type == "application/problem+json"
    body = answer.get_json()
    return {
        fault.get("pointer", fault.get("parameter")): (fault["code"], fault["detail"])
        for fault in body["errors"]
    }


def ask(caller: Caller, **body: object) -> TestResponse:
    """Send a JSON body that is right except for ``body``; None leaves a field out."""
    whole = {"question": "How many?", "images": [{"data": PNG}], **body}
    return caller("POST", "/v1/jobs", json={k: v for k, v in whole.items() if v is not None})
