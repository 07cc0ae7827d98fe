"""Makes the checkout's two virtual environments; needs nothing but a Python that can make one.

    python3 deploy/environments.py service    .venv, what the service needs
    python3 deploy/environments.py dev        .venv, with what tests and linters need beside it
    python3 deploy/environments.py engine     .venv-engine, the real SGLang on a CPU
    python3 deploy/environments.py docs       .venv-docs, the generator of the documentation site

Several may be named at once. Each is idempotent: a stamp in the environment keeps the hash of what it was
made from. Each may be killed at any point and run again: an environment that is being changed carries a
marker, and one that is found with it is made anew (pip keeps what it has downloaded).

It must at least start under Pythons older than the one it asks for, to say so in a sentence.
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
ENGINE = ROOT / "deploy" / "engine-cpu"
SHIM = ENGINE / "shim"

OLDEST = (3, 11)
RELEASE = "{}.{}".format(*sys.version_info[:2])
#: PyTorch's own index of CPU wheels, for a machine whose configured index has CUDA builds only.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NO_TORCH = "No matching distribution found for torch"
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
        inputs: files whose content decides whether it has to be made again.
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

    def is_made(self) -> bool:
        """Whether the environment is there, whole, and made from what is in the checkout now."""
        return (
            self.python.exists()
            and not self.marker.exists()
            and self.stamp.exists()
            and self.stamp.read_text() == self.fingerprint()
        )


def service_steps(python: Path, lock_file: str = "service.txt") -> Iterator[Step]:
    """Yield what turns an empty environment into the service's; nothing whose hash is not in the lock."""
    yield (
        "The locked libraries (up to 100 MB, a minute at most)",
        lambda: pip(python, "--require-hashes", "-r", REQUIREMENTS / lock_file),
    )
    yield "Longlook itself", lambda: pip(python, "--no-deps", "--no-build-isolation", "-e", ROOT)


def dev_steps(python: Path) -> Iterator[Step]:
    """Yield the same for a developer's; ``dev.txt`` contains all of ``service.txt``."""
    return service_steps(python, "dev.txt")


def engine_steps(python: Path) -> Iterator[Step]:
    """Yield what turns an empty environment into an engine for a CPU."""
    yield "PyTorch for the CPU (200 MB, about a minute)", lambda: install_torch(python)
    yield (
        "Libraries of SGLang (400 MB, about a minute)",
        lambda: pip(python, "-r", ENGINE / "requirements.txt"),
    )
    yield "SGLang (30 MB)", lambda: pip(python, "--no-deps", "-r", ENGINE / "requirements-bare.txt")
    yield "What stands in for CUDA", lambda: install_shim(python)


def docs_steps(python: Path) -> Iterator[Step]:
    """Yield what turns an empty environment into the one that builds the documentation."""
    yield (
        "The site generator (20 MB, a few seconds)",
        lambda: pip(python, "--require-hashes", "-r", REQUIREMENTS / "docs.txt"),
    )


def environments() -> dict[str, Environment]:
    """Return every environment by its name."""
    venv, project = ROOT / ".venv", ROOT / "pyproject.toml"
    locked = (project, REQUIREMENTS / "service.txt")
    shim = (*ENGINE.glob("*.txt"), *SHIM.rglob("*.py"), *SHIM.glob("*.pth"))
    service = Environment("service", venv, locked, 1, service_steps)
    dev = Environment(
        "dev", venv, (*locked, REQUIREMENTS / "dev.txt"), 2, dev_steps, contains=(service,)
    )
    engine = Environment("engine", ROOT / ".venv-engine", tuple(sorted(shim)), 5, engine_steps)
    docs = Environment("docs", ROOT / ".venv-docs", (REQUIREMENTS / "docs.txt",), 1, docs_steps)
    return {environment.name: environment for environment in (service, dev, engine, docs)}


