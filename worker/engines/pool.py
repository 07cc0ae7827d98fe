"""Engine slots: how many streams this process may run, on which engine, and which engines rest.

A slot is the right to run one engine stream. The slots of an engine are the streams that it runs at once plus a small
margin that keeps it busy between two streams; the live worker processes share them.

A job starts with one slot, and a vote requests further ones. While claims find no free slot, an account that holds its
share gets no further ones: a waiting job goes first. The claim decides which job that is.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from core import errors
from core.closing import Closing
from core.profiles import ModelProfile
from core.settings import Settings
from jobs.engine import Engine, EngineFacts
from jobs.store.workers import EngineState
from scripted import Scripted
from worker.engines.sglang.client import SGLang
from worker.engines.watchdog import WatchedEngine

#: SGLang orders its queue by cached prefix only up to this number of waiting requests (``schedule_policy lpm``).
_MOST_WAITING = 128
#: Seconds that an engine rests after its first failure, and the maximum; the rest doubles with each failure.
_REST_FIRST, _REST_LONGEST = 1.0, 30.0
#: Seconds after which a claim without a free slot is forgotten: by then a sweep has sent another wakeup for its job.
_CLAIMS_WAIT_SECONDS = 30.0

log = structlog.get_logger(__name__)


class EngineSlot(Closing):
    """The right to run one stream on one engine. Release it, preferably by ``with``; twice is harmless."""

    def __init__(self, pool: EnginePool, entry: _EngineEntry, facts: EngineFacts) -> None:
        self.engine = entry.watched
        #: The facts of the engine when the slot was granted.
        self.facts = facts
        #: The account of its job; None before the claim.
        self.account_id: uuid.UUID | None = None
        self._pool = pool
        self._entry = entry

    def release(self, *, notify: bool = False) -> None:
        """Give the slot back; ``notify`` sends a wakeup if a claim found no free slot.

        A caller that claims the next job on its own needs no wakeup.
        """
        self._pool.take_back(self, self._entry, notify=notify)

    def close(self) -> None:
        """Give the slot back."""
        self.release()


@dataclass
class _EngineEntry:
    """The state of one engine in the pool."""

    engine: Engine
    #: The same engine under its watchdog; all streams use this one.
    watched: Engine
    facts: EngineFacts | None = None
    slots: set[EngineSlot] = field(default_factory=set)
    requested: bool = False
    #: Why there are no facts.
    reason: str = ""
    #: Failures since its last success. After the rest it gets one stream at a time.
    faults: int = 0
    rests_until: float = 0.0
    trial: EngineSlot | None = None


class EnginePool:
    """The engines of a worker process. Thread-safe.

    Args:
        engines: all engines, reachable or not.
        live_workers: worker processes that share them, this one included.
        margin: streams beyond the window of an engine, at least; an eighth of a larger window.
        silent_seconds: see :class:`worker.engines.watchdog.WatchedEngine`; None: no watchdog.
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
        self._entries = [
            _EngineEntry(
                engine,
                watched=engine
                if silent_seconds is None
                else WatchedEngine(engine, silent_seconds=silent_seconds),
            )
            for engine in engines
        ]
        self._live_workers = max(live_workers, 1)
        self._cordoned: frozenset[str] = frozenset()
        self._margin = margin
        self._now = now
        self._jitter = jitter
        self._lock = threading.Lock()
        #: Claims that found no free slot and have not been repeated, and the time of the last one.
        self._waiting_claims = 0
        self._claims_waited_at = 0.0
        self._on_room: Callable[[], None] = lambda: None

    def share(self, live_workers: int) -> None:
        """Divide each window among this number of worker processes from now on."""
        with self._lock:
            self._live_workers = max(live_workers, 1)

    def cordon(self, urls: frozenset[str]) -> None:
        """Give out no slots of the engines at ``urls``, and of no others, from now on. Slots that are held stay."""
        with self._lock:
            changed = urls != self._cordoned
            self._cordoned = urls
        if changed:
            log.info("engines_cordoned", urls=sorted(urls))

    def listen(self, on_room: Callable[[], None]) -> None:
        """Call ``on_room`` when there is a slot for a claim that found none; it must return at once."""
        self._on_room = on_room

    def acquire(self) -> EngineSlot | None:
        """Return a slot for a claim, on the engine with the lowest utilization, or None. Never waits.

        The caller reports the result of the claim by :meth:`claimed`.
        """
        with self._lock:
            with_room = [entry for entry in self._entries if self._has_room(entry)]
            entry = min(
                with_room, key=lambda entry: len(entry.slots) / self._share(entry), default=None
            )
            if entry is None or entry.facts is None:
                self._waiting_claims += 1
                self._claims_waited_at = self._now()
                return None
            return self._give(entry, entry.facts)

    def claimed(self, slot: EngineSlot, account_id: uuid.UUID | None) -> None:
        """Note that ``slot`` is for a job of an account; None: no job waits."""
        with self._lock:
            slot.account_id = account_id
            self._waiting_claims = 0 if account_id is None else max(0, self._waiting_claims - 1)

    def another(self, slot: EngineSlot) -> EngineSlot | None:
        """Return one more slot on the engine of ``slot``, which has the prompt in its cache, or None. Never waits.

        The result is also None while claims find no free slot and the account holds its share.
        """
        with self._lock:
            entry = next(entry for entry in self._entries if entry.watched is slot.engine)
            if entry.facts is None or not self._has_room(entry):
                return None
            if self._claims_wait() and self._held(slot.account_id) >= self._account_share():
                return None
            more = self._give(entry, entry.facts)
            more.account_id = slot.account_id
            return more

    def must_yield(self, slot: EngineSlot) -> bool:
        """Whether claims find no free slot while the account of ``slot`` holds more than its share."""
        with self._lock:
            return self._claims_wait() and self._held(slot.account_id) > self._account_share()

    def window(self) -> int:
        """Return the number of slots of this process while no engine rests."""
        with self._lock:
            return self._window()

    def states(self) -> tuple[EngineState, ...] | None:
        """Return the states of the engines, for the heartbeat; None before the first :meth:`refresh`."""
        with self._lock:
            if not all(entry.requested for entry in self._entries):
                return None
            return tuple(self._state(entry) for entry in self._entries)

    def report(self, engine: Engine, error: errors.EngineError | None) -> None:
        """Report the result of a stream: None with its first token, else its error.

        An engine that is unreachable, full, or silent to all requests rests, 1 s at first and 30 s at most;
        then it gets one stream at a time until one succeeds. An engine that is silent to one request and answers
        others does not rest: only the request is stuck.
        """
        with self._lock:
            entry = next(
                entry for entry in self._entries if engine in (entry.engine, entry.watched)
            )
            # Reports during a rest are about streams from before the failure.
            if self._now() < entry.rests_until:
                return
            if error is None or isinstance(error, errors.EngineRejected):
                entry.faults = 0
            elif isinstance(error, errors.EngineSilent):
                if not error.answers_others:
                    self._rest(entry, error)
            elif isinstance(
                error, errors.EngineUnavailable | errors.EngineBusy | errors.EngineLost
            ):
                self._rest(entry, error)

    def refresh(self) -> None:
        """Read the facts of all engines; an engine without facts gets no streams. Blocks.

        All engines are asked at once, so that several silent ones do not delay the heartbeat too long.
        """
        with ThreadPoolExecutor(len(self._entries), thread_name_prefix="facts") as asking:
            list(asking.map(self._ask, self._entries))

    def close(self) -> None:
        """Release the engines' connections."""
        for entry in self._entries:
            entry.watched.close()

    def take_back(self, slot: EngineSlot, entry: _EngineEntry, *, notify: bool) -> None:
        """Take ``slot`` back; called by :meth:`EngineSlot.release`."""
        with self._lock:
            notify = notify and slot in entry.slots and self._claims_wait()
            entry.slots.discard(slot)
            if entry.trial is slot:
                entry.trial = None
        if notify:
            self._on_room()

    def _claims_wait(self) -> bool:
        recent = self._now() - self._claims_waited_at < _CLAIMS_WAIT_SECONDS
        return self._waiting_claims > 0 and recent

    def _held(self, account_id: uuid.UUID | None) -> int:
        """Return the number of slots that an account holds."""
        return sum(slot.account_id == account_id for entry in self._entries for slot in entry.slots)

    def _account_share(self) -> float:
        """Return the share of one account, if one account more than those that hold slots wanted some."""
        accounts = {slot.account_id for entry in self._entries for slot in entry.slots}
        return self._window() / (len(accounts) + 1)

    def _window(self) -> int:
        return sum(self._share(entry) for entry in self._entries)

    def _give(self, entry: _EngineEntry, facts: EngineFacts) -> EngineSlot:
        slot = EngineSlot(self, entry, facts)
        entry.slots.add(slot)
        if entry.faults:
            entry.trial = slot
        return slot

    def _ask(self, entry: _EngineEntry) -> None:
        checked = check(entry.watched)
        if (
            checked.facts is None
            and isinstance(entry.watched, WatchedEngine)
            and entry.watched.answers
        ):
            # It is too busy for a short request, and its streams get tokens: it is not away.
            return
        self._learn(entry, checked.facts, checked.reason)

    def _share(self, entry: _EngineEntry) -> int:
        """Return this process's part of an engine's window; at least 1, so that no worker starves."""
        if entry.facts is None or entry.engine.url in self._cordoned:
            return 0
        window = entry.facts.window
        margin = min(max(self._margin, window // 8), _MOST_WAITING)
        return max((window + margin) // self._live_workers, 1)

    def _state(self, entry: _EngineEntry) -> EngineState:
        if entry.facts is None:
            return EngineState(
                url=entry.engine.url,
                state="away",
                reason=entry.reason or None,
                **self._use(entry),
            )
        return EngineState(
            url=entry.engine.url,
            state="resting" if entry.faults and self._now() < entry.rests_until else "ok",
            model=entry.facts.model,
            version=entry.facts.version,
            window=entry.facts.window,
            **self._use(entry),
        )

    def _use(self, entry: _EngineEntry) -> dict[str, Any]:
        return {
            "cordoned": entry.engine.url in self._cordoned,
            "running": len(entry.slots),
        }

    def _has_room(self, entry: _EngineEntry) -> bool:
        if entry.faults and (entry.trial is not None or self._now() < entry.rests_until):
            return False
        return len(entry.slots) < self._share(entry)

    def _rest(self, entry: _EngineEntry, error: errors.EngineError) -> None:
        longest = min(_REST_FIRST * 2**entry.faults, _REST_LONGEST)
        seconds = longest * (0.5 + self._jitter() / 2)
        entry.faults += 1
        entry.rests_until = self._now() + seconds
        log.warning(
            "engine_rested", url=entry.engine.url, code=error.code, seconds=round(seconds, 2)
        )

    def _learn(self, entry: _EngineEntry, facts: EngineFacts | None, reason: str = "") -> None:
        with self._lock:
            changed = facts != entry.facts or not entry.requested
            if facts is not None and entry.facts is None:
                # An engine that is back counts as a success.
                entry.faults, entry.rests_until = 0, 0.0
            entry.facts, entry.requested, entry.reason = facts, True, reason
        if not changed:
            return
        if facts is None:
            log.warning("engine_lost", url=entry.engine.url, reason=reason)
            return
        log.info(
            "engine_found",
            url=entry.engine.url,
            model=facts.model,
            version=facts.version,
            window=facts.window,
        )


@dataclass(frozen=True)
class EngineCheck:
    """The result of a check of an engine: its facts, or why the workers count it as away."""

    facts: EngineFacts | None
    reason: str = ""


def check(engine: Engine) -> EngineCheck:
    """Check an engine as a worker does before it sends it streams: with these facts it is available."""
    try:
        return EngineCheck(engine.facts())
    except errors.EngineUnavailable as error:
        return EngineCheck(None, error.message)


def check_url(url: str, settings: Settings) -> EngineCheck:
    """Check the engine at a URL, for programs that are no worker.

    Raises:
        core.errors.SettingsError: the URL is not valid.
    """
    engine = build_engine(url, settings, settings.profile)
    try:
        return check(engine)
    finally:
        engine.close()


def build(settings: Settings, profile: ModelProfile) -> EnginePool:
    """Return the pool of the engines in the settings. It has no facts before :meth:`EnginePool.refresh`.

    Raises:
        core.errors.SettingsError: a URL is not valid, or a ``scripted:`` URL has an unknown option.
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
