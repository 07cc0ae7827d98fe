"""Reads uploaded images: checks size and format, and decodes them in the sandbox."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from core import errors, profiles, sandbox
from core.recent import Recent
from core.shares import Shares
from core.spool import SpooledFile
from jobs.images import foreign
from jobs.images.canonical import CanonicalImage
from jobs.images.contents import HEAD_BYTES
from jobs.images.formats import sniff

if TYPE_CHECKING:
    from core.settings import Settings

#: The function that the sandbox of :class:`ImageReader` runs.
TARGET = "jobs.images.pipeline:serve"

#: Maximum number of files that wait for a decoding process.
_MAX_WAITING = 64
#: After a decoding that the machine was too busy for, in seconds.
_BUSY_SECONDS = 30
#: Number of files whose timeout is remembered, and for how many seconds.
_TIMED_OUT, _TIMED_OUT_SECONDS = 4096, 600.0


@dataclass(frozen=True)
class ImageLimits:
    """Limits that are checked before an image is decoded: bytes of the file, pixels of the image."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


class ImageReader:
    """Makes canonical images of uploads.

    Accounts share the decoding processes. A file whose decoding uses too much CPU time is rejected; the same file from
    the same account is then rejected for ten minutes without another attempt. A decoding that takes too long by the
    clock alone is no fault of the file: the machine is busy, and the request may be repeated.

    Args:
        decoder: the sandbox that runs :data:`TARGET`.
        limits: limits that are checked before decoding.
        shares: the shares of accounts in the decoding processes.
        wait_seconds: maximum wait of a file for a decoding process.
        timer: monotonic seconds.
    """

    def __init__(
        self,
        decoder: sandbox.Sandbox,
        *,
        limits: ImageLimits,
        shares: Shares,
        wait_seconds: float = 15.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decoder = decoder
        self._wait_seconds = wait_seconds
        self._timed_out = Recent(_TIMED_OUT, seconds=_TIMED_OUT_SECONDS, timer=timer)
        self.limits = limits
        self.shares = shares

    @classmethod
    def start(cls, settings: Settings, *, target: str = TARGET) -> Self:
        """Return the reader of one process, with its own sandbox. Must be called after any fork."""
        # The additional process is reserved for accounts without a file in progress.
        processes = settings.sandbox_processes + 1
        decoder = sandbox.Sandbox(
            target,
            processes=processes,
            seconds=settings.sandbox_ceiling,
            cpu_seconds=settings.sandbox_seconds,
            memory_mb=settings.sandbox_memory_mb,
        )
        limits = ImageLimits(
            max_bytes=settings.max_image_mb * 2**20,
            max_pixels=settings.max_image_megapixels * 1_000_000,
        )
        shares = Shares(processes, name="image decoders", most_waiting=_MAX_WAITING, reserved=1)
        return cls(decoder, limits=limits, shares=shares, wait_seconds=settings.sandbox_seconds)

    def warm(self) -> None:
        """Start the decoding processes now.

        Raises:
            core.errors.Unavailable: they cannot be started.
        """
        self._decoder.warm()

    @property
    def confined(self) -> tuple[str, ...]:
        """The active layers of the decoding processes' confinement; empty before one has started."""
        return self._decoder.confined or ()

    def close(self) -> None:
        """Stop the decoding processes."""
        self._decoder.close()

    def accept(
        self,
        data: bytes | SpooledFile,
        *,
        account_id: uuid.UUID,
        detail: profiles.Detail = "standard",
    ) -> CanonicalImage:
        """Return the canonical image of an uploaded file, at the size of the detail tier.

        Args:
            data: the file.
            account_id: the account that uploaded the file.
            detail: the tier that determines the size.

        Raises:
            core.errors.ImageRejected: the file cannot be used, with one of these codes:

                * ``empty_image_file``: the file is empty.
                * ``image_file_too_large``: the file exceeds ``limits.max_bytes``.
                * ``invalid_image_format``: the file is not an image.
                * ``unsupported_image_media_type``: an intact image of a kind that Longlook does not read.
                * ``image_too_large``, ``image_too_small``: too many pixels, or a side below two.
                * ``invalid_image``: the long side is more than 50 times the short one.
                * ``invalid_image_mode``: the pixel format cannot be converted to colors.
                * ``image_parse_error``: pixels are damaged or missing, or too expensive to decode.
            core.errors.Overloaded: no decoding process was available in time, or it did not get the CPU to decode the
                file in time; the request may be retried.
            core.errors.Unavailable: no decoding process can be started, or the service is closing.
        """
        upload = SpooledFile.of(data) if isinstance(data, bytes) else data
        if not upload.size:
            raise errors.ImageRejected("The image file is empty.", code="empty_image_file")
        check_size(upload.size, self.limits.max_bytes)
        head = upload.head(HEAD_BYTES)
        if sniff(head) is None:
            raise foreign.rejection(head)
        file = (account_id, upload.sha256())
        self._reject_timed_out(file)
        with self.shares.hold(account_id, seconds=self._wait_seconds):
            # The same file may have timed out during the wait.
            self._reject_timed_out(file)
            try:
                facts, canonical = self._decoder.call(
                    upload, detail=detail, max_pixels=self.limits.max_pixels
                )
            except sandbox.SandboxCpuExceeded:
                self._timed_out.add(file)
                raise _took_too_long() from None
            except sandbox.SandboxTimeout:
                raise errors.Overloaded(
                    "The image was not decoded in time because the machine is busy.",
                    retry_after=_BUSY_SECONDS,
                ) from None
            except sandbox.SandboxCrashed:
                raise errors.ImageRejected(
                    "The image cannot be decoded: it is damaged or needs too much memory.",
                    code="image_parse_error",
                ) from None
        return CanonicalImage.from_facts(facts, canonical)

    def _reject_timed_out(self, file: tuple[uuid.UUID, str]) -> None:
        if file in self._timed_out:
            raise _took_too_long()


def check_size(size: int, limit: int) -> None:
    """Raise :class:`core.errors.ImageRejected` (``image_file_too_large``) if ``size`` exceeds ``limit``, in bytes."""
    if size > limit:
        raise errors.ImageRejected(
            f"The image file has {size:,} bytes; at most {limit:,} are allowed.",
            code="image_file_too_large",
        )


def _took_too_long() -> errors.ImageRejected:
    return errors.ImageRejected(
        "The image takes too long to decode: it needs more CPU time than any image may use.",
        code="image_parse_error",
    )
