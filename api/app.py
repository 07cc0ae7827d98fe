"""The application: its parts are built here and given to each other. Importing this builds nothing."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import flask
import orjson
from flask import Response
from pydantic import SecretStr

from api import cors, framework, health, metrics, routes
from api import errors as problems
from api.auth import Gate
from api.limits import Limiter, SharedLimits
from api.revocation import Revocation
from api.schemas.problems import Problem
from api.serving import current
from api.streams import Streams, Waits
from api.submission import Downloads, SubmissionImages, SubmissionService, WebhookTargets
from api.tokens import StreamTokens
from api.unknown_keys import UnknownKeys
from core.database import Clock, Database, utcnow
from core.rate_limits import RateLimits
from core.settings import Settings
from core.shares import Shares
from core.vault import Vault
from core.wakeup import Wakeup
from jobs import queue
from jobs.events.live import Subscriber
from jobs.images import ImageReader
from jobs.store import accounts, outbox
from jobs.store.admission import Admission, Disk
from jobs.store.positions import PositionForecast
from jobs.store.storage import Quota
from net.client import GuardedClient
from net.guard import WEB

#: Of the API that the document describes; the service's own version is another.
API_VERSION = "1.0"
_DOCUMENT = "/openapi.json"
_EXTENSION = "longlook"
_DESCRIPTION = (
    "Asynchronous image reasoning. A job is a question about one or more images; it is accepted at once, runs "
    "when an engine has room, and keeps the answer with the whole reasoning. Every error has one body: RFC 9457 "
    "(`application/problem+json`) with all faults in `errors`, and OpenAI's `error` object. Every answer carries "
    "`x-request-id`."
)


class Service:
    """What lives as long as the application: it is drained, and closed in the end."""

    def __init__(
        self,
        *,
        database: Database,
        wakeups: tuple[Wakeup, ...],
        images: ImageReader,
        waits: Waits,
        streams: Streams,
        revocation: Revocation,
        fetching: GuardedClient,
        buckets: SharedLimits,
    ) -> None:
        self.draining = threading.Event()
        self._database = database
        self._wakeups = wakeups
        self._images = images
        self._waits = waits
        self._fetching = fetching
        self._streams = streams
        self._revocation = revocation
        self._buckets = buckets

    def drain(self) -> None:
        """Be no longer ready, and let all go who wait or follow. A signal handler may call it."""
        self.draining.set()
        self._waits.close()
        self._streams.close()
        self._revocation.close()

    def close(self) -> None:
        """Let go of everything; nothing can be served after it."""
        self.drain()
        self._images.close()
        self._fetching.close()
        for wakeup in self._wakeups:
            wakeup.close()
        self._buckets.close()
        self._database.close()


def create_app(
    settings: Settings | None = None,
    *,
    database: Database | None = None,
    wakeup: Wakeup | None = None,
    delivery_wakeup: Wakeup | None = None,
    images: ImageReader | None = None,
    buckets: SharedLimits | None = None,
    clock: Clock = utcnow,
    timer: Callable[[], float] = time.monotonic,
) -> framework.Router:
    """Build the application. To be called after any fork: it starts threads and processes when they are needed.

    Args:
        settings: by default those of the environment.
        database: by default the one that the settings name.
        wakeup: likewise.
        delivery_wakeup: likewise; rung when something is to be told to receivers.
        images: by default decoders in a sandbox of their own.
        buckets: of which requests are taken, by default those that the settings' Redis keeps for all processes.
        clock: the time on SQLite.
        timer: seconds that never go back, for what is looked at or counted at intervals.

    Raises:
        core.errors.SettingsError: the environment is not usable.
    """
    settings = settings or Settings.read()
    database = database or Database(
        settings.database,
        clock=clock,
        searches=settings.searches,
        search_seconds=settings.search_seconds,
    )
    database.party = current.group
    wakeup = wakeup or queue.RedisWakeup(settings)
    delivery_wakeup = delivery_wakeup or queue.RedisWakeup(settings, notifications=queue.DELIVER)
    database.listen(outbox.WakeupOnCommit(delivery_wakeup))
    images = images or ImageReader.start(settings)
    buckets = buckets or RateLimits(settings.redis_url, timer=timer)
    limiter = Limiter(per_minute=settings.requests_per_minute, shared=buckets, timer=timer)
    pepper = accounts.pepper(settings)
    tokens = StreamTokens(pepper=pepper, clock=clock)
    gate = Gate(
        database,
        pepper=pepper,
        tokens=tokens,
        unknown_key_limits=UnknownKeys(per_minute=settings.failed_keys_per_minute, timer=timer),
        live=accounts.LiveKeys(database, pepper=pepper, timer=timer),
        count=limiter.count,
    )
    disk = Disk(database, floor_mb=settings.disk_floor_mb, timer=timer)
    quota = Quota(database, default_mb=settings.storage_mb_per_account, timer=timer)
    fetching = GuardedClient(settings.webhook_allow, ports=WEB)
    reported = GuardedClient(settings.webhook_allow)
    receivers = WebhookTargets(database, egress=reported)
    held_open = Shares(settings.max_streams, name="streams and waits")
    revocation = Revocation(database)
    waits = Waits(database, shares=held_open)
    streams = Streams(
        database,
        subscriber=Subscriber(settings.redis_url),
        shares=held_open,
        revocation=revocation,
    )
    service = Service(
        database=database,
        wakeups=(wakeup, delivery_wakeup),
        images=images,
        waits=waits,
        streams=streams,
        revocation=revocation,
        fetching=fetching,
        buckets=buckets,
    )
    measures = metrics.MetricsRoutes(
        settings,
        database=database,
        gate=gate,
        open_now={"stream": lambda: streams.open, "wait": lambda: waits.open},
    )
    downloads = Downloads(settings, egress=fetching, count=measures.fetched)
    submissions = SubmissionService(
        settings,
        database=database,
        images=SubmissionImages(settings, database=database, decoder=images),
        downloads=downloads,
        receivers=receivers,
        wakeup=wakeup,
        admission=Admission(database, settings, timer=timer),
        disk=disk,
        quota=quota,
    )
    router = _router(settings, timer=timer)
    limiter.install(router)
    cors.install(router, origins=settings.cors_origins, routes=routes.STREAM_RULES)
    router.extensions[_EXTENSION] = service
    forecast = PositionForecast(timer=timer)
    routes.JobRoutes(
        settings,
        database=database,
        service=submissions,
        waits=waits,
        revocation=revocation,
        gate=gate,
        forecast=forecast,
    ).declare(router)
    routes.GroupRoutes(settings, database=database, service=submissions, forecast=forecast).declare(
        router, gate
    )
    routes.RunRoutes(database=database).declare(router, gate)
    routes.StreamRoutes(database=database, streams=streams, tokens=tokens).declare(router, gate)
    routes.ImageRoutes(settings, database=database, service=submissions).declare(router, gate)
    vault = functools.cache(lambda: Vault.of(settings))
    endpoints = routes.EndpointRoutes(
        settings,
        database=database,
        receivers=receivers,
        vault=vault,
        quota=quota,
        revocation=revocation,
        timer=timer,
    )
    endpoints.declare(router, gate)
    routes.SecretRoutes(database=database, vault=vault).declare(router, gate)
    routes.DeliveryRoutes(database=database, quota=quota).declare(router, gate)
    routes.ModelRoutes(settings).declare(router, gate)
    routes.QuarantineRoutes(database=database).declare(router, gate)
    routes.QueueRoutes(settings, database=database, wakeup=wakeup, gate=gate).declare(router)
    routes.UsageRoutes(settings, database=database, quota=quota, gate=gate).declare(router)
    measures.watch(
        (
            held_open,
            streams.replays,
            images.shares,
            downloads.shares,
            database.searches,
            database.connections,
            database.writers,
            endpoints.tests,
        )
    )
    measures.declare(router)
    health.HealthRoutes(
        settings, database=database, disk=disk, wakeup=wakeup, draining=service.draining
    ).declare(router)
    return router


def service_of(app: flask.Flask) -> Service:
    """Return what lives as long as ``app``."""
    found: Service = app.extensions[_EXTENSION]
    return found


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document, the same for every installation. No server, database or Redis is needed."""
    app = create_app(Settings(pepper=SecretStr("not used")))
    try:
        return app.document()
    finally:
        service_of(app).close()


def _router(settings: Settings, *, timer: Callable[[], float]) -> framework.Router:
    router = framework.Router(
        title="Longlook",
        version=API_VERSION,
        description=_DESCRIPTION,
        problem=Problem,
        max_body_bytes=settings.max_body_mb * 2**20,
    )
    problems.install(router, timer=timer)
    framework.install(
        router, quiet=frozenset({health.LIVE, health.READY, metrics.METRICS}), timer=timer
    )
    document = functools.cache(lambda: orjson.dumps(router.document()))

    def openapi() -> Response:
        return Response(document(), content_type="application/json")

    router.add_url_rule(_DOCUMENT, view_func=openapi)
    return router
