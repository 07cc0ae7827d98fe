"""The environment of the real SGLang on a CPU: where it is, and the recipe in ``engine-cpu`` next to this module."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cli.environments.build import ROOT, CommandError, Environment, SetUpError, call, pip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.environments.build import Step

RECIPE = Path(__file__).resolve().parent / "engine-cpu"
SHIM = RECIPE / "shim"

#: PyTorch's own index of CPU wheels, for a machine whose configured index has CUDA builds only.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NO_TORCH = "No matching distribution found for torch"


def directory(home: Path) -> Path:
    """Return where the environment is by default: in a checkout for all homes, else in the home directory."""
    in_checkout = (ROOT / "deploy" / "environments.py").exists()
    return ROOT / ".venv-engine" if in_checkout else home.expanduser().absolute() / "engine"


def python(home: Path) -> Path:
    """Return the interpreter of the environment in its default place, made or not."""
    return environment(directory(home)).python


def environment(directory: Path) -> Environment:
    """Return the environment as it is made in a directory."""
    shim = (*SHIM.rglob("*.py"), *SHIM.glob("*.pth"))
    inputs = (Path(__file__).resolve(), *sorted((*RECIPE.glob("*.txt"), *shim)))
    return Environment("engine", directory, inputs, 5, steps)


def steps(python: Path) -> Iterator[Step]:
    """Yield what turns an empty environment into an engine for a CPU."""
    yield "PyTorch for the CPU (200 MB, about a minute)", lambda: install_torch(python)
    yield (
        "Libraries of SGLang (400 MB, about a minute)",
        lambda: pip(python, "-r", RECIPE / "requirements.txt"),
    )
    yield "SGLang (30 MB)", lambda: pip(python, "--no-deps", "-r", RECIPE / "requirements-bare.txt")
    yield "What stands in for CUDA", lambda: install_shim(python)


def install_torch(python: Path) -> None:
    """Install the CPU build of PyTorch, from the configured index or else from PyTorch's own.

    The pin ends in ``+cpu``: no index can slip a CUDA build in. It goes in alone, so that the second
    index can offer nothing else.
    """
    lines = (RECIPE / "requirements.txt").read_text().splitlines()
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
    place = python.parents[1]
    answer = call([python, "-c", "import torch; print('cuda', torch.version.cuda)"])
    if answer.split()[-2:] != ["cuda", "None"]:
        raise SetUpError(
            f"The PyTorch in {place} is a CUDA build, which the CPU engine's stand-ins would break: "
            f"it says {answer.strip()!r}. Remove {place} and run the same command again."
        )
    library = call([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    shutil.copytree(
        SHIM, library.strip(), dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    call([python, "-c", "import torchvision.transforms, sgl_kernel, sglang"])
