"""``/v1/images``: uploaded once, asked about often."""

from __future__ import annotations

import uuid
from http import HTTPMethod

import flask
from flask import Response

from api.auth import Caller, Gate, Right
from api.framework import RequestBodySpec, ResponseSpec, Router, reply
from api.schemas.images import Image, ImageDeleted
from api.schemas.requests import ImageForm, ImagePath, ImageUpload, UploadQuery
from api.submission import SubmissionService, read_upload
from core import errors, ids
from core.database import Database
from core.settings import Settings
from jobs import records
from jobs.store import history, retention

_BYTES = {"schema": {"type": "string", "contentMediaType": "image/*"}}
_CONTENT = {"image/png": _BYTES, "image/jpeg": _BYTES}
_UPLOAD = RequestBodySpec(
    {
        "multipart/form-data": ImageForm,
        "application/json": ImageUpload,
        "image/*": _BYTES["schema"],
    },
    description="An image file: JPEG, PNG, WebP, GIF, BMP or TIFF.",
    carries_images=True,
)


class ImageRoutes:
    """What callers may do with images."""

    def __init__(
        self, settings: Settings, *, database: Database, service: SubmissionService
    ) -> None:
        self._profile = settings.profile
        self._max_file_bytes = settings.max_image_mb * 2**20
        self._database = database
        self._service = service

    def declare(self, router: Router, gate: Gate) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.POST,
            "/v1/images",
            self.upload,
            name="uploadImage",
            tag="images",
            guard=gate.admits(Right.SUBMIT),
            answers={201: ResponseSpec(Image, "The image, as it is kept.", ("Location",))},
            faults=(400, 413, 415, 422),
            body=_UPLOAD,
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/images/<image_id>",
            self.show,
            name="getImage",
            tag="images",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(Image, "The image.")},
            faults=(404,),
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/images/<image_id>/content",
            self.content,
            name="getImageContent",
            tag="images",
            guard=gate.admits(Right.READ),
            answers={
                200: ResponseSpec(None, "The picture as the model sees it.", ("ETag",), _CONTENT),
                304: ResponseSpec(None, "It is the one that the caller has (`If-None-Match`)."),
            },
            faults=(404,),
        )
        router.declare(
            HTTPMethod.DELETE,
            "/v1/images/<image_id>",
            self.remove,
            name="deleteImage",
            tag="images",
            guard=gate.admits(Right.STEER),
            answers={200: ResponseSpec(ImageDeleted, "The image is gone.")},
            faults=(404, 409),
        )

    def upload(self, caller: Caller, query: UploadQuery) -> Response:
        """Upload an image.

        It is decoded, turned upright, made RGB and resized to its detail tier at once; what is wrong with
        it is told now. The same file with the same detail is the same image.
        """
        data = read_upload(flask.request, max_file_bytes=self._max_file_bytes)
        image_id = self._service.keep_image(caller, data, detail=query.detail)
        image = self._find(image_id, caller)
        where = f"/v1/images/{ids.show('img', image_id)}"
        return reply(Image.of(image, profile=self._profile), 201, headers={"Location": where})

    def show(self, caller: Caller, path: ImagePath) -> Response:
        """Get an image's facts."""
        return reply(Image.of(self._requested(path, caller), profile=self._profile))

    def content(self, caller: Caller, path: ImagePath) -> Response:
        """Get an image's bytes, as they are kept and as the model sees them."""
        image = self._requested(path, caller)
        data = history.image_bytes(self._database, image)
        if data is None:
            raise _not_found()
        response = Response(data, content_type=image.media_type)
        response.set_etag(image.image_key)
        extension = image.media_type.removeprefix("image/")
        response.headers.update(
            {
                "Cache-Control": "private, no-cache",
                "Content-Disposition": f'inline; filename="{path.image_id}.{extension}"',
                # Should a browser ever take it for a document, it is one that may do nothing.
                "Content-Security-Policy": "sandbox",
            }
        )
        response.make_conditional(flask.request)
        return response

    def remove(self, caller: Caller, path: ImagePath) -> Response:
        """Delete an image's bytes.

        Jobs that were asked about it stay, but cannot be run again. While an unfinished one uses it: 409.
        """
        image = self._requested(path, caller)
        if not retention.remove_image(self._database, image.id, account_id=image.account_id):
            raise _not_found()
        return reply(ImageDeleted(id=path.image_id))

    def _requested(self, path: ImagePath, caller: Caller) -> records.Image:
        image_id = ids.parse("img", path.image_id)
        if image_id is None:
            raise _not_found()
        return self._find(image_id, caller)

    def _find(self, image_id: uuid.UUID, caller: Caller) -> records.Image:
        image = history.image(self._database, image_id, account_id=caller.scope)
        if image is None:
            raise _not_found()
        return image


def _not_found() -> errors.NotFound:
    return errors.NotFound("There is no such image.")
