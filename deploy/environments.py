"""Makes the virtual environments of the checkout; needs only a Python that can create one.

    python3 deploy/environments.py service    .venv, the requirements of the service
    python3 deploy/environments.py dev        .venv, with the requirements of tests and linters too
    python3 deploy/environments.py engine     .venv-engine, the real SGLang on a CPU
    python3 deploy/environments.py docs       .venv-docs, the generator of the documentation site
    python3 deploy/environments.py harness    .venv-harness, a public evaluation harness for its test

Several names can be given at once. Each command can be repeated, and can be killed at any point and run again.

It must start under Pythons older than the required one, so that it can show an error message.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cli.environments.build import Step

# A plain Python finds the packages of the checkout only from here.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli.environments import engine
from cli.environments.build import (
    ROOT,
    Environment,
    SetUpError,
    alone,
    make,
    pip,
)

REQUIREMENTS = ROOT / "requirements"
OLDEST = (3, 11)


def environments() -> dict[str, Environment]:
    """Return every environment by its name."""
    venv, locked = ROOT / ".venv", REQUIREMENTS / "service.txt"
    inputs = (Path(__file__).resolve(), ROOT / "pyproject.toml", locked)
    service = Environment("service", venv, inputs, 1, service_steps)
    dev = Environment(
        "dev", venv, (*inputs, REQUIREMENTS / "dev.txt"), 2, dev_steps, contains=(service,)
    )
    docs = Environment(
        "docs", ROOT / ".venv-docs", (inputs[0], REQUIREMENTS / "docs.txt"), 1, docs_steps
    )
    sglang = engine.environment(engine.directory(ROOT))
    harness = Environment(
        "harness",
        ROOT / ".venv-harness",
        # The recipe of the engine has the PyTorch of this one, too.
        (inputs[0], REQUIREMENTS / "harness.txt", engine.RECIPE / "requirements.txt"),
        2,
        harness_steps,
    )
    every = (service, dev, sglang, docs, harness)
    return {environment.name: environment for environment in every}


def service_steps(python: Path, lock_file: str = "service.txt") -> Iterator[Step]:
    """Yield the steps for the service's environment; only packages whose hash is in the lock file."""
    yield (
        "The locked libraries (up to 100 MB, a minute at most)",
        lambda: pip(python, "--require-hashes", "-r", REQUIREMENTS / lock_file),
    )
    yield "Longlook itself", lambda: pip(python, "--no-deps", "--no-build-isolation", "-e", ROOT)


def dev_steps(python: Path) -> Iterator[Step]:
    """Yield the steps for a developer's environment; ``dev.txt`` contains all of ``service.txt``."""
    return service_steps(python, "dev.txt")


def docs_steps(python: Path) -> Iterator[Step]:
    """Yield the steps for the environment that builds the documentation."""
    yield (
        "The site generator (20 MB, a few seconds)",
        lambda: pip(python, "--require-hashes", "-r", REQUIREMENTS / "docs.txt"),
    )


def harness_steps(python: Path) -> Iterator[Step]:
    """Yield the steps for the environment of lmms-eval, with the PyTorch of the engine."""
    yield "PyTorch for the CPU (200 MB, about a minute)", lambda: engine.install_torch(python)
    yield (
        "lmms-eval, with what it needs for an API (100 MB, about a minute)",
        # Without dependencies: the lock file has all but PyTorch, which no hash covers.
        lambda: pip(python, "--no-deps", "--require-hashes", "-r", REQUIREMENTS / "harness.txt"),
    )


def refuse_old_python() -> None:
    """Return an error message if this Python is too old for the code of the product."""
    if sys.version_info[:2] < OLDEST:
        raise SetUpError(
            f"Longlook needs Python 3.11 or later, and {sys.executable} is {platform.python_version()}: "
            "use a newer one, for example `make demo PYTHON=python3.12`."
        )


def main(names: Sequence[str]) -> int:
    """Make the named environments; return the exit status."""
    try:
        refuse_old_python()
        if all(environments()[name].is_made() for name in names):
            return 0  # A set-up of another environment does not matter.
        with alone(ROOT):
            for name in names:
                environment = environments()[name]
                if not environment.is_made():
                    make(environment)
    except (SetUpError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command repeats this step.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the checkout's virtual environments.")
    parser.add_argument("names", nargs="+", choices=sorted(environments()), metavar="ENVIRONMENT")
    sys.exit(main(parser.parse_args().names))
