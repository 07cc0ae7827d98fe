"""Images in quarantine, for operators."""

import uuid
from typing import Annotated, Literal, Self

from pydantic import Field

from api.schemas import cursors
from api.schemas.fields import Time
from api.schemas.parameters import ParameterModel
from api.schemas.parts import Page, ResponseModel
from core import ids
from jobs.store import quarantine


class QuarantineQuery(ParameterModel):
    """A page of images."""

    after: Annotated[uuid.UUID, cursors.of("img")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Maximum number of images on a page.")


class QuarantinedImage(ResponseModel):
    """An image that is refused for its account."""

    image_id: str
    account_id: str
    sha256: str = Field(description="Of the file as sent.")
    crashes: int = Field(description="Engine crashes with this image.")
    last_crashed_at: Time
    quarantined_at: Time

    @classmethod
    def of(cls, image: quarantine.QuarantinedImage) -> Self:
        """Return the response for an image in quarantine."""
        return cls.from_record(
            image,
            image_id=ids.show("img", image.image_id),
            account_id=ids.show("acct", image.account_id),
        )


class QuarantinedImageList(Page[QuarantinedImage, str]):
    """A page of images in quarantine."""


class ReleasedImage(ResponseModel):
    """An image that jobs may use again."""

    image_id: str
    object: Literal["image.released"] = "image.released"
    released: Literal[True] = True
