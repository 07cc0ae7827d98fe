"""``/metrics``: the counters of this process, and gauges of the whole service from SQL."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from http import HTTPMethod
from typing import Any, Final

import flask
from flask import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from api.auth import Right
from api.framework import ResponseSpec, route
from api.submission import downloads
from core import errors
from core.database import Database
from core.database_faults import DatabaseUnavailable
from core.metrics import ShareMetrics, new_registry
from core.settings import Settings
from core.shares import Shares
from core.wakeup import Wakeup
from jobs.lifecycle import Priority
from jobs.metrics import JobMetrics
from jobs.store import batch_backlog, pauses, quarantine, statistics, storage, workers
from webhooks import claims

METRICS: Final = "/metrics"
_TEXT: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}
#: The last bucket is a request that waits for a minute (``Prefer: wait``).
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FETCH_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Settings that are shown as metrics, next to what they limit.
_LIMITS: Final = (
    "queued_jobs_total",
    "queued_jobs_per_account",
    "max_streams",
    "max_connections",
    "requests_per_minute",
)
#: How long a silent worker is reported: long enough for an alert at any scrape interval, which then resolves.
_MISSED: Final = timedelta(minutes=15)


class MetricsRoutes:
    """The route of the metrics.

    Args:
        settings: the maximum age of a live worker's heartbeat.
        database: queried at each scrape; its commits in this process are counted.
        open_now: return the number of open requests, by their kind.
        wakeup: checks Redis at each scrape.
    """

    TAG = "operations"

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        open_now: Mapping[str, Callable[[], int]],
        wakeup: Wakeup,
    ) -> None:
        self._registry = new_registry(revision=settings.revision)
        JobMetrics(database, registry=self._registry, model=settings.model)
        self._http = _HttpMetrics(self._registry)
        self._fetches = Histogram(
            "longlook_image_fetch_seconds",
            "Time to fetch an image from its URL, redirects included.",
            ["outcome"],
            buckets=_FETCH_SECONDS,
            registry=self._registry,
        )
        for outcome in downloads.OUTCOMES:
            self._fetches.labels(outcome)
        held_open = Gauge(
            "longlook_sse_connections",
            "Open requests of this process: event streams, and waits for the end of a job.",
            ["kind"],
            registry=self._registry,
        )
        for kind, count in open_now.items():
            held_open.labels(kind).set_function(count)
        redis = Gauge(
            "longlook_redis_up",
            "Whether Redis was available to this process at this scrape.",
            registry=self._registry,
        )
        redis.set_function(lambda: wakeup.problem() is None)
        limits = Gauge(
            "longlook_limit", "Limits in the settings.", ["limit"], registry=self._registry
        )
        for name in _LIMITS:
            limits.labels(name).set(getattr(settings, name))
        self._registry.register(_Service(database, settings))

    def install(self, app: flask.Flask) -> None:
        """Count all requests of ``app``."""
        app.after_request(self._http.count)

    def fetched(self, outcome: str, seconds: float) -> None:
        """Count a fetch of an image; ``outcome`` is ``ok`` or the code of the fault."""
        self._fetches.labels(outcome).observe(seconds)

    def watch(self, shares: Sequence[Shares]) -> None:
        """Report the use of ``shares``, which accounts share in this process. Call this once."""
        self._registry.register(ShareMetrics(lambda: shares))

    @route.get(
        METRICS,
        operation_id="metrics",
        guard=Right.EVERYWHERE,
        answers={
            200: ResponseSpec(None, "The metrics, in Prometheus' text format.", content=_TEXT)
        },
    )
    def get(self) -> Response:
        """Get the metrics, for Prometheus."""
        return Response(generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST)


class _HttpMetrics:
    """Counts requests by the rule of their route, never by path."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "longlook_http_requests_total",
            "Answered requests.",
            ["route", "method", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "longlook_http_request_duration_seconds",
            "Time from a request to its response, open requests included.",
            ["route", "method", "code"],
            buckets=_SECONDS,
            registry=registry,
        )

    def count(self, response: Response) -> Response:
        """Count a request and its response."""
        rule = flask.request.url_rule
        route = "none" if rule is None else rule.rule
        method = flask.request.method
        method = method if method in HTTPMethod.__members__ else "other"
        labels = (route, method, response.status_code)
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).observe(time.perf_counter() - flask.g.started)
        return response


