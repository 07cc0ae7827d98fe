"""Targets for the tests of the sandbox."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from core import errors
from jobs.images import pipeline

#: The name of a process in an endless call, which any process can read.
BEGUN = "begun"
_PR_SET_NAME = 15
_LIBC = ctypes.CDLL(None, use_errno=True)

Reply = tuple[dict[str, Any], bytes]


def obey(payload: bytes, *, order: str, **arguments: Any) -> Reply:  # noqa: ANN401 - JSON
    """Call the function named ``order``, so that one pool is enough for most tests."""
    return _ORDERS[order](payload, **arguments)


#: The target :func:`decode_or_hang`.
DECODE_OR_HANG = f"{__name__}:decode_or_hang"
_HANG, _BURN = b"hang", b"burn"


def hanging(image: bytes, *, salt: int) -> bytes:
    """Return an image that makes :func:`decode_or_hang` hang; its process then has the name :data:`BEGUN`."""
    return image + b"%d" % salt + _HANG


def burning(image: bytes, *, salt: int) -> bytes:
    """Return an image on which :func:`decode_or_hang` uses CPU time without end."""
    return image + b"%d" % salt + _BURN


def decode_or_hang(payload: bytes, **arguments: Any) -> Reply:  # noqa: ANN401 - JSON
    """Decode an image with the real decoder, but hang on the images of :func:`hanging` and :func:`burning`."""
    if payload.endswith(_HANG):
        report_and_sleep(b"")
    if payload.endswith(_BURN):
        _burn(b"")
    return pipeline.serve(payload, **arguments)


def sleep_forever_on_any_image(payload: bytes, **_: object) -> NoReturn:
    """Act as a decoder that hangs."""
    _sleep_forever(payload)


def burn_on_any_image(payload: bytes, **_: object) -> NoReturn:
    """Act as a decoder that computes without end."""
    _burn(payload)


def eat_on_any_image(payload: bytes, **_: object) -> Reply:
    """Act as a decoder that needs more memory than its limit."""
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


def _burn(_: bytes) -> NoReturn:
    while True:
        pass


def report_and_sleep(payload: bytes) -> NoReturn:
    """Signal the start of the work by the process name, and never end it."""
    _LIBC.prctl(_PR_SET_NAME, BEGUN.encode())
    _sleep_forever(payload)


def _attempt(_: bytes, *, action: str, path: str, pid: int) -> Reply:
    """Try the actions of a compromised decoder; return the name of the error, or the result."""
    try:
        result = _ATTEMPTS[action](path, pid)
    except OSError as error:
        return {"error": errno.errorcode[error.errno or 0]}, b""
    return {"got": str(result)}, b""


def _system_call(*arguments: object) -> int:
    """Make a system call by its number, as code without a library would."""
    result = int(_LIBC.syscall(*arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def _fork() -> int:
    pid = os.fork()
    if not pid:
        os._exit(0)
    return pid


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def _thread() -> str:
    done = threading.Event()
    threading.Thread(target=done.set).start()
    return str(done.wait(30))


_ATTEMPTS: dict[str, Callable[[str, int], object]] = {
    "read": lambda path, _: Path(path).read_text(),
    "write": lambda path, _: Path(path).write_text("x"),
    "append": lambda path, _: os.open(path, os.O_WRONLY | os.O_APPEND),
    "create": lambda path, _: os.open(f"{path}.new", os.O_CREAT | os.O_RDWR),
    "list": lambda path, _: list(Path(path).parent.iterdir()),
    "remove": lambda path, _: Path(path).unlink(),
    "rename": lambda path, _: Path(path).rename(f"{path}.moved"),
    "open_by_number": lambda path, _: _system_call(257, -100, path.encode(), 0),
    "environment": lambda _, pid: Path(f"/proc/{pid}/environ").read_bytes(),
    "memory": lambda _, pid: os.open(f"/proc/{pid}/mem", os.O_RDONLY),
    "internet": lambda *_: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "datagram": lambda *_: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "netlink": lambda *_: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "unix": lambda path, _: _connect(path),
    "pair": lambda *_: socket.socketpair(),
    "fork": lambda *_: _fork(),
    "execute": lambda *_: _system_call(59, sys.executable.encode(), None, None),
    "spawn": lambda *_: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
    "signal": lambda _, pid: os.kill(pid, signal.SIGCONT),
    "signal_owner": lambda _, pid: fcntl.fcntl(0, fcntl.F_SETOWN, pid),
    "trace": lambda _, pid: _system_call(101, 16, pid, 0, 0),
    "namespace": lambda *_: _system_call(272, 0x1000_0000),
    "more_memory": lambda *_: _system_call(302, 0, resource.RLIMIT_AS, b"\xff" * 16, None),
    "core": lambda *_: _system_call(160, resource.RLIMIT_CORE, bytes(16)),
    "shared_memory": lambda *_: _system_call(29, 0, 4096, 0o1600),
    "io_uring": lambda *_: _system_call(425, 8, bytes(120)),
    "kernel_program": lambda *_: _system_call(321, 0, bytes(128), 128),
    "keys": lambda *_: _system_call(250, 0, -3, 0),
    "root": lambda *_: os.setuid(0),
    "thread": lambda *_: _thread(),
    "library": lambda *_: Path(textwrap.__file__).read_text()[:3],
}


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
    "burn": _burn,
    "sleep_forever": _sleep_forever,
    "tell_and_sleep": report_and_sleep,
    "attempt": _attempt,
    "eat": _eat,
    "die": _die,
    "leave": _leave,
    "fail": _fail,
    "refuse": _refuse,
}
