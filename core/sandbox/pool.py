"""The pool of a sandbox's children: which are free, how they are replaced, and how they end."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from core import errors
from core.closing import Closing
from core.sandbox.child import Child, Content, SandboxCpuExceeded, SandboxCrashed, SandboxTimeout
from core.sandbox.confinement import FILES, LAYERS, hide_environment

log = structlog.get_logger(__name__)

#: About the time until a child is free or the service has restarted.
_BUSY_SECONDS = 5


class Sandbox(Closing):
    """A pool of children that run one target. Thread-safe. Create it after any fork.

    Args:
        target: the function to run, as ``module:name``, importable in this process.
        processes: the number of children; each starts when it is first needed.
        seconds: a call that takes longer by the clock is killed.
        cpu_seconds: a call that uses more CPU time is ended; None: no limit.
        memory_mb: address space of a child, in MiB.
        imports_late: whether the target imports modules while it works: then the Python libraries stay readable,
            with all other files if the kernel cannot distinguish them.
        recycle_after: calls after which a child is replaced, so that leaks stay small.
        wait_seconds: how long a call waits for a free child.
    """

    def __init__(
        self,
        target: str,
        *,
        processes: int = 2,
        seconds: float = 15.0,
        cpu_seconds: float | None = None,
        memory_mb: int = 1536,
        imports_late: bool = False,
        recycle_after: int = 500,
        wait_seconds: float = 15.0,
    ) -> None:
        self._target = target
        self._processes = processes
        self._seconds = seconds
        self._cpu_seconds = cpu_seconds
        self._memory_mb = memory_mb
        self._imports_late = imports_late
        self._recycle_after = recycle_after
        self._wait_seconds = wait_seconds
        # One entry per place, None without a child. Last in, first out: a warm child is taken
        # before a place whose child must start first.
        self._places: queue.LifoQueue[Child | None] = queue.LifoQueue()
        for _ in range(processes):
            self._places.put(None)
        # Linux sends the death signal when the *thread* that started the child ends, so one
        # thread with the lifetime of the pool starts all children.
        self._nursery = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-nursery")
        self._lock = threading.Lock()
        self._living: set[Child] = set()
        self._closed = False
        self._confined: tuple[str, ...] | None = None

    @property
    def pids(self) -> frozenset[int]:
        """The process ids of the running children."""
        with self._lock:
            return frozenset(child.pid for child in self._living)

    @property
    def confined(self) -> tuple[str, ...] | None:
        """The active layers of :mod:`core.sandbox.confinement`; None before the first child has started."""
        return self._confined

    def call(self, payload: bytes | Content, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Return the target's result for ``payload`` and ``arguments`` (JSON values).

        Raises:
            core.errors.RequestError: the target raised it; class, message, code, and parameter are the same.
            SandboxTimeout: the call took too long by the clock.
            SandboxCpuExceeded: the call used too much CPU time.
            SandboxCrashed: the child died.
            core.errors.Unavailable: no child was free in time or could start, or the pool is closed.
        """
        try:
            child = self._places.get(timeout=self._wait_seconds)
        except queue.Empty:
            raise errors.Unavailable(
                "The service is too busy to process this now.", retry_after=_BUSY_SECONDS
            ) from None
        stored: Child | None = None
        try:
            child = self._ready(child)
            reply, data = child.ask(
                arguments, payload, seconds=self._seconds, cpu_seconds=self._cpu_seconds
            )
            if child.calls < self._recycle_after:
                stored = child
        except (SandboxTimeout, SandboxCpuExceeded, SandboxCrashed):
            self._refuse_if_closed()
            if child is not None:
                self._discard(child)
            # The call that lost the child waits for its replacement, so that no other call must.
            stored = child = self._replacement()
            raise
        finally:
            if child is not None and stored is None:
                self._discard(child)
            self._places.put(stored)
        if "refused" in reply:
            refused = reply["refused"]
            kind: type[errors.RequestError] = getattr(errors, refused["class"])
            raise kind(refused["message"], code=refused["code"], param=refused["param"])
        return reply["facts"], data

    def warm(self) -> None:
        """Start all children now, so that the first calls need not wait, and a bad target fails at once.

        Raises:
            core.errors.Unavailable: a child cannot start, or the pool is closed.
        """
        places: list[Child | None] = []
        try:
            for _ in range(self._processes):
                places.append(self._places.get(timeout=self._wait_seconds))
                places[-1] = self._ready(places[-1])
        except queue.Empty:
            # The others are busy, so they have started.
            log.info("sandbox_warmed_in_part")
        finally:
            for child in places:
                self._places.put(child)

    def close(self) -> None:
        """Kill all children, busy ones included; their calls and all later ones are refused."""
        with self._lock:
            self._closed = True
            living = list(self._living)
        for child in living:
            child.kill()
        # A caller whose child was killed gives its place back at once, so all places become free.
        for place in [self._places.get() for _ in range(self._processes)]:
            if place is not None:
                self._discard(place)
        for _ in range(self._processes):
            self._places.put(None)
        self._nursery.shutdown()

    def _ready(self, child: Child | None) -> Child:
        """Return ``child`` if it is alive, else a new one."""
        if child is not None and child.alive:
            return child
        if child is not None:
            self._discard(child)
        with self._lock:
            self._refuse_if_closed()
            starting = self._nursery.submit(
                Child,
                self._target,
                memory_mb=self._memory_mb,
                imports_late=self._imports_late,
            )
        try:
            started = starting.result()
        except OSError:
            log.exception("sandbox_start_failed", target=self._target)
            raise errors.Unavailable(
                "A sandbox cannot be started.", retry_after=_BUSY_SECONDS
            ) from None
        with self._lock:
            self._living.add(started)
        try:
            self._refuse_if_closed()
            started.await_start()
        except BaseException:
            self._discard(started)
            raise
        self._note(started.confined)
        return started

    def _replacement(self) -> Child | None:
        """Return a new child, or None when it cannot start."""
        try:
            return self._ready(None)
        except errors.Unavailable:
            return None

    def _note(self, confined: tuple[str, ...]) -> None:
        """Store the layers of confinement; log missing ones once."""
        if self._confined is None and (missing := [one for one in LAYERS if one not in confined]):
            log.warning("sandbox_not_confined", target=self._target, missing=missing)
            if FILES in missing:
                # A child could read the environment in /proc, like every process of this user.
                hide_environment()
        self._confined = confined

    def _discard(self, child: Child) -> None:
        with self._lock:
            self._living.discard(child)
        child.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise errors.Unavailable("The service is shutting down.", retry_after=_BUSY_SECONDS)
