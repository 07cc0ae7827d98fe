"""``longlook engine install``: the environment that runs SGLang on a CPU."""

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.environments import build, engine
from core import errors
from core.settings import Settings


def install(
    *,
    path: Annotated[
        Path | None,
        typer.Option(
            help="Directory to make it in.",
            show_default="engine in the home directory, or .venv-engine in a checkout",
        ),
    ] = None,
) -> None:
    """Make the engine's environment for a CPU: PyTorch and SGLang from locked versions, 2.6 GB, two minutes.

    `longlook up` and `longlook engine` find it in its default place; LONGLOOK_ENGINE_PYTHON names any other.
    """
    default = engine.directory(Settings.read().home)
    environment = engine.environment(path.expanduser().absolute() if path else default)
    try:
        _make(environment)
    except (build.SetUpError, OSError) as error:
        raise errors.LaunchError(str(error)) from error
    output.event("ok", str(environment.python))
    if environment.directory != default:
        output.note(
            f"Set LONGLOOK_ENGINE_PYTHON={environment.python}, unless `longlook up --home "
            f"{environment.directory.parent}` is to use it."
        )


def _make(environment: build.Environment) -> None:
    """Make an environment, unless it is made already.

    Raises:
        build.SetUpError: it cannot be made, or its directory holds other files.
    """
    directory = environment.directory
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with build.alone(directory.parent):
        if environment.is_made():
            return
        if not environment.is_ours():
            raise build.SetUpError(
                f"{directory} holds other files. Choose a new or an empty directory with --path."
            )
        build.make(environment)
