"""The images of a submission: looks up stored ones, and decodes files into canonical images, several at a time."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from api.serving import current
from api.submission.parsing import ImageLink, SubmittedImage
from core import errors, ids
from core.database import Database
from core.profiles import Detail
from core.settings import Settings
from core.spool import SpooledFile
from jobs import images
from jobs.store import history, quarantine
from jobs.store.images import ImageFacts

DEFAULT_DETAIL: Detail = "standard"

_QUARANTINED = (
    "This image has crashed engines repeatedly and is in quarantine; an operator can release it."
)
#: Stored images, by the pointers of the submitted images that name them.
Known = Mapping[str, ImageFacts]
#: A new image or the id of a stored one, and its visual tokens.
Prepared = tuple[images.CanonicalImage | uuid.UUID, int]


class SubmissionImages:
    """Looks up and decodes the images of submissions."""

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
        """Return the account's stored images that ``submitted_images`` name, removed ones included.

        A replay needs the hash of removed images. Appends faults to ``faults``.
        """
        named = {
            submitted.pointer: ids.parse("img", submitted.source)
            for submitted in submitted_images
            if isinstance(submitted.source, str)
        }
        wanted = {image_id for image_id in named.values() if image_id is not None}
        stored = history.images(self._database, wanted, account_id=account_id) if wanted else {}
        known: dict[str, ImageFacts] = {}
        for submitted in submitted_images:
            if submitted.pointer not in named:
                continue
            image_id = named[submitted.pointer]
            image = None if image_id is None else stored.get(image_id)
            if image is None:
                faults.append(_no_such_image(submitted))
                continue
            known[submitted.pointer] = image
            if submitted.detail not in (None, image.detail):
                sentence = (
                    f"The detail must be `{image.detail}`, that of the upload, or be omitted."
                )
                faults.append(errors.Fault(submitted.pointer, sentence))
        return known

    def prepare(
        self,
        account_id: uuid.UUID,
        submitted_images: Sequence[SubmittedImage],
        known: Known,
        faults: list[errors.Fault],
    ) -> list[Prepared]:
        """Return ``submitted_images`` ready for the store; append the faults of the others to ``faults``."""
        files = [
            submitted for submitted in submitted_images if isinstance(submitted.source, SpooledFile)
        ]
        decoded_files = self._decode_all(account_id, files)
        decoded = [image for image in decoded_files.values() if not isinstance(image, errors.Fault)]
        held = quarantine.held(self._database, account_id, {image.key for image in decoded})
        prepared: list[Prepared] = []
        for submitted in submitted_images:
            image = known.get(submitted.pointer) or decoded_files.get(submitted.pointer)
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
                prepared.append((source, tokens))
        return prepared

    def check(self, account_id: uuid.UUID, keys: Sequence[str]) -> None:
        """Raise :class:`core.errors.ImageQuarantined` if one of the images is in quarantine."""
        if quarantine.held(self._database, account_id, keys):
            raise errors.ImageQuarantined(_QUARANTINED)

    def decode(
        self, account_id: uuid.UUID, data: SpooledFile, *, detail: Detail
    ) -> images.CanonicalImage:
        """Return the canonical image of a file of an account.

        Raises:
            core.errors.ImageRejected: the file cannot be used.
            core.errors.Overloaded: no decoding process became free in time.
        """
        with current.waiting():
            return self._decoder.accept(data, account_id=account_id, detail=detail)

    def _decode_all(
        self, account_id: uuid.UUID, files: Sequence[SubmittedImage]
    ) -> dict[str, images.CanonicalImage | errors.Fault]:
        """Return the images of ``files``, or their faults, by pointer."""

        def make(file: SubmittedImage) -> images.CanonicalImage | errors.Fault:
            assert isinstance(file.source, SpooledFile)  # noqa: S101 - callers pass files only
            try:
                return self.decode(account_id, file.source, detail=file.detail or DEFAULT_DETAIL)
            except errors.ImageRejected as error:
                return errors.Fault(file.pointer, error.message, error.specific_code)

        if len(files) <= 1:
            decoded_files = [make(file) for file in files]
        else:
            # One thread for each decoding process.
            with ThreadPoolExecutor(self._at_once) as pool:
                decoded_files = list(pool.map(make, files))
        return dict(zip((file.pointer for file in files), decoded_files, strict=True))


def originals(submitted_images: Sequence[SubmittedImage], known: Known) -> list[tuple[str, str]]:
    """Return the identities of images for the fingerprint: the SHA-256 of the original file or the URL, and the detail.

    A file, a data URL and an image id of one image are equal. A URL counts as text: its content may change or
    disappear, and the repeated request must still match its job.
    """
    identities: list[tuple[str, str]] = []
    for submitted in submitted_images:
        if isinstance(submitted.source, SpooledFile):
            identities.append((submitted.source.sha256(), submitted.detail or DEFAULT_DETAIL))
        elif isinstance(submitted.source, ImageLink):
            identities.append((submitted.source.url, submitted.detail or DEFAULT_DETAIL))
        else:
            image = known[submitted.pointer]
            identities.append((image.original_sha256, image.detail))
    return identities


def _no_such_image(submitted: SubmittedImage) -> errors.Fault:
    return errors.Fault(submitted.pointer, "There is no such image.", "not_found")
