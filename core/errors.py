"""Every fault this service names, as one tree.

* LonglookError
  * RequestError: the caller can mend it (HTTP 4xx)
    * InvalidRequest
      * ImageQuarantined
    * ImageRejected
    * Unauthenticated
    * InsufficientScope
    * NotFound
    * Conflict
    * IdempotencyKeyReused
    * IdempotencyInProgress
    * BodyTooLarge
    * UnsupportedMediaType
      * UnsupportedContentEncoding
    * MalformedBody
    * BodyTimeout
    * MethodNotAllowed
    * QueueFull
    * RateLimitExceeded
    * StorageQuotaExceeded
  * Unavailable: the service cannot do it now (HTTP 503)
    * Overloaded
    * SearchTooSlow
    * StreamsInUse
  * EngineError: what went wrong between the worker and its engine
    * EngineUnavailable
    * EngineBusy
    * EngineFault
      * EngineLost
      * EngineSilent
    * EngineRejected
      * SchemaTimedOut
    * AnswersNotCompared
    * DeadlineExceeded
  * SettingsError
    * VaultError
  * LaunchError

Each class has a stable ``code``, says in ``retryable`` whether the same request can succeed later, and
(for what reaches the door) the HTTP ``status`` it is answered with. An instance may carry a more
specific code, as images do with the OpenAI image codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a request: where (JSON pointer or name of a header), which code, and why."""

    pointer: str
    detail: str
    code: str = "invalid_request_error"


class LonglookError(Exception):
    """The base of all faults that have a name here."""

    code: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False
    status: ClassVar[int] = 500


