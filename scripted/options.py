"""How the scripted engine behaves, from code or from the query string of its URL."""

from __future__ import annotations

from typing import Self
from urllib.parse import parse_qs

from pydantic import BaseModel, Field, ValidationError, field_validator

from core import errors
from scripted import script


class ScriptedOptions(BaseModel, frozen=True, extra="forbid"):
    """Speeds, room and manners of a scripted engine."""

    #: Of each stream; 0 gives all tokens at once.
    tokens_per_second: float = Field(default=50.0, ge=0)
    #: Prompt tokens that are not cached; 0 takes no time. The default is QVQ-72B on two H200, by arithmetic.
    prefill_tokens_per_second: float = Field(default=6900.0, ge=0)
    #: Streams that run at once.
    window: int = Field(default=64, ge=1)
    #: Streams that wait; one more is refused as busy.
    max_queued: int = Field(default=128, ge=0)
    #: Images in one request.
    max_images: int = Field(default=8, ge=0)
    #: Capacity of the prefix cache.
    cache_tokens: int = Field(default=330_000, ge=0)
    #: One of :data:`scripted.script.PERSONAS`.
    persona: str = "clean"
    #: Whether ``[[persona:name]]`` in a question chooses another one.
    markers: bool = False
    #: The beginning of the key of a picture that takes the engine down after a few tokens; over HTTP a picture's key is
    #: the sha256 of its bytes.
    deadly_image: str = ""
    #: How late a lost client is noticed, over HTTP.
    disconnect_seconds: float = Field(default=2.0, ge=0)

    @field_validator("persona")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in script.PERSONAS:
            raise ValueError(f"there is no persona {value!r}")
        return value

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the options of a URL such as ``scripted:?tokens_per_second=500&persona=clean``.

        Raises:
            core.errors.SettingsError: an option that is not known, or a value it cannot have.
        """
        given = parse_qs(url.partition("?")[2], keep_blank_values=True)
        try:
            return cls.model_validate({name: values[-1] for name, values in given.items()})
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            raise errors.SettingsError(f"scripted engine: {'; '.join(faults)}") from error
