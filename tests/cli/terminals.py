"""Runs a command on a terminal of a chosen width."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

from tests.cli.fake_api import FakeApi

PROGRAM = "import sys; from cli.main import run; run(sys.argv[1:])"
#: Starts the line of a wait again.
UPDATE = "\r\x1b[K"
#: Colors are the only other control sequences that a command may print.
COLORS = re.compile(r"\x1b\[[0-9;]*m")


def environment(api: FakeApi) -> dict[str, str]:
    """Return the environment of a command that uses the fake API."""
    inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return inherited | {
        "LONGLOOK_URL": api.url,
        "LONGLOOK_API_KEY": "ll_key",
        "TERM": "xterm-256color",
        "PYTHONUTF8": "1",
    }


def on_a_terminal(
    api: FakeApi,
    *arguments: str,
    width: int,
    typed: str = "",
    updates: bool = False,
    program: str = PROGRAM,
    **more: str,
) -> str:
    """Run a command on a terminal, on which ``typed`` is typed; return what the terminal received, without colors.

    An update of a line is a line break here, or, with ``updates``, remains as :data:`UPDATE`. ``more`` is added to the
    environment.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(api) | more
    ) as running:
        os.close(theirs)
        if typed:
            os.write(ours, typed.encode() + b"\n")
        received = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed.
            while piece := os.read(ours, 65536):
                received += piece
        os.close(ours)
        running.wait(60)
    # The terminal's own output processing writes CR before LF.
    text = COLORS.sub("", received.decode().replace("\r\n", "\n"))
    return text if updates else text.replace(UPDATE, "\n")


def screen(text: str) -> list[str]:
    """Return the lines that remain on a terminal after the updates of lines in ``text``."""
    return [line.rsplit(UPDATE, 1)[-1] for line in text.split("\n")]
