"""The query of a list of jobs."""

import dataclasses
import re
import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, field_validator

from api import errors as problems
from api.schemas import cursors, fields
from api.schemas.parameters import ParameterModel
from core import errors, ids
from jobs import filters
from jobs.lifecycle import Status

_SHA256 = re.compile(r"[0-9a-f]{64}")


class JobsQuery(ParameterModel):
    """Filters of jobs, and a page."""

    q: Annotated[fields.Text, Field(max_length=1000)] = Field(
        default="",
        description="Qualifiers and phrases, all of which must match: `status:failed error:timeout created:<2h "
        "meta.case:42 image:<sha256> group:<id> rerun:none operation:<id> id:<prefix> account:<name> crashes:>0 "
        'engine:<url> worker:<id> "six of them"`. Write an age as `2h`, a time as '
        "`2026-11-23T10:00:00Z`, and a value with spaces or colons in double quotes. A phrase matches text in the "
        "question, the answer or the trace from the start of a word on, regardless of case and line breaks.",
    )
    after: Annotated[uuid.UUID, cursors.of("job")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Maximum number of jobs on a page.")
    order: Literal["desc", "asc"] = Field(default="desc", description=fields.ORDER)
    status: list[Literal["queued", "running", "succeeded", "failed", "cancelled"]] = Field(
        default=[], max_length=16, description="Any of these; may be given several times."
    )
    created_after: fields.Moment | None = Field(
        default=None, description="Created at this time or later: RFC 3339 or Unix seconds."
    )
    created_before: fields.Moment | None = Field(
        default=None, description="Created before this time."
    )
    metadata: fields.Metadata = Field(
        default={}, description="With all of these pairs: `metadata[case]=42`."
    )
    image: str | None = Field(
        default=None,
        description="With this image: its id, or the SHA-256 of the file as sent.",
    )
    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None,
        description="The name or id of an account, for operators; the default is all accounts.",
    )

    @field_validator("image")
    @classmethod
    def _image(cls, value: str | None) -> str | None:
        if value is None or ids.parse("img", value) or _SHA256.fullmatch(value):
            return value
        raise ValueError("This must be an image id or the SHA-256 of a file in hex.")

    def filters(self, account_id: uuid.UUID | None, *, now: datetime) -> filters.Filter:
        """Return the filter for the store, within ``account_id`` (None: all accounts).

        Raises:
            core.errors.InvalidRequest: lists every fault of ``q``, or the filters that a parameter repeats.
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
        by_query = filters.parse(self.q, now=now)
        repeated = by_query.given.keys() & by_parameters.given.keys()
        if repeated:
            sentence = f"A parameter already sets these filters: {', '.join(sorted(repeated))}."
            raise problems.refused([errors.Fault("q", sentence)])
        return dataclasses.replace(by_parameters, **by_query.given)
