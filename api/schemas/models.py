"""The served model in responses: OpenAI's members, and its limits."""

from datetime import UTC, datetime, time
from typing import Literal, Self

from pydantic import Field

from api.schemas.parts import ResponseModel
from core.profiles import DETAIL_TOKENS, Detail
from core.settings import Settings


class ModelLimits(ResponseModel):
    """The limits of a job with this model."""

    context_tokens: int = Field(description="Tokens of images, question and answer together.")
    default_output_tokens: int
    max_output_tokens: int
    max_question_chars: int
    max_images: int
    max_samples: int = Field(description="Samples of one job, which vote on its answer.")
    max_image_bytes: int = Field(description="Bytes of one image file.")
    max_image_pixels: int = Field(description="Pixels of one image file.")
    detail_tokens: dict[Detail, int] = Field(
        description="Maximum visual tokens of an image, by detail tier."
    )


class Model(ResponseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the model was published, in Unix seconds.")
    owned_by: str
    limits: ModelLimits

    @classmethod
    def served(cls, settings: Settings) -> Self:
        """Return the model that ``settings`` names."""
        profile = settings.profile
        return cls(
            id=settings.model,
            created=int(datetime.combine(profile.published, time(), UTC).timestamp()),
            owned_by="longlook",
            limits=ModelLimits(
                context_tokens=profile.context_tokens,
                default_output_tokens=profile.default_output_tokens,
                max_output_tokens=profile.max_output_tokens,
                max_question_chars=profile.max_question_chars,
                max_images=settings.max_images,
                max_samples=settings.max_samples,
                max_image_bytes=settings.max_image_mb * 2**20,
                max_image_pixels=settings.max_image_megapixels * 1_000_000,
                detail_tokens=DETAIL_TOKENS,
            ),
        )


class ModelList(ResponseModel):
    """The served models."""

    object: Literal["list"] = "list"
    data: list[Model]
    first_id: str
    last_id: str
    has_more: Literal[False] = False
