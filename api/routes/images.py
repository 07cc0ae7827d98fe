"""``/v1/images``: upload, get and delete images."""

import uuid

import flask
from flask import Response

from api import errors as problems
from api.auth import Caller, Right
from api.framework import RequestBodySpec, ResponseSpec, links, reply, route
from api.schemas.images import Image, ImageDeleted
from api.schemas.parameters import UploadQuery
from api.schemas.paths import ImageId
from api.schemas.requests import ImageForm, ImageUpload
from api.submission import SubmissionService, read_upload
from core import ids
from core.database import Database
from core.settings import Settings
from jobs import images, records
from jobs.store import history, retention

_BYTES = {"schema": {"type": "string", "contentMediaType": "image/*"}}
_CONTENT = {"image/png": _BYTES, "image/jpeg": _BYTES}
_UPLOAD = RequestBodySpec(
    {
        "multipart/form-data": ImageForm,
        "application/json": ImageUpload,
        "image/*": _BYTES["schema"],
    },
    description=f"An image file: {images.READABLE}.",
    carries_images=True,
)


class ImageRoutes:
    """The routes of images."""

    TAG = "images"

    def __init__(
        self, settings: Settings, *, database: Database, service: SubmissionService
    ) -> None:
        self._profile = settings.profile
        self._max_file_bytes = settings.max_image_mb * 2**20
        self._database = database
        self._service = service

    @route.post(
        "/v1/images",
        operation_id="uploadImage",
        guard=Right.SUBMIT,
        answers={201: ResponseSpec(Image, "The stored image.", ("Location",))},
        faults=(400, 413, 415, 422),
        body=_UPLOAD,
    )
    def upload(self, caller: Caller, query: UploadQuery) -> Response:
        """Upload an image.

        The image is decoded, rotated upright, converted to RGB and resized to its detail tier immediately, so an
        error reports every problem of the file. The same file with the same detail is the same image.
        """
        data = read_upload(flask.request, max_file_bytes=self._max_file_bytes)
        image_id = self._service.store_image(caller, data, detail=query.detail)
        image = self._find(image_id, caller)
        where = links.to(f"/v1/images/{ids.show('img', image_id)}")
        return reply(Image.of(image, profile=self._profile), 201, headers={"Location": where})

    @route.get(
        "/v1/images/<image_id>",
        operation_id="getImage",
        guard=Right.READ,
        answers={200: ResponseSpec(Image, "The image.")},
        faults=(404,),
    )
    def get(self, caller: Caller, image_id: ImageId) -> Response:
        """Get an image's metadata."""
        return reply(Image.of(self._find(image_id, caller), profile=self._profile))

    @route.get(
        "/v1/images/<image_id>/content",
        operation_id="getImageContent",
        guard=Right.READ,
        answers={
            200: ResponseSpec(None, "The image as the model sees it.", ("ETag",), _CONTENT),
            304: ResponseSpec(None, "The caller already has this image (`If-None-Match`)."),
        },
        faults=(404,),
    )
    def content(self, caller: Caller, image_id: ImageId) -> Response:
        """Get an image's stored bytes, as the model sees them."""
        image = self._find(image_id, caller)
        data = problems.existing(history.image_bytes(self._database, image), "image")
        response = Response(data, content_type=image.media_type)
        response.set_etag(image.image_key)
        extension = image.media_type.removeprefix("image/")
        response.headers.update(
            {
                "Cache-Control": "private, no-cache",
                "Content-Disposition": f'inline; filename="{ids.show("img", image_id)}.{extension}"',
                # If a browser treats it as a document, the document can do nothing.
                "Content-Security-Policy": "sandbox",
            }
        )
        response.make_conditional(flask.request)
        return response

    @route.delete(
        "/v1/images/<image_id>",
        operation_id="deleteImage",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(ImageDeleted, "The image is deleted.")},
        faults=(404, 409),
    )
    def delete(self, caller: Caller, image_id: ImageId) -> Response:
        """Delete an image's bytes.

        Jobs with this image remain, but cannot be rerun. An image of an unfinished job is a conflict (409).
        """
        image = self._find(image_id, caller)
        if not retention.remove_image(self._database, image.id, account_id=image.account_id):
            raise problems.not_found("image")
        return reply(ImageDeleted(id=ids.show("img", image_id)))

    def _find(self, image_id: uuid.UUID, caller: Caller) -> records.images.Image:
        image = history.image(self._database, image_id, account_id=caller.scope)
        return problems.existing(image, "image")
