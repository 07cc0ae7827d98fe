"""A job comes in: its request is read, its images decoded, its room in the model's context worked out."""

from __future__ import annotations

from api.submission.downloads import Downloads
from api.submission.images import SubmissionImages
from api.submission.parsing import GROUP, JOB, read_submission, read_upload
from api.submission.service import Accepted, SubmissionService
from api.submission.webhook_targets import WebhookTargets

__all__ = [
    "GROUP",
    "JOB",
    "Accepted",
    "Downloads",
    "SubmissionImages",
    "SubmissionService",
    "WebhookTargets",
    "read_submission",
    "read_upload",
]
