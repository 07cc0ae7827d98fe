"""The native API, ``/v1``: jobs, groups, images, models, the queue."""

from __future__ import annotations

from api.routes.groups import GroupRoutes
from api.routes.images import ImageRoutes
from api.routes.jobs import JobRoutes
from api.routes.models import ModelRoutes
from api.routes.queue import QueueRoutes
from api.routes.runs import RunRoutes

__all__ = ["GroupRoutes", "ImageRoutes", "JobRoutes", "ModelRoutes", "QueueRoutes", "RunRoutes"]
