"""Field types of requests and responses: text, times, durations and keys."""

import re
import urllib.parse
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import core_schema

from api.framework.strict_json import LongString

MAX_DEADLINE_SECONDS = 30 * 24 * 3600
MAX_KEY_CHARS = 255
MAX_METADATA_PAIRS = 16
MAX_URL_CHARS = 2048

#: The parameter that reverses a list, with what a client of `asc` may rely on.
ORDER = (
    "Newest or oldest first. With `asc`, a page ends before what is being created at that moment, so a client that "
    "asks again and again with the last `last_id` that it got sees everything. An empty page has no `last_id`: keep "
    "the one before it. A filter applies at the time of the page: what matches it only later, behind `after`, is not "
    "shown."
)

_DURATION = re.compile(r"([0-9]{1,7})(s|m|h|d)?", re.ASCII)
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNIX = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?", re.ASCII)
_PRINTABLE = re.compile(r"[\x20-\x7e]+")
#: RFC 8941, section 3.3.3: a quoted string, in which quotes and backslashes are escaped.
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


_DATA_URL = re.compile(r"[\x00-\x20]*+data:", re.IGNORECASE)


#: A string of JSON that may be long.
LongText = str | LongString


class InvalidValue(ValueError):
    """An invalid value, with an error code of its own; callers see the message."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class _StringOrLong:
    """Lets a string be a :class:`LongString`, without pydantic's errors for each member of a union."""

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def validate(value: object, handler: core_schema.ValidatorFunctionWrapHandler) -> object:
            return value if isinstance(value, LongString) else handler(value)

        return core_schema.no_info_wrap_validator_function(validate, core_schema.str_schema())


def _without_nul(text: str) -> str:
    # PostgreSQL cannot store them.
    if "\x00" in text:
        raise ValueError("This must not contain NUL characters.")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("This must not be empty.")
    return text


def _few_pairs(value: Any) -> Any:  # noqa: ANN401 - untrusted input
    # Pydantic counts an object only after it has validated its members.
    if isinstance(value, dict) and len(value) > MAX_METADATA_PAIRS:
        raise ValueError(
            f"This must have at most {MAX_METADATA_PAIRS} pairs; it has {len(value):,}."
        )
    return value


def _moment(value: Any) -> datetime:  # noqa: ANN401 - untrusted input
    text = str(value).strip()
    try:
        if _UNIX.fullmatch(text):
            return datetime.fromtimestamp(float(text), UTC)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError(
        "This must be a time with a zone, such as 2026-11-23T10:00:00Z, or in Unix seconds."
    )


def _duration(value: Any) -> int:  # noqa: ANN401 - untrusted input
    match = _DURATION.fullmatch(str(value).strip())
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= MAX_DEADLINE_SECONDS:
        raise ValueError("This must be a duration such as 30s, 10m or 2h, of at most 30 days.")
    return seconds


def _idempotency_key(value: Any) -> str:  # noqa: ANN401 - untrusted input
    text = str(value).strip()
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if len(key) > MAX_KEY_CHARS or not _PRINTABLE.fullmatch(key):
        raise ValueError(f"This must have 1 to {MAX_KEY_CHARS} printable ASCII characters.")
    return key


def _url(text: str) -> str:
    try:
        parts = urllib.parse.urlsplit(text)
        valid = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
            and parts.username is None
            and parts.password is None
            and not parts.fragment
            and text.isprintable()
            and " " not in text
        )
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(
            "This must be an http or https URL with a host, and without spaces, a user and a fragment."
        )
    return text


def is_data_url(text: LongText) -> bool:
    """Whether ``text`` is a data URL by its scheme, after space that URL parsers ignore."""
    if isinstance(text, LongString):
        return text.is_data_url
    return _DATA_URL.match(text) is not None


def image_url(text: LongText) -> LongText:
    """Return ``text`` if it may be the URL of an image: a data URL, or one to fetch. Raises :class:`ValueError`."""
    if is_data_url(text):
        return text
    size = text.size if isinstance(text, LongString) else len(text)
    if isinstance(text, LongString) or size > MAX_URL_CHARS:
        raise ValueError(
            f"A URL to fetch must have at most {MAX_URL_CHARS:,} characters; this one has {size:,}. "
            "An image itself must be a data URL, such as data:image/png;base64, followed by the file in base64."
        )
    # Around a data URL, space is allowed, too.
    return _url(_without_nul(text.strip()))


def rfc3339(moment: datetime) -> str:
    """Return a time as responses show it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Text = Annotated[str, AfterValidator(_without_nul)]
Question = Annotated[Text, AfterValidator(_not_blank)]
MetadataKey = Annotated[Text, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[Text, Field(max_length=512)]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue],
    Field(max_length=MAX_METADATA_PAIRS),
    BeforeValidator(_few_pairs),
]
#: The URL of an image or a receiver. The guarded client decides whether it is allowed.
Url = Annotated[
    Text,
    Field(max_length=MAX_URL_CHARS),
    AfterValidator(_url),
    WithJsonSchema({"type": "string", "format": "uri", "maxLength": MAX_URL_CHARS}),
]
#: The URL of an image, or the image itself as a data URL.
ImageUrl = Annotated[
    LongText,
    _StringOrLong(),
    AfterValidator(image_url),
    WithJsonSchema({"type": "string", "format": "uri"}),
]
#: An image as a data URL.
ImageData = Annotated[LongText, _StringOrLong()]
#: A time in a request: RFC 3339 or Unix seconds.
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string"})]
#: A header such as ``Cancel-After: 10m``, in seconds.
Duration = Annotated[int, BeforeValidator(_duration), WithJsonSchema({"type": "string"})]
IdempotencyKey = Annotated[
    str, BeforeValidator(_idempotency_key), WithJsonSchema({"type": "string", "maxLength": 257})
]
#: A time in a response: UTC, RFC 3339 with milliseconds.
Time = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "examples": ["2026-11-23T10:00:00.000Z"]}
    ),
]
