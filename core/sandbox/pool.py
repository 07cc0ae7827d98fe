"""The pool of a sandbox's children: who is free, who is replaced, how all end."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from core import errors
from core.closing import Closing
from core.sandbox.child import Child, SandboxCrashed, SandboxTimeout
from core.sandbox.confinement import FILES, LAYERS, hide_environment

log = structlog.get_logger(__name__)


class Sandbox(Closing):
    """A pool of children that all run one target, for any thread. To be made after any fork.

    Args:
        target: the function to run, as ``module:name``, importable with this process' own path.
        processes: the number of children; each starts when it is first needed.
        seconds: a call that takes longer is killed.
        memory_mb: address space of a child, in MiB.
        imports_late: whether the target imports modules while it works: then the Python libraries stay readable
            even where the kernel can shut all other files away only together with them.
        recycle_after: calls after which a child is replaced, so that no leak grows for ever.
        wait_seconds: how long a call waits for a free child.
    """

    def __init__(
        self,
        target: str,
        *,
        processes: int = 2,
        seconds: float = 15.0,
        memory_mb: int = 1536,
        imports_late: bool = False,
        recycle_after: int = 500,
        wait_seconds: float = 15.0,
    ) -> None:
        self._target = target
        self._processes = processes
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._imports_late = imports_late
        self._recycle_after = recycle_after
        self._wait_seconds = wait_seconds
        # One entry a place, None where no child is. Last in, first out: a warm child is taken
        # before a place in which one would have to start.
        self._places: queue.LifoQueue[Child | None] = queue.LifoQueue()
        for _ in range(processes):
            self._places.put(None)
        # Linux sends a child its death signal when the *thread* that started it ends, so one
        # thread that lives as long as the pool starts them all.
        self._nursery = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-nursery")
        self._lock = threading.Lock()
        self._living: set[Child] = set()
        self._closed = False
        self._confined: tuple[str, ...] | None = None

    @property
    def pids(self) -> frozenset[int]:
        """The process ids of the children that run now."""
        with self._lock:
            return frozenset(child.pid for child in self._living)

    @property
    def confined(self) -> tuple[str, ...] | None:
        """The layers of :mod:`core.sandbox.confinement` that hold for its children; None before the first started."""
        return self._confined

    def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Return what the target returns for ``payload`` and ``arguments`` (JSON values).

        Raises:
            core.errors.RequestError: what the target raised: its class, message, code, parameter.
            SandboxTimeout: the call took too long.
            SandboxCrashed: the child died of it.
            core.errors.Unavailable: no child was free in time or could start, or the pool is closed.
        """
        try:
            child = self._places.get(timeout=self._wait_seconds)
        except queue.Empty:
            raise errors.Unavailable("The service is too busy to look at this now.") from None
        stored: Child | None = None
        try:
            child = self._ready(child)
            reply, data = child.ask(arguments, payload, seconds=self._seconds)
            if child.calls < self._recycle_after:
                stored = child
        except (SandboxTimeout, SandboxCrashed):
            self._refuse_if_closed()
            if child is not None:
                self._discard(child)
            # The call that cost a child waits for the next one, so that no other call has to.
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
        """Start all children now: the first calls need not wait, and a bad target shows at once.

        Raises:
            core.errors.Unavailable: a child cannot start, or the pool is closed.
        """
        places: list[Child | None] = []
        try:
            for _ in range(self._processes):
                places.append(self._places.get(timeout=self._wait_seconds))
                places[-1] = self._ready(places[-1])
        except queue.Empty:
            # The others are at work, which is as warm as can be.
            log.info("sandbox_warmed_in_part")
        finally:
            for child in places:
                self._places.put(child)

    def close(self) -> None:
        """Kill all children, busy ones too; their calls and all later ones are refused."""
        with self._lock:
            self._closed = True
            living = list(self._living)
        for child in living:
            child.kill()
        # A caller whose child was killed gives its place back at once, so all places can be had.
        for place in [self._places.get() for _ in range(self._processes)]:
            if place is not None:
                self._discard(place)
        for _ in range(self._processes):
            self._places.put(None)
        self._nursery.shutdown()

    def _ready(self, child: Child | None) -> Child:
        """Return ``child`` if it lives, or else a new one."""
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
            raise errors.Unavailable("A sandbox cannot be started.") from None
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
        """Return a new child, or None when none can be started."""
        try:
            return self._ready(None)
        except errors.Unavailable:
            return None

    def _note(self, confined: tuple[str, ...]) -> None:
        """Keep how far children are confined; what the kernel does not give is logged once."""
        if self._confined is None and (missing := [one for one in LAYERS if one not in confined]):
            log.warning("sandbox_not_confined", target=self._target, missing=missing)
            if FILES in missing:
                # A child could read it in /proc, as every process of this user can.
                hide_environment()
        self._confined = confined

    def _discard(self, child: Child) -> None:
        with self._lock:
            self._living.discard(child)
        child.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise errors.Unavailable("The service is shutting down.")
