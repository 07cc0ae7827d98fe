"""The quarantine of images over which engines crash.

Crashes are counted per account and image; from a limit on the image is refused, until an operator releases it. A crash
counts when an engine closes the connection of a request, or is silent to it while it answers others. All images that
the engine was processing are counted then; the count of an image is cleared when a job with it succeeds later, so only
an image with repeated crashes keeps its count. Counts belong to one account: no account can learn about the images of
another one, or get them refused.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from core import errors
from core.database import Database, Transaction
from jobs.records.attempts import Attempt
from jobs.records.declarative import table
from jobs.records.images import Image, ImageCrashes

CODE: Final = errors.ImageQuarantined.code
#: An engine needs longer to restart: requests that fail within this time failed in the same crash.
_SAME_CRASH: Final = timedelta(seconds=30)


@dataclass(frozen=True)
class QuarantinedImage:
    """An image in quarantine; ``image_id`` is one of the account's images with these pixels."""

    image_id: uuid.UUID
    account_id: uuid.UUID
    sha256: str
    crashes: int
    last_crashed_at: datetime
    quarantined_at: datetime


def record_crash(
    transaction: Transaction, account_id: uuid.UUID, keys: Collection[str], *, limit: int
) -> bool:
    """Count a crash of an engine for images; return whether one of them is in quarantine now.

    Args:
        transaction: the transaction that settles the attempt, after its fence.
        account_id: the account of the images.
        keys: the images' keys.
        limit: the number of crashes from which an image is in quarantine.
    """
    for key in sorted(set(keys)):
        row = transaction.insert(ImageCrashes).values(
            account_id=account_id, image_key=key, crashes=1, last_crashed_at=transaction.now()
        )
        transaction.execute(
            row.on_conflict_do_update(
                index_elements=["account_id", "image_key"],
                set_={
                    "crashes": ImageCrashes.crashes + 1,
                    "last_crashed_at": row.excluded.last_crashed_at,
                },
                where=sa.or_(
                    ImageCrashes.crashes == 0,
                    ImageCrashes.last_crashed_at <= transaction.now(-_SAME_CRASH),
                ),
            )
        )
    transaction.update(
        ImageCrashes,
        *_of(account_id, keys),
        ImageCrashes.crashes >= limit,
        ImageCrashes.quarantined_at.is_(None),
        quarantined_at=transaction.now(),
    )
    quarantined = sa.select(ImageCrashes.crashes).where(
        *_of(account_id, keys), ImageCrashes.quarantined_at.is_not(None)
    )
    return transaction.execute(quarantined.limit(1)).first() is not None


_ATTEMPT = table(Attempt).c
_CRASHES = table(ImageCrashes).c
_CLEARED = (
    sa.update(table(ImageCrashes))
    .where(
        _CRASHES.account_id == sa.bindparam("b_account"),
        _CRASHES.image_key.in_(sa.bindparam("b_keys", expanding=True)),
        _CRASHES.quarantined_at.is_(None),
        _CRASHES.crashes > 0,
        _CRASHES.last_crashed_at
        < sa.select(_ATTEMPT.claimed_at)
        .where(
            _ATTEMPT.job_id == sa.bindparam("b_job"), _ATTEMPT.number == sa.bindparam("b_attempt")
        )
        .scalar_subquery(),
    )
    .values(crashes=0)
)


def clear_crashes(
    transaction: Transaction,
    account_id: uuid.UUID,
    keys: Collection[str],
    *,
    job_id: uuid.UUID,
    attempt: int,
) -> None:
    """Clear the crashes of the images of a successful attempt, if it was claimed after the last crash."""
    transaction.execute(
        _CLEARED,
        {"b_account": account_id, "b_keys": list(keys), "b_job": job_id, "b_attempt": attempt},
    )


_HELD = sa.select(_CRASHES.image_key).where(
    _CRASHES.account_id == sa.bindparam("account_id"),
    _CRASHES.image_key.in_(sa.bindparam("keys", expanding=True)),
    _CRASHES.quarantined_at.is_not(None),
)


def held(database: Database, account_id: uuid.UUID, keys: Collection[str]) -> set[str]:
    """Return those of ``keys`` that are in quarantine."""
    if not keys:
        return set()
    with database.reading() as transaction:
        return held_in(transaction, account_id, keys)


def held_in(transaction: Transaction, account_id: uuid.UUID, keys: Collection[str]) -> set[str]:
    """Return those of ``keys`` that are in quarantine, as ``transaction`` sees it."""
    rows = transaction.execute(_HELD, {"account_id": account_id, "keys": list(keys)})
    return {row.image_key for row in rows}


def listed(
    database: Database, *, limit: int, after: uuid.UUID | None = None
) -> tuple[list[QuarantinedImage], bool]:
    """Return up to ``limit`` images in quarantine beyond the image ``after``, and whether there are more.

    The newest image comes first, by its submission: a release in the meantime shifts no page.
    """
    with database.reading() as transaction:
        listing = _listing() if after is None else _listing().where(Image.id < after)
        ordered = listing.order_by(Image.id.desc()).limit(limit + 1)
        rows = transaction.execute(ordered).mappings().all()
        return [QuarantinedImage(**row) for row in rows[:limit]], len(rows) > limit


def count(database: Database) -> int:
    """Return how many images are in quarantine."""
    with database.reading() as transaction:
        return transaction.scalar(
            sa.select(sa.func.count()).where(ImageCrashes.quarantined_at.is_not(None))
        )


def release(database: Database, image_id: uuid.UUID, *, actor: str) -> bool:
    """Release an image from quarantine and clear its crashes; return False when it is not in quarantine."""
    with database.transaction() as transaction:
        image = transaction.session.get(Image, image_id)
        if image is None:
            return False
        released = transaction.execute(
            sa.update(ImageCrashes)
            .where(
                *_of(image.account_id, [image.image_key]), ImageCrashes.quarantined_at.is_not(None)
            )
            .values(
                crashes=0, quarantined_at=None, released_at=transaction.now(), released_by=actor
            )
            .returning(ImageCrashes.image_key)
        )
        return released.first() is not None


def _of(account_id: uuid.UUID, keys: Collection[str]) -> Sequence[sa.ColumnElement[bool]]:
    return (ImageCrashes.account_id == account_id, ImageCrashes.image_key.in_(keys))


def _listing() -> sa.Select[uuid.UUID, uuid.UUID, str, int, datetime, datetime | None]:
    # Several originals may have the same canonical image: the first of them represents all.
    first = (
        sa.select(Image.id)
        .where(
            Image.account_id == ImageCrashes.account_id, Image.image_key == ImageCrashes.image_key
        )
        .order_by(Image.created_at, Image.id)
        .limit(1)
        .correlate(ImageCrashes)
        .scalar_subquery()
    )
    return (
        sa.select(
            Image.id.label("image_id"),
            ImageCrashes.account_id,
            Image.original_sha256.label("sha256"),
            ImageCrashes.crashes,
            ImageCrashes.last_crashed_at,
            ImageCrashes.quarantined_at,
        )
        .join(Image, Image.id == first)
        .where(ImageCrashes.quarantined_at.is_not(None))
    )
