"""Models that several responses share."""

from datetime import datetime
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

_Item = TypeVar("_Item")
_Id = TypeVar("_Id")


class ResponseModel(BaseModel):
    """The base of all responses. A validation error must not quote its values."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def from_record(cls, record: object, **fields: Any) -> Self:  # noqa: ANN401 - of any field
        """Return the response with ``fields``; ``record`` has the other required ones under their names."""
        required = (name for name, field in cls.model_fields.items() if field.is_required())
        others = {name: getattr(record, name) for name in required if name not in fields}
        return cls(**others, **fields)


class Page(ResponseModel, Generic[_Item, _Id]):
    """A page of a list, with the ids of its first and its last resource."""

    object: Literal["list"] = "list"
    data: list[_Item]
    first_id: _Id | None
    last_id: _Id | None
    has_more: bool

    @classmethod
    def of(cls, data: list[_Item], *, has_more: bool, id_field: str = "id") -> Self:
        """Return a page of ``data``; ``id_field`` is the field with the id of a resource."""
        shown = [getattr(item, id_field) for item in data]
        first_id, last_id = (shown[0], shown[-1]) if shown else (None, None)
        return cls(data=data, first_id=first_id, last_id=last_id, has_more=has_more)


class JobError(ResponseModel):
    """The error of a failed job or attempt."""

    code: str
    message: str
    retryable: bool | None = Field(default=None, description="Whether a rerun may succeed.")


class Usage(ResponseModel):
    """Token counts. `input_tokens` includes cached and image tokens."""

    input_tokens: int
    cached_tokens: int | None
    image_tokens: int | None
    output_tokens: int


def fault(
    code: str | None, message: str | None, *, retryable: bool | None = None
) -> JobError | None:
    """Return the error, or None without one."""
    return None if code is None else JobError(code=code, message=message or "", retryable=retryable)


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two times, if both are known."""
    return None if start is None or end is None else round((end - start).total_seconds(), 3)


def rate(tokens: int | None, start: datetime | None, end: datetime | None) -> float | None:
    """Return tokens per second. The time starts at the first token, which therefore does not count."""
    elapsed = seconds(start, end)
    return round((tokens - 1) / elapsed, 1) if tokens and elapsed else None
