"""``/v1/quarantine``: images over which engines died, for operators."""

from __future__ import annotations

from http import HTTPMethod

import structlog
from flask import Response

from api import cursors
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, Router, reply
from api.schemas.quarantine import QuarantinedImageList, QuarantineQuery, ReleasedImage
from api.schemas.requests import ImagePath
from core import errors, ids
from core.database import Database
from jobs.store import quarantine

_log = structlog.get_logger(__name__)


class QuarantineRoutes:
    """What operators may do with images in quarantine."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    def declare(self, router: Router, gate: Gate) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.GET,
            "/v1/quarantine",
            self.listed,
            name="listQuarantine",
            tag="operations",
            guard=gate.admits(Right.EVERYWHERE),
            answers={200: ResponseSpec(QuarantinedImageList, "A page of the images.")},
            faults=(422,),
        )
        router.declare(
            HTTPMethod.POST,
            "/v1/quarantine/<image_id>/release",
            self.release,
            name="releaseImage",
            tag="operations",
            guard=gate.admits(Right.EVERYWHERE),
            answers={200: ResponseSpec(ReleasedImage, "It may be asked about again.")},
            faults=(404,),
        )

    def listed(self, caller: Caller, query: QuarantineQuery) -> Response:
        """List the images in quarantine, newest first.

        Engines died over them, `LONGLOOK_QUARANTINE_CRASHES` times. Jobs with them fail with
        `image_quarantined`, and new ones are refused, until they are released.
        """
        del caller
        page = cursors.page("img", query.after, limit=query.limit, order="desc")
        held, more = quarantine.listed(self._database, limit=page.limit, after=page.after)
        return reply(QuarantinedImageList.of(held, has_more=more))

    def release(self, caller: Caller, path: ImagePath) -> Response:
        """Let an image be asked about again, as if it had never done harm."""
        image_id = ids.parse("img", path.image_id)
        if image_id is None or not quarantine.release(self._database, image_id, actor=caller.actor):
            raise errors.NotFound("There is no such image in quarantine.")
        _log.info("image_released", image_id=path.image_id, actor=caller.actor)
        return reply(ReleasedImage(image_id=path.image_id))
