"""The images of submissions: facts once per account, original and detail; bytes once per account and image key."""

import functools
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import sqlalchemy as sa

from core import errors, ids
from core.database import Now, Transaction, insert
from jobs.images import CanonicalImage
from jobs.records.declarative import table
from jobs.records.images import Image, ImageBytes


@dataclass(frozen=True)
class ImageFacts:
    """The facts of an image that jobs and callers need."""

    id: uuid.UUID
    image_key: str
    detail: str
    #: Of the canonical image, in pixels.
    width: int
    height: int
    original_sha256: str
    #: When the bytes were deleted.
    removed_at: datetime | None
    #: When the image was quarantined; read only for images that a request names.
    quarantined_at: datetime | None = None


@dataclass(frozen=True)
class ImageView:
    """An image of a job."""

    image: ImageFacts
    tokens: int


_IMAGE = table(Image).c
#: The columns of :class:`ImageFacts` in the table of images.
FACTS = tuple(_IMAGE[fact.name] for fact in fields(ImageFacts) if fact.name in _IMAGE)


@dataclass(frozen=True)
class ImageReceived:
    """An image that a request sent or named: a note for the metrics, counted after the commit.

    Attributes:
        known: whether the account had it already.
        size: bytes of the file that was sent; None when the request named its id.
    """

    known: bool
    size: int | None = None


#: Two images of an account are the same when these are equal: the original's sha256, detail, pipeline.
_Identity = tuple[str, str, str]


def store(
    transaction: Transaction, account_id: uuid.UUID, images: Sequence[CanonicalImage | uuid.UUID]
) -> list[ImageFacts]:
    """Store those of ``images`` that are new, lock the known ones until the commit; return the facts of all.

    All transactions with several images lock facts in one order and then bytes in one order, so that no two of them
    deadlock.

    Raises:
        core.errors.NotFound: an image was removed, or belongs to another account.
    """
    new = {_identity(image): image for image in images if isinstance(image, CanonicalImage)}
    named = {image for image in images if isinstance(image, uuid.UUID)}
    known: dict[uuid.UUID, ImageFacts] = {}
    stored: dict[_Identity, ImageFacts] = {}
    if not new:
        known = _hold(transaction, account_id, named)
    else:
        identities = _identities(transaction, account_id, named)
        wanted = {identity: image for image, identity in identities.items()} | new
        for identity, image in sorted(wanted.items(), key=lambda item: item[0]):
            if isinstance(image, CanonicalImage):
                stored[identity] = _store_facts(transaction, account_id, image, uploaded=False)
            else:
                known |= _hold(transaction, account_id, {image})
        # An image that is named may also be among the new ones.
        known = {image: known.get(image) or stored[identities[image]] for image in named}
        for image in sorted(new.values(), key=lambda image: image.key):
            _store_bytes(transaction, account_id, image)
    return [
        known[image] if isinstance(image, uuid.UUID) else stored[_identity(image)]
        for image in images
    ]


def store_upload(
    transaction: Transaction, account_id: uuid.UUID, image: CanonicalImage
) -> uuid.UUID:
    """Store an image that was uploaded without a job; return its id."""
    facts = _store_facts(transaction, account_id, image, uploaded=True)
    _store_bytes(transaction, account_id, image)
    return facts.id


def _identity(image: CanonicalImage) -> _Identity:
    return (image.original.sha256, image.detail, image.pipeline)


_IDENTITIES = sa.select(_IMAGE.id, _IMAGE.original_sha256, _IMAGE.detail, _IMAGE.pipeline).where(
    _IMAGE.account_id == sa.bindparam("account_id"),
    _IMAGE.id.in_(sa.bindparam("image_ids", expanding=True)),
)


