"""Names: one word for a thing, one thing for a word, and no word of the dialect that is gone."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.architecture import source

PACKAGES = ("api", "cli", "core", "jobs", "migrations", "net", "scripted", "webhooks", "worker")

#: Classes that share a name: a row or a value of the domain, and the schema by which the API shows it.
ROWS_AND_VIEWS = {
    "AccountUsage",
    "AnswerClass",
    "Attempt",
    "Finding",
    "Image",
    "Job",
    "JobImage",
    "Operation",
    "OperationJob",
    "Progress",
    "QuarantinedImage",
    "QueuePause",
    "TimelineEntry",
}
#: Folders whose modules are called by the noun that they serve.
FOLDERS_OF_NOUNS = {"api/routes", "api/schemas", "jobs/records", "jobs/store"}

#: Words that are gone from file names and identifiers, each with the one that took its place.
GONE = {
    "asked": "requested",
    "bell": "wakeup",
    "bells": "wakeups",
    "courier": "sender",
    "couriers": "senders",
    "desk": "admin endpoints",
    "door": "router",
    "doors": "routers",
    "exchange": "request cycle, middleware",
    "figures": "statistics",
    "found": "the noun of what was read",
    "house": "deployment, runtime",
    "inquiry": "generation flow",
    "intake": "submission service",
    "kept": "stored, retained",
    "lane": "queue",
    "lanes": "queues",
    "lifeline": "exit on thread death",
    "persona": "behavior",
    "personas": "behaviors",
    "picture": "image",
    "pictures": "images",
    "presence": "heartbeat",
    "ringer": "wakeup on commit",
    "stage": "scheduler",
    "standby": "polling fallback",
    "steer": "command",
    "steering": "commands",
    "strangers": "unknown keys",
    "suspect": "image crashes",
    "suspects": "image crashes",
    "telling": "delivery query",
    "tellings": "delivery queries",
    "told": "reported",
    "tries": "attempts",
}
#: Identifiers in which such a word is the field's own.
ALLOWED = {
    "NotFound",
    "found_at",
    "not_found",
    "presence_penalty",
}

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def test_a_class_name_means_one_class() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for path in source.modules(*PACKAGES):
        for node in source.tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(source.name(path))

    shared = {name: modules for name, modules in places.items() if len(modules) > 1}

    assert {name: shared[name] for name in shared.keys() - ROWS_AND_VIEWS} == {}
    assert shared.keys() >= ROWS_AND_VIEWS
    for name in ROWS_AND_VIEWS:
        [view] = (module for module in shared[name] if module.startswith("api/schemas/"))
        assert len(shared[name] - {view}) == 1


def test_a_module_name_means_one_module_of_its_package() -> None:
    places: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in source.modules(*PACKAGES):
        name = Path(source.name(path))
        if name.stem not in ("__init__", "__main__") and str(name.parent) not in FOLDERS_OF_NOUNS:
            places[name.parts[0], name.stem].add(str(name))

    assert [modules for modules in places.values() if len(modules) > 1] == []


def test_words_that_are_gone_stay_gone() -> None:
    hits: dict[str, set[str]] = defaultdict(set)
    for path in source.modules(*PACKAGES):
        for name, line in identifiers(path):
            for word in words(name) & GONE.keys():
                if name not in ALLOWED:
                    hits[word].add(f"{source.name(path)}:{line} {name}")

    assert hits == {}


def test_the_allowed_names_are_in_use() -> None:
    used = {name for path in source.modules(*PACKAGES) for name, _ in identifiers(path)}

    assert used >= ALLOWED


def words(name: str) -> set[str]:
    """Return the words of an identifier or a file name, in lower case."""
    return {word.lower() for word in _WORDS.findall(name)}


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the names that a module defines, and its own, each with its line."""
    yield path.stem, 0
    for node in ast.walk(source.tree(path)):
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                yield name, node.lineno
            case (
                ast.arg(arg=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
            ):
                yield name, node.lineno
            case ast.alias(asname=str(name)):
                yield name, node.lineno
