"""What the sandbox's tests have its children do."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from jobs import errors
from jobs.images import pipeline

Reply = tuple[dict[str, Any], bytes]


def obey(payload: bytes, *, order: str, **arguments: Any) -> Reply:  # noqa: ANN401 - JSON
    """Do what the function called ``order`` does: one pool is enough for most tests."""
    return _ORDERS[order](payload, **arguments)


#: The target :func:`decode_or_hang`.
DECODE_OR_HANG = f"{__name__}:decode_or_hang"
_HANG = b"hang and tell "


def hanging(image: bytes, name: str, *, salt: int) -> bytes:
    """Return an image over which :func:`decode_or_hang` hangs once it has told the socket ``name``."""
    return image + b"%d" % salt + _HANG + name.encode()


def decode_or_hang(payload: bytes, **arguments: Any) -> Reply:  # noqa: ANN401 - JSON
    """Be the real decoder, which hangs over the images that :func:`hanging` makes."""
    _, hangs, name = payload.partition(_HANG)
    return _tell_and_sleep(name) if hangs else pipeline.serve(payload, **arguments)


#: The target :func:`compare_or_hang`, and what makes a formula one over which it hangs, before a socket's name.
COMPARE_OR_HANG = f"{__name__}:compare_or_hang"
HANG = "+hang"


def compare_or_hang(payload: bytes, **arguments: Any) -> Reply:  # noqa: ANN401 - JSON
    """Compare formulas, and hang over those with :data:`HANG`."""
    _, hangs, name = payload.partition(HANG.encode())
    return _tell_and_sleep(name) if hangs else _compare(payload, **arguments)


#: The target :func:`hang_once_then_compare`.
HANG_ONCE_THEN_COMPARE = f"{__name__}:hang_once_then_compare"


def hang_once_then_compare(payload: bytes, **arguments: Any) -> Reply:  # noqa: ANN401 - JSON
    """Compare a formula that names a file in braces; while there is one, hang over it and tell the socket in it."""
    formula, _, path = payload.decode().rstrip("}").partition("{")
    if Path(path).exists():
        name = Path(path).read_bytes()
        Path(path).unlink()
        _tell_and_sleep(name)
    return _compare(formula.encode(), **arguments)


def _compare(payload: bytes, **arguments: Any) -> Reply:  # noqa: ANN401 - JSON
    from worker import mathematics  # noqa: PLC0415 - no other child of these tests has to load sympy

    return mathematics.serve(payload, **arguments)


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
    """Say to the socket named in ``payload`` that the work has begun, and never end it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.connect(payload.decode())
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
