"""The native API, ``/v1``: jobs, groups, images, models, the queue, usage, webhooks."""

from __future__ import annotations

from api.routes.deliveries import DeliveryRoutes
from api.routes.endpoints import EndpointRoutes
from api.routes.groups import GroupRoutes
from api.routes.images import ImageRoutes
from api.routes.jobs import JobRoutes
from api.routes.models import ModelRoutes
from api.routes.quarantine import QuarantineRoutes
from api.routes.queue import QueueRoutes
from api.routes.runs import RunRoutes
from api.routes.secrets import NOTIFICATIONS, SecretRoutes
from api.routes.streams import EVENTS, TOKEN, StreamRoutes
from api.routes.usage import UsageRoutes

#: The routes that CORS may open to pages of other origins.
STREAM_RULES = (EVENTS, TOKEN)

__all__ = [
    "NOTIFICATIONS",
    "STREAM_RULES",
    "DeliveryRoutes",
    "EndpointRoutes",
    "GroupRoutes",
    "ImageRoutes",
    "JobRoutes",
    "ModelRoutes",
    "QuarantineRoutes",
    "QueueRoutes",
    "RunRoutes",
    "SecretRoutes",
    "StreamRoutes",
    "UsageRoutes",
]
