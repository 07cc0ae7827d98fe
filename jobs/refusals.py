"""Maps refusals of an engine to errors of this service.

The engine's message is only searched for known words, never shown or logged: it can quote the request.
"""

from dataclasses import dataclass
from http import HTTPStatus

from core import errors


@dataclass(frozen=True)
class EngineRefusal:
    """A refused request: the exception to raise, and a constant word for the log."""

    category: str
    error: errors.EngineError


_SCHEMA_TIMED_OUT = "Grammar preprocessing timed out"
_NO_GRAMMAR = "compile json grammar"
#: Words of SGLang 0.5.23 -> category -> message of the job. The first match counts.
_REJECTED = (
    (
        (
            "longer than the model's context length",
            "maximum context length",
            "_tokens is too large",
        ),
        "context_exceeded",
        "The images, the question, and the room for the answer exceed the model's context.",
    ),
    (
        (_NO_GRAMMAR,),
        "grammar_refused",
        "The engine's grammar does not support the JSON Schema of the answer.",
    ),
    (("exceeds limit",), "too_many_images", "The engine does not accept this number of images."),
    (
        ("loading IMAGE data", "decode image", "aspect ratio"),
        "image_unreadable",
        "The engine cannot read the image.",
    ),
)
_QUEUE_WORDS = ("queue is full", "timeout reached", "higher priority")


def understand(status: int, message: str) -> EngineRefusal:
    """Return the meaning of a refusal before any text.

    Args:
        status: the HTTP status, or the code of an in-band error, which has the same meaning.
        message: the engine's message.
    """
    # First, because messages about a grammar quote the schema, which can contain any words.
    if _SCHEMA_TIMED_OUT in message:
        return EngineRefusal(
            "schema_timed_out",
            errors.SchemaTimedOut(
                "The engine could not compile the JSON Schema of the answer in time."
            ),
        )
    return _rejected(message) if _NO_GRAMMAR in message else _by_status(status, message)


def _by_status(status: int, message: str) -> EngineRefusal:
    if status == HTTPStatus.TOO_MANY_REQUESTS or any(word in message for word in _QUEUE_WORDS):
        return EngineRefusal("busy", errors.EngineBusy("The engine has no room."))
    if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE):
        return EngineRefusal("unavailable", errors.EngineUnavailable("The engine is not ready."))
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return EngineRefusal(
            "key_refused",
            errors.EngineUnavailable("The engine refuses the key: see LONGLOOK_ENGINE_API_KEY."),
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return EngineRefusal(
            "failed", errors.EngineFault(f"The engine failed with status {status}.")
        )
    if status < HTTPStatus.BAD_REQUEST or status in (
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
    ):
        return EngineRefusal(
            "not_an_engine",
            errors.EngineUnavailable(
                f"The server at the engine's URL is not an engine (status {status})."
            ),
        )
    return _rejected(message)


def _rejected(message: str) -> EngineRefusal:
    for needles, category, sentence in _REJECTED:
        if any(needle in message for needle in needles):
            return EngineRefusal(category, errors.EngineRejected(sentence))
    return EngineRefusal(
        "rejected", errors.EngineRejected("The engine does not accept this request.")
    )
