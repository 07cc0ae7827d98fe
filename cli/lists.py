"""Options and last line of commands that list things page by page, newest first."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import typer

from cli import output

#: Entries per page, unless `--limit` sets another number.
PAGE: Final = 20

Limit = Annotated[int, typer.Option(min=1, max=100, help="Entries per page.")]
After = Annotated[
    str | None, typer.Option(help="Only entries older than this one.", show_default=False)
]


def more(
    command: str,
    page: output.Json,
    *,
    limit: int,
    options: Mapping[str, Sequence[str]] | None = None,
    words: Sequence[str] = (),
) -> None:
    """Print the command that shows the page after ``page``, if there is one.

    Args:
        command: its words after ``longlook``.
        page: a list of the API, with ``has_more`` and ``last_id``.
        limit: entries per page.
        options: the values of the options that chose the entries; each value repeats its option.
        words: the arguments after ``--``.
    """
    if not page.get("has_more"):
        return
    size = {"--limit": [str(limit)]} if limit != PAGE else {}
    after = {"--after": [str(page["last_id"])]}
    output.hint(command, {**(options or {}), **size, **after}, words)
