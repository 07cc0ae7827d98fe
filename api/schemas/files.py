"""Files, as OpenAI's clients know them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, PlainSerializer, WithJsonSchema

from api.schemas import cursors
from api.schemas.parameters import ClientQuery
from api.schemas.parts import Page, ResponseModel
from api.schemas.requests import RequestModel
from core import ids
from jobs import records

#: What a caller may upload a file for.
Purpose = Literal["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
#: The purposes of files that callers do not upload. Only batches write such files here; the others are OpenAI's.
WrittenPurpose = Literal["batch_output", "assistants_output", "fine-tune-results"]
#: The shortest and the longest time after which a file may expire, in seconds.
LEAST_SECONDS, MOST_SECONDS = 3600, 2_592_000


def _seconds(value: datetime) -> int:
    return int(value.timestamp())


#: A time in a response, in whole Unix seconds.
UnixTime = Annotated[
    datetime,
    PlainSerializer(_seconds, return_type=int),
    WithJsonSchema({"type": "integer", "examples": [1760000000]}),
]


class ExpiresAfter(RequestModel):
    """When a file expires."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=LEAST_SECONDS, le=MOST_SECONDS)


class FileForm(RequestModel):
    """A file and what it is for. The form has `expires_after[anchor]` and `expires_after[seconds]` as fields."""

    file: Annotated[str, Field(json_schema_extra={"contentMediaType": "application/octet-stream"})]
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class FilesQuery(ClientQuery):
    """A page of files."""

    purpose: Literal[Purpose, WrittenPurpose] | None = Field(
        default=None,
        description="Only of this purpose. No file here has the purpose `assistants_output` or `fine-tune-results`.",
    )
    after: Annotated[uuid.UUID, cursors.of("file")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=10_000, ge=1, le=10_000, description="Maximum number on a page.")
    order: Literal["desc", "asc"] = Field(
        default="desc", description="`desc`: newest first. `asc`: oldest first."
    )


class File(ResponseModel):
    """A file of the account."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: UnixTime
    expires_at: UnixTime | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, file: records.files.FileEntry) -> Self:
        """Return the response for a file."""
        return cls.from_record(file, id=ids.show("file", file.id))


class FileList(Page[File, str]):
    """A page of files."""


class FileDeleted(ResponseModel):
    """The confirmation of a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
