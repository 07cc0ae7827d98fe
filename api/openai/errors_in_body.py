"""Errors of a response whose status was sent: the ``error`` object that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from core import errors


def error_body(error: errors.RequestError | errors.Unavailable) -> dict[str, Any]:
    """Return the body for an error."""
    code: str = getattr(error, "specific_code", error.code)
    param: str | None = getattr(error, "param", None)
    kind = "invalid_request_error" if isinstance(error, errors.RequestError) else "server_error"
    return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}
