"""Options of the scripted engine, from code or from the query string of its URL."""

from typing import Self
from urllib.parse import parse_qs

from pydantic import BaseModel, Field, ValidationError, field_validator

from core import errors
from scripted.behaviors import BEHAVIORS


class ScriptedOptions(BaseModel, frozen=True, extra="forbid"):
    """Speeds, capacity and behavior of a scripted engine."""

    #: Tokens per second of each stream; 0 returns all tokens at once.
    tokens_per_second: float = Field(default=50.0, ge=0)
    #: Speed for prompt tokens that are not cached; 0 takes no time. The default is an estimate for QVQ-72B on two H200.
    prefill_tokens_per_second: float = Field(default=6900.0, ge=0)
    #: Tokens in one chunk of a stream, as SGLang's ``--stream-interval`` sets them.
    stream_interval: int = Field(default=1, ge=1)
    #: Streams that run at once.
    window: int = Field(default=64, ge=1)
    #: Streams that may wait. The engine rejects further ones as busy.
    max_queued: int = Field(default=128, ge=0)
    #: Images in one request.
    max_images: int = Field(default=8, ge=0)
    #: Capacity of the prefix cache in tokens.
    cache_tokens: int = Field(default=330_000, ge=0)
    #: A name in :data:`scripted.behaviors.BEHAVIORS`.
    behavior: str = "clean"
    #: Whether ``[[behavior:name]]`` in a question overrides ``behavior``.
    markers: bool = False
    #: A request with an image whose key starts with this prefix breaks the connection after a few tokens. Over HTTP the
    #: key of an image is the SHA-256 of its bytes.
    deadly_image: str = ""
    #: Seconds until the server notices that a client has disconnected.
    disconnect_seconds: float = Field(default=2.0, ge=0)

    @field_validator("behavior")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BEHAVIORS:
            raise ValueError(f"unknown behavior {value!r}; known are {', '.join(BEHAVIORS)}")
        return value

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the options of a URL such as ``scripted:?tokens_per_second=500&behavior=clean``.

        Raises:
            core.errors.SettingsError: an option is unknown, or its value is invalid.
        """
        query = parse_qs(url.partition("?")[2], keep_blank_values=True)
        try:
            return cls.model_validate({name: values[-1] for name, values in query.items()})
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
            ]
            raise errors.SettingsError(f"scripted engine: {'; '.join(faults)}") from error
