"""The submission of jobs: parse the request, decode its images, compute its token budget."""

from __future__ import annotations

from api.submission.downloads import Downloads
from api.submission.images import SubmissionImages
from api.submission.parsing import (
    GROUP,
    JOB,
    ParsedSubmission,
    SubmittedImage,
    read_submission,
    read_upload,
)
from api.submission.service import Accepted, SubmissionService
from api.submission.webhook_targets import WebhookTargets

__all__ = [
    "GROUP",
    "JOB",
    "Accepted",
    "Downloads",
    "ParsedSubmission",
    "SubmissionImages",
    "SubmissionService",
    "SubmittedImage",
    "WebhookTargets",
    "read_submission",
    "read_upload",
]
