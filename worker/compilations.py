"""Grammars that engines have yet to compile: whose turn it is, and which schemas took too long.

An engine compiles a schema when the first stream comes under it, on CPU cores that all its streams need. So of the
schemas that an engine has not seen an account has one compiled at a time, and the accounts take turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog

from core import errors
from core.recent import Recent
from core.shares import Shares

_log = structlog.get_logger(__name__)

#: Schemas that an engine compiles at once for one worker process.
_PLACES = 2
#: Schemas that are remembered: compiled ones for an hour, lest an engine that was started anew gets them all at once.
_REMEMBERED = 4096
_COMPILED_SECONDS = 3600.0
_SILENT_SECONDS = 600.0
#: Between two looks whether a job that waits for its turn is still wanted, and between two refused calls.
_LOOK_SECONDS = 2.0
_BREATH_SECONDS = 0.05

_Key = tuple[str, str]


class CompilationStopped(Exception):
    """The job was stopped while it waited for its turn."""


class CompilationTurn:
    """One stream under a grammar."""

    def __init__(self, compilations: Compilations, key: _Key) -> None:
        self._compilations = compilations
        self._key = key
        self._place = contextlib.ExitStack()

    def hold(self, shares: Shares, account_id: uuid.UUID, *, seconds: float) -> None:
        """Hold a place. Raises :class:`core.errors.Overloaded`."""
        self._place.enter_context(shares.hold(account_id, seconds=seconds))

    def begun(self) -> None:
        """Take it that the stream has begun: the grammar is there."""
        self._compilations.compiled.add(self._key)
        self._place.close()

    def failed(self, fault: errors.EngineError) -> errors.EngineError:
        """Take it that the stream failed before it began; return what that means for the job."""
        if isinstance(fault, errors.SchemaTimedOut):
            self._compilations.timed_out.add(self._key)
        elif isinstance(fault, errors.EngineSilent):
            return self._compilations.silent(self._key, fault)
        return fault

    def end(self) -> None:
        """Give the place back."""
        self._place.close()


class Compilations:
    """What this process knows of the engines' grammars; for any thread.

    Args:
        most_waiting: streams that wait for a turn at one engine.
        places: schemas that an engine compiles at once; one of several is always for an account that has none.
        look_seconds: between two looks whether a job that waits is still wanted.
    """

    def __init__(
        self, *, most_waiting: int, places: int = _PLACES, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._look_seconds = look_seconds
        self.compiled = Recent(_REMEMBERED, seconds=_COMPILED_SECONDS)
        #: Schemas under which a stream did not begin once, and those of which that is known to be the cause.
        self._crash_counts = Recent(_REMEMBERED, seconds=_SILENT_SECONDS)
        self.timed_out = Recent(_REMEMBERED, seconds=_SILENT_SECONDS)
        self._lock = threading.Lock()
        self._shares: defaultdict[str, Shares] = defaultdict(
            lambda: Shares(
                places,
                name="grammar compilations",
                most_waiting=most_waiting,
                reserved=1 if places > 1 else 0,
            )
        )

    def at(self, url: str) -> Shares:
        """Return the places of the engine at ``url``."""
        with self._lock:
            return self._shares[url]

    def shares(self) -> list[Shares]:
        """Return the places of each engine at which a schema was compiled."""
        with self._lock:
            return list(self._shares.values())

    def check(self, url: str, schema: Mapping[str, Any]) -> None:
        """Refuse a schema that took the engine at ``url`` too long a short while ago.

        Raises:
            core.errors.SchemaTimedOut: it did.
        """
        if _key(url, schema) in self.timed_out:
            raise errors.SchemaTimedOut(
                "The engine could not make a grammar of the answer's schema in time."
            )

    @contextlib.contextmanager
    def turn(
        self,
        url: str,
        account_id: uuid.UUID,
        schema: Mapping[str, Any],
        *,
        stopped: Callable[[], bool],
    ) -> Iterator[CompilationTurn]:
        """Wait until a stream under ``schema`` may be asked of the engine at ``url``.

        Raises:
            Stopped: ``stopped`` came true meanwhile.
        """
        turn = CompilationTurn(self, key := _key(url, schema))
        shares = self.at(url)
        while key not in self.compiled:
            if stopped():
                raise CompilationStopped
            try:
                turn.hold(shares, account_id, seconds=self._look_seconds)
            except errors.Overloaded:
                threading.Event().wait(_BREATH_SECONDS)
                continue
            break
        try:
            if key in self.compiled:
                # Another stream's turn has just come to its first token.
                turn.end()
            yield turn
        finally:
            turn.end()

    def silent(self, key: _Key, fault: errors.EngineSilent) -> errors.EngineError:
        """Take it that an engine fell silent over a schema: the second time that is the schema's fault."""
        if key in self.compiled or fault.silent_to_others:
            return fault
        fault.makes_grammar = True
        if key not in self._crash_counts:
            self._crash_counts.add(key)
            return fault
        self.timed_out.add(key)
        _log.warning("schema_timed_out", url=key[0])
        return errors.SchemaTimedOut(
            "The engine could not make a grammar of the answer's schema in time."
        )


def _key(url: str, schema: Mapping[str, Any]) -> _Key:
    text = json.dumps(schema, sort_keys=False)
    return url, hashlib.sha256(text.encode()).hexdigest()
