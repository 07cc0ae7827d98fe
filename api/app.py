"""Builds the application and wires its parts together. Importing this module builds nothing."""

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flask
from pydantic import SecretStr

from api import cors, documents, framework, health, metrics
from api import errors as problems
from api.auth import Gate
from api.key_uses import KeyUses
from api.openai.batches import runner
from api.openai.batches.batch_routes import BatchRoutes
from api.openai.batches.runner import BatchRunner
from api.openai.batches.served import served
from api.openai.chat.chat_routes import ChatRoutes
from api.openai.files import FileRoutes
from api.openai.foreground import Foreground
from api.openai.responses.response_routes import ResponseRoutes
from api.rate_limits import Limiter
from api.revocation import Revocation
from api.routes.deliveries import DeliveryRoutes
from api.routes.endpoints import EndpointRoutes
from api.routes.fleet import FleetRoutes
from api.routes.groups import GroupRoutes
from api.routes.images import ImageRoutes
from api.routes.jobs import JobRoutes
from api.routes.keys import KeyRoutes
from api.routes.models import ModelRoutes
from api.routes.operations import OperationRoutes
from api.routes.quarantine import QuarantineRoutes
from api.routes.queue import QueueRoutes
from api.routes.runs import RunRoutes
from api.routes.secrets import NOTIFICATIONS, SecretRoutes
from api.routes.streams import RULES, StreamRoutes
from api.routes.usage import UsageRoutes
from api.schemas.problems import Problem
from api.serving import current
from api.streams.follow import Streams
from api.streams.waits import Waits
from api.submission import Downloads, SubmissionImages, SubmissionService, WebhookTargets
from api.tokens import StreamTokens
from api.unknown_keys import UnknownKeys
from core.background import BackgroundLoop
from core.database import Clock, Database, utcnow
from core.peppers import Peppers
from core.rate_limits import RateLimits
from core.redis_prefix import RedisPrefix
from core.settings import Settings
from core.shares import Shares
from core.spool import Spool
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
from webhooks import secrets, thin_events

#: The version of the API in the document, not that of the service.
API_VERSION = "1.0"
_EXTENSION = "longlook"
_DESCRIPTION = (
    "Asynchronous image reasoning. A job is a question about one or more images. Longlook accepts it immediately, "
    "runs it when an engine has room, and stores the answer with the whole reasoning. All errors have the same body: "
    "RFC 9457 (`application/problem+json`) with every fault in `errors`, and OpenAI's `error` object. Every response "
    "has an `x-request-id`."
)


@dataclass(frozen=True)
class Service:
    """The resources of the application, which it drains and closes when it stops."""

    database: Database
    wakeups: tuple[Wakeup, ...]
    images: ImageReader
    waits: Waits
    streams: Streams
    foreground: Foreground
    revocation: Revocation
    key_uses: KeyUses
    fetching: GuardedClient
    buckets: RateLimits
    spool: Spool
    draining: threading.Event = field(default_factory=threading.Event)
    #: Threads that :meth:`start` starts.
    loops: list[BackgroundLoop] = field(default_factory=list)

    def start(self) -> None:
        """Start the threads that work in the background."""
        for loop in self.loops:
            loop.start()

    def drain(self) -> None:
        """Stop being ready, and end all waits and streams. Safe in a signal handler."""
        self.draining.set()
        for loop in self.loops:
            loop.request_stop()
        self.waits.close()
        self.streams.close()
        self.foreground.close()
        self.revocation.close()
        self.key_uses.request_stop()

    def close(self) -> None:
        """Close everything; the application serves nothing afterwards."""
        self.drain()
        for loop in self.loops:
            loop.stop()
        self.images.close()
        self.fetching.close()
        for wakeup in self.wakeups:
            wakeup.close()
        self.buckets.close()
        self.key_uses.close()
        self.database.close()


