"""Options of commands that submit jobs: how the model reads the images and answers."""

from typing import Annotated

import typer

from core import profiles

Detail = Annotated[
    str | None,
    typer.Option(
        help=f"Image resolution: {', '.join(profiles.DETAIL_TOKENS)}.", show_default=False
    ),
]
MaxOutputTokens = Annotated[
    int | None, typer.Option(help="Maximum length of an answer, in tokens.", show_default=False)
]
Temperature = Annotated[
    float | None, typer.Option(help="Sampling temperature.", show_default=False)
]
Samples = Annotated[
    int | None,
    typer.Option(help="Maximum number of samples that vote on an answer.", show_default=False),
]
Guards = Annotated[
    list[str] | None,
    typer.Option(
        "--guard",
        metavar="NAME=on|off",
        help="Turn a guard on or off: loop, budget, convergence, language or verify. Repeatable.",
    ),
]
