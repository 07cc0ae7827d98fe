"""A job comes in: its request is read, its images decoded, its room in the model's context worked out."""

from __future__ import annotations

from api.submission.downloads import Downloads
from api.submission.intake import Accepted, Intake
from api.submission.orders import GROUP, JOB, read_order, read_upload
from api.submission.pictures import Pictures
from api.submission.receivers import Receivers

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
