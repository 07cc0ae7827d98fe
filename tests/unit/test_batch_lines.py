"""Lines of batches: an outage while a line is read is not a fault of the line."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from api.auth import Caller
from api.openai.batches import lines
from api.openai.batches.endpoints import LineAnswer
from api.submission import ParsedSubmission
from core.database_faults import DatabaseUnavailable
from jobs.lifecycle import Role
from jobs.records.jobs import Job


class Failing:
    """A route whose requests cannot be read."""

    path = "/v1/responses"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def is_long(self, place: tuple[str | int, ...]) -> bool:
        return not place

    def parse(
        self, caller: Caller, body: Mapping[str, Any], *, read_files: bool
    ) -> ParsedSubmission:
        assert (caller.role, body, read_files) == (Role.SUBMIT, {"input": "?"}, False)
        raise self._error

    def answered(self, job: Job) -> bool:
        raise NotImplementedError(job)

    def usage(self, job: Job) -> None:
        """Return no tokens."""

    def answer(self, job: Job) -> LineAnswer:
        raise NotImplementedError(job)


def parsed(error: Exception) -> lines.ParsedLine:
    sent = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"input": "?"}}
    data = orjson.dumps(sent)
    caller = Caller(uuid.uuid4(), uuid.uuid4(), Role.SUBMIT)
    raw = lines.RawLine(0, len(data), data)
    return lines.parse(
        raw, 1, endpoint=Failing(error), caller=caller, max_bytes=10_000, read_files=False
    )


def test_a_line_that_cannot_be_read_in_an_outage_is_read_again() -> None:
    with pytest.raises(DatabaseUnavailable):
        parsed(DatabaseUnavailable("The database does not answer."))


def test_a_line_that_cannot_be_read_for_an_unknown_reason_has_a_fault() -> None:
    assert [fault["code"] for fault in parsed(RuntimeError()).faults] == ["server_error"]
