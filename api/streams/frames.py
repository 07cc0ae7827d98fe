"""Formats events as server-sent events (WHATWG HTML, section 9.2).

A frame is ``id:`` with the event's number, from which EventSource resumes automatically, and one ``data:`` line of
JSON, without characters at which some clients end a line, too (U+0085, U+2028, U+2029). There is no ``event:`` line:
one ``onmessage`` handler gets all events and finds their kind in ``type``.

The heartbeat is a comment line without an empty line after it. EventSource ignores it. The decoder of the ``openai``
client would take an empty line after an ``id:`` for an event and fail because it has no data.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from api.schemas.fields import rfc3339
from core import escapes
from jobs.store.event_log import EventKind, JobEvent

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"
HEARTBEAT: Final = b":\n"
_DATA: Final = b"data: "
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def frame(event: JobEvent, *, job: bytes | None = None) -> bytes:
    """Return ``event`` as a frame; ``job`` is the whole job as JSON, for the last event."""
    members: dict[str, Any] = {
        "sequence_number": event.number,
        "type": event.kind,
        "at": rfc3339(_EPOCH + timedelta(milliseconds=event.at)),
    }
    for name in ("attempt", "generation", "delta", "finding", "valid_through"):
        value = getattr(event, name)
        if value is not None:
            members[name] = value
    if event.kind is EventKind.FINISHED:
        members["valid_through"] = event.valid_through
        members["job"] = None if job is None else orjson.Fragment(job)
    return b"id: %d\ndata: %s\n\n" % (event.number, escapes.in_one_line(orjson.dumps(members)))


def read(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events in whole frames."""
    for line in data.split(b"\n"):
        if line.startswith(_DATA):
            yield orjson.loads(line.removeprefix(_DATA))
