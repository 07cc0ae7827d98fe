"""Parameters of the event stream, and stream tokens."""

from typing import Literal

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parameters import ParameterModel
from api.schemas.parts import ResponseModel


class EventsQuery(ParameterModel):
    """The start of the stream."""

    after: int = Field(
        default=0, ge=0, le=2**63 - 1, description="Only events with larger numbers."
    )
    token: str | None = Field(
        default=None,
        description="A stream token of this job instead of a key, for clients that cannot send a header.",
    )


class EventsHeaders(ParameterModel):
    """The start of the stream, as EventSource sends it when it reconnects."""

    last_event_id: str | None = Field(
        default=None,
        alias="Last-Event-ID",
        description="The number of the last event; takes precedence over `after`.",
    )

    @property
    def after(self) -> int | None:
        """The number, or None if the header is not one: another server may have sent that id."""
        text = self.last_event_id or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004 - 2**63 has 19 digits


class StreamToken(ResponseModel):
    """A token that permits following one job, and nothing else."""

    object: Literal["stream_token"] = "stream_token"
    job_id: str
    token: str
    expires_at: Time = Field(description="Opens streams until this time; an open stream continues.")
    url: str = Field(description="Path of the event stream, including the token.")
