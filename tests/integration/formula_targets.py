"""Sandbox targets for the tests of formula comparisons."""

from __future__ import annotations

from typing import Any

from tests.integration import sandbox_targets
from worker import mathematics

#: The target :func:`compare_or_hang`, and the suffix of a formula that makes it hang.
COMPARE_OR_HANG = f"{__name__}:compare_or_hang"
HANG = "+h+h+h"


def compare_or_hang(payload: bytes, **arguments: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - JSON
    """Compare formulas, and hang on formulas with :data:`HANG`; the process then has the name ``begun``."""
    if HANG.encode() in payload:
        sandbox_targets.report_and_sleep(b"")
    return mathematics.serve(payload, **arguments)
