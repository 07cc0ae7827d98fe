"""The pictures of an order: kept ones are found, files become canonical images, several at a time."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from api.serving import current
from api.submission.parsing import ImageLink, SubmittedImage
from core import errors, ids
from core.database import Database
from core.profiles import Detail
from core.settings import Settings
from jobs import images
from jobs.store import history, quarantine
from jobs.store.images import ImageFacts

DEFAULT_DETAIL: Detail = "standard"

_QUARANTINED = "Engines died over this image again and again; an operator can release it."
#: Kept images by the pointers of the pictures that name them.
Known = Mapping[str, ImageFacts]
#: A picture as the store takes it, and its visual tokens.
Chosen = tuple[images.CanonicalImage | uuid.UUID, int]


class SubmissionImages:
    """Finds and makes the images that orders are about."""

    def __init__(
        self, settings: Settings, *, database: Database, decoder: images.ImageReader
    ) -> None:
        self._profile = settings.profile
        self._at_once = settings.sandbox_processes
        self._database = database
        self._decoder = decoder

    def known(
        self,
        account_id: uuid.UUID,
        submitted_images: Sequence[SubmittedImage],
        faults: list[errors.Fault],
    ) -> Known:
        """Return the account's images that ``submitted_images`` name. Removed ones too: a replay needs their hash.

        What is wrong is added to ``faults``.
        """
        named = {
            submitted.pointer: ids.parse("img", submitted.source)
            for submitted in submitted_images
            if isinstance(submitted.source, str)
        }
        wanted = {image_id for image_id in named.values() if image_id is not None}
        found = history.images(self._database, wanted, account_id=account_id) if wanted else {}
        known: dict[str, ImageFacts] = {}
        for submitted in submitted_images:
            if submitted.pointer not in named:
                continue
            image_id = named[submitted.pointer]
            image = None if image_id is None else found.get(image_id)
            if image is None:
                faults.append(_no_such_image(submitted))
                continue
            known[submitted.pointer] = image
            if submitted.detail not in (None, image.detail):
                sentence = f"This image was uploaded with the detail `{image.detail}`."
                faults.append(errors.Fault(submitted.pointer, sentence))
        return known

    def chosen(
        self,
        account_id: uuid.UUID,
        submitted_images: Sequence[SubmittedImage],
        known: Known,
        faults: list[errors.Fault],
    ) -> list[Chosen]:
        """Return ``submitted_images`` ready for the store; what is wrong with the others is added to ``faults``."""
        files = [submitted for submitted in submitted_images if isinstance(submitted.source, bytes)]
        made = self._made(account_id, files)
        sound = [image for image in made.values() if not isinstance(image, errors.Fault)]
        held = quarantine.held(self._database, account_id, {image.key for image in sound})
        chosen: list[Chosen] = []
        for submitted in submitted_images:
            image = known.get(submitted.pointer) or made.get(submitted.pointer)
            if isinstance(image, ImageFacts) and image.removed_at is not None:
                image = _no_such_image(submitted)
            if isinstance(image, ImageFacts):
                refused = image.quarantined_at is not None
            else:
                refused = isinstance(image, images.CanonicalImage) and image.key in held
            if refused:
                image = errors.Fault(submitted.pointer, _QUARANTINED, quarantine.CODE)
            if isinstance(image, errors.Fault):
                faults.append(image)
            elif image is not None:
                tokens = images.image_tokens(image.width, image.height, self._profile)
                source = image.id if isinstance(image, ImageFacts) else image
                chosen.append((source, tokens))
        return chosen

    def check(self, account_id: uuid.UUID, keys: Sequence[str]) -> None:
        """Return when none of the images is in quarantine. Raises :class:`core.errors.ImageQuarantined`."""
        if quarantine.held(self._database, account_id, keys):
            raise errors.ImageQuarantined(_QUARANTINED)

    def new(self, account_id: uuid.UUID, data: bytes, *, detail: Detail) -> images.CanonicalImage:
        """Return a file of an account as the store takes it.

        Raises:
            core.errors.ImageRejected: it cannot be used.
            core.errors.Overloaded: no decoding process was free in time.
        """
        with current.waiting():
            return self._decoder.accept(data, account_id=account_id, detail=detail)

    def _made(
        self, account_id: uuid.UUID, files: Sequence[SubmittedImage]
    ) -> dict[str, images.CanonicalImage | errors.Fault]:
        """Return the images of an account's ``files``, or what is wrong with them, by their pointers."""

        def make(file: SubmittedImage) -> images.CanonicalImage | errors.Fault:
            assert isinstance(file.source, bytes)  # noqa: S101 - only files come here
            try:
                return self.new(account_id, file.source, detail=file.detail or DEFAULT_DETAIL)
            except errors.ImageRejected as error:
                return errors.Fault(file.pointer, error.message, error.specific_code)

        if len(files) <= 1:
            made = [make(file) for file in files]
        else:
            # As many at once as there are processes to decode them.
            with ThreadPoolExecutor(self._at_once) as pool:
                made = list(pool.map(make, files))
        return dict(zip((file.pointer for file in files), made, strict=True))


def originals(submitted_images: Sequence[SubmittedImage], known: Known) -> list[tuple[str, str]]:
    """Return what the pictures are of: sha256 of the original file, or the URL, and detail.

    So a file, a data URL and an image id of one picture are the same. A URL is itself: what it leads to may be
    another picture the next time, or gone, and the same request has to find its job all the same.
    """
    found: list[tuple[str, str]] = []
    for submitted in submitted_images:
        if isinstance(submitted.source, bytes):
            sha256 = hashlib.sha256(submitted.source).hexdigest()
            found.append((sha256, submitted.detail or DEFAULT_DETAIL))
        elif isinstance(submitted.source, ImageLink):
            found.append((submitted.source.url, submitted.detail or DEFAULT_DETAIL))
        else:
            image = known[submitted.pointer]
            found.append((image.original_sha256, image.detail))
    return found


def _no_such_image(submitted: SubmittedImage) -> errors.Fault:
    return errors.Fault(submitted.pointer, "There is no such image.", "not_found")
