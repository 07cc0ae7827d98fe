"""Grammars that engines have to compile: which account's turn it is, and which JSON Schemas took too long.

An engine compiles a schema when the first generation needs it, on CPU cores that all its generations share. So an
account has only one new schema compiled at a time, and the accounts take turns.
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
#: Schemas that are remembered. Compiled ones only for an hour, so that a restarted engine does not get all at once.
_REMEMBERED = 4096
_COMPILED_SECONDS = 3600.0
_SILENT_SECONDS = 600.0
#: Between two checks whether a job that waits for its turn was stopped, and between two refused calls.
_LOOK_SECONDS = 2.0
_BREATH_SECONDS = 0.05

_Key = tuple[str, str]


class CompilationStopped(Exception):
    """The job was stopped while it waited for its turn."""


class CompilationTurn:
    """The turn of one generation that needs a grammar."""

    def __init__(self, compilations: Compilations, key: _Key) -> None:
        self._compilations = compilations
        self._key = key
        self._place = contextlib.ExitStack()

    def hold(self, shares: Shares, account_id: uuid.UUID, *, seconds: float) -> None:
        """Hold a place. Raises :class:`core.errors.Overloaded`."""
        self._place.enter_context(shares.hold(account_id, seconds=seconds))

    def begun(self) -> None:
        """Note that the generation has its first token: the grammar is compiled."""
        self._compilations.compiled.add(self._key)
        self._place.close()

    def failed(self, fault: errors.EngineError) -> errors.EngineError:
        """Note that the generation failed before its first token; return the fault of the job."""
        if isinstance(fault, errors.SchemaTimedOut):
            self._compilations.timed_out.add(self._key)
        elif isinstance(fault, errors.EngineSilent):
            return self._compilations.silent(self._key, fault)
        return fault

    def end(self) -> None:
        """Release the place."""
        self._place.close()


class Compilations:
    """What this process knows of the engines' grammars. Thread-safe.

    Args:
        most_waiting: the most generations that wait for a turn at one engine.
        places: how many schemas an engine compiles at once; one of several is reserved for an account that has none.
        look_seconds: between two checks whether a job that waits was stopped.
    """

    def __init__(
        self, *, most_waiting: int, places: int = _PLACES, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._look_seconds = look_seconds
        self.compiled = Recent(_REMEMBERED, seconds=_COMPILED_SECONDS)
        #: Schemas over which an engine fell silent once, and those that are known to take too long.
        self._suspected = Recent(_REMEMBERED, seconds=_SILENT_SECONDS)
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
        """Return the places of every engine that compiled a schema."""
        with self._lock:
            return list(self._shares.values())

    def check(self, url: str, schema: Mapping[str, Any]) -> None:
        """Refuse a schema that took the engine at ``url`` too long recently.

        Raises:
            core.errors.SchemaTimedOut: the schema took too long.
        """
        if _key(url, schema) in self.timed_out:
            raise errors.SchemaTimedOut(
                "The engine could not compile a grammar from the answer's JSON Schema in time."
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
        """Wait until a generation under ``schema`` may start at the engine at ``url``.

        Raises:
            CompilationStopped: ``stopped`` returned True meanwhile.
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
                # Another generation has its first token meanwhile.
                turn.end()
            yield turn
        finally:
            turn.end()

    def silent(self, key: _Key, fault: errors.EngineSilent) -> errors.EngineError:
        """Note that an engine fell silent over a schema; the second time the schema is at fault."""
        if key in self.compiled or fault.silent_to_others:
            return fault
        fault.makes_grammar = True
        if key not in self._suspected:
            self._suspected.add(key)
            return fault
        self.timed_out.add(key)
        _log.warning("schema_timed_out", url=key[0])
        return errors.SchemaTimedOut(
            "The engine could not compile a grammar from the answer's JSON Schema in time."
        )


def _key(url: str, schema: Mapping[str, Any]) -> _Key:
    text = json.dumps(schema, sort_keys=False)
    return url, hashlib.sha256(text.encode()).hexdigest()
