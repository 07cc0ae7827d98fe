"""What other commands know of ``longlook engine``; :mod:`cli.main` gives it to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.settings import Settings


class Plan(Protocol):
    """A command that serves a model."""

    @property
    def title(self) -> str:
        """What is served on what."""

    @property
    def python(self) -> Path | None:
        """The interpreter, None for the one that runs now."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments after the interpreter."""

    @property
    def environment(self) -> dict[str, str]:
        """What its environment needs beside what it inherits."""


class Device(Protocol):
    """A GPU."""

    @property
    def name(self) -> str:
        """Its model."""

    @property
    def memory(self) -> float:
        """Its whole memory in GiB."""


@dataclass(frozen=True)
class EngineRoom:
    """The two questions that other commands have.

    Attributes:
        plan: works out the engine of this machine's CPU, on a port of the loopback interface.
        devices: the GPUs that a process with an environment can use.
    """

    plan: Callable[[Settings, int], Plan]
    devices: Callable[[Mapping[str, str]], Sequence[Device]]