def create_app(
    settings: Settings | None = None,
    *,
    database: Database | None = None,
    wakeup: Wakeup | None = None,
    delivery_wakeup: Wakeup | None = None,
    images: ImageReader | None = None,
    buckets: RateLimits | None = None,
    clock: Clock = utcnow,
    timer: Callable[[], float] = time.monotonic,
) -> framework.Router:
    """Build the application. Call this after any fork: it starts threads and processes on demand.

    Args:
        settings: the default is read from the environment.
        database: the default is that of the settings.
        wakeup: wakes workers; the default uses the Redis of the settings.
        delivery_wakeup: likewise, for the process that sends notifications.
        images: the default starts decoders in a sandbox.
        buckets: the rate limits; the default shares them through the Redis of the settings.
        clock: the time of the database on SQLite.
        timer: a monotonic clock, in seconds.

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
    database.party, database.public_url = current.group, settings.public_url
    prefix = RedisPrefix(settings, database)
    wakeup, delivery_wakeup = (
        given or queue.RedisWakeup(settings, task=task, prefix=prefix)
        for given, task in ((wakeup, queue.REASON), (delivery_wakeup, queue.DELIVER))
    )
    database.listen(outbox.WakeupOnCommit(delivery_wakeup))
    images = images or ImageReader.start(settings)
    buckets = buckets or RateLimits(settings.redis_url, prefix, timer=timer)
    spool = Spool.of(settings, timer=timer)
    limiter = Limiter(per_minute=settings.requests_per_minute, shared=buckets, timer=timer)
    peppers = Peppers.of(settings)
    tokens = StreamTokens(peppers=peppers, clock=clock)
    uses = KeyUses(database)
    gate = Gate(
        database,
        peppers=peppers,
        tokens=tokens,
        unknown_key_limits=UnknownKeys(per_minute=settings.failed_keys_per_minute, timer=timer),
        live=accounts.LiveKeys(database, peppers=peppers, timer=timer),
        uses=uses,
        count=limiter.count,
    )
    disk = Disk(database, floor_mb=settings.disk_floor_mb, timer=timer)
    quota = Quota(database, default_mb=settings.storage_mb_per_account, timer=timer)
    fetching = GuardedClient(settings.webhook_allow, ports=WEB, proxy=settings.proxy)
    webhook_targets = WebhookTargets(database, client=GuardedClient(settings.webhook_allow))
    held_open = Shares(settings.max_streams, name="streams and waits")
    revocation = Revocation(database)
    waits = Waits(database, shares=held_open)
    streams = Streams(
        database,
        subscriber=Subscriber(settings.redis_url, prefix),
        shares=held_open,
        revocation=revocation,
    )
    foreground = Foreground(database, waits=waits, streams=streams, revocation=revocation)
    service = Service(
        database=database,
        wakeups=(wakeup, delivery_wakeup),
        images=images,
        waits=waits,
        streams=streams,
        foreground=foreground,
        revocation=revocation,
        key_uses=uses,
        fetching=fetching,
        buckets=buckets,
        spool=spool,
    )
    measures = metrics.MetricsRoutes(
        settings,
        database=database,
        open_now={"stream": lambda: streams.open, "wait": lambda: waits.open},
        wakeup=wakeup,
    )
    downloads = Downloads(settings, client=fetching, count=measures.fetched)
    submissions = SubmissionService(
        settings,
        database=database,
        images=SubmissionImages(settings, database=database, decoder=images),
        downloads=downloads,
        webhook_targets=webhook_targets,
        wakeup=wakeup,
        admission=Admission(database, settings, timer=timer),
        disk=disk,
        quota=quota,
    )
    router = _router(settings, gate=gate, spool=spool, timer=timer)
    limiter.install(router)
    cors.install(router, origins=settings.cors_origins, routes=RULES)
    router.extensions[_EXTENSION] = service
    forecast = PositionForecast(timer=timer)
    router.include(
        JobRoutes(
            settings,
            database=database,
            service=submissions,
            waits=waits,
            revocation=revocation,
            gate=gate,
            forecast=forecast,
        )
    )
    router.include(GroupRoutes(settings, database=database, service=submissions, forecast=forecast))
    router.include(RunRoutes(database=database))
    router.include(StreamRoutes(database=database, streams=streams, tokens=tokens))
    router.include(ImageRoutes(settings, database=database, service=submissions))
    vault = functools.cache(lambda: secrets.installation_vault(settings, database))
    endpoints = EndpointRoutes(
        settings,
        database=database,
        receivers=webhook_targets,
        vault=vault,
        quota=quota,
        revocation=revocation,
        timer=timer,
    )
    router.include(endpoints)
    router.include(SecretRoutes(database=database, vault=vault))
    router.include(DeliveryRoutes(database=database, quota=quota))
    for routes in (
        *_files_and_batches(
            router,
            service,
            settings,
            submissions=submissions,
            quota=quota,
            disk=disk,
            held_open=held_open,
        ),
        ModelRoutes(settings),
        ChatRoutes(settings, database=database, service=submissions, foreground=foreground),
        QuarantineRoutes(database=database),
        OperationRoutes(database=database, gate=gate),
        QueueRoutes(settings, database=database, wakeup=wakeup, gate=gate),
        FleetRoutes(settings, database=database),
        KeyRoutes(database=database, gate=gate, peppers=peppers),
        ResponseRoutes(
            settings,
            database=database,
            service=submissions,
            foreground=foreground,
            streams=streams,
            waits=waits,
            revocation=revocation,
        ),
    ):
        router.include(routes)
    router.include(UsageRoutes(settings, database=database, quota=quota, gate=gate))
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
    measures.install(router)
    router.include(measures, public=settings.metrics_public)
    router.include(
        health.HealthRoutes(
            settings,
            database=database,
            disk=disk,
            wakeup=wakeup,
            draining=service.draining,
            check_vault=lambda: secrets.check_vault(vault(), database),
        )
    )
    return router


def service_of(app: flask.Flask) -> Service:
    """Return the resources of ``app``."""
    service: Service = app.extensions[_EXTENSION]
    return service


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document, which is the same for every installation. Needs no server, database or Redis."""
    app = create_app(Settings(pepper=SecretStr("not used")))
    try:
        return app.document()
    finally:
        service_of(app).close()


