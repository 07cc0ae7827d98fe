"""What a process is set to as a whole: how it ends when one of its threads dies, and how it frees memory."""

import contextlib
import ctypes
import os
import signal
import threading

import structlog

#: From glibc's malloc.h.
_M_MMAP_THRESHOLD = -3
#: Blocks of this size get pages of their own.
_LARGE_BLOCK_BYTES = 2**20

_log = structlog.get_logger(__name__)


def exit_on_thread_death() -> None:
    """From now on, send SIGTERM to the process when an unexpected exception ends one of its threads.

    The rest of the process would hold leases without renewing them, or lose wakeups.
    """
    threading.excepthook = _terminate


def return_large_blocks() -> None:
    """From now on, return freed memory in blocks of a mebibyte or more to the system at once.

    By default glibc raises this limit to the largest block that was ever freed, up to 32 MiB, and then takes such
    blocks from the heaps of its threads. One small block behind them keeps a heap from shrinking, so a process that
    has served some large requests keeps hundreds of megabytes. A call of ``mallopt`` fixes the limit.
    """
    # Other C libraries do not have this function, nor this behavior.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def _terminate(hook: threading.ExceptHookArgs, /) -> None:
    name = hook.thread.name if hook.thread else "?"
    _log.critical(
        "thread_died",
        thread=name,
        exc_info=(hook.exc_type, hook.exc_value, hook.exc_traceback),
    )
    os.kill(os.getpid(), signal.SIGTERM)
