"""The parts of a worker process: built at its start, drained at SIGTERM, closed at its end."""

from __future__ import annotations

import importlib.metadata
import os
import random
import secrets
import socket
import threading
from datetime import timedelta

import structlog

from core import process
from core.database import Database
from core.exporter import Exporter
from core.metrics import ShareMetrics, new_registry
from core.redis_prefix import RedisPrefix
from core.sandbox import Sandbox
from core.settings import Settings
from jobs.events.live import Publisher
from jobs.metrics import JobMetrics
from jobs.queue import DELIVER, RedisWakeup
from jobs.store import groups, outbox, purge, workers
from worker import compilations, equality, leases
from worker.engines import pool
from worker.heartbeat import Heartbeat
from worker.liveness import FOLDER, LivenessLock, kernel_id
from worker.polling import PollingFallback
from worker.run.slot import Slot
from worker.run.trace_buffer import TraceWriter
from worker.storage_totals import StorageTotals
from worker.sweeper import Sweeper

_log = structlog.get_logger(__name__)

_DRAIN_AGAIN_SECONDS = 0.5
_PASS_ON_SECONDS = 0.5
#: Sweeps without an answered wakeup before a process claims jobs without one.
_SILENT_SWEEPS = 3
#: A worker whose last heartbeat is older than this many intervals does not count as alive.
_MISSED_BEATS = 3
#: The most samples of a job: each of them may wait for its turn to have a grammar compiled.
_MOST_SAMPLES = 16


