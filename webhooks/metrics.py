"""Prometheus metrics of webhook delivery."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from core.database import Database
from webhooks import attempts

_ATTEMPT_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)


class DeliveryMetrics:
    """Counts the delivery attempts of this process.

    Args:
        database: its commits are counted.
        registry: of the metrics.
    """

    def __init__(self, database: Database, *, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "longlook_webhook_attempts_total",
            "Delivery attempts that ended.",
            ["outcome", "code_class"],
            registry=registry,
        )
        self._seconds = Histogram(
            "longlook_webhook_attempt_seconds",
            "Time from the connect to the end of the response, or to the timeout.",
            buckets=_ATTEMPT_SECONDS,
            registry=registry,
        )
        database.listen(self._on_note)

    def _on_note(self, note: object) -> None:
        if not isinstance(note, attempts.AttemptEnded):
            return
        code = note.status_code
        # A status may be any three digits.
        valid = code is not None and 100 <= code < 600  # noqa: PLR2004 - the range of statuses
        self._attempts.labels(note.outcome, f"{code // 100}xx" if code and valid else "none").inc()
        if note.seconds is not None:
            self._seconds.observe(note.seconds)
