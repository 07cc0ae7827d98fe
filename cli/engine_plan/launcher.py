"""Starts SGLang with its API key, but without the key in the arguments of a process, which every user can read.

This file runs in the engine's environment, which does not contain Longlook, so it uses only the standard library.
SGLang accepts a key only as an argument. This module adds that argument inside the process; SGLang's children get it
through a pipe. The key is in the variable ``LONGLOOK_ENGINE_API_KEY``, or in the file that
``LONGLOOK_ENGINE_API_KEY_FILE`` names. SGLang inherits neither variable.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

VARIABLE = "LONGLOOK_ENGINE_API_KEY"
_HIDDEN = "********"


def main(arguments: Sequence[str]) -> None:
    """Run ``sglang.launch_server`` with the key and ``arguments``."""
    key = take(os.environ)
    folder = str(Path(__file__).resolve().parent)
    # The interpreter adds the script's directory first: its modules would shadow modules that SGLang imports.
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    hide(key)
    sys.argv[1:] = ["--api-key", key, *arguments]
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


def take(environ: MutableMapping[str, str]) -> str:
    """Remove the key from an environment and return it. Exits with a message if the key is missing."""
    key = environ.pop(VARIABLE, "")
    path = environ.pop(f"{VARIABLE}_FILE", "")
    if not key and path:
        try:
            key = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            sys.exit(f"{VARIABLE}_FILE: {path} cannot be read: {error}")
    if not key:
        sys.exit(f"The engine's API key is missing: set {VARIABLE} or {VARIABLE}_FILE.")
    return key


def hide(key: str) -> None:
    """Mask the key in log records: SGLang logs all of its arguments."""
    make = logging.getLogRecordFactory()

    def mask(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            message = record.getMessage()
        except (AttributeError, LookupError, TypeError, ValueError):
            # The handler reports the error with message and arguments, so these must not contain the key.
            message = repr((record.msg, record.args))
        if key in message:
            record.msg, record.args = message.replace(key, _HIDDEN), ()
        return record

    logging.setLogRecordFactory(mask)


if __name__ == "__main__":
    main(sys.argv[1:])
