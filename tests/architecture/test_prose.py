"""A linter for prose: documents and the texts in packages avoid phrases that readers stumble over."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.architecture import source

#: Markdown that is checked: files, and folders with all their pages.
DOCUMENTS: Final = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs",
    "bench",
    "models",
)
#: Packages whose docstrings and string literals are checked as well.
PACKAGES: Final[tuple[str, ...]] = (
    "api",
    "bench",
    "cli",
    "core",
    "deploy",
    "jobs",
    "migrations",
    "net",
    "scripted",
    "tools",
    "webhooks",
    "worker",
)

#: A phrase as a regular expression, and what to write instead. Case does not matter.
PHRASES: Final = {
    r"whoever|whomever": "name the actor",
    r"told": "receives, is notified, responds; or name the sender",
    r"tellings?": "query, notification",
    r"beside": "next to, besides",
    r"(?:by|of) (?:itself|themselves)": "on its own, or leave it out",
    r"as (?:many|much|long|often|far) as (?:\w+ )?may": "up to the limit",
    r"so many .{0,30} as|as so many|so many": "the number, the limit",
    r"as may(?: be)?": "as allowed, up to the limit",
    r"goes by|go by|going by": "uses",
    # Not Python's None.
    r"(?:is|are|was|were) (?-i:none)": "does not exist, is not a …",
    r"for ever": "forever, or say until when",
    r"who asks|who follows|those who": "the client, the caller",
    r"nobody|somebody|everybody|anybody": "no process, a process; no user, a user",
    r"whom": "name the actor",
    r"has to be|have to be": "must be",
    r"in so many words": "explicitly",
    r"anew": "again",
    r"on the way": "early, before the end",
    r"doors?": "API, server",
    r"(?:door)?bells?": "wakeup",
    r"couriers?": "sender",
    r"second looks?": "verification",
    r"shall": "must, or the present tense",
    r"and/or": "or, both",
    r"please": "leave it out",
    r"simply|obviously|of course": "leave it out",
    r"in order to": "to",
    r"prior to": "before",
    r"utili[sz]e[sd]?": "use",
    r"whilst|amongst|upon": "while, among, on",
    # American spelling.
    r"colou?red? by|colours?|coloured|behaviours?|favou?rite|favours?|honours?|neighbours?": "American spelling",
    r"licences?|licenced|grey|centre[sd]?|catalogues?|artefacts?|cheques?": "American spelling",
    r"(?:organ|recogn|normal|initial|serial|optim|summar|minim|maxim|author|synchron|categor|custom|general|quant)"
    r"is(?:e|es|ed|er|ers|ing|ation)": "American spelling: -ize",
}
#: Where a phrase may stand all the same: (file, phrase in lower case) and the reason.
ALLOWED: Final[dict[tuple[str, str], str]] = {
    ("bench/postgres.py", "nobody"): "the name of a Unix user",
}

_PHRASE: Final = re.compile(
    "|".join(rf"(?P<p{number}>\b(?:{phrase})\b)" for number, phrase in enumerate(PHRASES)),
    re.IGNORECASE,
)
#: What is no prose in Markdown: code, targets of links, HTML comments.
_NOT_PROSE: Final = re.compile(
    r"```.*?```|`[^`\n]*`|\]\([^)]*\)|<!--.*?-->|https?://\S+", re.DOTALL
)


@dataclass(frozen=True)
class Hit:
    """A phrase in a file, and what to write instead."""

    file: str
    line: int
    phrase: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: '{self.phrase}': {self.instead}"


def hits_in(text: str, file: str, first_line: int = 1) -> Iterator[Hit]:
    """Return the phrases in a text that starts at a line of a file."""
    advice = list(PHRASES.values())
    for found in _PHRASE.finditer(text):
        line = first_line + text.count("\n", 0, found.start())
        number = int(str(found.lastgroup).removeprefix("p"))
        yield Hit(file, line, found[0].lower(), advice[number])


def without_code(markdown: str) -> str:
    """Return Markdown with code, links, and comments as blanks; the lines keep their numbers."""
    return _NOT_PROSE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), markdown)


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Return the docstrings and string literals of a Python file with their lines."""
    for node in ast.walk(source.tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, re.sub(r"``[^`]*``|`[^`]*`", " ", node.value)


def documents() -> list[Path]:
    """Return the Markdown files that are checked."""
    wanted = [source.ROOT / name for name in DOCUMENTS]
    return [
        path
        for path in source.files()
        if path.suffix == ".md"
        and any(path == place or place in path.parents for place in wanted)
        # Rendered from the texts of the code, which are checked there.
        and source.name(path) not in GENERATED
    ]


#: Pages that are generated from the code: its texts are checked once they are in PACKAGES.
GENERATED: Final = (
    "docs/reference/api.md",
    "docs/reference/schemas.md",
    "docs/reference/cli.md",
    "docs/reference/settings.md",
)


def all_hits() -> Iterator[Hit]:
    """Return every phrase in the documents and packages that is not allowed there."""
    for path in documents():
        text = without_code(path.read_text(encoding="utf-8"))
        yield from hits_in(text, source.name(path))
    for path in source.modules(*PACKAGES):
        for line, text in texts_of(path):
            yield from hits_in(text, source.name(path), line)


def test_prose_avoids_the_phrases_that_readers_stumble_over() -> None:
    found = [str(hit) for hit in all_hits() if (hit.file, hit.phrase) not in ALLOWED]

    assert found == [], "\n".join(found)


def test_every_allowed_phrase_is_still_used() -> None:
    used = {(hit.file, hit.phrase) for hit in all_hits()}

    assert set(ALLOWED) <= used


@pytest.mark.parametrize(
    "sentence",
    [
        "Whoever listens is told.",
        "A column beside the old one.",
        "It stops by itself.",
        "As many streams as may be open.",
        "The colour of the image.",
    ],
)
def test_the_linter_finds_a_phrase_in_prose(sentence: str) -> None:
    assert list(hits_in(without_code(sentence), "page.md"))


@pytest.mark.parametrize(
    "sentence",
    [
        "Besides, it is next to the old one, otherwise it is precise.",
        "Call `whoever()` or see [the page](whoever.md).",
        "```\nis told\n```\nThe enterprise comprises a rise.",
    ],
)
def test_the_linter_leaves_code_and_good_prose_alone(sentence: str) -> None:
    assert [str(hit) for hit in hits_in(without_code(sentence), "page.md")] == []


def test_the_linter_reads_docstrings_and_messages_of_python(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""Whoever calls."""\n\nERROR = f"This {1} is told."\n', encoding="utf-8")

    found = [hit for line, text in texts_of(module) for hit in hits_in(text, "module.py", line)]

    assert [(hit.line, hit.phrase) for hit in found] == [(1, "whoever"), (3, "told")]
