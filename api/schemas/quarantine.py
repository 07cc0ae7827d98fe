"""Images in quarantine, as operators get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from api.schemas.parts import Given
from api.schemas.requests import Named
from api.schemas.words import Time
from jobs import ids
from jobs.store import quarantine


class QuarantineQuery(Named):
    """How many images to list."""

    limit: int = Field(default=100, ge=1, le=1000, description="Images, the last one first.")


class HeldImage(Given):
    """An image that is refused, for its account alone."""

    image_id: str
    account_id: str
    sha256: str = Field(description="Of the file as it was sent.")
    deaths: int = Field(description="Engines that died over it.")
    died_at: Time
    quarantined_at: Time

    @classmethod
    def of(cls, held: quarantine.Held) -> Self:
        """Return what operators see of an image."""
        return cls(
            image_id=ids.show("img", held.image_id),
            account_id=ids.show("acct", held.account_id),
            sha256=held.sha256,
            deaths=held.deaths,
            died_at=held.died_at,
            quarantined_at=held.quarantined_at,
        )


class HeldImages(Given):
    """All images that are refused."""

    object: Literal["list"] = "list"
    data: list[HeldImage]
    has_more: bool

    @classmethod
    def of(cls, held: Sequence[quarantine.Held], *, has_more: bool) -> Self:
        """Return a list of them."""
        return cls(data=[HeldImage.of(one) for one in held], has_more=has_more)


class Released(Given):
    """An image that may be asked about again."""

    image_id: str
    object: Literal["image.released"] = "image.released"
    released: Literal[True] = True
