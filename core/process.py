"""Ends a process when one of its threads dies: the rest would hold leases without renewing them, or lose wakeups."""

import os
import signal
import threading

import structlog

_log = structlog.get_logger(__name__)


def exit_on_thread_death() -> None:
    """From now on, send SIGTERM to the process when an unexpected exception ends one of its threads."""
    threading.excepthook = _terminate


def _terminate(hook: threading.ExceptHookArgs, /) -> None:
    name = hook.thread.name if hook.thread else "?"
    _log.critical(
        "thread_died",
        thread=name,
        exc_info=(hook.exc_type, hook.exc_value, hook.exc_traceback),
    )
    os.kill(os.getpid(), signal.SIGTERM)
