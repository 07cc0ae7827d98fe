"""A job comes in: its request is read, its images decoded, its room in the model's context worked out."""

from __future__ import annotations

from api.submission.downloads import Downloads
from api.submission.images import Pictures
from api.submission.parsing import GROUP, JOB, read_order, read_upload
from api.submission.service import Accepted, Intake
from api.submission.webhook_targets import Receivers

__all__ = [
    "GROUP",
    "JOB",
    "Accepted",
    "Downloads",
    "Intake",
    "Pictures",
    "Receivers",
    "read_order",
    "read_upload",
]
