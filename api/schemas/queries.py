"""How callers ask for the history of jobs."""

from __future__ import annotations

import dataclasses
import re
import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, field_validator

from api import errors as problems
from api.schemas import fields
from api.schemas.requests import ParameterModel
from core import errors, ids
from jobs import filters
from jobs.lifecycle import Status

_SHA256 = re.compile(r"[0-9a-f]{64}")


class JobsQuery(ParameterModel):
    """Which jobs, and which page of them."""

    q: Annotated[fields.Text, Field(max_length=1000)] = Field(
        default="",
        description="Qualifiers and phrases that all have to hold: `status:failed error:timeout created:<2h "
        'meta.case:42 image:<sha256> group:<id> "six of them"`. An age is written `2h`, a time '
        "`2026-11-23T10:00:00Z`; a value with spaces or colons stands in double quotes. A phrase is found in "
        "question, answer and trace, from the beginning of a word on; case and line breaks do not matter.",
    )
    after: str | None = Field(default=None, description="The `last_id` of the page before.")
    limit: int = Field(default=20, ge=1, le=100, description="Jobs on a page.")
    order: Literal["desc", "asc"] = Field(default="desc", description="Newest or oldest first.")
    status: list[Literal["queued", "running", "succeeded", "failed", "cancelled"]] = Field(
        default=[], max_length=16, description="One of these; may be given several times."
    )
    created_after: fields.Moment | None = Field(
        default=None, description="Created at this time or later: RFC 3339 or unix seconds."
    )
    created_before: fields.Moment | None = Field(
        default=None, description="Created before this time."
    )
    metadata: fields.Metadata = Field(
        default={}, description="With all these pairs: `metadata[case]=42`."
    )
    image: str | None = Field(
        default=None,
        description="With this image: its id, or the sha256 of the file as it was sent.",
    )
    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None, description="Of this account, by name or id. For operators, who see all."
    )

    @field_validator("image")
    @classmethod
    def _image(cls, value: str | None) -> str | None:
        if value is None or ids.parse("img", value) or _SHA256.fullmatch(value):
            return value
        raise ValueError("This has to be an image id or the sha256 of a file in hex.")

    def filters(self, account_id: uuid.UUID | None, *, now: datetime) -> filters.Filter:
        """Return the filters for the store, within ``account_id`` (None: all accounts).

        Raises:
            core.errors.InvalidRequest: with every fault of ``q``; or it asks for what a parameter asks for, too.
        """
        image = self.image or ""
        image_id = ids.parse("img", image)
        by_parameters = filters.Filter(
            account_id=account_id,
            statuses=[Status(status) for status in self.status],
            created_after=self.created_after,
            created_before=self.created_before,
            metadata=self.metadata,
            image_id=image_id,
            image_sha256=None if image_id else image or None,
        )
        by_words = filters.parse(self.q, now=now)
        twice = by_words.conditions.keys() & by_parameters.conditions.keys()
        if twice:
            sentence = f"This asks for what a parameter asks for, too: {', '.join(sorted(twice))}."
            raise problems.refused([errors.Fault("q", sentence)])
        return dataclasses.replace(by_parameters, **by_words.conditions)
