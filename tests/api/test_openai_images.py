"""Large images in the JSON of OpenAI's clients, which stay in the body until they are decoded."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.records.images import Image, JobImage
from jobs.records.jobs import Job
from tests.api import image_files
from tests.api.conftest import Caller

LARGE = image_files.noise(1, side=400)
URL = image_files.data_url(LARGE)
#: The routes, and the same conversation for each.
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/responses": {
        "background": True,
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "How many?"},
                    {"type": "input_image", "image_url": URL},
                ],
            }
        ],
    },
    "/v1/chat/completions": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "How many?"},
                    {"type": "image_url", "image_url": {"url": URL}},
                ],
            }
        ],
    },
}


@pytest.mark.parametrize("path", REQUESTS)
def test_a_large_image_arrives_whole(caller: Caller, database: Database, path: str) -> None:
    answer = caller("POST", path, json=REQUESTS[path], buffered=False)

    with database.reading() as transaction:
        stored = transaction.execute(
            sa.select(Job.question, Image.original_sha256)
            .join(JobImage, JobImage.job_id == Job.id)
            .join(Image, Image.id == JobImage.image_id)
        ).all()
    answer.close()
    assert answer.status_code == 200, answer.text
    assert [tuple(row) for row in stored] == [("How many?", hashlib.sha256(LARGE).hexdigest())]
