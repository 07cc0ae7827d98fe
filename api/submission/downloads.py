"""Pictures that orders name by URL: fetched while the request waits, and never by the engine.

What has come stays in memory until it is decoded, so accounts share an amount of bytes, as they do for request bodies.
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

from api.serving import current
from api.serving.shares import Share
from api.submission.parsing import ImageLink, SubmittedImage
from core import errors
from core.settings import Settings
from core.shares import Shares
from net.client import NO_PUBLIC_ADDRESS, GuardedClient, GuardedClientError

#: Requests that may fetch at once.
_AT_ONCE = 8
_RETRY_SECONDS = 1
#: About as long as slow images take to come or to be decoded.
_MEMORY_RETRY_SECONDS = 5
_HEADERS = {
    "accept": "image/*",
    "accept-encoding": "identity",
    "user-agent": "Longlook-Images/1.0",
}
_FAULTS = {
    "url_invalid": ("invalid_image_url", "This URL, or what it leads to, is none."),
    NO_PUBLIC_ADDRESS: ("invalid_image_url", "This URL does not lead to a public address."),
    "unreachable": ("failed_to_download_image", "There is no connection to this address."),
    "tls_failed": ("failed_to_download_image", "The certificate of this address is not valid."),
    "timed_out": ("failed_to_download_image", "The image did not come in time."),
    "answer_broken": ("failed_to_download_image", "The answer broke off."),
    "redirected_too_often": ("failed_to_download_image", "This URL redirects too often."),
}
_TOO_LARGE = "image_file_too_large"
_NOT_GIVEN = "failed_to_download_image"
#: How a fetch may end: that, or the code of its fault.
OUTCOMES = ("ok", _TOO_LARGE, *sorted({code for code, _ in _FAULTS.values()} | {_NOT_GIVEN}))


class DownloadMemory:
    """The bytes that one request has fetched, of those that all requests may have in memory.

    Args:
        account_id: whose request it is.
        total: what all requests share; its lock is ``lock``.
        lock: for many threads.
        most: the bytes of ``total``, for the message.
    """

    def __init__(
        self, account_id: uuid.UUID, total: Share, lock: threading.Lock, *, most: int
    ) -> None:
        self._account_id = account_id
        self._total = total
        self._lock = lock
        self._most = most
        self._held = 0

    def take(self, size: int) -> None:
        """Count ``size`` bytes more. Raises :class:`core.errors.Overloaded` when the account has no share left."""
        with self._lock:
            if not self._total.take(self._account_id, size):
                raise errors.Overloaded(
                    f"Images that are fetched by URL may have {self._most // 2**20:,} MiB in memory, and an account "
                    "a share of that. This request has no room left.",
                    retry_after=_MEMORY_RETRY_SECONDS,
                )
            self._held += size

    def close(self) -> None:
        """Give all of them back."""
        with self._lock:
            self._total.give_back(self._account_id, self._held)
            self._held = 0


class Downloads:
    """Fetches pictures, for a few requests at a time.

    Args:
        settings: limits of time and size.
        egress: the guarded transport.
        count: told of each fetch: ``ok`` or the code of its fault, and its seconds.
        timer: seconds that never go back.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        egress: GuardedClient,
        count: Callable[[str, float], None] = lambda _outcome, _seconds: None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = settings.image_url_seconds
        self._most_bytes = settings.max_image_mb * 2**20
        self._egress = egress
        self._count = count
        self._timer = timer
        self.shares = Shares(_AT_ONCE, name="image downloads")
        self._most_in_memory = settings.bodies_mb * 2**20
        self._bytes = Share(self._most_in_memory)
        self._bytes_lock = threading.Lock()

    @contextlib.contextmanager
    def memory(self, account_id: uuid.UUID) -> Iterator[DownloadMemory]:
        """Yield what counts the bytes of a request. They are given back at the end of the block."""
        memory = DownloadMemory(
            account_id, self._bytes, self._bytes_lock, most=self._most_in_memory
        )
        try:
            yield memory
        finally:
            memory.close()

    def fetched(
        self,
        account_id: uuid.UUID,
        images: Sequence[SubmittedImage],
        faults: list[errors.Fault],
        *,
        memory: DownloadMemory,
    ) -> tuple[SubmittedImage, ...]:
        """Return ``images`` with files in the place of URLs; those that did not come are added to ``faults``.

        Args:
            account_id: for whom.
            images: those with a URL are fetched.
            faults: what is wrong so far.
            memory: counts what comes.

        Raises:
            core.errors.Overloaded: what came does not fit into the account's share of the memory.
            core.errors.Unavailable: as many requests fetch as may, of the account or of all.
        """
        links = [image for image in images if isinstance(image.source, ImageLink)]
        if not links:
            return tuple(images)
        if not self.shares.take(account_id):
            raise errors.Unavailable(
                "Too many requests fetch image URLs at once.", retry_after=_RETRY_SECONDS
            )
        try:
            until = self._timer() + self._seconds
            with (
                current.waiting(),
                ThreadPoolExecutor(len(links), thread_name_prefix="download") as pool,
            ):
                found = pool.map(
                    lambda image: self._file(
                        image, account_id=account_id, until=until, memory=memory
                    ),
                    links,
                )
                came = dict(zip((image.pointer for image in links), found, strict=True))
        finally:
            self.shares.give_back(account_id)
        files: list[SubmittedImage] = []
        for image in images:
            file = came.get(image.pointer, image)
            if isinstance(file, errors.Fault):
                faults.append(file)
            else:
                files.append(file)
        return tuple(files)

    def _file(
        self,
        image: SubmittedImage,
        *,
        account_id: uuid.UUID,
        until: float,
        memory: DownloadMemory,
    ) -> SubmittedImage | errors.Fault:
        began = self._timer()
        found = self._fetch(image, account_id=account_id, until=until, memory=memory)
        outcome = found.code if isinstance(found, errors.Fault) else "ok"
        self._count(outcome, self._timer() - began)
        return found

    def _fetch(
        self,
        image: SubmittedImage,
        *,
        account_id: uuid.UUID,
        until: float,
        memory: DownloadMemory,
    ) -> SubmittedImage | errors.Fault:
        assert isinstance(image.source, ImageLink)  # noqa: S101 - only those come here
        try:
            reply = self._egress.fetch(
                image.source.url,
                headers=_HEADERS,
                seconds=until - self._timer(),
                cap=self._most_bytes + 1,
                party=account_id,
                count=memory.take,
            )
        except GuardedClientError as error:
            code, sentence = _FAULTS[error.disclosed]
            return errors.Fault(image.pointer, sentence, code)
        if reply.status != HTTPStatus.OK:
            sentence = f"This URL was answered with {reply.status}."
            return errors.Fault(image.pointer, sentence, _NOT_GIVEN)
        if len(reply.body) > self._most_bytes:
            sentence = f"The image has more than {self._most_bytes // 2**20} MiB."
            return errors.Fault(image.pointer, sentence, _TOO_LARGE)
        return dataclasses.replace(image, source=reply.body)
