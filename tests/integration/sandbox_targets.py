"""What the sandbox's tests have its children do."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from jobs import errors

#: The name of a process in an endless call, which everybody can read.
BEGUN = "begun"
_PR_SET_NAME = 15
_LIBC = ctypes.CDLL(None)

Reply = tuple[dict[str, Any], bytes]


def obey(payload: bytes, *, order: str, **arguments: Any) -> Reply:  # noqa: ANN401 - JSON
    """Do what the function called ``order`` does: one pool is enough for most tests."""
    return _ORDERS[order](payload, **arguments)


def sleep_forever_on_any_image(payload: bytes, **_: object) -> NoReturn:
    """Be a decoder that hangs."""
    _sleep_forever(payload)


def eat_on_any_image(payload: bytes, **_: object) -> Reply:
    """Be a decoder that wants more memory than it may have."""
    return _eat(payload)


def _echo(payload: bytes, **arguments: object) -> Reply:
    return arguments, payload


def _about(_: bytes) -> Reply:
    return {"pid": os.getpid(), "session": os.getsid(0), "environment": dict(os.environ)}, b""


def _say_much(_: bytes, *, size: int) -> Reply:
    return {}, b"x" * size


def _chatter(payload: bytes) -> Reply:
    sys.stdout.write("a library's chatter")
    sys.stderr.write("and its complaint")
    return {"read": sys.stdin.read()}, payload


def _sleep_forever(_: bytes) -> NoReturn:
    while True:
        signal.pause()


def _tell_and_sleep(payload: bytes) -> NoReturn:
    """Say by the process' name that the work has begun, and never end it."""
    _LIBC.prctl(_PR_SET_NAME, BEGUN.encode())
    _sleep_forever(payload)


def _eat(_: bytes) -> Reply:
    return {"size": len(bytearray(2**30))}, b""


def _die(_: bytes) -> NoReturn:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def _leave(_: bytes) -> NoReturn:
    sys.exit(0)


def _fail(_: bytes) -> NoReturn:
    raise LookupError("a library's own words")


def _refuse(_: bytes) -> NoReturn:
    raise errors.ImageRejected("It is too blue.", code="invalid_image_mode", param="image")


_ORDERS: dict[str, Callable[..., Reply]] = {
    "echo": _echo,
    "about": _about,
    "say_much": _say_much,
    "chatter": _chatter,
    "sleep_forever": _sleep_forever,
    "tell_and_sleep": _tell_and_sleep,
    "eat": _eat,
    "die": _die,
    "leave": _leave,
    "fail": _fail,
    "refuse": _refuse,
}
