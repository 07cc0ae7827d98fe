"""Permits: how many streams this process may run, on which engine, and which engines are left alone.

A permit is one engine stream. An engine's window is what it runs at once plus a small margin that keeps
it busy between two streams; it is divided among the live worker processes.

A job comes with a permit, and one whose samples vote asks for further ones. While claims find no room, an account that
holds its share of the permits gets none of those: a job that waits goes first. Which job that is, the claim decides.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from core import errors
from core.closing import Closing
from jobs.store.workers import EngineState
from scripted import Scripted
from worker.engines.sglang import SGLang
from worker.engines.watchdog import WatchedEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.profiles import ModelProfile
    from core.settings import Settings
    from jobs.engine import Engine, EngineFacts

#: SGLang orders its queue by cached prefix only up to this many waiting requests (``schedule_policy lpm``).
_MOST_WAITING = 128
#: Seconds that an engine rests after its first fault, and at most; doubled from one to the other.
_REST_FIRST, _REST_LONGEST = 1.0, 30.0
#: Seconds after which a claim that found no room is forgotten: a sweep has rung for its job again by then.
_CLAIMS_WAIT_SECONDS = 30.0

log = structlog.get_logger(__name__)


class EngineSlot(Closing):
    """Leave to run one stream on one engine. Give it back, best by ``with``; twice is harmless."""

    def __init__(self, pool: EnginePool, post: _EngineEntry, facts: EngineFacts) -> None:
        self.engine = post.watched
        #: What the engine said of itself when the permit was given.
        self.facts = facts
        #: Whose job has it; None before one is claimed.
        self.account_id: uuid.UUID | None = None
        self._pool = pool
        self._post = post

    def release(self, *, notify: bool = False) -> None:
        """Give the permit back; with ``notify`` a claim that found no room is made again at once.

        A slot does without: it claims the next job itself.
        """
        self._pool.take_back(self, self._post, notify=notify)

    def close(self) -> None:
        """Give the permit back."""
        self.release()


@dataclass
class _EngineEntry:
    """One engine as the pool sees it."""

    engine: Engine
    #: The same with an eye on its silence; all streams go through this.
    watched: Engine
    facts: EngineFacts | None = None
    permits: set[EngineSlot] = field(default_factory=set)
    requested: bool = False
    #: Faults since it last did well. After the rest for them it is tried with one stream at a time.
    faults: int = 0
    rests_until: float = 0.0
    trial: EngineSlot | None = None


class EnginePool:
    """The engines of a worker process. Thread-safe.

    Args:
        engines: all of them, alive or not.
        live_workers: worker processes that share them, this one included.
        margin: streams beyond what an engine runs at once, at least; an eighth of a larger window.
        silent_seconds: see :class:`worker.engines.watchdog.WatchedEngine`; None watches nothing.
        now: a monotonic clock, in seconds.
        jitter: returns a number between 0 and 1.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        live_workers: int = 1,
        margin: int = 4,
        silent_seconds: float | None = None,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._posts = [
            _EngineEntry(
                engine,
                watched=engine
                if silent_seconds is None
                else WatchedEngine(engine, silent_seconds=silent_seconds),
            )
            for engine in engines
        ]
        self._live_workers = max(live_workers, 1)
        self._margin = margin
        self._now = now
        self._jitter = jitter
        self._lock = threading.Lock()
        #: Claims that found no room and have not been made up for, and when the last one was.
        self._claims_waiting = 0
        self._claims_waited_at = 0.0
        self._on_room: Callable[[], None] = lambda: None

    def share(self, live_workers: int) -> None:
        """Divide each window among this many worker processes from now on."""
        with self._lock:
            self._live_workers = max(live_workers, 1)

    def listen(self, on_room: Callable[[], None]) -> None:
        """Have ``on_room`` called when there is room for a claim that found none; it must return at once."""
        self._on_room = on_room

    def acquire(self) -> EngineSlot | None:
        """Return a permit for a claim, for the engine with the most room in proportion, or None. Never waits.

        What came of the claim is to be told: :meth:`claimed`.
        """
        with self._lock:
            with_room = [post for post in self._posts if self._has_room(post)]
            post = min(
                with_room, key=lambda post: len(post.permits) / self._share(post), default=None
            )
            if post is None or post.facts is None:
                self._claims_waiting += 1
                self._claims_waited_at = self._now()
                return None
            return self._give(post, post.facts)

    def claimed(self, permit: EngineSlot, account_id: uuid.UUID | None) -> None:
        """Take it that ``permit`` is for a job of an account; None: no job waits."""
        with self._lock:
            permit.account_id = account_id
            self._claims_waiting = 0 if account_id is None else max(0, self._claims_waiting - 1)

    def another(self, permit: EngineSlot) -> EngineSlot | None:
        """Return one more permit for the engine of ``permit``, which knows the prompt, or None. Never waits.

        None is also for an account that holds its share while claims find no room.
        """
        with self._lock:
            post = next(post for post in self._posts if post.watched is permit.engine)
            if post.facts is None or not self._has_room(post):
                return None
            if self._claims_wait() and self._held(permit.account_id) >= self._account_share():
                return None
            more = self._give(post, post.facts)
            more.account_id = permit.account_id
            return more

    def must_yield(self, permit: EngineSlot) -> bool:
        """Whether claims find no room while the account of ``permit`` holds more than its share of the permits."""
        with self._lock:
            return self._claims_wait() and self._held(permit.account_id) > self._account_share()

    def window(self) -> int:
        """Return how many permits this process can hold at once while all engines do well."""
        with self._lock:
            return self._window()

    def states(self) -> tuple[EngineState, ...] | None:
        """Return how the engines do, as the process tells of them; None before they have been asked."""
        with self._lock:
            if not all(post.requested for post in self._posts):
                return None
            return tuple(self._state(post) for post in self._posts)

    def report(self, engine: Engine, error: errors.EngineError | None) -> None:
        """Tell how a stream went: None as soon as it has begun to answer, else its fault.

        An engine that cannot be reached, has no room or is silent to all rests, 1 s at first and 30 s at most;
        then it gets one stream at a time until one goes well. One that is silent to one request and answers others
        goes on: it is the request that is stuck.
        """
        with self._lock:
            post = next(post for post in self._posts if engine in (post.engine, post.watched))
            # What comes while it rests is from streams that were begun before the fault.
            if self._now() < post.rests_until:
                return
            if error is None or isinstance(error, errors.EngineRejected):
                post.faults = 0
            elif isinstance(error, errors.EngineSilent):
                if not error.answers_others:
                    self._rest(post, error)
            elif isinstance(
                error, errors.EngineUnavailable | errors.EngineBusy | errors.EngineLost
            ):
                self._rest(post, error)

    def refresh(self) -> None:
        """Read the facts of all engines anew; one whose facts cannot be read gives no permits. Blocks.

        All are asked at the same time: silent ones must not add up to more than a heartbeat may be late.
        """
        with ThreadPoolExecutor(len(self._posts), thread_name_prefix="facts") as asking:
            list(asking.map(self._ask, self._posts))

    def close(self) -> None:
        """Release the engines' connections."""
        for post in self._posts:
            post.watched.close()

    def take_back(self, permit: EngineSlot, post: _EngineEntry, *, notify: bool) -> None:
        """Take ``permit`` back; :meth:`EngineSlot.release` is how to say it."""
        with self._lock:
            notify = notify and permit in post.permits and self._claims_wait()
            post.permits.discard(permit)
            if post.trial is permit:
                post.trial = None
        if notify:
            self._on_room()

    def _claims_wait(self) -> bool:
        recent = self._now() - self._claims_waited_at < _CLAIMS_WAIT_SECONDS
        return self._claims_waiting > 0 and recent

    def _held(self, account_id: uuid.UUID | None) -> int:
        """Return how many permits an account holds."""
        return sum(
            permit.account_id == account_id for post in self._posts for permit in post.permits
        )

    def _account_share(self) -> float:
        """Return an account's share of the permits, when one more account than those that hold some wants any."""
        accounts = {permit.account_id for post in self._posts for permit in post.permits}
        return self._window() / (len(accounts) + 1)

    def _window(self) -> int:
        return sum(self._share(post) for post in self._posts)

    def _give(self, post: _EngineEntry, facts: EngineFacts) -> EngineSlot:
        permit = EngineSlot(self, post, facts)
        post.permits.add(permit)
        if post.faults:
            post.trial = permit
        return permit

    def _ask(self, post: _EngineEntry) -> None:
        try:
            facts = post.watched.facts()
        except errors.EngineUnavailable as error:
            self._learn(post, None, error.message)
        else:
            self._learn(post, facts)

    def _share(self, post: _EngineEntry) -> int:
        """Return this process' part of an engine's window; at least 1, lest a worker starve."""
        if post.facts is None:
            return 0
        window = post.facts.window
        margin = min(max(self._margin, window // 8), _MOST_WAITING)
        return max((window + margin) // self._live_workers, 1)

    def _state(self, post: _EngineEntry) -> EngineState:
        if post.facts is None:
            return EngineState(url=post.engine.url, state="away")
        return EngineState(
            url=post.engine.url,
            state="resting" if post.faults and self._now() < post.rests_until else "ok",
            model=post.facts.model,
            version=post.facts.version,
            window=post.facts.window,
        )

    def _has_room(self, post: _EngineEntry) -> bool:
        if post.faults and (post.trial is not None or self._now() < post.rests_until):
            return False
        return len(post.permits) < self._share(post)

    def _rest(self, post: _EngineEntry, error: errors.EngineError) -> None:
        longest = min(_REST_FIRST * 2**post.faults, _REST_LONGEST)
        seconds = longest * (0.5 + self._jitter() / 2)
        post.faults += 1
        post.rests_until = self._now() + seconds
        log.warning(
            "engine_rested", url=post.engine.url, code=error.code, seconds=round(seconds, 2)
        )

    def _learn(self, post: _EngineEntry, facts: EngineFacts | None, reason: str = "") -> None:
        with self._lock:
            changed = facts != post.facts or not post.requested
            if facts is not None and post.facts is None:
                # It was away and answers again: that is as good as a stream.
                post.faults, post.rests_until = 0, 0.0
            post.facts, post.requested = facts, True
        if not changed:
            return
        if facts is None:
            log.warning("engine_lost", url=post.engine.url, reason=reason)
            return
        log.info(
            "engine_found",
            url=post.engine.url,
            model=facts.model,
            version=facts.version,
            window=facts.window,
        )


def build(settings: Settings, profile: ModelProfile) -> EnginePool:
    """Return the engines that the settings name. Nothing is asked of them yet: see :meth:`EnginePool.refresh`.

    Raises:
        core.errors.SettingsError: a ``scripted:`` URL with an option that is not known.
    """
    return EnginePool(
        [build_engine(url, settings, profile) for url in settings.engine_urls],
        silent_seconds=settings.engine_silent_seconds,
    )


def build_engine(url: str, settings: Settings, profile: ModelProfile) -> Engine:
    """Return the engine at a URL. Raises :class:`core.errors.SettingsError`."""
    if url.startswith("scripted:"):
        return Scripted(url, profile=profile, model=settings.model)
    key = settings.engine_api_key
    return SGLang(
        url,
        api_key=key.get_secret_value() if key else None,
        connect_seconds=settings.engine_connect_seconds,
        first_token_seconds=settings.engine_first_token_seconds,
        token_seconds=settings.engine_token_seconds,
        connections=settings.worker_slots,
    )
