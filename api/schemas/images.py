"""Images as callers get them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from core import ids
from core.profiles import ModelProfile
from jobs import images, records


class Original(ResponseModel):
    """The file as it came in; its bytes are not kept."""

    sha256: str
    bytes: int
    media_type: str
    width: int = Field(description="In pixels, upright.")
    height: int
    orientation: int = Field(description="EXIF orientation, 1 to 8; it was applied.")
    frames: int = Field(description="The first one is used.")


class ImageUrls(ResponseModel):
    """Where to go on."""

    self: str
    content: str


class Image(ResponseModel):
    """A picture as it is kept and as the model sees it."""

    id: str
    object: Literal["image"] = "image"
    account: str
    sha256: str = Field(description="Of the file as it was sent.")
    detail: str
    media_type: str
    width: int = Field(description="In pixels.")
    height: int
    tokens: int = Field(description="Visual tokens the served model makes of it.")
    original: Original
    created_at: Time
    urls: ImageUrls

    @classmethod
    def of(cls, image: records.Image, *, profile: ModelProfile) -> Self:
        """Return what callers see of ``image`` where ``profile`` is served."""
        shown = ids.show("img", image.id)
        return cls(
            id=shown,
            account=ids.show("acct", image.account_id),
            sha256=image.original_sha256,
            detail=image.detail,
            media_type=image.media_type,
            width=image.width,
            height=image.height,
            tokens=images.image_tokens(image.width, image.height, profile),
            original=Original(
                sha256=image.original_sha256,
                bytes=image.original_bytes,
                media_type=image.original_media_type,
                width=image.original_width,
                height=image.original_height,
                orientation=image.orientation,
                frames=image.frames,
            ),
            created_at=image.created_at,
            urls=ImageUrls(self=f"/v1/images/{shown}", content=f"/v1/images/{shown}/content"),
        )


class ImageDeleted(ResponseModel):
    """An image whose bytes are gone."""

    id: str
    object: Literal["image"] = "image"
    deleted: Literal[True] = True
