"""Downloads the images that submissions name by URL, while the request waits; the engine never downloads them.

Files stay in memory until they are decoded, so accounts share a limit of bytes, as they do for request bodies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import structlog

from api.serving import current
from api.serving.shares import Share
from api.submission.parsing import ImageLink, SubmittedImage
from core import errors
from core.settings import Settings
from core.shares import Shares
from core.spool import SpooledFile
from net.client import NO_PUBLIC_ADDRESS, PROXY_FAILED, GuardedClient, GuardedClientError

_log = structlog.get_logger(__name__)

#: Maximum number of requests that download at once.
_AT_ONCE = 8
#: About the time to download or decode slow images.
_RETRY_SECONDS = 5
_HEADERS = {
    "accept": "image/*",
    "accept-encoding": "identity",
    "user-agent": "Longlook-Images/1.0",
}
_FAULTS = {
    "url_invalid": (
        "invalid_image_url",
        "This is not a valid URL, or it redirects to one that is not.",
    ),
    NO_PUBLIC_ADDRESS: ("invalid_image_url", "This URL must lead to a public address."),
    "unreachable": ("failed_to_download_image", "The server of this URL cannot be reached."),
    "tls_failed": ("failed_to_download_image", "The certificate of the server is not valid."),
    "timed_out": ("failed_to_download_image", "The image did not arrive in time."),
    "answer_broken": ("failed_to_download_image", "The response of the server ended early."),
    "redirected_too_often": ("failed_to_download_image", "This URL redirects too often."),
    "proxy_refused": (
        "failed_to_download_image",
        "The operator's proxy does not permit the server of this URL.",
    ),
}
_TOO_LARGE = "image_file_too_large"
_FAILED = "failed_to_download_image"
#: The outcomes of a download: ok, or the code of its fault.
OUTCOMES = ("ok", _TOO_LARGE, *sorted({code for code, _ in _FAULTS.values()} | {_FAILED}))


class DownloadMemory:
    """The downloaded bytes of one request, which count towards the limit of all requests.

    Args:
        account_id: the account of the request.
        total: the shared limit; ``lock`` protects it.
        lock: for many threads.
        limit: the size of ``total`` in bytes, for the message.
    """

    def __init__(
        self, account_id: uuid.UUID, total: Share, lock: threading.Lock, *, limit: int
    ) -> None:
        self._account_id = account_id
        self._total = total
        self._lock = lock
        self._limit = limit
        self._held = 0

    def take(self, size: int) -> None:
        """Count ``size`` more bytes. Raises :class:`core.errors.Overloaded` if the account's share is exceeded."""
        with self._lock:
            if not self._total.take(self._account_id, size):
                raise errors.Overloaded(
                    f"Downloads of images share {self._limit // 2**20:,} MiB of memory, of which each account has a "
                    "share. This request exceeds the share of its account.",
                    retry_after=_RETRY_SECONDS,
                )
            self._held += size

    def close(self) -> None:
        """Release all bytes."""
        with self._lock:
            self._total.give_back(self._account_id, self._held)
            self._held = 0


class Downloads:
    """Downloads images, for a few requests at a time.

    Args:
        settings: limits of time and size.
        client: the guarded HTTP client.
        count: called after each download with ``ok`` or the code of its fault, and its seconds.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: GuardedClient,
        count: Callable[[str, float], None] = lambda _outcome, _seconds: None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = settings.image_url_seconds
        self._max_file_bytes = settings.max_image_mb * 2**20
        self._client = client
        self._count = count
        self._timer = timer
        self.shares = Shares(_AT_ONCE, name="image downloads")
        self._max_memory_bytes = settings.bodies_mb * 2**20
        self._bytes = Share(self._max_memory_bytes)
        self._bytes_lock = threading.Lock()

    @contextlib.contextmanager
    def memory(self, account_id: uuid.UUID) -> Iterator[DownloadMemory]:
        """Yield the counter of a request's bytes; the end of the block releases them."""
        memory = DownloadMemory(
            account_id, self._bytes, self._bytes_lock, limit=self._max_memory_bytes
        )
        try:
            yield memory
        finally:
            memory.close()

    def download(
        self,
        account_id: uuid.UUID,
        images: Sequence[SubmittedImage],
        faults: list[errors.Fault],
        *,
        memory: DownloadMemory,
    ) -> tuple[SubmittedImage, ...]:
        """Return ``images`` with files instead of URLs; append a fault for each failed download to ``faults``.

        Args:
            account_id: the account of the request.
            images: those with a URL are downloaded.
            faults: the faults so far.
            memory: counts the downloaded bytes.

        Raises:
            core.errors.Overloaded: the files exceed the account's share of the memory.
            core.errors.Unavailable: too many requests download at once, of the account or of all accounts.
        """
        links = [image for image in images if isinstance(image.source, ImageLink)]
        if not links:
            return tuple(images)
        if not self.shares.take(account_id):
            raise errors.Unavailable(
                "Too many requests download images at once.", retry_after=_RETRY_SECONDS
            )
        try:
            until = self._timer() + self._seconds
            with (
                current.waiting(),
                ThreadPoolExecutor(len(links), thread_name_prefix="download") as pool,
            ):
                files = pool.map(
                    lambda image: self._file(
                        image, account_id=account_id, until=until, memory=memory
                    ),
                    links,
                )
                downloads = dict(zip((image.pointer for image in links), files, strict=True))
        finally:
            self.shares.give_back(account_id)
        downloaded: list[SubmittedImage] = []
        for image in images:
            file = downloads.get(image.pointer, image)
            if isinstance(file, errors.Fault):
                faults.append(file)
            else:
                downloaded.append(file)
        return tuple(downloaded)

    def _file(
        self,
        image: SubmittedImage,
        *,
        account_id: uuid.UUID,
        until: float,
        memory: DownloadMemory,
    ) -> SubmittedImage | errors.Fault:
        began = self._timer()
        file = self._fetch(image, account_id=account_id, until=until, memory=memory)
        outcome = file.code if isinstance(file, errors.Fault) else "ok"
        self._count(outcome, self._timer() - began)
        return file

    def _fetch(
        self,
        image: SubmittedImage,
        *,
        account_id: uuid.UUID,
        until: float,
        memory: DownloadMemory,
    ) -> SubmittedImage | errors.Fault:
        assert isinstance(image.source, ImageLink)  # noqa: S101 - callers pass links only
        try:
            reply = self._client.fetch(
                image.source.url,
                headers=_HEADERS,
                seconds=until - self._timer(),
                cap=self._max_file_bytes + 1,
                party=account_id,
                count=memory.take,
            )
        except GuardedClientError as error:
            if error.reason == PROXY_FAILED:
                _log.error("image_not_downloaded", reason=error.detail)
                raise errors.Unavailable(
                    "The operator's proxy for image URLs does not work.",
                    retry_after=_RETRY_SECONDS,
                ) from error
            code, sentence = _FAULTS[error.disclosed]
            return errors.Fault(image.pointer, error.detail or sentence, code)
        if reply.status != HTTPStatus.OK:
            sentence = f"The server of this URL must answer with status 200; it answered with {reply.status}."
            return errors.Fault(image.pointer, sentence, _FAILED)
        if len(reply.body) > self._max_file_bytes:
            sentence = f"The image must have at most {self._max_file_bytes // 2**20} MiB; this one has more."
            return errors.Fault(image.pointer, sentence, _TOO_LARGE)
        return dataclasses.replace(image, source=SpooledFile.of(reply.body))