class RequestError(LonglookError):
    """The caller can mend it.

    Args:
        message: one sentence for the caller, free of any library's words.
        faults: all faults found, for a body that has several.
        code: a more specific code than the class's own.
        param: the name of the parameter at fault, as the OpenAI client shows it.
        retry_after: seconds after which the same request may succeed.
    """

    code = "invalid_request_error"
    status = 400
    title: ClassVar[str] = "Bad request"

    def __init__(
        self,
        message: str,
        *,
        faults: tuple[Fault, ...] = (),
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.faults = faults
        self.specific_code = code or self.code
        self.param = param
        self.retry_after = retry_after


class InvalidRequest(RequestError):
    """The request is understood but cannot be meant; every fault is listed."""

    status = 422
    title = "Invalid request"


class ImageQuarantined(InvalidRequest):
    """An image over which engines died again and again; an operator can release it."""

    code = "image_quarantined"
    title = "Image in quarantine"


class ImageRejected(RequestError):
    """An image that cannot be used; ``code`` is one of the OpenAI image codes.

    Source of the codes: ``ResponseError.code`` of the official OpenAI client.
    """

    code = "invalid_image"
    title = "Image rejected"

    @property
    def http_status(self) -> int:
        """413 and 415 for size and media type, 422 for what is inside."""
        return {"image_file_too_large": 413, "unsupported_image_media_type": 415}.get(
            self.specific_code, 422
        )


class Unauthenticated(RequestError):
    """No key, or a key that is not known here."""

    code = "invalid_api_key"
    status = 401
    title = "Invalid API key"


class InsufficientScope(RequestError):
    """A known key whose role does not reach this far."""

    code = "insufficient_scope"
    status = 403
    title = "Insufficient scope"


class NotFound(RequestError):
    """No such thing, or a thing of somebody else: the answer is the same."""

    code = "not_found"
    status = 404
    title = "Not found"


class MethodNotAllowed(RequestError):
    """The path exists, the verb does not."""

    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"


class Conflict(RequestError):
    """The thing is in a state that forbids it, for good: a retry cannot help."""

    code = "conflict"
    status = 409
    title = "Conflict"


class IdempotencyInProgress(RequestError):
    """The same key is being worked on by another request; ask again in a second."""

    code = "idempotency_in_progress"
    retryable = True
    status = 409
    title = "Idempotency-Key in progress"


class IdempotencyKeyReused(RequestError):
    """The same key with another request body."""

    code = "idempotency_key_reused"
    status = 422
    title = "Idempotency-Key reused with another request"


class BodyTooLarge(RequestError):
    """The request body is over the limit."""

    code = "request_too_large"
    status = 413
    title = "Request too large"


class UnsupportedMediaType(RequestError):
    """A content type this door does not read."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class UnsupportedContentEncoding(UnsupportedMediaType):
    """A body that is compressed, or encoded in another way that is not decoded here."""

    code = "unsupported_content_encoding"
    title = "Unsupported content encoding"


class MalformedBody(RequestError):
    """The request body breaks HTTP's own framing, or ends before its end."""

    code = "malformed_body"
    title = "Malformed body"


class BodyTimeout(RequestError):
    """The request body did not arrive in time."""

    code = "request_timeout"
    retryable = True
    status = 408
    title = "Request timeout"


class QueueFull(RequestError):
    """As many jobs wait as may wait; the same request may be sent again when some of them have begun."""

    code = "queue_full"
    retryable = True
    status = 429
    title = "Queue full"


class RateLimitExceeded(RequestError):
    """The key has used up its requests; ``retry_after`` says when there is one more."""

    code = "rate_limit_exceeded"
    retryable = True
    status = 429
    title = "Too many requests"


class StorageQuotaExceeded(RequestError):
    """The account stores as much as it may; until some of that is deleted the same request fails again.

    403, as storage services answer it: 429 and 507 say that waiting helps, 413 that a smaller request is taken.
    """

    code = "storage_quota_exceeded"
    status = 403
    title = "Storage quota exceeded"


class Unavailable(LonglookError):
    """The service cannot do it now; nothing was stored and the same request may be sent again."""

    code = "unavailable"
    retryable = True
    status = 503

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """A resource that accounts share has no place for this call; ``retry_after`` fits what waits for one."""

    code = "overloaded"


class SearchTooSlow(Unavailable):
    """A search, or a list with filters, was ended at its deadline."""

    code = "search_too_slow"


class StreamsInUse(Unavailable):
    """As many requests are held open as may be."""

    code = "streams_in_use"


class EngineError(LonglookError):
    """Something between the worker and its engine. ``counted`` says whether it uses up a failure."""

    code = "engine_error"
    status = 502
    counted: ClassVar[bool] = True

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EngineUnavailable(EngineError):
    """No engine answered: the job goes back to the queue, uncounted."""

    code = "engine_unavailable"
    retryable = True
    counted = False


class EngineBusy(EngineError):
    """The engine refused for lack of room before it took the request: uncounted."""

    code = "engine_busy"
    retryable = True
    counted = False


class EngineFault(EngineError):
    """The engine failed after it took the request: counted against ``max_attempts``."""

    code = "engine_fault"
    retryable = True


class EngineLost(EngineFault):
    """The engine hung up on a request that it had: it may have died, even of this request."""


class EngineSilent(EngineFault):
    """The engine took a request and says nothing: it or the request is stuck."""

    code = "engine_silent"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        #: Whether it answers other requests meanwhile: then it is the request that is stuck.
        self.answers_others = False
        #: Whether it is silent to other requests as well: then it is the engine that is stuck.
        self.silent_to_others = False
        #: Whether the engine may be making a grammar meanwhile: then no image is the cause.
        self.makes_grammar = False


class EngineRejected(EngineError):
    """The engine will never take this request (too long, undecodable): the job fails."""

    code = "engine_rejected"


class SchemaTimedOut(EngineRejected):
    """Engines make no grammar of the answer's schema in time: the job fails."""

    code = "schema_timed_out"


class AnswersNotCompared(EngineError):
    """Answers that vote could not be compared, through no fault of theirs: counted against ``max_attempts``."""

    code = "answers_not_compared"
    retryable = True


class DeadlineExceeded(EngineError):
    """The job's deadline has passed."""

    code = "deadline_exceeded"


class SettingsError(LonglookError):
    """The environment is not usable; the message lists every fault."""

    code = "invalid_settings"


class VaultError(SettingsError):
    """The vault has no key that seals or opens; the message is for operators and holds nothing of any key."""

    code = "vault_unavailable"
    retryable = True
    status = 503


class LaunchError(LonglookError):
    """A process could not be started or died; the message says what to do."""

    code = "launch_failed"