class _Service(Collector):
    """Queries SQL at each scrape.

    While the database is unavailable, there is only ``longlook_database_up 0``; while it has no room for searches, or
    they take too long, only ``longlook_database_up 1``.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._alive = timedelta(seconds=settings.lease_seconds)
        self._default_mb = settings.storage_mb_per_account

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing: registering must not query the database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        try:
            queue = statistics.waiting(self._database)
            seen = workers.seen(self._database, alive=self._alive)
            held = statistics.held(self._database)
            backlog = claims.backlog(self._database)
            refused = quarantine.count(self._database)
            paused = pauses.active(self._database)
            stored = storage.accounts(self._database, default_mb=self._default_mb)
            batches = batch_backlog.backlog(self._database)
        except errors.Unavailable as error:
            up = not isinstance(error, DatabaseUnavailable)
            yield _gauge("database_up", "Whether the database was available at this scrape.", up)
            return
        yield _gauge("database_up", "Whether the database was available at this scrape.", 1)
        yield from _of_queue(queue)
        scopes = [_scope(pause) for pause in paused]
        yield _by(
            "queue_pauses",
            "Active pauses of the queue, by what they cover.",
            "scope",
            {scope: scopes.count(scope) for scope in ("all", "account", "priority")},
        )
        yield _gauge("jobs_running", "Jobs that workers run.", sum(held.values()))
        missed = [worker for worker in seen if worker.age < self._alive + _MISSED]
        yield from _of_workers(missed, held)
        yield from _of_deliveries(backlog)
        yield from _of_batches(batches)
        yield from _of_storage([account.usage for account in stored])
        yield _gauge(
            "images_quarantined", "Images that are refused because they crash engines.", refused
        )


def _scope(pause: pauses.PauseView) -> str:
    if pause.account_id is not None:
        return "account"
    return "all" if pause.priority is None else "priority"


def _of_queue(queue: Mapping[Priority, statistics.QueuedByPriority]) -> Iterator[GaugeMetricFamily]:
    depth = GaugeMetricFamily(
        "longlook_queue_depth",
        "Queued jobs: due, or waiting for another attempt.",
        labels=["priority", "state"],
    )
    for priority, jobs in queue.items():
        depth.add_metric([priority, "due"], jobs.due)
        depth.add_metric([priority, "waiting"], jobs.later)
    yield depth
    yield _by(
        "queue_oldest_age_seconds",
        "How long the first due job that no pause covers has been due; 0 without one.",
        "priority",
        {
            priority: jobs.oldest.total_seconds() if jobs.oldest else 0
            for priority, jobs in queue.items()
        },
    )


def _of_storage(accounts: Sequence[storage.AccountStorage]) -> Iterator[GaugeMetricFamily]:
    yield _gauge("storage_bytes", "What all accounts store.", sum(one.total for one in accounts))
    yield _by(
        "storage_kind_bytes",
        "What all accounts store, by kind.",
        "kind",
        {kind: sum(one.by_kind[kind] for one in accounts) for kind in storage.StorageKind},
    )
    states = [one.state for one in accounts]
    yield _by(
        "storage_accounts",
        "Accounts by the use of their storage quotas.",
        "state",
        {state: states.count(state) for state in storage.QuotaState},
    )


def _of_batches(batches: batch_backlog.BatchBacklog) -> Iterator[GaugeMetricFamily]:
    states = {status.value: count for status, count in batches.by_status.items()}
    yield _by("batches", "Unfinished batches.", "state", states)
    yield _by(
        "batches_waiting",
        "Unfinished batches that wait for room (`blocked`), or after an error of the service (`failing`).",
        "cause",
        {"blocked": batches.blocked, "failing": batches.failing},
    )
    yield _gauge(
        "batch_oldest_due_seconds",
        "How long the due batch that waits longest has waited for an API process; 0 without one.",
        batches.oldest.total_seconds() if batches.oldest else 0,
    )


def _of_deliveries(backlog: claims.Backlog) -> Iterator[GaugeMetricFamily]:
    yield _gauge(
        "webhook_backlog", "Deliveries that are due, or wait for another attempt.", backlog.pending
    )
    yield _gauge(
        "webhook_oldest_pending_seconds",
        "Age of the oldest pending delivery; 0 without one.",
        backlog.oldest.total_seconds() if backlog.oldest else 0,
    )


def _of_workers(
    seen: list[workers.WorkerStatus], held: Mapping[str, int]
) -> Iterator[GaugeMetricFamily]:
    live = [worker for worker in seen if worker.alive]
    taking = [worker for worker in live if not worker.heartbeat.draining]
    yield _by(
        "workers",
        "Worker processes by the state of their heartbeats.",
        "state",
        {
            "live": len(taking),
            "draining": len(live) - len(taking),
            "silent": len(seen) - len(live),
        },
    )
    yield _gauge(
        "worker_slots",
        "Maximum number of concurrent jobs of the live workers.",
        sum(worker.heartbeat.slots for worker in taking),
    )
    yield _by(
        "worker_heartbeat_age_seconds",
        "Age of a worker's newest heartbeat.",
        "worker",
        {worker.heartbeat.id: worker.age.total_seconds() for worker in seen},
    )
    yield _by(
        "worker_busy",
        "Jobs that workers run.",
        "worker",
        {worker.heartbeat.id: held.get(worker.heartbeat.id, 0) for worker in seen},
    )
    engines = workers.engines(seen)
    states = [engine.state for engine in engines]
    yield _gauge(
        "engines_cordoned",
        "Engines that get no new jobs.",
        sum(engine.cordoned for engine in engines),
    )
    yield _by(
        "engines",
        "Engines, as the live workers see them.",
        "state",
        {state: states.count(state) for state in ("ok", "resting", "away")},
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"longlook_{name}", text, value=value)


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"longlook_{name}", text, labels=[label])
    for member, value in values.items():
        family.add_metric([member], value)
    return family
