"""The Celery app of the delivery process: ``celery -A webhooks.app worker``. The import reads the settings.

A wakeup only wakes the dispatcher, which has its own threads: two slots of Celery are enough.
"""

import core.startup
from core import celery_process
from core.redis_prefix import RedisPrefix
from core.settings import Settings
from jobs import queue
from net.client import GuardedClient
from webhooks.runtime import DeliveryRuntime

settings = Settings.read()


def _build() -> DeliveryRuntime:
    return DeliveryRuntime(
        settings, egress=GuardedClient(settings.webhook_allow, proxy=settings.proxy)
    )


app = queue.make_celery(settings, wakes=queue.DELIVER, slots=2)
celery_process.install_runtime(
    app,
    settings,
    task=queue.DELIVER,
    service="delivery",
    build=_build,
    prefix=RedisPrefix(settings),
)
core.startup.finish()
