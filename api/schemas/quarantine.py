"""Images in quarantine, as operators get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from api.schemas.requests import ParameterModel
from core import ids
from jobs.store import quarantine


class QuarantineQuery(ParameterModel):
    """Which page of the images."""

    after: str | None = Field(default=None, description="The `last_id` of the page before.")
    limit: int = Field(default=20, ge=1, le=100, description="Images on a page, the newest first.")


class QuarantinedImage(ResponseModel):
    """An image that is refused, for its account alone."""

    image_id: str
    account_id: str
    sha256: str = Field(description="Of the file as it was sent.")
    crashes: int = Field(description="Engines that died over it.")
    last_crashed_at: Time
    quarantined_at: Time

    @classmethod
    def of(cls, held: quarantine.QuarantinedImage) -> Self:
        """Return what operators see of an image."""
        return cls(
            image_id=ids.show("img", held.image_id),
            account_id=ids.show("acct", held.account_id),
            sha256=held.sha256,
            crashes=held.crashes,
            last_crashed_at=held.last_crashed_at,
            quarantined_at=held.quarantined_at,
        )


class QuarantinedImageList(ResponseModel):
    """A page of the images that are refused."""

    object: Literal["list"] = "list"
    data: list[QuarantinedImage]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, held: Sequence[quarantine.QuarantinedImage], *, has_more: bool) -> Self:
        """Return a page with ``held``."""
        data = [QuarantinedImage.of(one) for one in held]
        return cls(
            data=data,
            first_id=data[0].image_id if data else None,
            last_id=data[-1].image_id if data else None,
            has_more=has_more,
        )


class ReleasedImage(ResponseModel):
    """An image that may be asked about again."""

    image_id: str
    object: Literal["image.released"] = "image.released"
    released: Literal[True] = True
