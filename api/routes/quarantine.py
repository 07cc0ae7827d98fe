"""``/v1/quarantine``: images that crashed engines, for operators."""

import structlog
from flask import Response

from api import errors as problems
from api.auth import Caller, Right
from api.framework import ResponseSpec, reply, route
from api.schemas.paths import QuarantinedImageId
from api.schemas.quarantine import (
    QuarantinedImage,
    QuarantinedImageList,
    QuarantineQuery,
    ReleasedImage,
)
from core import ids
from core.database import Database
from jobs.store import quarantine

_log = structlog.get_logger(__name__)


class QuarantineRoutes:
    """The routes of images in quarantine."""

    TAG = "operations"

    def __init__(self, *, database: Database) -> None:
        self._database = database

    @route.get(
        "/v1/quarantine",
        operation_id="listQuarantine",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(QuarantinedImageList, "A page of the images.")},
        faults=(422,),
    )
    def list_all(self, query: QuarantineQuery) -> Response:
        """List the images in quarantine, newest first.

        Engines crashed with each of these images `LONGLOOK_QUARANTINE_CRASHES` times. Until an image is released, its
        jobs fail with `image_quarantined` and new ones are refused.
        """
        held, more = quarantine.listed(self._database, limit=query.limit, after=query.after)
        data = [QuarantinedImage.of(image) for image in held]
        return reply(QuarantinedImageList.of(data, has_more=more, id_field="image_id"))

    @route.post(
        "/v1/quarantine/<image_id>/release",
        operation_id="releaseImage",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(ReleasedImage, "Jobs may use the image again.")},
        faults=(404,),
    )
    def release(self, caller: Caller, image_id: QuarantinedImageId) -> Response:
        """Release an image from quarantine and forget its crashes."""
        if not quarantine.release(self._database, image_id, actor=caller.actor):
            raise problems.not_found("image in quarantine")
        _log.info("image_released", actor=caller.actor)
        return reply(ReleasedImage(image_id=ids.show("img", image_id)))
