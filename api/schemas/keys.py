"""API keys, for admins."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from api.schemas import cursors, fields
from api.schemas.fields import Time
from api.schemas.parameters import ParameterModel
from api.schemas.parts import Page, ResponseModel
from api.schemas.requests import RequestModel
from core import ids
from core.database import utcnow
from jobs.store import accounts

RoleName = Literal["read", "submit", "operate", "admin"]
PriorityName = Literal["high", "normal", "low"]


def _in_future(moment: datetime) -> datetime:
    if moment <= utcnow():
        raise ValueError("This must be a time in the future.")
    return moment


class KeyCreate(RequestModel):
    """A key to create."""

    name: Annotated[fields.Text, Field(max_length=255)] = Field(
        default="", description="A label: timelines and lists show it."
    )
    role: RoleName = Field(default="submit", description="What the key may do.")
    account: Annotated[fields.Question, Field(max_length=255)] | None = Field(
        default=None,
        description="The name or id of the account; a new name creates an account. Default: the caller's account.",
    )
    expires_at: Annotated[fields.Moment, AfterValidator(_in_future)] | None = Field(
        default=None,
        description="The key is refused from this time on: RFC 3339, or Unix seconds as a string. Default: never.",
    )
    requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=accounts.MAX_REQUESTS_PER_MINUTE,
        description="Default: `LONGLOOK_REQUESTS_PER_MINUTE`.",
    )
    max_body_mb: int | None = Field(
        default=None,
        ge=1,
        le=accounts.MAX_BODY_MB,
        description="Largest request body, in MiB. `LONGLOOK_MAX_BODY_MB` remains the upper bound.",
    )
    max_priority: PriorityName | None = Field(
        default=None,
        description="Highest priority of its jobs. Default: `high` for `operate` and `admin`, otherwise `normal`.",
    )


class KeysQuery(ParameterModel):
    """A page of keys."""

    after: Annotated[uuid.UUID, cursors.of("key")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Keys per page.")
    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None, description="The name or id of an account; default: all accounts."
    )


class Key(ResponseModel):
    """An API key. Only the response that creates it has `key`."""

    id: str
    object: Literal["key"] = "key"
    key: str | None = Field(default=None, description="The key itself; it is not stored.")
    redacted_key: str = Field(description="Its first and last characters, to recognize it.")
    name: str
    role: RoleName
    account_id: str
    account: str
    requests_per_minute: int | None = Field(description="Null: the limit of the installation.")
    max_body_mb: int | None = Field(description="Null: the limit of the installation.")
    max_priority: PriorityName
    created_at: Time
    created_by: str | None = Field(
        description="`key:…`, or the user of the command line; null for keys of earlier versions."
    )
    created_by_name: str | None = Field(description="The name of the key in `created_by`.")
    last_used_at: Time | None = Field(
        description="A use of the last minute may be missing. Null: never used."
    )
    expires_at: Time | None = Field(description="Null: it does not expire.")
    revoked_at: Time | None
    revoked_by: str | None = Field(description="As `created_by`.")
    revoked_by_name: str | None = Field(description="The name of the key in `revoked_by`.")

    @classmethod
    def of(cls, row: accounts.KeyRow, *, names: dict[str, str], key: str | None = None) -> Self:
        """Return the response for a key.

        Args:
            row: the key in a list.
            names: those of the keys that made or revoked it, by actor.
            key: the key itself, the one time that it is shown.
        """
        return cls.from_record(
            row,
            id=ids.show("key", row.key_id),
            key=key,
            role=row.role.value,
            account_id=ids.show("acct", row.account_id),
            max_priority=row.highest_priority.value,
            created_by_name=names.get(row.created_by or ""),
            revoked_by_name=names.get(row.revoked_by or ""),
        )


class KeyList(Page[Key, str]):
    """A page of keys, newest first."""
