"""Identifiers: UUID version 7 internally (they sort by time), ``job_<32 hex>`` externally.

Source: RFC 9562, section 5.7.
"""

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

import uuid_utils.compat

Kind = Literal[
    "job",
    "resp",
    "grp",
    "img",
    "key",
    "acct",
    "req",
    "we",
    "evt",
    "dlv",
    "rcv",
    "op",
    "qp",
    "file",
    "batch",
]

#: Fewest hexadecimal digits of the beginning of an id that :func:`prefix` takes.
MIN_PREFIX: Final = 6
_DIGITS = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},32}}")
#: The ids of files are written as OpenAI's.
_FILE: Final = "file"
_SHAPE = re.compile(r"((?!file_)[a-z]+_|file-)([0-9a-f]{32})")
#: An id as people mistype it: cut, too long, or with other letters. Texts such as ``key_value`` are none.
_MEANT = re.compile(
    rf"job_.*|(?:{'|'.join(get_args(Kind))})_\d.*|file-\d.*|@.*", re.IGNORECASE | re.DOTALL
)


def new() -> uuid.UUID:
    """Return a new UUIDv7."""
    return uuid_utils.compat.uuid7()


def earliest(moment: datetime, *, offset: timedelta = timedelta()) -> uuid.UUID:
    """Return a UUID that sorts before all ids that are made at ``moment`` or later; the first one for early times.

    Args:
        moment: any time.
        offset: is added to it; their sum need not be a time that Python knows.
    """
    seconds = moment.timestamp() + offset.total_seconds()
    return uuid.UUID(int=max(0, int(seconds * 1000)) << 80)


def moment(value: uuid.UUID) -> datetime:
    """Return when an id was made, in UTC, to the millisecond."""
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC)


def prefix(kind: Kind, text: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """Return the first and the last id of this kind that begins with ``text`` (``job_0190ab``), or None.

    ``text`` has at least :data:`MIN_PREFIX` hexadecimal digits; ``job_`` may be missing.
    """
    digits = text.removeprefix(_before(kind))
    if not _DIGITS.fullmatch(digits):
        return None
    return uuid.UUID(hex=f"{digits:0<32}"), uuid.UUID(hex=f"{digits:f<32}")


def meant(text: str) -> bool:
    """Whether ``text`` is meant to be an id, also a mistyped one (``job_019O``), or a name such as ``@last``."""
    return _MEANT.fullmatch(text) is not None


def show(kind: Kind, value: uuid.UUID) -> str:
    """Return ``value`` as callers see it, for example ``job_0190…`` (4 + 32 characters)."""
    return f"{_before(kind)}{value.hex}"


def parse(kind: Kind, text: str) -> uuid.UUID | None:
    """Return the UUID in ``text``, or None when it is not an id of this kind."""
    match = _SHAPE.fullmatch(text)
    if match is None or match.group(1) != _before(kind):
        return None
    return uuid.UUID(hex=match.group(2))


def _before(kind: Kind) -> str:
    return f"{kind}-" if kind == _FILE else f"{kind}_"
