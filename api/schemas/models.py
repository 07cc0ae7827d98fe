"""The served model as callers get it: OpenAI's shape, and what the model takes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from api.schemas.parts import ResponseModel
from core.profiles import DETAIL_TOKENS, Detail
from core.settings import Settings


class ModelLimits(ResponseModel):
    """What a job for this model may have."""

    context_tokens: int = Field(description="Images, question and answer together.")
    default_output_tokens: int
    max_output_tokens: int
    max_question_chars: int
    max_images: int
    max_samples: int = Field(description="Of one job, to vote on its answer.")
    max_image_bytes: int = Field(description="Of one file.")
    max_image_pixels: int = Field(description="Of one file's picture.")
    detail_tokens: dict[Detail, int] = Field(
        description="Visual tokens of an image at most, by tier."
    )


class Model(ResponseModel):
    """A model that is served here."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Not known here: always 0.")
    owned_by: str
    limits: ModelLimits

    @classmethod
    def served(cls, settings: Settings) -> Self:
        """Return the model that ``settings`` say is served."""
        profile = settings.profile
        return cls(
            id=settings.model,
            created=0,
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
    """The models that are served here."""

    object: Literal["list"] = "list"
    data: list[Model]
    first_id: str
    last_id: str
    has_more: Literal[False] = False
