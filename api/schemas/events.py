"""What callers get of the event stream, and how they ask for it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from api.schemas.requests import ParameterModel


class EventsQuery(ParameterModel):
    """From where on."""

    after: int = Field(
        default=0, ge=0, le=2**63 - 1, description="Only events with greater numbers."
    )
    token: str | None = Field(
        default=None,
        description="Instead of a key: a token of this job, for those who cannot send a header.",
    )


class EventsHeaders(ParameterModel):
    """From where on, as EventSource says it when it comes back."""

    last_event_id: str | None = Field(
        default=None,
        alias="Last-Event-ID",
        description="The number of the last event; wins over `after`.",
    )

    @property
    def after(self) -> int | None:
        """The number, when it is one: what another server may have sent is no fault of the caller's."""
        text = self.last_event_id or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004 - 2**63 has 19 digits


class StreamToken(ResponseModel):
    """A token with which one job can be followed, and nothing else be done."""

    object: Literal["stream_token"] = "stream_token"
    job_id: str
    token: str
    expires_at: Time = Field(description="Until then a stream can be opened; an open one goes on.")
    url: str = Field(description="Path of the stream with the token in it.")
