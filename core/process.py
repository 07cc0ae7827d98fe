"""Ties a process to its threads: half a process holds leases that nobody renews, or hears bells that nobody answers."""

from __future__ import annotations

import os
import signal
import threading

import structlog

_log = structlog.get_logger(__name__)


def tie() -> None:
    """From now on a thread that dies of what nobody foresaw takes the process down with it."""
    threading.excepthook = _take_down


def _take_down(hook: threading.ExceptHookArgs, /) -> None:
    name = hook.thread.name if hook.thread else "?"
    _log.critical(
        "thread_died",
        thread=name,
        exc_info=(hook.exc_type, hook.exc_value, hook.exc_traceback),
    )
    os.kill(os.getpid(), signal.SIGTERM)
