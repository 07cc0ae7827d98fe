"""One pipeline for every line: structlog, Celery, gunicorn, and SQLAlchemy use the same renderer on stderr.

Columns on a terminal, JSON elsewhere. Ids are bound once (:func:`bind`) and appear on each line of
that thread until :func:`clear`. Questions, traces, images, and keys are never logged; messages of
other libraries are truncated, and tracebacks omit the values of variables. Control and invisible
characters are escaped, so that no logged text controls the terminal that shows it.
"""

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
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from core import escapes
from core.settings import Settings

_LONGEST = 2_000
#: Kinds of lines that a budget counts separately; it counts further ones together.
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
    # It would log the path of each request, which can hold text that a user typed.
    "gunicorn.error": logging.INFO,
}


class LineBudget:
    """Passes the first lines of each kind and counts the others, so that no flood fills the disk.

    Args:
        lines: of each kind in a period.
        seconds: of a period.
        timer: a monotonic clock, in seconds.
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
        """Count a line; return whether to write it."""
        with self._lock:
            if kind not in self._counts and len(self._counts) >= _KINDS:
                kind = None
            self._counts[kind] += 1
            return self._counts[kind] <= self._lines

    def left_out(self) -> dict[Hashable, int]:
        """Return the number of omitted lines of each kind in the period that has just ended, and begin a new period.

        The result is empty while a period lasts. Kinds beyond 1,000 are counted under None.
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
    # Tracebacks without the values of variables, which could be a question.
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
    """Add ids (``request_id``, ``job_id``, ``attempt``) to each further line of this thread."""
    structlog.contextvars.bind_contextvars(**ids)


def clear() -> None:
    """Remove the bound ids, so that none leaks into this thread's next piece of work."""
    structlog.contextvars.clear_contextvars()


@contextlib.contextmanager
def unbound() -> Iterator[None]:
    """Omit the bound ids from the lines of the block, which belong to no request and no job."""
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
    """Escape characters that control the terminal, and line feeds: a value must not look like a line of the log."""
    return {
        escapes.visible(str(key), lines=False): escapes.visible(value, lines=False)
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }


def _traceback(output: TextIO, exc_info: ExcInfo) -> None:
    """Write an indented traceback: the message of an exception may have several lines."""
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    output.write("\n" + textwrap.indent(escapes.visible(plain.getvalue().strip("\n")), "  "))


def _to_json(value: object, **options: Any) -> str:  # noqa: ANN401 - those of json.dumps
    return escapes.in_json(json.dumps(value, ensure_ascii=False, **options))


def _shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Truncate long values: a library's message may carry a whole request."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _LONGEST:
            event[key] = value[:_LONGEST] + "…"
    return event