class WorkerRuntime:
    """All parts of a worker process. A wakeup calls :meth:`wake`."""

    def __init__(self, settings: Settings) -> None:
        rng = random.Random()  # noqa: S311 - jitter, not secrets
        #: Unique for each start: a restarted process must not be mistaken for its predecessor.
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        lease = timedelta(seconds=settings.lease_seconds)
        alive = timedelta(seconds=_MISSED_BEATS * settings.sweep_interval)
        self._drain_seconds = settings.drain_seconds
        self._draining = threading.Event()
        self._drained = threading.Event()
        #: Set when an operator has drained this process, which stays to finish its jobs.
        self._ordered = threading.Event()
        #: Held while the process stops or starts to claim jobs: a process that stops never starts again.
        self._claiming = threading.Lock()
        self.database = Database(settings.database, pool_size=max(10, settings.worker_slots // 4))
        self.registry = new_registry(revision=settings.revision)
        JobMetrics(self.database, registry=self.registry, model=settings.model)
        self._exporter = Exporter(
            self.registry, host=settings.metrics_host, port=settings.metrics_port
        )
        prefix = RedisPrefix(settings, self.database)
        self.wakeup = RedisWakeup(settings, prefix=prefix)
        self._delivery_wakeup = RedisWakeup(settings, task=DELIVER, prefix=prefix)
        self.database.listen(outbox.WakeupOnCommit(self._delivery_wakeup))
        self.database.listen(self._notify_for_followers)
        self.engines = pool.build(settings, settings.profile)
        self.engines.listen(self.wakeup.notify)
        # A connection of their own, so that busy slots cannot delay the leases.
        self._lease_database = Database(settings.database, pool_size=1)
        self.leases = leases.Leases(
            self._lease_database,
            owner=self.owner,
            lease=lease,
            renew_seconds=settings.renew_interval,
            watch_seconds=settings.watch_seconds,
        )
        self._publisher = Publisher(settings.redis_url, prefix)
        # Its children start when the first two answers differ and may be formulas.
        self._sandbox = Sandbox(
            equality.TARGET,
            processes=equality.PROCESSES,
            seconds=equality.SECONDS,
            memory_mb=equality.MEMORY_MB,
            imports_late=True,
        )
        self.trace_writer = TraceWriter(
            self.database,
            publisher=self._publisher,
            owner=self.owner,
            flush_seconds=settings.flush_seconds,
            on_lost=lambda key: self.leases.end(key, leases.StopReason.LOST),
        )
        self.formulas = equality.shares(most_waiting=2 * settings.worker_slots)
        self.grammars = compilations.Compilations(
            most_waiting=_MOST_SAMPLES * settings.worker_slots
        )
        self.registry.register(ShareMetrics(lambda: [self.formulas, *self.grammars.shares()]))
        self.runner = Slot(
            self.database,
            engines=self.engines,
            leases_=self.leases,
            trace_writer=self.trace_writer,
            profile=settings.profile,
            owner=self.owner,
            lease=lease,
            rng=rng,
            quarantine_crashes=settings.quarantine_crashes,
            equality=equality.Equality(self._sandbox, self.formulas),
            grammars=self.grammars,
        )
        self._liveness = LivenessLock(settings.home / FOLDER, owner=self.owner, kernel=kernel_id())
        self._sweeper = Sweeper(
            self.database,
            wakeup=self.wakeup,
            owner=self.owner,
            lease=lease,
            interval_seconds=settings.sweep_interval,
            alive=alive,
            crash_limit=settings.crash_limit,
            rng=rng,
            periods=purge.Periods.of(settings),
            for_each_dead=self._liveness.for_each_dead,
        )
        self._storage_totals = StorageTotals(
            self.database, interval_seconds=settings.sweep_interval, rng=rng
        )
        self._polling = PollingFallback(
            self.database,
            work=self.runner.work,
            slots=settings.worker_slots,
            held=lambda: self.leases.held,
            silence_seconds=_SILENT_SWEEPS * settings.sweep_interval,
        )
        self._heartbeat = Heartbeat(
            self.database,
            engines=self.engines,
            heartbeat=workers.WorkerHeartbeat(
                id=self.owner,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=importlib.metadata.version("longlook"),
                slots=settings.worker_slots,
            ),
            interval_seconds=settings.sweep_interval,
            alive=alive,
            on_room=self._sweeper.notify,
            on_drain=self._take_no_more,
            on_undrain=self._take_again,
        )
        self._drainer = threading.Thread(target=self._drain, name="drainer", daemon=True)

    def start(self) -> None:
        """Start the threads; the process ends when one of them ends."""
        process.exit_on_thread_death()
        self._liveness.acquire()
        self._exporter.start()
        self._heartbeat.start()
        self.leases.start()
        self._publisher.start()
        self.trace_writer.start()
        self._sweeper.start()
        self._storage_totals.start()
        self._polling.start()
        self._drainer.start()
        _log.info("worker_started", worker=self.owner)

    def wake(self) -> None:
        """Answer a wakeup: run jobs until none is left for this slot."""
        self._polling.woken()
        if self._ordered.is_set() and self._heartbeat.live:
            # This wakeup is for a worker that takes jobs. The pause keeps it from coming back at once.
            self._draining.wait(_PASS_ON_SECONDS)
            self.wakeup.notify()
            return
        self.runner.work()

    def drain(self) -> None:
        """Start to drain; safe in a signal handler."""
        self._draining.set()

    def stop(self) -> None:
        """Stop and close everything, after the last job has ended."""
        self._draining.set()
        self._sweeper.stop()
        self._storage_totals.stop()
        # Celery has waited for its own slots; the slots of the polling fallback end because the process drains.
        self._polling.stop()
        self._drained.set()
        self.trace_writer.stop()
        self._publisher.stop()
        self._sandbox.close()
        self.leases.stop()
        self._heartbeat.stop()
        self.wakeup.close()
        self._delivery_wakeup.close()
        self.engines.close()
        self._exporter.stop()
        self._lease_database.close()
        self.database.close()
        self._liveness.release()
        _log.info("worker_stopped", worker=self.owner)

    def _notify_for_followers(self, note: object) -> None:
        """Wake a slot for each job that no longer waits for the leader of its group."""
        if isinstance(note, groups.FollowersReleased):
            self.wakeup.notify(note.jobs)

    def _take_no_more(self) -> None:
        """Claim no more jobs, as an operator wants, and let those that run finish, however long they take."""
        _log.info("worker_drain_requested", held=self.leases.held)
        with self._claiming:
            self._ordered.set()
            self._heartbeat.drain()
            self.runner.drain()

    def _take_again(self) -> None:
        """Claim jobs again, as an operator wants, unless the process stops."""
        with self._claiming:
            if self._draining.is_set():
                return
            self._ordered.clear()
            self._heartbeat.undrain()
            self.runner.undrain()
        _log.info("worker_undrained")

    def _drain(self) -> None:
        """When draining: claim no more jobs, let jobs finish within the drain time, return the others to the queue."""
        self._draining.wait()
        _log.info("worker_draining", held=self.leases.held)
        with self._claiming:
            self._heartbeat.drain()
            self.runner.drain()
        pause = self._drain_seconds
        # Repeated, because a slot may have claimed its job just before the drain.
        while not self._drained.wait(pause):
            self.leases.end_all(leases.StopReason.DRAIN)
            pause = _DRAIN_AGAIN_SECONDS