def _identities(
    transaction: Transaction, account_id: uuid.UUID, wanted: Collection[uuid.UUID]
) -> dict[uuid.UUID, _Identity]:
    if not wanted:
        return {}
    rows = transaction.execute(
        _IDENTITIES, {"account_id": account_id, "image_ids": list(wanted)}
    ).all()
    if len(rows) < len(wanted):
        raise _image_gone()
    return {row.id: (row.original_sha256, row.detail, row.pipeline) for row in rows}


#: PostgreSQL locks the rows in the order of their identities, as :func:`store` does one by one.
_HELD = (
    sa.select(*FACTS)
    .where(
        _IMAGE.account_id == sa.bindparam("account_id"),
        _IMAGE.id.in_(sa.bindparam("image_ids", expanding=True)),
        _IMAGE.removed_at.is_(None),
    )
    .order_by(_IMAGE.original_sha256, _IMAGE.detail, _IMAGE.pipeline)
    .with_for_update(read=True)
)


def _hold(
    transaction: Transaction, account_id: uuid.UUID, wanted: Collection[uuid.UUID]
) -> dict[uuid.UUID, ImageFacts]:
    """Lock these images and return their facts: a concurrent removal waits, and then sees this job's reference."""
    rows = transaction.execute(_HELD, {"account_id": account_id, "image_ids": list(wanted)})
    held = {row["id"]: ImageFacts(**row) for row in rows.mappings()}
    if len(held) < len(wanted):
        raise _image_gone()
    transaction.notes += [ImageReceived(known=True)] * len(held)
    return held


def _image_gone() -> errors.NotFound:
    return errors.NotFound("An image of this job no longer exists.", param="images")


def _store_facts(
    transaction: Transaction, account_id: uuid.UUID, image: CanonicalImage, *, uploaded: bool
) -> ImageFacts:
    """Insert the image's facts, or find the same image of this account, and revive it if its bytes were removed."""
    new_id = ids.new()
    row = transaction.execute(
        _facts(transaction.dialect, uploaded=uploaded),
        {
            "id": new_id,
            "account_id": account_id,
            "image_key": image.key,
            "detail": image.detail,
            "pipeline": image.pipeline,
            "media_type": image.media_type,
            "width": image.width,
            "height": image.height,
            "original_sha256": image.original.sha256,
            "original_bytes": image.original.size,
            "original_media_type": image.original.media_type,
            "original_width": image.original.width,
            "original_height": image.original.height,
            "orientation": image.original.orientation,
            "frames": image.original.frames,
        },
    )
    facts = ImageFacts(**row.mappings().one())
    transaction.notes.append(ImageReceived(known=facts.id != new_id, size=image.original.size))
    return facts


@functools.cache
def _facts(dialect: str, *, uploaded: bool) -> sa.Insert:
    """Return the statement that stores an image's facts.

    On a conflict it updates the row instead of doing nothing: that locks the row against a concurrent removal.
    """
    columns = table(Image).c
    row = insert(dialect, table(Image)).values(
        created_at=Now(), uploaded_at=Now() if uploaded else None
    )
    return row.on_conflict_do_update(
        index_elements=["account_id", "original_sha256", "detail", "pipeline"],
        set_={
            "removed_at": None,
            "uploaded_at": sa.func.coalesce(row.excluded.uploaded_at, columns.uploaded_at),
        },
    ).returning(*FACTS)


def _store_bytes(transaction: Transaction, account_id: uuid.UUID, image: CanonicalImage) -> None:
    """Store the canonical bytes, which other images of the account may share."""
    transaction.execute(
        _bytes(transaction.dialect),
        {"account_id": account_id, "image_key": image.key, "data": image.data},
    )


@functools.cache
def _bytes(dialect: str) -> sa.Insert:
    row = insert(dialect, table(ImageBytes))
    if dialect == "sqlite":
        return row.on_conflict_do_nothing()
    # To set the key to itself locks the row: a removal that does not see this image yet must wait.
    return row.on_conflict_do_update(
        index_elements=["account_id", "image_key"], set_={"image_key": row.excluded.image_key}
    )
