"""Starts SGLang with its API key, which no argument of a process may hold: everybody on the machine can read those.

This file runs in the engine's environment, which has nothing of Longlook, so it needs the standard library alone.
SGLang takes a key from its arguments only. They are added here, inside of the process; its children get them by a
pipe. The key comes from the variable ``LONGLOOK_ENGINE_API_KEY``, or from the file that
``LONGLOOK_ENGINE_API_KEY_FILE`` names. Both variables end here.
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
    """Become ``sglang.launch_server`` with ``arguments`` behind the key."""
    key = take(os.environ)
    folder = str(Path(__file__).resolve().parent)
    # The interpreter puts a script's folder before all else: its modules would hide those of SGLang.
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    hide(key)
    sys.argv[1:] = ["--api-key", key, *arguments]
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


def take(environ: MutableMapping[str, str]) -> str:
    """Remove the key from an environment and return it. Ends the process with a sentence when there is none."""
    key = environ.pop(VARIABLE, "")
    named = environ.pop(f"{VARIABLE}_FILE", "")
    if not key and named:
        try:
            key = Path(named).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            sys.exit(f"{VARIABLE}_FILE names {named}, which cannot be read: {error}")
    if not key:
        sys.exit(f"The engine's key is missing: set {VARIABLE} or {VARIABLE}_FILE.")
    return key


def hide(key: str) -> None:
    """Keep the key out of the log, to which SGLang writes all of its arguments."""
    make = logging.getLogRecordFactory()

    def made(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            said = record.getMessage()
        except (AttributeError, LookupError, TypeError, ValueError):
            # The handler tells it with the message and the arguments, so they must not hold the key.
            said = repr((record.msg, record.args))
        if key in said:
            record.msg, record.args = said.replace(key, _HIDDEN), ()
        return record

    logging.setLogRecordFactory(made)


if __name__ == "__main__":
    main(sys.argv[1:])
