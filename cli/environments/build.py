"""Makes virtual environments: each from a recipe, again only when the recipe changes, and whole after a kill.

A stamp in the environment keeps the hash of what it was made from. An environment that is being changed carries a
marker, and an environment with that marker is made again (pip keeps what it has downloaded).

It must load under Pythons older than the one that Longlook needs: ``deploy/environments.py`` refuses those with a
sentence.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Command = Sequence[str | Path]
    Step = tuple[str, Callable[[], None]]

#: The folder of the packages: a checkout, or the site-packages of an installation.
ROOT = Path(__file__).resolve().parents[2]

RELEASE = "{}.{}".format(*sys.version_info[:2])
MARKER = "longlook-unfinished"


class SetUpError(Exception):
    """The environment cannot be made; the message is all that is shown."""


class CommandError(SetUpError):
    """A command failed; carries all that it wrote, and whether it was killed."""

    def __init__(self, command: Command, output: str, *, killed: bool = False) -> None:
        shown = " ".join(str(part) for part in command)
        super().__init__(f"{output.rstrip()}\n\nThis failed: {shown}")
        self.output = output
        self.killed = killed


@dataclass(frozen=True)
class Environment:
    """One environment in one state: where it is, what it is made from, how.

    Attributes:
        inputs: files whose content decides whether the environment must be made again.
        gigabytes: free disk space that making it from nothing takes, rounded up.
        contains: others in the same place that this one is more than.
    """

    name: str
    directory: Path
    inputs: tuple[Path, ...]
    gigabytes: int
    steps: Callable[[Path], Iterator[Step]]
    contains: tuple[Environment, ...] = ()

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        return self.directory / "bin" / "python"

    @property
    def marker(self) -> Path:
        """The file that is there while the environment is being changed."""
        return self.directory / MARKER

    def has_pip(self) -> bool:
        """Whether there is an environment that something can be installed into."""
        return self.python.exists() and (self.directory / "bin" / "pip").exists()

    @property
    def stamp(self) -> Path:
        """The file that keeps the hash of what the environment was made from."""
        return self.directory / f"longlook-{self.name}.stamp"

    def fingerprint(self) -> str:
        """Return the hash of everything the environment is made from."""
        digest = hashlib.sha256(f"{self.directory}\n{sys.version_info[:2]}\n".encode())
        for path in (Path(__file__).resolve(), *self.inputs):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
        return digest.hexdigest()

    def is_ours(self) -> bool:
        """Whether the directory is empty, or holds an environment that this module made or began."""
        known = (self.marker, self.stamp)
        return any(path.exists() for path in known) or not any(self.directory.glob("*"))

    def is_made(self) -> bool:
        """Whether the environment is there, whole, and made from this recipe."""
        return (
            self.python.exists()
            and not self.marker.exists()
            and self.stamp.exists()
            and self.stamp.read_text() == self.fingerprint()
        )


def is_whole(python: Path) -> bool:
    """Whether an interpreter exists, and no set-up is changing its environment or was killed while it did."""
    return python.exists() and not (python.parent.parent / MARKER).exists()


def pip(python: Path, *arguments: str | Path) -> None:
    """Install into the environment of ``python`` by that environment's own pip."""
    call([python, "-m", "pip", "install", "-q", "--no-input", *arguments])


def call(command: Command) -> str:
    """Run a command and return what it wrote.

    The lock goes on to the child (``close_fds=False``): a pip that outlives this process keeps others out. Its working
    directory holds no modules, because Python looks for modules there first.

    Raises:
        CommandError: it did not end well.
    """
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            [str(part) for part in command],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            close_fds=False,
        ) as process:
            try:
                status = wait(process)
            except BaseException:
                process.terminate()
                raise
        output.seek(0)
        written = output.read().decode(errors="replace")
    if status != 0:
        raise CommandError(command, written, killed=status < 0)
    return written


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, drawing a dot a second on a terminal to show that it does not hang."""
    while True:
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            if sys.stdout.isatty():
                show(".")


def make(environment: Environment) -> None:
    """Bring an environment into its state."""
    started = time.monotonic()
    refuse_bare_python(environment)
    prepare(environment)
    steps = list(environment.steps(environment.python))
    if not environment.has_pip():
        steps.insert(0, ("An empty environment", lambda: create(environment)))
    for number, (title, act) in enumerate(steps, start=1):
        show(f"[{number}/{len(steps)}] {title} ")
        began = time.monotonic()
        try:
            act()
        except CommandError as error:
            if not error.killed:
                # A pip that fails leaves whole packages: the next run goes on from there.
                environment.stamp.write_text("")
                environment.marker.unlink()
            raise
        finally:
            show(f" {time.monotonic() - began:.0f} s\n")
    environment.marker.unlink()
    for made in (environment, *environment.contains):
        made.stamp.write_text(made.fingerprint())
    show(f"{environment.directory.name} is ready, {time.monotonic() - started:.0f} s in all.\n")


def refuse_bare_python(environment: Environment) -> None:
    """Name the package that is missing when this Python cannot make an environment (Debian splits it)."""
    if not environment.has_pip() and importlib.util.find_spec("ensurepip") is None:
        raise SetUpError(
            f"Run `sudo apt install python{RELEASE}-venv` and then the same command again: "
            f"Python {platform.python_version()} here cannot make virtual environments without it."
        )


def prepare(environment: Environment) -> None:
    """Mark the environment as unfinished; empty it when it was so already, or is of another Python."""
    directory = environment.directory
    directory.mkdir(exist_ok=True)
    library = directory / "lib"
    foreign = library.exists() and not (library / f"python{RELEASE}").exists()
    if environment.marker.exists() or foreign:
        environment.marker.touch()
        show(f"Removing what an earlier try left in {directory.name} …\n")
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != environment.marker:
                entry.unlink()
    environment.marker.touch()
    free = shutil.disk_usage(directory).free / 1e9
    if free < environment.gigabytes and not environment.python.exists():
        raise SetUpError(
            f"{directory.name} takes up to {environment.gigabytes} GB while it is made, "
            f"and {free:.1f} GB are free on its disk."
        )


def create(environment: Environment) -> None:
    """Make the empty environment, from the real interpreter when this one is an environment's."""
    python = Path(sys.executable)
    if sys.prefix != sys.base_prefix:
        python = Path(sys.base_prefix, "bin", f"python{RELEASE}")
    call([python, "-m", "venv", environment.directory])


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a directory against other set-ups; the lock is on the directory and ends with the processes that hold it."""
    descriptor = os.open(directory, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        show(f"Waiting for another set-up in {directory} …\n")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def show(text: str) -> None:
    """Write progress at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
