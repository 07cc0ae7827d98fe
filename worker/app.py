"""The Celery app of a worker: ``celery -A worker.app worker``. Its import builds something, unlike any other's."""

from __future__ import annotations

from jobs import queue
from jobs.settings import Settings
from worker import tasks
from worker.runtime import Runtime

settings = Settings.read()
app = queue.make_celery(settings, hears=queue.REASON, slots=settings.worker_slots)
tasks.house(app, settings, task=queue.REASON, service="worker", build=lambda: Runtime(settings))
