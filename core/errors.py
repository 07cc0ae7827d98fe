"""All errors of this service, as one tree.

* LonglookError
  * RequestError: the client can fix it (HTTP 4xx)
    * InvalidRequest
      * ImageQuarantined
      * SearchTooBroad
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
  * EngineError: a failure between the worker and its engine
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

Each class has a stable ``code``. ``retryable`` says whether the same request can succeed later, and ``status`` is the
HTTP status of the response, if a client sees the error. An instance may have a more specific code: images have the
image codes of OpenAI.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Fault:
    """One problem of a request: its place (a JSON pointer or the name of a header), code, and reason."""

    pointer: str
    detail: str
    code: str = "invalid_request_error"


class LonglookError(Exception):
    """The base of all errors of this service."""

    code: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False
    status: ClassVar[int] = 500


class RequestError(LonglookError):
    """The client can fix it.

    Args:
        message: one sentence for the client, without texts of libraries.
        faults: all problems of the request.
        code: a more specific code than that of the class.
        param: the name of the wrong parameter, as the OpenAI client shows it.
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
    """The request is well-formed but not valid; the error lists every problem."""

    status = 422
    title = "Invalid request"


class ImageQuarantined(InvalidRequest):
    """An image that crashed engines repeatedly; an operator can release it."""

    code = "image_quarantined"
    title = "Image in quarantine"


class SearchTooBroad(InvalidRequest):
    """A search, or a list with filters, was stopped at its deadline: the same one would be stopped again."""

    code = "search_too_broad"
    title = "Search too broad"


class ImageRejected(RequestError):
    """An image that cannot be used; ``code`` is one of the OpenAI image codes.

    Source of the codes: ``ResponseError.code`` of the official OpenAI client.
    """

    code = "invalid_image"
    title = "Image rejected"

    @property
    def http_status(self) -> int:
        """413 and 415 for size and media type, 422 for the content."""
        return {"image_file_too_large": 413, "unsupported_image_media_type": 415}.get(
            self.specific_code, 422
        )


class Unauthenticated(RequestError):
    """No key, or an unknown key."""

    code = "invalid_api_key"
    status = 401
    title = "Invalid API key"


class InsufficientScope(RequestError):
    """A known key whose role does not permit the request."""

    code = "insufficient_scope"
    status = 403
    title = "Insufficient scope"


class NotFound(RequestError):
    """The object does not exist, or belongs to another account: the response is the same."""

    code = "not_found"
    status = 404
    title = "Not found"


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method."""

    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"


class Conflict(RequestError):
    """The state of the object forbids the request permanently: a retry does not help."""

    code = "conflict"
    status = 409
    title = "Conflict"


class IdempotencyInProgress(RequestError):
    """Another request with the same key is in progress; the client can retry in a second."""

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
    """The request body exceeds the limit."""

    code = "request_too_large"
    status = 413
    title = "Request too large"


class UnsupportedMediaType(RequestError):
    """A content type that the API does not accept."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class UnsupportedContentEncoding(UnsupportedMediaType):
    """A body with a content encoding other than gzip and deflate."""

    code = "unsupported_content_encoding"
    title = "Unsupported content encoding"


class MalformedBody(RequestError):
    """The request body violates the framing of HTTP, or is incomplete."""

    code = "malformed_body"
    title = "Malformed body"


class BodyTimeout(RequestError):
    """The request body did not arrive in time."""

    code = "request_timeout"
    retryable = True
    status = 408
    title = "Request timeout"


class QueueFull(RequestError):
    """The limit of waiting jobs is reached; the client can send the same request again later."""

    code = "queue_full"
    retryable = True
    status = 429
    title = "Queue full"


class RateLimitExceeded(RequestError):
    """The key has used up its requests; the next one is available after ``retry_after`` seconds."""

    code = "rate_limit_exceeded"
    retryable = True
    status = 429
    title = "Too many requests"


class StorageQuotaExceeded(RequestError):
    """The account has reached its storage quota; the same request fails until the account deletes data.

    The status is 403, as in storage services: 429 and 507 mean that waiting helps, 413 that a smaller request does.
    """

    code = "storage_quota_exceeded"
    status = 403
    title = "Storage quota exceeded"


class Unavailable(LonglookError):
    """The service cannot handle the request now. It stored nothing; the client can send the same request again."""

    code = "unavailable"
    retryable = True
    status = 503

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """A shared resource has no place for this call; ``retry_after`` grows with the number of waiting calls."""

    code = "overloaded"


class SearchTooSlow(Unavailable):
    """Reads whose cost grows with the stored jobs were stopped at their deadline."""

    code = "search_too_slow"


class StreamsInUse(Unavailable):
    """The limit of open streams and waiting requests is reached."""

    code = "streams_in_use"


class EngineError(LonglookError):
    """A failure between the worker and its engine. ``counted``: it counts against ``max_attempts``."""

    code = "engine_error"
    status = 502
    counted: ClassVar[bool] = True

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EngineUnavailable(EngineError):
    """No engine answered: the job returns to the queue, and the failure does not count."""

    code = "engine_unavailable"
    retryable = True
    counted = False


class EngineBusy(EngineError):
    """The engine was full and refused the request: the failure does not count."""

    code = "engine_busy"
    retryable = True
    counted = False


class EngineFault(EngineError):
    """The engine failed after it accepted the request: the failure counts."""

    code = "engine_fault"
    retryable = True


class EngineLost(EngineFault):
    """The engine closed the connection of an accepted request: it may have crashed, even because of the request."""


class EngineSilent(EngineFault):
    """The engine accepted a request and sends nothing: the engine or the request is stuck."""

    code = "engine_silent"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        #: Whether it answers other requests: then only the request is stuck.
        self.answers_others = False
        #: Whether it sends nothing to other requests either: then the engine is stuck.
        self.silent_to_others = False
        #: Whether the engine may be compiling a grammar: then no image is the cause.
        self.makes_grammar = False


class EngineRejected(EngineError):
    """The engine never accepts this request (too long, undecodable): the job fails."""

    code = "engine_rejected"


class SchemaTimedOut(EngineRejected):
    """Engines do not compile the JSON Schema of the answer in time: the job fails."""

    code = "schema_timed_out"


class AnswersNotCompared(EngineError):
    """The answers of a vote could not be compared, for a reason outside the answers: the failure counts."""

    code = "answers_not_compared"
    retryable = True


class DeadlineExceeded(EngineError):
    """The job's deadline has passed."""

    code = "deadline_exceeded"


class SettingsError(LonglookError):
    """The settings are not valid; the message lists every problem."""

    code = "invalid_settings"


class VaultError(SettingsError):
    """The vault has no usable key; the message is for operators and contains nothing of a key."""

    code = "vault_unavailable"
    retryable = True
    status = 503


class LaunchError(LonglookError):
    """A process could not be started or died; the message says what to do."""

    code = "launch_failed"