def _files_and_batches(
    router: framework.Router,
    service: Service,
    settings: Settings,
    *,
    submissions: SubmissionService,
    quota: Quota,
    disk: Disk,
    held_open: Shares,
) -> tuple[object, ...]:
    """Return the routes of files and batches, and let ``service`` work on batches."""
    endpoints = served(settings, database=service.database, service=submissions)
    service.loops.append(
        BatchRunner(
            router,
            service.database,
            settings,
            owner=runner.owner(),
            service=submissions,
            quota=quota,
            endpoints=endpoints,
            notify=thin_events.batch_ended,
        )
    )
    return (
        FileRoutes(
            settings,
            database=service.database,
            service=submissions,
            quota=quota,
            disk=disk,
            held_open=held_open,
        ),
        BatchRoutes(
            settings, database=service.database, endpoints=endpoints, quota=quota, disk=disk
        ),
    )


def _router(
    settings: Settings, *, gate: Gate, spool: Spool, timer: Callable[[], float]
) -> framework.Router:
    router = framework.Router(
        framework.OpenApiDocument(
            title="Longlook",
            version=API_VERSION,
            description=_DESCRIPTION,
            problem=Problem,
            webhooks=NOTIFICATIONS,
        ),
        guards=gate.guard,
        max_body_bytes=settings.max_body_mb * 2**20,
        max_file_body_bytes=settings.file_body_bytes,
    )
    framework.links.install(router, public_url=settings.public_url)
    problems.install(router, timer=timer)
    framework.spooling.install(
        router, make=lambda party: spool.open(current.group() if party is None else party)
    )
    framework.install(
        router, quiet=frozenset({health.LIVE, health.READY, metrics.METRICS}), timer=timer
    )
    documents.install(router)
    return router
