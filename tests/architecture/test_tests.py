"""The tests themselves: each can fail, none patches a name, none waits for time to pass."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.architecture import source

FORBIDDEN_IMPORTS = {"unittest.mock", "mock", "pytest_mock"}
HASTY = {
    "urllib3.request",
    *(
        f"{library}.{call}"
        for library in ("httpx", "httpx2")
        for call in (
            "Client",
            "AsyncClient",
            "request",
            "stream",
            "get",
            "post",
            "put",
            "delete",
            "options",
            "head",
        )
    ),
}


def test_every_test_can_fail() -> None:
    idle = [
        f"{source.name(path)}::{test.name}"
        for path in source.modules("tests")
        for test in cases_in(path)
        if not checks(test, helpers_of(path))
    ]

    assert idle == []


def test_every_file_of_tests_has_tests() -> None:
    empty = [
        source.name(path)
        for path in source.modules("tests")
        if path.name.startswith("test_") and not list(cases_in(path))
    ]

    assert empty == []


def test_the_name_of_a_test_is_a_sentence() -> None:
    short = [
        f"{source.name(path)}::{test.name}"
        for path in source.modules("tests")
        for test in cases_in(path)
        if test.name.count("_") < 2
    ]

    assert short == []


def test_no_name_is_patched() -> None:
    patched = []
    for path in source.modules("tests"):
        for node in ast.walk(source.tree(path)):
            imported = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            # pytest's own fixture may set variables of the environment, and nothing else.
            replaces = isinstance(node, ast.Attribute) and (
                ast.unparse(node) in {"monkeypatch.setattr", "monkeypatch.setitem"}
            )
            if replaces or FORBIDDEN_IMPORTS.intersection(imported):
                patched.append(f"{source.name(path)}:{getattr(node, 'lineno', 0)}")

    assert patched == []


def test_no_thread_sleeps_except_between_two_checks() -> None:
    sleepers = []
    for path in source.modules("tests"):
        tree = source.tree(path)
        polls = {
            id(inner)
            for loop in ast.walk(tree)
            if isinstance(loop, ast.While)
            for inner in ast.walk(loop)
        }
        sleepers += [
            f"{source.name(path)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"time.sleep", "sleep"}
            and id(node) not in polls
        ]

    assert sleepers == []


def test_every_request_has_its_own_timeout() -> None:
    # By default, `urllib3.request` gives up after three seconds and httpx after five: too soon on a busy machine.
    hasty = [
        f"{source.name(path)}:{node.lineno}"
        for path in source.modules("tests")
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in HASTY
        and not any(keyword.arg in {"timeout", None} for keyword in node.keywords)
    ]

    assert hasty == []


def cases_in(path: Path) -> Iterator[ast.FunctionDef]:
    """Return the test functions of a file."""
    if path.name.startswith("test_"):
        for node in ast.walk(source.tree(path)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node


@functools.cache
def helpers_of(path: Path) -> dict[str, ast.FunctionDef]:
    """Return the functions of a file by name."""
    return {
        node.name: node for node in ast.walk(source.tree(path)) if isinstance(node, ast.FunctionDef)
    }


def checks(function: ast.FunctionDef, helpers: dict[str, ast.FunctionDef]) -> bool:
    """Whether a function asserts something, itself or through a helper in its file."""
    seen: set[str] = set()
    waiting = [function]
    while waiting:
        current = waiting.pop()
        for node in ast.walk(current):
            if isinstance(node, ast.Assert):
                return True
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).rpartition(".")[2]
                if called.startswith("assert_") or called in {"raises", "fail"}:
                    return True
                if called in helpers and called not in seen:
                    seen.add(called)
                    waiting.append(helpers[called])
    return False
