"""Times as the options of commands have them."""

from datetime import UTC, datetime, timedelta
from typing import Final

_UNITS: Final = {"m": 60, "h": 3600, "d": 86400}


def moment(text: str, *, now: datetime | None = None) -> str:
    """Return a time for the API.

    Args:
        text: an age such as ``2h``, or a date or time, which is in UTC without a zone. Anything else stays as it is.
        now: what an age is counted from; the default is the present time.
    """
    number, unit = text[:-1], text[-1:]
    if number.isdecimal() and unit in _UNITS:
        ago = timedelta(seconds=int(number) * _UNITS[unit])
        return ((now or datetime.now(UTC)) - ago).isoformat()
    if "-" not in text:
        return text
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return text if at.tzinfo else at.replace(tzinfo=UTC).isoformat()
