"""The Celery app of a worker: ``celery -A worker.app worker``. Its import reads the settings and builds the app."""

import core.startup
from core import celery_process
from core.redis_prefix import RedisPrefix
from core.settings import Settings
from jobs import queue
from worker.runtime import WorkerRuntime

settings = Settings.read()
app = queue.make_celery(settings, wakes=queue.REASON, slots=settings.worker_slots)
celery_process.install_runtime(
    app,
    settings,
    task=queue.REASON,
    service="worker",
    build=lambda: WorkerRuntime(settings),
    prefix=RedisPrefix(settings),
)
core.startup.finish()
