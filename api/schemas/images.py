"""Images in responses."""

from typing import Literal, Self

from pydantic import Field

from api.framework import links
from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from core import ids
from core.profiles import ModelProfile
from jobs import images, records


class Original(ResponseModel):
    """The file as sent; Longlook does not store its bytes."""

    sha256: str
    bytes: int
    media_type: str
    width: int = Field(description="In pixels, after `orientation` is applied.")
    height: int
    orientation: int = Field(
        description="EXIF orientation, 1 to 8; it is applied to the stored image."
    )
    frames: int = Field(description="Frames of an animation or pages; the first one is used.")


class ImageUrls(ResponseModel):
    """Paths of related resources."""

    self: str
    content: str


class Image(ResponseModel):
    """An image as it is stored and as the model sees it."""

    id: str
    object: Literal["image"] = "image"
    account: str
    sha256: str = Field(description="Of the file as sent.")
    detail: str
    media_type: str
    width: int = Field(description="In pixels.")
    height: int
    tokens: int = Field(description="Visual tokens of the served model.")
    original: Original
    created_at: Time
    urls: ImageUrls

    @classmethod
    def of(cls, image: records.images.Image, *, profile: ModelProfile) -> Self:
        """Return the response for ``image``, for the model of ``profile``."""
        image_id = ids.show("img", image.id)
        return cls.from_record(
            image,
            id=image_id,
            account=ids.show("acct", image.account_id),
            sha256=image.original_sha256,
            tokens=images.image_tokens(image.width, image.height, profile),
            original=Original.from_record(
                image,
                sha256=image.original_sha256,
                bytes=image.original_bytes,
                media_type=image.original_media_type,
                width=image.original_width,
                height=image.original_height,
            ),
            urls=ImageUrls(
                self=links.to(f"/v1/images/{image_id}"),
                content=links.to(f"/v1/images/{image_id}/content"),
            ),
        )


class ImageDeleted(ResponseModel):
    """A deleted image."""

    id: str
    object: Literal["image"] = "image"
    deleted: Literal[True] = True
