"""Files, as the official clients handle them."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import openai
import pytest

from tests.clients.service import Service

pytestmark = pytest.mark.e2e

#: More than the limit of other request bodies.
LARGE = 70 * 2**20


def test_a_file_is_created_found_downloaded_and_deleted(
    client: openai.OpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "Aufgaben für 試験.jsonl"
    path.write_bytes(b'{"custom_id": "a"}\n')
    created = client.files.create(file=path, purpose="batch")

    assert created.status == "processed"
    assert (created.filename, created.bytes) == (path.name, path.stat().st_size)
    assert client.files.wait_for_processing(created.id) == created
    assert client.files.retrieve(created.id) == created
    content = client.files.content(created.id)
    assert content.read() == path.read_bytes()
    assert [file.id for file in client.files.list(purpose="batch")] == [created.id]
    assert client.files.delete(created.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(created.id)


def test_bytes_and_file_objects_arrive_under_their_names(client: openai.OpenAI) -> None:
    named = client.files.create(file=("naïve.bin", b"123"), purpose="user_data")
    nameless = client.files.create(file=io.BytesIO(b"1"), purpose="user_data")

    assert (named.filename, nameless.filename) == ("naïve.bin", "upload")
    for file in (named, nameless):
        client.files.delete(file.id)


def test_expiry_arrives_as_both_form_fields(client: openai.OpenAI) -> None:
    file = client.files.create(
        file=b"x", purpose="evals", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert file.expires_at == file.created_at + 3600
    client.files.delete(file.id)


def test_lists_go_on_by_themselves_in_both_orders(client: openai.OpenAI, service: Service) -> None:
    made = [client.files.create(file=b"x", purpose="assistants").id for _ in range(5)]

    oldest = [f.id for f in client.files.list(purpose="assistants", limit=2, order="asc")]
    newest = [f.id for f in client.files.list(purpose="assistants", limit=2)]
    assert oldest == newest[::-1] == made
    assert list(service.stranger().files.list()) == []
    for file_id in made:
        client.files.delete(file_id)


def test_a_file_larger_than_other_requests_goes_there_and_back(
    client: openai.OpenAI, service: Service
) -> None:
    data = os.urandom(2**20) * (LARGE // 2**20)
    began = time.monotonic()
    created = client.files.create(file=("large.jsonl", data), purpose="batch")
    assert created.bytes == LARGE
    with client.files.with_streaming_response.content(created.id) as content:
        received = b"".join(content.iter_bytes())
    assert received == data, time.monotonic() - began
    client.files.delete(created.id)
    assert service.client().files.list(purpose="batch").data == []


def test_faults_are_bad_requests_with_their_place(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=b"x", purpose="nothing")  # type: ignore[arg-type] # wrong on purpose
    assert caught.value.param == "purpose"
