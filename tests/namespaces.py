"""Hosts on one machine: network namespaces whose links lose packets in one or both directions.

Packets get lost without a trace: the sender's entry for its neighbor has a hardware address that nobody has. This
needs ``ip`` and root, but no packet filter. The namespaces end with the test's process, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
#: No interface has this address.
_NOWHERE = "02:00:00:00:00:00"
_LINK = "up0"


class Missing(Exception):
    """This machine or this user cannot make network namespaces; the message says why."""


class Namespace:
    """A network namespace with a loopback interface.

    Raises:
        Missing: none can be made here.
    """

    def __init__(self) -> None:
        if sys.platform != "linux" or os.geteuid() != 0:
            raise Missing("network namespaces need Linux and root")
        if shutil.which("ip") is None:
            raise Missing("`ip` (Debian: iproute2) is not installed")
        self._libc = ctypes.CDLL(None, use_errno=True)
        home = _current()
        try:
            if self._libc.unshare(_NEW_NETWORK) != 0:
                raise Missing(f"unshare: {os.strerror(ctypes.get_errno())}")
            self._file = _current()
            self._enter(home)
        finally:
            os.close(home)
        #: Its file, while this process lives.
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._file}")
        self.ip("link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put this thread into the namespace: its new sockets and processes belong there."""
        home = _current()
        try:
            self._enter(self._file)
            yield
        finally:
            self._enter(home)
            os.close(home)

    def ip(self, *arguments: str) -> None:
        """Run ``ip`` in it.

        Raises:
            Missing: it fails.
        """
        with self.entered():
            done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    def close(self) -> None:
        """Close it. The kernel removes it with its last process."""
        os.close(self._file)

    def _enter(self, file: int) -> None:
        if self._libc.setns(file, _NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), "setns")


class Host:
    """A namespace with one link to a hub, through which it reaches the addresses of the hub.

    Args:
        hub: the other end.
        number: from 1; unique in the hub.
        network: of the hub's addresses, such as ``10.99.0.0/24``.

    Raises:
        Missing: it cannot be made here.
    """

    def __init__(self, hub: Namespace, number: int, *, network: str) -> None:
        self.namespace = Namespace()
        self._hub = hub
        self._link = f"down{number}"
        self._address = f"10.98.0.{number}"
        ends = (self._link, "type", "veth", "peer", "name", _LINK)
        hub.ip("link", "add", *ends, "netns", str(self.namespace.path))
        hub.ip("link", "set", self._link, "up")
        self.namespace.ip("addr", "add", f"{self._address}/32", "dev", _LINK)
        self.namespace.ip("link", "set", _LINK, "up")
        self.namespace.ip("route", "add", network, "dev", _LINK, "src", self._address)
        hub.ip("route", "add", f"{self._address}/32", "dev", self._link)

    def lose_to(self, *addresses: str) -> None:
        """Lose all that this host sends to addresses of the hub, until :meth:`heal`."""
        for address in addresses:
            self.namespace.ip(*_neighbor(address, _LINK))

    def lose_from_hub(self) -> None:
        """Lose all that the hub sends to this host, until :meth:`heal`."""
        self._hub.ip(*_neighbor(self._address, self._link))

    def heal(self) -> None:
        """Lose no more packets: the neighbors ask for their addresses again."""
        self.namespace.ip("neigh", "flush", "dev", _LINK, "nud", "all")
        self._hub.ip("neigh", "flush", "dev", self._link, "nud", "all")

    def close(self) -> None:
        """Close it."""
        self.namespace.close()


def _neighbor(address: str, link: str) -> tuple[str, ...]:
    return ("neigh", "replace", address, "lladdr", _NOWHERE, "dev", link, "nud", "permanent")


def _current() -> int:
    """Return an open file of the namespace of this thread."""
    return os.open(
        f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC
    )