def pip(python: Path, *arguments: str | Path) -> None:
    """Install into the environment of ``python`` by that environment's own pip."""
    call([python, "-m", "pip", "install", "-q", "--no-input", *arguments])


def install_torch(python: Path) -> None:
    """Install the CPU build of PyTorch, from the configured index or else from PyTorch's own.

    The pin ends in ``+cpu``: no index can slip a CUDA build in. It goes in alone, so that the second
    index can offer nothing else.
    """
    lines = (ENGINE / "requirements.txt").read_text().splitlines()
    pin = next(line for line in lines if line.startswith("torch=="))
    for index in ((), ("--extra-index-url", TORCH_INDEX)):
        try:
            pip(python, pin, *index)
        except CommandError as error:
            if NO_TORCH not in error.output:
                raise
        else:
            return
    machine = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    raise SetUpError(
        f"{pin} is missing: neither pip's configured index nor {TORCH_INDEX} has it for {machine}."
    )


def install_shim(python: Path) -> None:
    """Copy the stand-ins for CUDA libraries, unless this PyTorch has the real ones' platform."""
    answer = call([python, "-c", "import torch; print('cuda', torch.version.cuda)"])
    if answer.split()[-2:] != ["cuda", "None"]:
        raise SetUpError(
            "The PyTorch in .venv-engine is a CUDA build, which the CPU engine's stand-ins would break: "
            f"it says {answer.strip()!r}. Remove .venv-engine and try again."
        )
    library = call([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    shutil.copytree(
        SHIM, library.strip(), dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    call([python, "-c", "import torchvision.transforms, sgl_kernel, sglang"])


def call(command: Command) -> str:
    """Run a command and return what it wrote.

    The lock goes on to the child (``close_fds=False``): a pip that outlives this process keeps others out.

    Raises:
        CommandError: it did not end well.
    """
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
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
    """Wait for a process, drawing a dot a second on a terminal so that nobody thinks it hangs."""
    while True:
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            if sys.stdout.isatty():
                print(".", end="", flush=True)


def make(environment: Environment) -> None:
    """Bring an environment into its state."""
    started = time.monotonic()
    refuse_bare_python(environment)
    prepare(environment)
    steps = list(environment.steps(environment.python))
    if not environment.has_pip():
        steps.insert(0, ("An empty environment", lambda: create(environment)))
    for number, (title, act) in enumerate(steps, start=1):
        print(f"[{number}/{len(steps)}] {title} ", end="", flush=True)
        began = time.monotonic()
        try:
            act()
        except CommandError as error:
            if not error.killed:
                # A pip that fails leaves whole packages: the next try goes on from there.
                environment.marker.unlink()
            raise
        finally:
            print(f" {time.monotonic() - began:.0f} s", flush=True)
    environment.marker.unlink()
    for made in (environment, *environment.contains):
        made.stamp.write_text(made.fingerprint())
    print(f"{environment.directory.name} is ready, {time.monotonic() - started:.0f} s in all.")


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
        print(f"Removing what an earlier try left in {directory.name} …", flush=True)
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


def refuse_old_python() -> None:
    """Say so when this Python is older than the product's code."""
    if sys.version_info[:2] < OLDEST:
        raise SetUpError(
            f"Longlook needs Python 3.11 or later, and {sys.executable} is {platform.python_version()}: "
            "name a newer one, for example `make demo PYTHON=python3.12`."
        )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other set-ups of this checkout out; the lock is on its directory and dies with its holders."""
    descriptor = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Waiting for another set-up of this checkout …", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def main(names: Sequence[str]) -> int:
    """Make the named environments; return the exit status."""
    try:
        refuse_old_python()
        with alone():
            for name in names:
                environment = environments()[name]
                if not environment.is_made():
                    make(environment)
    except (SetUpError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command begins this step anew.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the checkout's virtual environments.")
    parser.add_argument("names", nargs="+", choices=sorted(environments()), metavar="ENVIRONMENT")
    sys.exit(main(parser.parse_args().names))
