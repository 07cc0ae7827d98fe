"""The tables of images, of their bytes, and of the jobs that have them."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.records.declarative import KEY_IS_TABLE, Record, partial_index


class Image(Record):
    """An image of an account at one detail. The facts of the original stay; :class:`ImageBytes` has the bytes."""

    __tablename__ = "images"
    __table_args__ = (
        # The hash comes first, so that a search for it in all accounts uses the index too.
        sa.UniqueConstraint("original_sha256", "account_id", "detail", "pipeline"),
        sa.Index(None, "account_id", "image_key"),
        partial_index("ix_images_uploaded", "uploaded_at", where="uploaded_at IS NOT NULL"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    #: sha256 of canonical bytes and pipeline version, hex: the engine's prefix cache finds the image by it.
    image_key: Mapped[str]
    detail: Mapped[str]
    pipeline: Mapped[str]
    media_type: Mapped[str]
    #: Of the canonical image, in pixels.
    width: Mapped[int]
    height: Mapped[int]
    original_sha256: Mapped[str]
    original_bytes: Mapped[int]
    original_media_type: Mapped[str]
    original_width: Mapped[int]
    original_height: Mapped[int]
    #: EXIF orientation of the original, 1 to 8; the canonical image has it applied.
    orientation: Mapped[int]
    frames: Mapped[int]
    created_at: Mapped[datetime]
    #: When the image was last uploaded without a job: then it outlives its last job. None: it was not.
    uploaded_at: Mapped[datetime | None]
    #: When the bytes were deleted.
    removed_at: Mapped[datetime | None]


class ImageBytes(Record):
    """The canonical bytes, once per account and image key."""

    __tablename__ = "image_bytes"

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    image_key: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class ImageCrashes(Record):
    """An image of an account that an engine was processing when it crashed: see :mod:`jobs.store.quarantine`."""

    __tablename__ = "image_crashes"
    __table_args__ = (
        partial_index(
            "ix_image_crashes_quarantined", "quarantined_at", where="quarantined_at IS NOT NULL"
        ),
        KEY_IS_TABLE,
    )

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    image_key: Mapped[str] = mapped_column(primary_key=True)
    #: Engine crashes since a job with the image last succeeded.
    crashes: Mapped[int]
    last_crashed_at: Mapped[datetime]
    quarantined_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    #: An actor, as in :class:`jobs.records.timeline.TimelineEntry`.
    released_by: Mapped[str | None]


class JobImage(Record):
    """An image of a job, by its position in the request."""

    __tablename__ = "job_images"
    # By job too, so that the newest jobs of an image come first: one of them is likely to need it still.
    __table_args__ = (sa.Index(None, "image_id", "job_id"), KEY_IS_TABLE)

    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("images.id"))
    #: Visual tokens, as the served model counts them.
    tokens: Mapped[int]
