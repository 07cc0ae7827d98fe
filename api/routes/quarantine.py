"""``/v1/quarantine``: images over which engines died, for operators."""

from __future__ import annotations

import structlog
from flask import Response

from api import cursors
from api import errors as problems
from api.auth import Caller, Right
from api.framework import ResponseSpec, reply, route
from api.schemas.paths import QuarantinedImageId
from api.schemas.quarantine import QuarantinedImageList, QuarantineQuery, ReleasedImage
from core import ids
from core.database import Database
from jobs.store import quarantine

_log = structlog.get_logger(__name__)


class QuarantineRoutes:
    """What operators may do with images in quarantine."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    @route.get(
        "/v1/quarantine",
        operation_id="listQuarantine",
        tag="operations",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(QuarantinedImageList, "A page of the images.")},
        faults=(422,),
    )
    def list_all(self, query: QuarantineQuery) -> Response:
        """List the images in quarantine, newest first.

        Engines died over them, `LONGLOOK_QUARANTINE_CRASHES` times. Jobs with them fail with
        `image_quarantined`, and new ones are refused, until they are released.
        """
        page = cursors.page("img", query.after, limit=query.limit, order="desc")
        held, more = quarantine.listed(self._database, limit=page.limit, after=page.after)
        return reply(QuarantinedImageList.of(held, has_more=more))

    @route.post(
        "/v1/quarantine/<image_id>/release",
        operation_id="releaseImage",
        tag="operations",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(ReleasedImage, "It may be asked about again.")},
        faults=(404,),
    )
    def release(self, caller: Caller, image_id: QuarantinedImageId) -> Response:
        """Let an image be asked about again, as if it had never done harm."""
        if not quarantine.release(self._database, image_id, actor=caller.actor):
            raise problems.not_found("image in quarantine")
        _log.info("image_released", actor=caller.actor)
        return reply(ReleasedImage(image_id=ids.show("img", image_id)))
