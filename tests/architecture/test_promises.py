"""The page of promises names tests that exist, and all failpoints, each of which is hit by a test."""

from __future__ import annotations

import ast
import re

from tests.architecture import source

PAGE = (source.ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PLACE = re.compile(r"`([a-z]+\.(?:commit|committed|publish|published|chunk|post|posted))`")


def test_each_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(?:\w+::)?(\w+)`", PAGE)

    missing = [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (source.ROOT / path).read_text(encoding="utf-8")
    ]
    assert named
    assert missing == []


def test_each_promise_names_its_test() -> None:
    tables = [
        part.split("\n\n", 1)[0] for part in PAGE.split("| Promise | Tests |\n|---|---|\n")[1:]
    ]
    rows = [row for table in tables for row in table.splitlines()]

    assert len(tables) == 2
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::[\w:]+`", row)] == []


def test_each_failpoint_is_listed_and_hit() -> None:
    tests = (source.ROOT / "tests" / "chaos").glob("test_*failpoints.py")
    tried = "".join(path.read_text(encoding="utf-8") for path in tests)

    reported = set(PLACE.findall(PAGE))
    assert reported == places()
    assert {place for place in reported if f'"{place}' not in tried} == set()


def places() -> set[str]:
    """Return the failpoints in the code: those of named transactions, and those that stand alone."""
    found = set()
    for path in source.modules("api", "core", "jobs", "migrations", "net", "webhooks", "worker"):
        for call in (node for node in ast.walk(source.tree(path)) if isinstance(node, ast.Call)):
            words = [word.value for word in call.args if isinstance(word, ast.Constant)]
            match ast.unparse(call.func).rpartition(".")[2], words:
                case "transaction", [str(name)]:
                    found |= {f"{name}.commit", f"{name}.committed"}
                case "hit", [str(name), str(moment)]:
                    found.add(f"{name}.{moment}")
    return found
