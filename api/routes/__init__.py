"""The native API, ``/v1``: jobs, images, models."""

from __future__ import annotations

from api.routes.images import ImageRoutes
from api.routes.jobs import JobRoutes
from api.routes.models import ModelRoutes
from api.routes.runs import RunRoutes

__all__ = ["ImageRoutes", "JobRoutes", "ModelRoutes", "RunRoutes"]
