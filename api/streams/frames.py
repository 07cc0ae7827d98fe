"""Events as they go over the wire: server-sent events (WHATWG HTML, section 9.2).

A frame is ``id:`` with the event's number, so that EventSource resumes by itself, and one ``data:`` line of JSON. There
is no ``event:`` line: one ``onmessage`` gets everything and finds the kind in ``type``.

The heartbeat is a comment line alone, without an empty line after it. EventSource ignores it; and the decoder of the
``openai`` client, which takes an empty line after any ``id:`` for an event and fails at its missing data, sees none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from api.schemas.fields import rfc3339
from jobs.store.event_log import EventKind, JobEvent

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"
HEARTBEAT: Final = b":\n"
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def frame(event: JobEvent, *, job: bytes | None = None) -> bytes:
    """Return ``event`` as a frame; ``job`` is the whole job, as JSON, at its end."""
    reported: dict[str, Any] = {
        "sequence_number": event.number,
        "type": event.kind,
        "at": rfc3339(_EPOCH + timedelta(milliseconds=event.at)),
    }
    for name in ("attempt", "generation", "delta", "finding", "valid_through"):
        value = getattr(event, name)
        if value is not None:
            reported[name] = value
    if event.kind is EventKind.FINISHED:
        reported["valid_through"] = event.valid_through
        reported["job"] = None if job is None else orjson.Fragment(job)
    return b"id: %d\ndata: %s\n\n" % (event.number, orjson.dumps(reported))
