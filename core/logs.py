"""One pipe for every line: structlog, Celery, gunicorn and SQLAlchemy end in the same renderer on stderr.

Columns on a terminal, JSON elsewhere. Ids are bound once (:func:`bind`) and appear on each line of
that thread until :func:`clear`. Questions, traces, images and keys are never given to a logger; what
other libraries log is cut to size, and tracebacks go without the values of variables. Control and invisible
characters are escaped, so that no text that was logged steers the terminal on which a log is read.
"""

from __future__ import annotations

import collections
import contextlib
import io
import json
import logging
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from core import escapes

if TYPE_CHECKING:
    from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

    from core.settings import Settings

_LONGEST = 2_000
#: Kinds of lines that a budget tells apart; further ones count together.
_KINDS = 1_000
#: Libraries that log request and connection details below this level.
_QUIET = {
    "urllib3": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "alembic": logging.WARNING,
    "amqp": logging.WARNING,
    "kombu": logging.WARNING,
    "celery.redirected": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
    "PIL": logging.WARNING,
    # Of each request it would tell the path, in which may stand what somebody typed.
    "gunicorn.error": logging.INFO,
}


class LineBudget:
    """Lets the first lines of each kind through and counts the others, so that no flood fills the disk.

    Args:
        lines: of each kind in a period.
        seconds: of a period.
        timer: seconds, by any clock that never goes back.
    """

    def __init__(
        self,
        *,
        lines: int = 20,
        seconds: float = 60.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = lines
        self._seconds = seconds
        self._timer = timer
        self._lock = threading.Lock()
        self._until = timer() + seconds
        self._counts: collections.Counter[Hashable] = collections.Counter()

    def spend(self, kind: Hashable) -> bool:
        """Count a line; return whether it is to be written."""
        with self._lock:
            if kind not in self._counts and len(self._counts) >= _KINDS:
                kind = None
            self._counts[kind] += 1
            return self._counts[kind] <= self._lines

    def left_out(self) -> dict[Hashable, int]:
        """Return the lines of each kind that were not written in the period that has just ended; then a new one begins.

        While a period lasts there are none. Kinds beyond 1,000 are under None.
        """
        if self._timer() < self._until:
            return {}
        with self._lock:
            if self._timer() < self._until:
                return {}
            self._until = self._timer() + self._seconds
            counts, self._counts = self._counts, collections.Counter()
        return {kind: count - self._lines for kind, count in counts.items() if count > self._lines}


def configure(settings: Settings, *, service: str) -> None:
    """Send everything of this process through one renderer; ``service`` names it on every line."""
    columns = settings.log_format == "columns" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _named(service),
        _shorten,
    ]
    # A traceback without the values of variables: one of them might be a question.
    renderers: list[Processor] = (
        [
            _escape,
            structlog.dev.ConsoleRenderer(exception_formatter=_traceback),
        ]
        if columns
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_to_json),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def bind(**ids: object) -> None:
    """Put ids (``request_id``, ``job_id``, ``attempt``) on each further line of this thread."""
    structlog.contextvars.bind_contextvars(**ids)


def clear() -> None:
    """Forget what was bound, so that nothing leaks into this thread's next piece of work."""
    structlog.contextvars.clear_contextvars()


@contextlib.contextmanager
def unbound() -> Iterator[None]:
    """Leave what is bound out of the lines of the block, which belong to no request and no job."""
    bound = structlog.contextvars.get_contextvars()
    clear()
    try:
        yield
    finally:
        bind(**bound)


def _named(service: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return add


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what would steer the terminal, and line feeds: what others wrote must not look like lines of the log."""
    return {
        escapes.visible(str(key), lines=False): escapes.visible(value, lines=False)
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }


def _traceback(output: TextIO, exc_info: ExcInfo) -> None:
    """Write a traceback, indented: the message of an exception may have lines of its own."""
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    output.write("\n" + textwrap.indent(escapes.visible(plain.getvalue().strip("\n")), "  "))


def _to_json(value: object, **options: Any) -> str:  # noqa: ANN401 - those of json.dumps
    return escapes.in_json(json.dumps(value, ensure_ascii=False, **options))


def _shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut over-long values: a library's message may carry a whole request."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _LONGEST:
            event[key] = value[:_LONGEST] + "…"
    return event
