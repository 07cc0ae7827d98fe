"""What the tests of comparisons have their children do."""

from __future__ import annotations

from typing import Any

from tests.integration import sandbox_targets
from worker import mathematics

#: The target :func:`compare_or_hang`, and what ends a formula over which it hangs.
COMPARE_OR_HANG = f"{__name__}:compare_or_hang"
HANG = "+hang"


def compare_or_hang(payload: bytes, **arguments: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - JSON
    """Compare formulas, and hang over those with :data:`HANG`; the process is then called ``begun``."""
    if HANG.encode() in payload:
        sandbox_targets.report_and_sleep(b"")
    return mathematics.serve(payload, **arguments)
